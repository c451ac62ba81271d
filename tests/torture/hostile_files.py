"""Every parser of files and of words, each with whole input that it reads.

FILES are what a finished run and its sources hold; one file at a time is damaged. LAYOUTS are the
label files of public collections. WORDS are what commands and protocols take as a line of text.
"""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import layouts
import layouts_other
from lucency.audit.checks.run_checks import load_issues
from lucency.audit.review import read_answers, read_sample
from lucency.audit.shortcuts import load_audit_results
from lucency.config.protocol import read_protocol
from lucency.core.engines import choose_engine
from lucency.core.film_shards import put_shard, read_receipt
from lucency.core.manifest import (
    Preparation,
    load_manifest,
    load_part,
    load_preparation,
    load_prepared,
)
from lucency.core.plan import load_plan
from lucency.core.predictions import load_predictions
from lucency.core.saved_files import read_json
from lucency.core.stage import fingerprint_of, inputs_of
from lucency.core.stores import named_place
from lucency.core.written import WRITTEN
from lucency.data.bit_depth import find_bits
from lucency.data.collections.brax import read_brax
from lucency.data.collections.chexpert import read_chexpert
from lucency.data.collections.chexpert_plus import read_chexpert_plus
from lucency.data.collections.cxr_lt import read_cxr_lt
from lucency.data.collections.mimic import read_mimic_cxr
from lucency.data.collections.nih_films import decode_runs, read_nih_lt, read_rsna, read_siim
from lucency.data.collections.openi import read_openi
from lucency.data.collections.padchest import read_padchest
from lucency.data.collections.vindr import read_vindr
from lucency.data.csv_tables import clean_id, parse_number, parse_whole, read_names, read_scores
from lucency.data.dicom_facts import read_header
from lucency.data.labels import films_of_table, read_label_table, read_nih_tables
from lucency.data.pseudonyms import fleeting_key, make_key, read_key
from lucency.data.radiologists import read_expert_table
from lucency.ensemble.fitted import FittedPredictor, Rule, load_predictor, save_predictor
from lucency.evaluation.calibration import no_recalibration
from lucency.evaluation.external import read_test_table
from lucency.explain.heatmap_results import load_heatmap_results
from lucency.models.metadata import read_metadata
from lucency.pipeline.run import open_run_folder
from torture.hostile_pictures import whole
from workplace import FEW, build_workplace, stated_labels, train_run

RUN = "runs/demo"
NET = f"{RUN}/networks/test_resnet"
NOTED = "runs/noted"  # a copy with its fingerprints
UNSEALED = "unsealed"  # files without the checksum that stops nearly all damage before it is parsed
ANSWERED = (
    "sheet,place,id,image,reviewer,answer,also\nMass,1,f1,a.png,AB,yes,\n"
    "Mass,2,f2,b.png,AB,no,Edema|Hernia\n"
)
SAMPLED = (
    "sheet,finding,place,id,image,label,weight\n"
    "Mass,Mass,1,f1,a.png,1,2.5\nMass,Mass,2,f2,b.png,1,2.5\n"
)
Read = Callable[[Path], Any]


class Parser(NamedTuple):
    """What is parsed: the files below a folder, what reads them, whether any change is refused."""

    files: tuple[str, ...]
    read: Read
    noted: bool = False


def finished_run(home: Path) -> Path:
    """Write a run of two small networks with its sources, and files that it does not have."""
    home.mkdir(parents=True)
    build_workplace(home)
    here = os.open(".", os.O_RDONLY)
    os.chdir(home)
    try:
        train_run()
    finally:
        os.fchdir(here)
        os.close(here)
    shutil.copytree(home / RUN, home / NOTED)
    for note in (home / RUN).rglob(WRITTEN):  # what is damaged there is to be parsed, not compared
        note.unlink()
    labels = stated_labels(home / "chestxray14" / "Data_Entry_2017.csv")
    labels.assign(age=50, sex="F", view="PA").to_csv(home / "labels.csv", index=False)
    (home / "answers.csv").write_text(ANSWERED)
    (home / "sample.csv").write_text(SAMPLED)
    (home / "deep.png").write_bytes(whole()["PNG of 16 bits"])
    make_key(home / "pseudonym.key")
    (home / "fitted").mkdir()
    save_predictor(_blend(), home / "fitted")
    shutil.copytree(home / "fitted", home / UNSEALED)
    shutil.copy(home / NET / "classifier.json", home / UNSEALED)
    for file in (home / UNSEALED).glob("*.json"):
        file.write_text(json.dumps(read_json(file), indent=1))
    (home / "shards").mkdir()
    receipt = {"row": [0], "place": [0], "crc": [1], "sha256 of shard": ""}
    put_shard(home / "shards", 0, b"", json.dumps(receipt))
    return home


def _blend() -> FittedPredictor:
    weight = {"weight": np.full((2, 1), 0.5), "known": np.empty((0, 0, 0))}
    about = {"method": "mean-logit", "space": "logit"}
    return FittedPredictor(
        name="mean-logit", kind="ensemble", findings=("Mass",), preparation=Preparation(size=64),
        split="0123456789abcdef", recalibration=no_recalibration(1), threshold=np.full(1, 0.5),
        validation_auc=0.75, rule=Rule(name="blend", about=about, arrays=weight),
    )  # fmt: skip


def write_layouts(home: Path) -> Path:
    """Write the layout of each public collection."""
    for name, (write, _) in LAYOUTS.items():
        (home / name).mkdir(parents=True)
        write(home / name)
    return home


def tables_below(folder: Path) -> tuple[str, ...]:
    """Return the label files of a layout by their names below it."""
    ends = (".csv", ".csv.gz", ".txt", ".json", ".zip", ".tgz", ".xml", ".jsonl")
    files = (one for one in sorted(folder.rglob("*")) if one.is_file())
    return tuple(str(one.relative_to(folder)) for one in files if one.name.endswith(ends))


def _images(home: Path) -> np.ndarray:
    return load_manifest(home / RUN / "manifest").image


def _key(home: Path) -> Any:
    place = home / "pseudonym.key"
    place.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return read_key(place)


def _labelled(home: Path) -> Any:
    return films_of_table(
        read_label_table(home / "labels.csv"), findings=tuple(FEW), image_column="image"
    )


def _read_stages(run: Path) -> None:
    films = load_manifest(run / "manifest").image
    load_preparation(run / "prepared")
    load_part(run / "split" / "part.csv", films)
    load_plan(run / "plan", films)
    load_predictions(run / "predictions" / "test_resnet" / "predictions.npz")
    load_heatmap_results(run / "explanation")
    load_audit_results(run / "audit")
    load_issues(run / "check")


FILES: dict[str, Parser] = {
    "label table": Parser(("labels.csv",), _labelled),
    "labels of NIH": Parser(
        tuple(f"chestxray14/{name}" for name in
              ("Data_Entry_2017_v2020.csv", "BBox_List_2017.csv", "truth.csv")),
        lambda home: read_nih_tables(home / "chestxray14"),
    ),
    "scores": Parser(("scores.csv",), lambda home: read_scores(home / "scores.csv",
                                                               findings=tuple(FEW))),
    "external predictions": Parser(
        ("scores.csv",),
        lambda home: read_test_table(
            home / "scores.csv", load_manifest(home / RUN / "manifest"), scale="probability"
        ),
    ),
    "list of names": Parser(("test.txt",), lambda home: read_names(home / "test.txt")),
    "radiologists' table": Parser(
        ("expert/all_findings_expert_labels_test_labels.csv",),
        lambda home: read_expert_table(
            home / "expert" / "all_findings_expert_labels_test_labels.csv"
        ),
    ),
    "protocol": Parser(
        ("protocols/demo.toml",), lambda home: read_protocol(home / "protocols" / "demo.toml")
    ),
    "search space": Parser(
        ("protocols/sweep.toml",), lambda home: read_protocol(home / "protocols" / "sweep.toml")
    ),
    "run's protocol": Parser(
        (f"{RUN}/protocol.toml",), lambda home: open_run_folder(home / RUN)
    ),
    "classifier.json": Parser((f"{NET}/classifier.json",), lambda home: read_metadata(home / NET)),
    "classifier.json, no checksum": Parser(
        (f"{UNSEALED}/classifier.json",), lambda home: read_metadata(home / UNSEALED)
    ),
    "predictions": Parser(
        (f"{RUN}/predictions/test_resnet/predictions.npz",),
        lambda home: load_predictions(home / RUN / "predictions/test_resnet/predictions.npz"),
    ),
    "manifest": Parser(
        tuple(f"{RUN}/manifest/{name}" for name in
              ("manifest.csv", "manifest.json", "boxes.csv", "uncertain.csv", "soft.csv",
               "reading.csv")),
        lambda home: load_manifest(home / RUN / "manifest"),
    ),
    "prepared films": Parser(
        tuple(f"{RUN}/prepared/{name}" for name in
              ("preparation.json", "rejected.csv", "shards/index.npy", "shards/SHA256SUMS",
               "shards/00000.npy")),
        lambda home: load_prepared(home / RUN / "prepared").pixels[:],
    ),
    "parts": Parser((f"{RUN}/split/part.csv",),
                    lambda home: load_part(home / RUN / "split/part.csv", _images(home))),
    "plan": Parser(
        tuple(f"{RUN}/plan/{name}" for name in ("plan.csv", "label.npy", "weight.npy")),
        lambda home: load_plan(home / RUN / "plan", _images(home)),
    ),
    "receipt of a stage": Parser(
        (f"{RUN}/split/receipt.json",),
        lambda home: (inputs_of(home / RUN / "split"), fingerprint_of(home / RUN / "split")),
    ),
    "receipt of a shard": Parser(
        ("shards/00000.json",), lambda home: read_receipt(home / "shards", 0)
    ),
    "predictor.json": Parser(
        ("fitted/predictor.json", "fitted/predictor.safetensors"),
        lambda home: load_predictor(home / "fitted"),
    ),
    "predictor.json, no checksum": Parser(
        (f"{UNSEALED}/predictor.json", f"{UNSEALED}/predictor.safetensors"),
        lambda home: load_predictor(home / UNSEALED),
    ),
    "heat maps": Parser(
        (f"{RUN}/explanation/maps-0.npz", f"{RUN}/explanation/heatmaps.json",
         f"{RUN}/explanation/cases.csv"),
        lambda home: load_heatmap_results(home / RUN / "explanation"),
    ),
    "audit": Parser(
        (f"{RUN}/audit/audit.json", f"{RUN}/audit/shortcuts.csv", f"{RUN}/audit/strata.csv"),
        lambda home: load_audit_results(home / RUN / "audit"),
    ),
    "a run, with its fingerprints": Parser(
        tuple(f"{NOTED}/{name}" for name in
              ("manifest/manifest.csv", "manifest/manifest.json", "prepared/preparation.json",
               "split/part.csv", "plan/plan.csv", "plan/label.npy", "plan/weight.npy",
               "predictions/test_resnet/predictions.npz", "explanation/maps-0.npz",
               "explanation/heatmaps.json", "explanation/cases.csv", "audit/audit.json",
               "audit/strata.csv", "check/issues.csv")),
        lambda home: _read_stages(home / NOTED), noted=True,
    ),
    "issues": Parser((f"{RUN}/check/issues.csv",), lambda home: load_issues(home / RUN / "check")),
    "review, sample": Parser(("sample.csv",), lambda home: read_sample(home / "sample.csv")),
    "review, answers": Parser(
        ("answers.csv",),
        lambda home: read_answers([home / "answers.csv"], sample=read_sample(home / "sample.csv")),
    ),
    "DICOM header": Parser(
        ("film.dcm",), lambda home: read_header(home / "film.dcm", key=fleeting_key())
    ),
    "bit depth": Parser(("deep.png",), lambda home: find_bits([home / "deep.png"])),
    "key of pseudonyms": Parser(("pseudonym.key",), _key),
}  # fmt: skip
LAYOUTS: dict[str, tuple[Callable[[Path], Any], Read]] = {
    "chexpert": (lambda root: layouts.write_chexpert(root), lambda root: read_chexpert(root, "")),
    "chexpert-plus": (layouts.write_chexpert_plus, lambda root: read_chexpert_plus(root, "")),
    "mimic-cxr": (layouts.write_mimic_cxr, lambda root: read_mimic_cxr(root, "")),
    "cxr-lt": (lambda root: (layouts.write_mimic_cxr(root), layouts.write_cxr_lt(root)),
               lambda root: read_cxr_lt(root, "")),
    "brax": (layouts.write_brax, lambda root: read_brax(root, "")),
    "padchest": (layouts_other.padchest, lambda root: read_padchest(root, "")),
    "vindr": (layouts_other.vindr, lambda root: read_vindr(root, "")),
    "openi": (layouts_other.openi, lambda root: read_openi(root, "")),
    "rsna": (layouts_other.rsna, lambda root: read_rsna(root, "")),
    "siim": (layouts_other.siim, lambda root: read_siim(root, "")),
    "nih-lt": (layouts_other.nih_lt, lambda root: read_nih_lt(root, "")),
}  # fmt: skip
WORDS: dict[str, tuple[tuple[str, ...], Callable[[str], Any]]] = {
    "--set KEY=VALUE": (
        ("training.epochs=3", "data.root='films'", "network=[{name='alexnet'}]", "seeds=[1,2]"),
        lambda text: read_protocol("quick", changes=[text]),
    ),
    "engine": (("slurm://cpu?minutes=30&memory=4", "dask://localhost:1", "local"), choose_engine),
    "place or URL": (("s3://bucket/films", "file:///films/a%20b", "C:\\films"), named_place),
    "number": (("1.5", "NA", "62"), parse_number),
    "whole number": (("0012", "7"), parse_whole),
    "patient's id": (("'003", "'t Hart", "p001\u200b"), clean_id),
    "run-length mask": (("557374 2 1015 8", "1 1"), decode_runs),
}  # fmt: skip

"""Common mistakes and what the program answers: status 2, three lines at most, what to do next.

Command and answer of each stand in tests/golden/mistakes.txt.
"""

import json
import os
import re
import shlex
import shutil
import socket
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import pytest

from lucency.cli.app import call
from lucency.core import stores
from lucency.core.written import WRITTEN
from lucency.models.metadata import FORMAT, METADATA, MODEL, VERSION, WEIGHTS
from workplace import FEW

GOLDEN = Path(__file__).parents[1] / "golden" / "mistakes.txt"
LABELS = "chestxray14/Data_Entry_2017_v2020.csv"
LINES = 3
COMMAND = re.compile(r"(?<!see )\blucency [a-z]+ ?[A-Za-z]*|pip install '?\w")  # to be given next
NEXT = re.compile(  # that, what stands in place of what was found, or what to do
    rf"{COMMAND.pattern}|--[a-z]+|\bexpected [\w'\"/.\[-]+|; nearest (?:is|are) '|"
    r"(?:[:;,]|,? or|,? and) (?:use|choose|write|save|name|set|add|map|mend|make|check|fetch|start|"
    r"update|leave|keep|put|quote|average|delete) \w+|: a protocol needs it"
)
GO_ON = {  # mistakes whose answer is a command
    "ONNX in place of a run", "ONNX in place of a model", "weights in place of a model",
    "film before the model", "no run", "report of an unfinished run",
    "predictions of an unfinished run", "evaluation of an unfinished run",
    "checks of an unfinished run", "export of an unfinished run", "viewer of an unfinished run",
    "predictions of a study", "report of a study", "protocol of variants", "protocol of a sweep",
    "ablation without variants", "a command of other programs", "a command without its group",
}  # fmt: skip
RUN = "run protocols/quick.toml --out new"
FROM = "--set network.0.provenance=unknown"
MISTAKES = {
    "a stage as a command": "prepare protocols/quick.toml",
    # Commands and options
    "no such command": "tran protocols/quick.toml",
    "a command of other programs": "fit protocols/quick.toml",
    "a short form": "eval scores.csv",
    "a command without its group": "describe " + LABELS,
    "option before the command": "--out new run protocols/quick.toml",
    "no --out": "run protocols/quick.toml",
    "GPU by an option": f"{RUN} --device cuda",
    "GPU by a key": f"{RUN} --set training.device=cuda",
    "misspelt option": f"{RUN} --wrokers 1",
    "--epochs": f"{RUN} --epochs 3",
    "--set without =": f"{RUN} --set training.epochs",
    "--set with a blank": f"{RUN} --set training.epochs 3",
    "--set without section": f"{RUN} --set epochs=3",
    "key of another section": f"{RUN} --set training.size=64",
    "misspelt key": f"{RUN} --set training.learningrate=0.1",
    "network without its number": f"{RUN} --set network.name=densenet121",
    "misspelt network": f"{RUN} --set network.0.name=densnet121",
    "misspelt balancing": f"{RUN} --set balance.method=mlros",
    "misspelt loss": f"{RUN} --set training.loss=focall",
    "misspelt finding": f"{RUN} --set 'findings=[\"Efusion\"]'",
    "misspelt heat map": "explain runs/demo films/00000001_000.png --method gradcam --out new",
    "finding of no network": "explain runs/demo films/00000001_000.png --finding Hernia --out new",
    "model that the run lacks": "predict runs/demo films --model densenet121",
    "no such engine": f"{RUN} --engine ray",
    "tracker that is absent": f"{RUN} --set training.tracker=wandb",
    "port that is no number": "serve runs/demo --port http",
    # Protocols
    "syntax of TOML": "run broken.toml --out new",
    "path with backslashes": "run windows.toml --out new",
    "empty protocol": "run empty.toml --out new",
    "a table in place of a protocol": f"run {LABELS} --out new",
    "a folder in place of a protocol": "run protocols --out new",
    "a protocol that is nowhere": "run quickk --out new",
    "protocol of variants": "run protocols/ablation-balance.toml --out new",
    "protocol of a sweep": "run protocols/sweep.toml --out new",
    "ablation without variants": "study ablation protocols/quick.toml --out new",
    # Films
    "no root": f"{RUN} --set data.source=nih",
    "root that is nowhere": f"{RUN} --set data.source=nih --set data.root=chestxray",
    "root one folder too deep": f"{RUN} --set data.source=nih --set data.root=chestxray14/images",
    "root that is a file": f"{RUN} --set data.source=nih --set data.root={LABELS}",
    "root on the web": f"{RUN} --set data.source=nih --set data.root=http://127.0.0.1:9/nih",
    "root of another collection": f"{RUN} --set data.source=chexpert --set data.root=chestxray14",
    "half of the archives": f"{RUN} --set data.source=nih --set data.root=half",
    "thumbnails": f"{RUN} --set data.source=nih --set data.root=thumbnails",
    "films of another name": f"{RUN} --set data.source=nih --set data.root=others",
    "labels without patients": f"{RUN} --set data.source=csv --set data.root=films "
    "--set data.labels=no-patients.csv",
    "folder that holds no film": "predict runs/demo empty",
    "film that is nowhere": "predict runs/demo film.png",
    "film that is none": "predict runs/demo scores.csv",
    "film by a link to nowhere": "predict runs/demo lost.png",
    "DICOM films without their table": "predict runs/demo --source dicom --root archive",
    "archive that is cut": "predict runs/demo cut.zip",
    "name of a film that the run lacks": "explain runs/demo 99999999_000.png --out new",
    "film before the model": "predict films/00000001_000.png runs/demo",
    "results of a PNG": "results runs/demo films/00000001_000.png --out new",
    "data set that is not here": "data download chexpert",
    # Runs
    "folder of runs": "predict runs films",
    "no run": "report chestxray14",
    "ONNX in place of a run": "report model.onnx",
    "ONNX in place of a model": "predict model.onnx films",
    "weights in place of a model": "predict model.pth films",
    "weights of Keras": f"{RUN} --set network.0.weights=model.h5 {FROM}",
    "weights that are pickled": f"{RUN} --set network.0.weights=model.pth {FROM}",
    "weights that are nowhere": f"{RUN} --set network.0.weights=model.safetensors {FROM}",
    "report of an unfinished run": "report unfinished",
    "predictions of an unfinished run": "predict unfinished films",
    "evaluation of an unfinished run": "evaluate unfinished",
    "checks of an unfinished run": "check unfinished",
    "export of an unfinished run": "export unfinished --out new",
    "viewer of an unfinished run": "view unfinished --no-open",
    "run of another protocol": "run protocols/quick.toml --out runs/demo",
    "run of a later version": "report later",
    "run of an older version": "run older/protocol.toml --out older",
    "weights that are damaged": "run protocols/demo.toml --out damaged",
    "checks of damaged weights": "check damaged",
    "predictions by damaged weights": "predict damaged films --model test_resnet",
    "checks of a network that was edited": "check edited",
    "report of a network that was deleted": "report lost-network",
    "network without its description": "predict bare/networks/test_resnet films",
    "export that is not whole": "export runs/demo --out half-export",
    "export whose receipt is damaged": "export runs/demo --out cut-export",
    "history without the epoch that was kept": "predict older films/00000001_000.png",
    "model of a later version": "predict later-model films/00000001_000.png",
    "predictions of a study": "predict study films",
    "report of a study": "report study",
    "folder that is not empty": "run protocols/quick.toml --out films",
    "a file in place of --out": "run protocols/quick.toml --out scores.csv",
    "model exported into its run": "export runs/demo --out runs/demo/exported",
    "similar films of no run": "similar runs/demo/networks/test_resnet films/00000001_000.png",
    # Tables
    "table that is nowhere": f"evaluate score.csv --labels {LABELS}",
    "table by a link to nowhere": f"evaluate lost.csv --labels {LABELS}",
    "a pipe in place of a table": "data describe pipe.csv",
    "a device in place of a table": "data describe /dev/null",
    "label that is misspelt": "data describe misspelt.csv",
    "table in a folder": f"evaluate films --labels {LABELS}",
    "table without labels": "evaluate scores.csv",
    "labels in a folder": "evaluate scores.csv --labels chestxray14",
    "labels in place of predictions": f"evaluate {LABELS} --labels {LABELS}",
    "labels in place of predictions of two versions": "audit versions chestxray14/truth.csv "
    f"{LABELS} --predictions {LABELS}",
    "segmentation of no heat maps": "results runs/demo film.dcm --out results-of-none "
    "--method none --segmentation FRACTIONAL",
    "finding in two spellings": "data describe two-spellings.csv",
    "image without a name": "data describe nameless.csv",
    "scale of a run's predictions": "evaluate runs/demo --scale percent",
    "scale of a run's checks": "check runs/demo --scale percent",
    "scale of no table": f"audit versions {LABELS} {LABELS} --scale logit",
    "labels and scores exchanged": f"evaluate {LABELS} --labels scores.csv",
    "labels of other films": "evaluate other-films.csv --labels " + LABELS,
    "one column": f"evaluate one-column.csv --labels {LABELS}",
    "no column of a finding": f"evaluate no-findings.csv --labels {LABELS}",
    "no column of images": f"evaluate no-images.csv --labels {LABELS}",
    "percent": f"evaluate percent.csv --labels {LABELS}",
    "logits": f"evaluate logits.csv --labels {LABELS}",
    "classes": f"evaluate words.csv --labels {LABELS}",
    "film twice": f"evaluate twice.csv --labels {LABELS}",
    "Excel": f"evaluate scores.xlsx --labels {LABELS}",
    "page in place of a table": f"evaluate runs/demo/report/report.html --labels {LABELS}",
    "line that is cut": f"evaluate ragged.csv --labels {LABELS}",
    "decimal comma or thousands": f"evaluate comma.csv --labels {LABELS}",
    "column of images of another name": "evaluate scores.csv --labels other-columns.csv",
    "ensemble without validation films": f"ensemble mine.csv theirs.csv --labels {LABELS}",
    "errors of an unknown finding": "audit review runs/demo --errors odd-errors.csv --out drawn",
    "errors of a run's folder": "audit errors runs/demo",
    "radiologists' labels that are none": f"audit labels --labels {LABELS} --expert films",
    "lists without labels": "check --train train.txt --test test.txt",
    # What the machine lacks
    "no space": "data balance protocols/quick.toml --table full.csv",
    "no permission": f"{RUN} --until split",
    "port in use": "serve runs/demo --port PORT",
    "port of the viewer in use": "view runs/demo --port PORT --no-open",
    "no scheduler": f"{RUN} --engine dask://127.0.0.1:9",
    "extra serve": "serve runs/demo",
    "extra serve, viewer": "view runs/demo --no-open",
    "extra dicom": "predict runs/demo film.dcm",
    "extra dicom, archive": "data describe archive",
    "extra dicom-out": "results runs/demo film.dcm --out new",
    "extra dask": f"{RUN} --engine dask://127.0.0.1:9 --until prepare",
    "extra slurm": f"{RUN} --engine slurm --until prepare",
    "extra s3": f"{RUN} --set data.source=nih --set data.root=s3://films/nih",
    "extra sweep": "study sweep protocols/sweep.toml --out new",
    "extra tensorboard": f"{RUN} --set training.tracker=tensorboard",
    "extra mlflow": f"{RUN} --set training.tracker=mlflow",
}
LACKING = {
    "serve": "starlette", "serve, viewer": "uvicorn", "dicom": "pydicom",
    "dicom, archive": "pydicom", "dicom-out": "highdicom", "dask": "distributed",
    "slurm": "submitit", "s3": "s3fs", "sweep": "optuna", "tensorboard": "tensorboard",
    "mlflow": "mlflow",
}  # fmt: skip

VARYING = {
    r"[\d.,]+ a second": "N a second",
    r"free: [\d.,]+ .B": "free: N",
    r"\[Errno \d+\] ": "",
}
TAKEN: dict[str, Callable[[str], bytes]] = {  # other dialects of CSV, which are read
    "semicolons": lambda text: text.replace(",", ";").encode(),
    "tabs": lambda text: text.replace(",", "\t").encode(),
    "a mark at the beginning": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "Excel's separator": lambda text: ("sep=;\n" + text.replace(",", ";")).encode(),
    "quotes": lambda text: re.sub(r"[^,\n]+", r'"\g<0>"', text).encode(),
    "line ends of Windows": lambda text: text.replace("\n", "\r\n").encode(),
}


class Answer(NamedTuple):
    status: int
    lines: list[str]


def answer(words: list[str], capsys: pytest.CaptureFixture[str]) -> Answer:
    """Type a command; return its status and what it writes to both streams."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lucency", *words])
        status = call()
    out, err = capsys.readouterr()
    return Answer(status, (out + err).splitlines())


@pytest.fixture(scope="module")
def wrong(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with films, tables, protocols and a run that are right, and many that are not."""
    place = Path(
        shutil.copytree(finished, tmp_path_factory.mktemp("wrong") / "here", symlinks=True)
    )
    for folder in {*(place / "runs").iterdir()} - {place / "runs" / "demo"}:  # of other tests
        shutil.rmtree(folder)
    write_tables(place, pd.read_csv(place / "scores.csv"))
    write_labels(place)
    write_films(place)
    write_runs(place)
    write_torn(place)
    for name, text in {
        "broken.toml": 'name = "mine"\n[training]\nepochs 3\n',
        "windows.toml": 'name = "mine"\n[data]\nsource = "nih"\nroot = "C:\\films\\nih"\n',
        "empty.toml": "",
    }.items():
        (place / name).write_text(text)
    return place


def write_tables(place: Path, scores: pd.DataFrame) -> None:
    """Write tables of predictions that are not as they should be."""
    findings = scores.columns[1:]
    number = scores[findings]
    tables = {
        "one-column": scores[["image"]],
        "no-images": number,
        "no-findings": scores[["image"]].assign(score=0.5),
        "percent": scores.assign(**{name: number[name] * 100 for name in findings}),
        "logits": scores.assign(
            **{name: np.log(number[name] / (1 - number[name])) for name in findings}
        ),
        "words": scores.assign(
            **{name: np.where(number[name] > 0.5, "yes", "no") for name in findings}
        ),
        "twice": pd.concat([scores, scores.head(1).assign(Effusion=0.123)]),
        "other-films": scores.assign(image=[f"other-{row}.png" for row in range(len(scores))]),
    }
    for name, table in tables.items():
        table.to_csv(place / f"{name}.csv", index=False)
    lines = (place / "scores.csv").read_text().splitlines()
    (place / "ragged.csv").write_text("\n".join([*lines[:5], lines[5][:40]]) + "\n")
    (place / "comma.csv").write_text('image,Effusion\n00000001_000.png,"1,250"\n')
    with zipfile.ZipFile(place / "scores.xlsx", "w") as book:
        book.writestr("[Content_Types].xml", "<Types/>")
        book.writestr("xl/workbook.xml", "<workbook/>")
    (place / "full.csv").symlink_to("/dev/full")
    for name in ("lost.csv", "lost.png"):
        (place / name).symlink_to(f"nowhere{Path(name).suffix}")
    os.mkfifo(place / "pipe.csv")


def write_labels(place: Path) -> None:
    """Write label files: of no patient, of one class, with columns of other names."""
    labels = pd.read_csv(place / LABELS, index_col=False)
    table = pd.DataFrame({"image": labels["Image Index"], "patient": labels["Patient ID"]})
    for name in FEW:
        table[name] = 0
    table.to_csv(place / "one-class.csv", index=False)
    table.drop(columns="patient").to_csv(place / "no-patients.csv", index=False)
    table.rename(columns={"image": "picture"}).to_csv(place / "other-columns.csv", index=False)
    table.assign(**{FEW[0].upper(): 1}).to_csv(place / "two-spellings.csv", index=False)
    nameless = table.assign(image=["", *table["image"][1:]])
    nameless.to_csv(place / "nameless.csv", index=False)
    odd = {"finding": ["Hernya"], "direction": ["missing"], "image": table["image"][:1]}
    pd.DataFrame(odd).to_csv(place / "odd-errors.csv", index=False)
    first = {**labels.iloc[0], "Finding Labels": "Effusion|Hernya"}
    pd.DataFrame([first, *labels.iloc[1:].to_dict("records")]).to_csv(
        place / "misspelt.csv", index=False
    )
    for name in ("no-patients", "one-class"):
        shutil.copy(place / f"{name}.csv", place / "films")


def write_films(place: Path) -> None:
    """Write folders of films: half of the archives, thumbnails, none, others; a cut archive."""
    for name in ("half", "thumbnails", "others"):
        (place / name).mkdir()
        for file in ("Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt"):
            shutil.copy(place / "chestxray14" / file, place / name)
    films = sorted((place / "films").glob("*.png"))
    for number in (1, 2):
        with tarfile.open(place / "half" / f"images_{number:02d}.tar.gz", "w:gz") as archive:
            for film in films[number * 10 : number * 10 + 10]:
                archive.add(film, f"images/{film.name}")
    for folder in ("thumbnails/images", "others/images", "empty"):
        (place / folder).mkdir()
    for film in films:
        cv2.imwrite(
            str(place / "thumbnails" / "images" / film.name), cv2.imread(str(film))[::8, ::8]
        )
        shutil.copy(film, place / "others" / "images" / f"film-{film.name}")
    with zipfile.ZipFile(place / "whole.zip", "w") as archive:
        archive.write(films[0], films[0].name)
    (place / "cut.zip").write_bytes((place / "whole.zip").read_bytes()[:-60])


def write_runs(place: Path) -> None:
    """Write runs that are unfinished, of other versions and of a study; files of weights."""
    demo = place / "runs" / "demo"
    for name in ("manifest", "split", "phantom", "prepared", "protocol.toml"):
        source = demo / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        (place / "unfinished").mkdir(exist_ok=True)
        copy(source, place / "unfinished" / name)
    for name in ("later", "older", "study", "damaged", "edited", "lost-network", "bare"):
        shutil.copytree(demo, place / name, symlinks=True)
    text = (demo / "protocol.toml").read_text()
    (place / "later" / "protocol.toml").write_text(
        text.replace("[training]", "[training]\nspin = 3")
    )
    shutil.rmtree(place / "lost-network" / "networks" / "test_resnet")
    (place / "bare" / "networks" / "test_resnet" / METADATA).unlink()
    receipt = place / "older" / "split" / "receipt.json"
    receipt.write_text(receipt.read_text().replace('"seed"', '"number"'))
    change_byte(place / "damaged" / "networks" / "test_resnet" / WEIGHTS)
    edited = place / "edited" / "networks" / "test_resnet" / METADATA
    edited.write_text(edited.read_text().replace("test_resnet", "test_resneT", 1))
    shutil.rmtree(place / "study")
    (place / "study").mkdir()
    shutil.copy(place / "protocols" / "ablation-balance.toml", place / "study" / "protocol.toml")
    (place / "later-model").mkdir()
    about = {"format": FORMAT, "version": VERSION + 1, "kind": "network", "name": "mine"}
    (place / "later-model" / MODEL).write_text(json.dumps(about))
    (place / "model.onnx").write_bytes(b"\x08\x0a")
    (place / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    with zipfile.ZipFile(place / "model.pth", "w") as packed:
        packed.writestr("archive/data.pkl", b"\x80\x02}q\x00.")


def write_torn(place: Path) -> None:
    """Write exports that are not whole, and a history without its epoch."""
    for name in ("half-export", "cut-export"):
        (place / name).mkdir()
        (place / name / "model.json").write_text("{}")
    (place / "cut-export" / "receipt.json").write_text('{"format":')
    history = place / "older" / "networks" / "test_resnet" / "history.csv"
    history.with_name(WRITTEN).unlink()  # which versions before did not have
    history.write_text(history.read_text().splitlines()[0] + "\n")


def change_byte(file: Path) -> None:
    """Change the last byte of a file."""
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.fixture(scope="module")
def busy() -> Iterator[int]:
    """A port that another program listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def lack(package: str, patch: pytest.MonkeyPatch) -> None:
    """Let a package be absent."""
    for name in [*sys.modules, package]:
        if name.partition(".")[0] == package:
            patch.setitem(sys.modules, name, None)


def refuse_to_write(patch: pytest.MonkeyPatch) -> None:
    """Let no folder be made here: the superuser, who runs some tests, may write anywhere."""

    def mkdir(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    patch.setattr(Path, "mkdir", mkdir)


def answered(command: str, wrong: Path, capsys: pytest.CaptureFixture[str]) -> Answer:
    """Return the answer to a command there, without what differs from machine to machine."""
    shutil.rmtree(wrong / "new", ignore_errors=True)
    status, lines = answer(shlex.split(command), capsys)
    text = "\n".join(lines).replace(str(wrong), "HERE").replace(version("lucency"), "VERSION")
    for pattern, word in VARYING.items():
        text = re.sub(pattern, word, text)
    return Answer(status, text.splitlines())


def contents(place: Path) -> dict[str, tuple[int, int]]:
    """Return the size and time of every file there, but for `new`, which each command may make."""
    every = [one for one in place.rglob("*") if one.is_file() and place / "new" not in one.parents]
    return {str(one): (one.stat().st_size, one.stat().st_mtime_ns) for one in every}


def kept() -> dict[str, str]:
    """Return the blocks of the golden file by name."""
    blocks = GOLDEN.read_text().split("# ")[1:] if GOLDEN.is_file() else []
    return {block.partition("\n")[0]: f"# {block}" for block in blocks}


def check_kept(name: str, command: str, found: Answer) -> None:
    """Compare an answer with the one that is kept, or keep it."""
    block = "\n".join([f"# {name}", f"$ lucency {command}", *found.lines, "", ""])
    if os.environ.get("LUCENCY_GOLDEN") == "write":
        blocks = {**kept(), name: block}
        GOLDEN.write_text("".join(blocks[one] for one in (*MISTAKES, *TAKEN) if one in blocks))
    assert kept().get(name) == block


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_has_a_short_answer_that_says_what_to_do(
    name: str, wrong: Path, busy: int, capsys: pytest.CaptureFixture[str]
):
    """LUCENCY_GOLDEN=write pytest tests/cli/test_mistakes.py writes the file; read the difference.

    What a command has written of its work before is among the three lines. Nothing that was there
    before is changed.
    """
    before = contents(wrong)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(wrong)
        patch.setattr(stores, "PAUSES", (0.0,))
        if package := LACKING.get(name.removeprefix("extra ")):
            lack(package, patch)
        if name == "no permission":
            refuse_to_write(patch)
        found = answered(MISTAKES[name].replace("PORT", str(busy)), wrong, capsys)
    found = Answer(found.status, [line.replace(str(busy), "PORT") for line in found.lines])
    assert found.status == 2
    assert 1 <= len(found.lines) <= LINES, found.lines
    assert found.lines[-1].startswith("lucency: ")
    assert (COMMAND if name in GO_ON else NEXT).search(found.lines[-1]), found.lines[-1]
    assert contents(wrong) == before
    check_kept(name, MISTAKES[name], found)


@pytest.mark.parametrize("name", TAKEN)
def test_another_dialect_is_read_and_named(
    name: str,
    wrong: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(wrong)
    content = TAKEN[name]((wrong / "one-class.csv").read_text())
    (wrong / "dialect.csv").write_bytes(content)
    status, lines = answered("data imbalance dialect.csv --json", wrong, capsys)
    notes = [line for line in lines if line.startswith("dialect.csv")]
    assert status == 0
    assert json.loads("".join(lines[: lines.index("}") + 1]))["per_label"].keys() == {*FEW}
    check_kept(name, "data imbalance dialect.csv --json", Answer(status, notes))


def test_no_answer_is_kept_of_a_mistake_that_is_gone():
    assert [*kept()] == [*MISTAKES, *TAKEN]
    assert len(MISTAKES) > 100


def test_these_rules_can_fail(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LUCENCY_GOLDEN", raising=False)
    for line in (
        "file.png: something is wrong", "an unexpected use: none was expected", "give: nothing",
        "the set of names is of no use", "no such command; see lucency help",
    ):  # fmt: skip
        assert not NEXT.search(f"lucency: {line}"), line
    assert not COMMAND.search("lucency: x holds no run: expected the folder of a finished run")
    assert {*MISTAKES} > GO_ON
    with pytest.raises(AssertionError):
        check_kept("no --out", MISTAKES["no --out"], Answer(2, ["lucency: no"]))

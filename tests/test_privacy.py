"""A mark in every text of DICOM films comes out of nothing: no file of a run, no output."""

import gzip
import logging
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import timm
from safetensors.numpy import load_file
from safetensors.torch import save_file
from typer.testing import CliRunner

from archives import MARK, PICTURE, archive_film, marked_film
from lucency.cli.app import app
from lucency.data import dicom_facts
from workplace import NETWORKS, write_protocol

FILMS = 24
NO_CHEST = frozenset(PICTURE - {"BodyPartExamined", "Modality", "WindowCenter", "WindowWidth"})
PACKED = (".npz", ".zip", ".docx")
SECRETS = (  # variables of the environment that hold a secret, or who works where
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "WANDB_API_KEY",
    "MLFLOW_TRACKING_PASSWORD", "GOOGLE_APPLICATION_CREDENTIALS", "USER", "LOGNAME", "HOSTNAME",
)  # fmt: skip
PATTERNS = {  # of secrets, as scanners of repositories look for them
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "token of GitHub": r"\bgh[pousr]_[A-Za-z0-9]{36,}\b",
    "token of Hugging Face": r"\bhf_[A-Za-z0-9]{30,}\b",
    "token of Slack": r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "key of Google": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "password in a URL": r"\b[a-z][a-z0-9+]{1,9}://[^\s/:@\"'<>]+:[^\s/@\"'<>]+@[A-Za-z0-9]",
    "assignment": r"(?i)\b(?:api_?key|secret|passwd|password)\b\s*[=:]\s*[\"'][^\"'\s]{8,}[\"']",
}
OWN_PLACES = (
    "protocol.toml", "manifest.csv", "sources.csv", "receipt.json", "inputs.json",
    "classifier.json",
)  # fmt: skip


class MarkedRun(NamedTuple):
    """A folder with a run of marked films, and all that its commands wrote to the terminal."""

    place: Path
    shown: str


def hits(folder: Path) -> list[str]:
    """Return the files below a folder that hold the mark, in their names or their content."""
    files = [file for file in folder.rglob("*") if not file.is_dir()]
    assert files, folder
    return [str(file) for file in files if any(MARK in text for text in texts(file, folder))]


def texts(file: Path, folder: Path, *, raw: bool = False) -> Iterator[str]:
    """Yield a file's name and its content as text, unpacked; in capitals unless `raw`."""
    yield str(file.relative_to(folder))
    if file.is_symlink():
        yield str(file.readlink())
        return
    content = file.read_bytes()
    if file.suffix == ".gz":
        content += gzip.decompress(content)
    if file.suffix in PACKED:
        with zipfile.ZipFile(file) as packed:
            content += b"".join(packed.read(name) for name in packed.namelist())
    plain = content.decode("latin-1")
    yield plain if raw else plain.upper()
    yield content.decode("utf-16-le", errors="ignore")


def invoke(*words: str, fails: bool = False) -> str:
    """Run a command here and return what it writes to both streams, with the error it ends in."""
    done = CliRunner().invoke(app, list(words))
    assert (done.exception is not None) == fails, done.output
    assert isinstance(done.exception, ValueError) == fails, done.exception
    return f"{done.stdout}\n{done.stderr}\n{done.exception}"


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> MarkedRun:
    """Films of patients in folders of their names, a table that names them, a run of one network.

    Some files are no films, or broken, with as many marks.
    """
    place = tmp_path_factory.mktemp("hospital")
    rows = []
    for number in range(FILMS):
        folder = place / "archive" / f"{MARK}^JOHN{number // 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{MARK}{number}").write_bytes(marked_film(number))
        named = {"SOPInstanceUID": f"{MARK}F{number:04d}", "PatientName": MARK, "PatientID": MARK}
        rows.append(named | {"Effusion": number % 2})
    (place / "archive" / f"{MARK}cut").write_bytes(marked_film(50)[:-900])
    (place / "archive" / f"{MARK}head").write_bytes(marked_film(51)[:9_000])
    (place / "archive" / f"{MARK}part").write_bytes(marked_film(52, without=NO_CHEST))
    (place / "archive" / f"{MARK}.csv").write_text(MARK)
    pd.DataFrame(rows).to_csv(place / "labels.csv", index=False)
    data = {
        "source": "dicom", "root": str(place / "archive"), "labels": str(place / "labels.csv"),
        "key": str(place / "keys" / "key"),
    }  # fmt: skip
    weights = place / "colleague" / "weights.safetensors"
    weights.parent.mkdir()
    save_file(timm.create_model(NETWORKS[1]).state_dict(), weights)
    network = {"name": NETWORKS[1], "weights": str(weights), "provenance": f"films of {weights}"}
    one = {
        "note": f"made in {place}",
        "network": [network],
        "findings": ["Effusion"],
        "explanation": {"methods": []},
        "split": {"method": "lists", "lists": write_lists(place / "lists")},
    }
    write_protocol(place / "protocol.toml", data, **one)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name in SECRETS:
            patch.setenv(name, f"{MARK}{name}")
        patch.setattr("platform.node", lambda: MARK)
        patch.setattr("socket.gethostname", lambda: MARK)
        words = ("run", "protocol.toml", "--out", "run", "--workers", "1")
        shown = invoke(*words) + invoke(*words)
    return MarkedRun(place, shown)


def write_lists(place: Path) -> dict[str, str]:
    """Write lists of films by part, patients apart; return their places."""
    place.mkdir()
    for part, numbers in {"train": (0, 15), "val": (15, 18), "test": (18, FILMS)}.items():
        names = [f"{MARK}F{number:04d}\n" for number in range(*numbers)]
        (place / f"{part}.txt").write_text("".join(names))
    return {part: str(place / f"{part}.txt") for part in ("train", "val", "test")}


def test_no_file_of_a_run_and_no_message_holds_a_text_of_a_film(marked: MarkedRun):
    assert "24 labelled films" in marked.shown
    assert hits(marked.place / "run") == []
    assert MARK not in marked.shown.upper()
    table = pd.read_csv(marked.place / "run" / "manifest" / "manifest.csv")
    assert len(table) == FILMS
    assert table["patient_id"].nunique() == FILMS / 3


def test_the_films_themselves_are_full_of_it(marked: MarkedRun):
    archive = marked.place / "archive"
    assert len(hits(archive)) == FILMS + 4
    film = next(archive.rglob(f"{MARK}7")).read_bytes()
    assert film.count(MARK.encode()) > 3_000


def test_the_links_lie_beside_the_key_alone(marked: MarkedRun):
    assert len(hits(marked.place / "keys")) == FILMS
    key = (marked.place / "keys" / "key").read_bytes()
    files = [file for file in (marked.place / "run").rglob("*") if file.is_file()]
    assert not any(key in file.read_bytes() for file in files)


def test_an_archive_is_described_without_it(marked: MarkedRun):
    for words in ((), ("--json",)):
        shown = invoke("data", "describe", str(marked.place / "archive"), *words)
        assert MARK not in shown.upper()


def test_other_commands_show_none_of_it(
    marked: MarkedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
):
    monkeypatch.chdir(marked.place)
    study = tmp_path / "study"
    study.mkdir()
    (study / "one").write_bytes(marked_film(60))
    (study / "two.dcm").write_bytes(marked_film(61)[:-900])
    (study / "three.dcm").write_bytes(marked_film(62, without=NO_CHEST))
    run = "run"
    with caplog.at_level(logging.INFO):
        shown = invoke("predict", run, str(study), "--csv", str(tmp_path / "table.csv"))
        shown += invoke("data", "quality", run, "--out", str(tmp_path / "quality"))
        shown += invoke("data", "export", run, "--out", str(tmp_path / "export"))
        shown += invoke("export", run, "--out", str(tmp_path / "model"))
    assert MARK not in shown.upper()
    assert MARK not in caplog.text.upper()
    for name in ("quality", "export", "model"):
        assert hits(tmp_path / name) == []
    assert MARK not in (tmp_path / "table.csv").read_text().upper()
    assert hits(marked.place / "run") == []


def test_errors_show_none_of_it(marked: MarkedRun, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(marked.place)
    table = pd.read_csv("labels.csv")
    out = ("--out", str(tmp_path / "run"))
    labels = tmp_path / "labels.csv"
    change = ("--set", f"data.labels={labels}")
    for made in (
        table.assign(SOPInstanceUID=f"{MARK}X"),
        pd.concat([table, table.head(2)]),
        table.rename(columns={"SOPInstanceUID": "image"}).assign(image=MARK),
        table.rename(columns={"SOPInstanceUID": "StudyInstanceUID"}).assign(StudyInstanceUID=MARK),
    ):
        made.to_csv(labels, index=False)
        shown = invoke("run", "protocol.toml", *out, *change, fails=True)
        assert MARK not in shown.upper()


def secrets(folder: Path) -> list[str]:
    """Return the files below a folder that hold what looks like a secret, each with its kind."""
    found = []
    for file in (one for one in folder.rglob("*") if one.is_file()):
        whole = "\n".join(texts(file, folder, raw=True))
        kinds = [kind for kind, pattern in PATTERNS.items() if re.search(pattern, whole)]
        found += [f"{file.relative_to(folder)}: {kind}" for kind in kinds]
    return found


def places(folder: Path, root: Path) -> set[str]:
    """Return the names of files below a folder that name a place of this machine below `root`."""
    files = [one for one in folder.rglob("*") if one.is_file() and not one.is_symlink()]
    return {
        one.name for one in files if any(str(root) in text for text in texts(one, folder, raw=True))
    }


def test_runs_and_what_is_made_of_them_hold_no_secret_and_no_place(
    marked: MarkedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A run's own records name where its films lie; what is given away does not."""
    monkeypatch.chdir(marked.place)
    given = tmp_path / "given"
    given.mkdir()
    invoke("export", "run", "--out", str(given / "model"))
    invoke("data", "export", "run", "--out", str(given / "films"))
    invoke("data", "quality", "run", "--out", str(given / "quality"))
    invoke("predict", "run", "archive", "--csv", str(given / "table.csv"))
    shutil.copytree(marked.place / "run" / "report", given / "report")
    shutil.copytree(marked.place / "run" / "evaluation", given / "evaluation")
    assert secrets(marked.place / "run") == []
    assert secrets(given) == []
    assert places(marked.place / "run", marked.place) <= {*OWN_PLACES}
    for root in (marked.place, tmp_path, Path.home()):
        assert places(given, root) == set(), root


def test_an_export_holds_no_feature_of_a_film_by_default(
    marked: MarkedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its arrays are the network's weights; of the films none is a row."""
    monkeypatch.chdir(marked.place)
    invoke("export", "run", "--out", str(tmp_path / "model"))
    names = {file.name for file in (tmp_path / "model").rglob("*") if file.is_file()}
    assert names == {
        "model.onnx", "weights.safetensors", "model.json", "MODEL_CARD.md", "receipt.json",
    }  # fmt: skip
    trained = marked.place / "run" / "networks" / NETWORKS[1] / "weights.safetensors"
    given, own = load_file(tmp_path / "model" / "weights.safetensors"), load_file(trained)
    assert {name: one.shape for name, one in given.items()} == {n: o.shape for n, o in own.items()}


def test_a_secret_and_a_place_are_found(tmp_path: Path):
    samples = {
        "private key": "-----BEGIN RSA PRIVATE KEY-----",
        "key of AWS": "AKIA" + "A1" * 8,
        "token of GitHub": "ghp_" + "a" * 36,
        "token of Hugging Face": "hf_" + "a" * 34,
        "token of Slack": "xoxb-" + "1" * 12,
        "key of Google": "AIza" + "a" * 35,
        "JSON web token": f"eyJ{'a' * 12}.eyJ{'b' * 12}.{'c' * 12}",
        "password in a URL": "s3://ada:secret@bucket",
        "assignment": 'api_key = "0123456789"',
    }
    assert samples.keys() == PATTERNS.keys()
    for kind, text in samples.items():
        (tmp_path / "one.txt").write_text(f"x {text} y")
        assert secrets(tmp_path) == [f"one.txt: {kind}"]
    (tmp_path / "one.txt").write_text(f"made in {tmp_path}/films")
    assert places(tmp_path, tmp_path) == {"one.txt"}


def test_a_leak_is_found(marked: MarkedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    copy = tmp_path / "copy"
    shutil.copytree(marked.place / "run" / "manifest", copy)
    assert hits(copy) == []
    for number, name in enumerate(("a.txt", "a.csv.gz", "a.npz", f"{MARK}.txt")):
        file, text = copy / str(number) / name, f"of {MARK.lower()}"
        file.parent.mkdir()
        file.write_text(text)
        if name.endswith(".gz"):
            file.write_bytes(gzip.compress(text.encode()))
        if name.endswith(".npz"):
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
                packed.writestr("names.npy", text)
        assert len(hits(copy)) == number + 1
    monkeypatch.setattr(dicom_facts, "_known", lambda word, known, otherwise="": word)
    (tmp_path / "leak").mkdir()
    (tmp_path / "leak" / "film").write_bytes(marked_film(1))
    assert MARK in invoke("data", "describe", str(tmp_path / "leak"))


def test_a_plain_film_is_not_marked(tmp_path: Path):
    (tmp_path / "film").write_bytes(archive_film(1))
    assert hits(tmp_path) == []

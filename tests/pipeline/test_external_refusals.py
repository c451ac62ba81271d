"""External tests of small tables: each is checked before it is made, and none is trained for."""

import re
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from lucency.audit.checks.run_checks import save_issues
from lucency.cli import evaluate_commands
from lucency.config.protocol import Protocol, parse_external, parse_protocol, read_protocol
from lucency.config.sections import External, Split
from lucency.core.files import BusyError
from lucency.core.locks import locked
from lucency.core.manifest import Manifest, empty_boxes, load_prepared
from lucency.data.split import set_apart
from lucency.evaluation.external_validation import RECALIBRATED_ON, ExternalValidation
from lucency.pipeline import added_tests, stages
from lucency.pipeline.external_stage import check_test, refuse_known_films
from lucency.pipeline.run import Run, checked_run, external_run, keep_protocol, open_run

PLAIN_TWO = [("d", "4"), ("e", "5")]
PLAIN = [("a", "1"), ("b", "2"), ("c", "3")]  # film and patient


def table(root: Path, films: list[tuple[str, str]] = PLAIN, **keys: object) -> dict[str, object]:
    """Write films and a table of their labels; return the source."""
    root.mkdir()
    rows = [f"{film},{patient},{place % 2}" for place, (film, patient) in enumerate(films)]
    (root / "l.csv").write_text("\n".join(["image,patient,Mass", *rows, ""]))
    for film, _ in films:
        cv2.imwrite(str(root / f"{film}.png"), np.zeros((40, 40), np.uint8))
    return {"source": "csv", "root": str(root), "labels": "l.csv", **keys}


def protocol(data: dict[str, object], *external: dict[str, object]) -> Protocol:
    tests = [{"name": "x", **one} for one in external]
    choices = {"name": "p", "findings": ["Mass"], "data": data, "external": tests,
               "preparation": {"size": 32}, "network": [{"name": "test_resnet"}]}  # fmt: skip
    return parse_protocol(choices, name="p")


def run_of(tmp_path: Path, data: dict[str, object], *external: dict[str, object]) -> Run:
    return open_run(protocol(data, *external), out=tmp_path / "run", workers=1)


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The roots below which networks were looked for; a test gets as far as to need them."""
    roots = list[str]()

    def no_networks(run: Run) -> None:
        raise RuntimeError("networks are needed")

    monkeypatch.setattr(stages, "check_networks", lambda run: roots.append(run.protocol.data.root))
    monkeypatch.setattr(stages, "classifiers", no_networks)
    return roots


def test_a_test_is_checked_although_the_films_of_the_run_are_read(
    tmp_path: Path, networks: list[str]
):
    data = table(tmp_path / "films")
    stages.prepared(run_of(tmp_path, data))
    with pytest.raises(ValueError, match=r"external\.0 \(x\): both are .*l\.csv"):
        stages.external_test(run_of(tmp_path, data, data), "x")


def test_no_weights_are_looked_for_below_the_root_of_a_test(tmp_path: Path, networks: list[str]):
    data = table(tmp_path / "films")
    other = table(tmp_path / "other", [("d", "4"), ("e", "5"), ("f", "6")])
    stages.prepared(run_of(tmp_path, data))
    with pytest.raises(RuntimeError, match="networks are needed"):
        stages.external_test(run_of(tmp_path, data, other), "x")
    assert networks == [data["root"]]


def test_the_leak_doctor_looks_again_when_a_test_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    looked = list[int]()

    def write(run: Run, *rest: object) -> None:
        looked.append(len(run.protocol.external))
        save_issues([], Path(str(rest[-1])))

    monkeypatch.setattr(Run, "fingerprints", lambda self, *names: {})
    monkeypatch.setattr(stages, "evaluation", lambda run: SimpleNamespace(thresholds=0, metrics=0))
    monkeypatch.setattr(stages, "predictions", lambda run: [])
    monkeypatch.setattr(stages, "write_issues", write)
    data, other = table(tmp_path / "films"), table(tmp_path / "other")
    for tests in ((), (), (other,), (other,)):
        stages.issues(run_of(tmp_path, data, *tests))
    assert looked == [0, 1]


@pytest.fixture
def kept(tmp_path: Path) -> tuple[dict[str, object], dict[str, object], bytes]:
    """A run's source, that of its external test x, whose films are read, and its protocol."""
    data = table(tmp_path / "films")
    other = table(tmp_path / "other", [("d", "4"), ("e", "5"), ("f", "6")])
    run = run_of(tmp_path, data, other)
    stages.labelled_films(external_run(run, "x"))
    return data, other, (run.out / "protocol.toml").read_bytes()


OTHER_KEYS = [
    ({"uncertain": "zeros"}, "uncertain: was ignore, now zeros"),
    ({"views": ["PA"]}, "views: was [], now ['PA']"),
    ({"align": {"Mass": ""}}, "align: was {}, now absent; align.Mass: was absent, now "),
    ({"seed": 1}, "seed: was 0, now 1"),
    ({"source": "nih"}, "source: was csv, now nih"),
]


@pytest.mark.parametrize(("keys", "expected"), OTHER_KEYS)
def test_other_keys_of_a_test_with_films_are_refused_and_not_kept(
    tmp_path: Path,
    kept: tuple[dict[str, object], dict[str, object], bytes],
    keys: dict[str, object],
    expected: str,
):
    data, other, before = kept
    new = {"name": "new", **table(tmp_path / "new")}
    folder = tmp_path / "run" / "external" / "x"
    finish(folder)
    message = f"external.1 (x): {expected}: the films of {folder} are of other choices: "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}expected another name for .*"):
        run_of(tmp_path, data, new, {**other, **keys})
    assert (tmp_path / "run" / "protocol.toml").read_bytes() == before
    shutil.rmtree(folder)
    run_of(tmp_path, data, new, {**other, **keys})
    assert (tmp_path / "run" / "protocol.toml").read_bytes() != before


def test_films_of_a_test_may_move_but_not_change(
    tmp_path: Path, kept: tuple[dict[str, object], dict[str, object], bytes]
):
    data, other, before = kept
    file, root = tmp_path / "run" / "protocol.toml", tmp_path / "moved"
    finish(tmp_path / "run" / "external" / "x")
    shutil.copytree(tmp_path / "other", root)
    moved = {**other, "root": str(root)}
    (root / "l.csv").write_text((root / "l.csv").read_text().replace("d,4,0", "d,4,1"))
    with pytest.raises(
        ValueError, match=r"^external\.0 \(x\): labels: was \w+, now \w+: the films"
    ):
        run_of(tmp_path, data, moved)
    (root / "list.txt").write_text("d\n")
    with pytest.raises(ValueError, match=r"^external\.0 \(x\): exclude: was no list, now \w+: the"):
        run_of(tmp_path, data, {**other, "exclude": str(root / "list.txt")})
    with pytest.raises(
        ValueError, match=r"^external\.0 \(x\): labels: was \w+, now \w+: the films"
    ):
        run_of(tmp_path, data, {**other, "labels": str(root / "l.csv")})
    assert file.read_bytes() == before
    shutil.copy(tmp_path / "other" / "l.csv", root / "l.csv")
    assert run_of(tmp_path, data, moved).protocol.external[0].root == str(root)
    assert str(root) in file.read_text()
    shutil.rmtree(root)
    shutil.rmtree(tmp_path / "other")
    with pytest.raises(ValueError, match=r"^external\.0\.root is '/nowhere', which is no folder"):
        run_of(tmp_path, data, {**other, "root": "/nowhere"})


def test_a_test_that_was_removed_may_come_back_as_it_was(
    tmp_path: Path, kept: tuple[dict[str, object], dict[str, object], bytes]
):
    """One that is not finished leaves with the protocol that does not name it; its folder stays."""
    data, other, before = kept
    folder = tmp_path / "run" / "external" / "x"
    files = sorted(folder.rglob("*"))
    assert run_of(tmp_path, data).protocol.external == ()
    assert sorted(folder.rglob("*")) == files
    check_test(run_of(tmp_path, data, other), "x", read=stages.labelled_films)
    assert sorted(folder.rglob("*")) == files
    assert (tmp_path / "run" / "protocol.toml").read_bytes() == before


def test_phantoms_that_are_drawn_for_a_test_are_those_of_its_choices(tmp_path: Path):
    data = table(tmp_path / "films")
    drawn: dict[str, object] = {"source": "phantom", "films": 20, "size": 32, "hospital": 2}
    alone = run_of(tmp_path, data, drawn)
    stages.labelled_films(external_run(alone, "x"))
    run_of(tmp_path, data)
    without = (alone.out / "protocol.toml").read_bytes()
    assert run_of(tmp_path, data, drawn).protocol == alone.protocol
    finish(alone.out / "external" / "x")
    (alone.out / "protocol.toml").write_bytes(without)
    with pytest.raises(ValueError, match=r"^external\.0 \(x\): films: was 20, now 21: "):
        run_of(tmp_path, data, {**drawn, "films": 21})


@pytest.mark.parametrize("left", ["manifest", "phantom", "partial"])
def test_phantoms_of_a_test_that_is_not_finished_are_drawn_anew(tmp_path: Path, left: str):
    data = table(tmp_path / "films")
    drawn: dict[str, object] = {"source": "phantom", "films": 20, "size": 32, "hospital": 2}
    test = external_run(run_of(tmp_path, data, drawn), "x")
    stages.labelled_films(test)
    if left != "manifest":
        shutil.rmtree(test.out / "manifest")
    if left == "partial":
        folder = (test.out / "phantom").rename(test.out / "phantom.partial")
        (folder / "receipt.json").rename(folder / "inputs.json")
    run = run_of(tmp_path, data, {**drawn, "films": 21})
    check_test(run, "x", read=stages.labelled_films)
    assert len(stages.labelled_films(external_run(run, "x"))) == 21


def test_a_test_that_is_not_finished_goes_on_with_other_keys(
    tmp_path: Path,
    kept: tuple[dict[str, object], dict[str, object], bytes],
    capsys: pytest.CaptureFixture[str],
):
    """Its places must be there: what was read with other keys is nothing to test on."""
    data, other, _ = kept
    keys = {"uncertain": "zeros"}
    test = external_run(run_of(tmp_path, data, other), "x")
    stages.prepared(test)
    (tmp_path / "other").rename(tmp_path / "away")
    with pytest.raises(ValueError, match=r"^external\.0 \(x\): "):
        run_of(tmp_path, data, {**other, **keys})
    (tmp_path / "away").rename(tmp_path / "other")
    run = run_of(tmp_path, data, {**other, **keys})
    (test.out / "predictions").mkdir()
    with locked(test.out / "predictions" / "n.partial"), pytest.raises(BusyError):
        check_test(run, "x", read=stages.labelled_films)
    with locked(test.out), pytest.raises(BusyError):
        check_test(run, "x", read=stages.labelled_films)
    assert (test.out / "prepared").is_dir()
    check_test(run, "x", read=stages.labelled_films)
    assert [one.name for one in test.out.iterdir()] == ["manifest"]
    line = f"{test.out} holds an unfinished test of other films: it is made anew (uncertain: was "
    assert line in capsys.readouterr().err


def test_a_protocol_whose_test_is_refused_goes_on_when_it_is_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stages, "_fetch_weights", lambda run: None)
    data = table(tmp_path / "films", [*PLAIN, *PLAIN_TWO])
    other = table(tmp_path / "other", [("c", "3"), ("f", "6"), ("g", "7")])
    with pytest.raises(ValueError, match="1 of 3 films is of the run's patients, by name"):
        stages.manifest(run_of(tmp_path, data, other))
    (tmp_path / "exclude.txt").write_text("c\n")
    corrected = run_of(tmp_path, data, {**other, "exclude": str(tmp_path / "exclude.txt")})
    stages.check_tests(corrected)  # as before networks are trained
    assert len(stages.manifest(corrected)) == 5
    assert len(stages.labelled_films(external_run(corrected, "x"))) == 2


def test_a_test_of_another_order_or_name_is_no_other_test(
    tmp_path: Path, kept: tuple[dict[str, object], dict[str, object], bytes]
):
    data, other, _ = kept
    new = {"name": "new", **table(tmp_path / "new")}
    run = run_of(tmp_path, data, new, other)
    assert [one.name for one in run.protocol.external] == ["new", "x"]
    run = run_of(tmp_path, data, other, {**other, "name": "y", "uncertain": "zeros"})
    assert [one.name for one in run.protocol.external] == ["x", "y"]


NIH = [("00000001_000", "1"), ("00000002_000", "2")]
PSEUDONYMS = [("0123456789abcdef", "a"), ("1123456789abcdef", "b")]


def as_read(films: list[tuple[str, str]]) -> Manifest:
    table = pd.DataFrame(films, columns=["image", "patient_id"])
    return Manifest(
        findings=("Mass",),
        image=table["image"].to_numpy(dtype=str),
        patient=np.arange(len(table)),
        label=np.zeros((len(table), 1), dtype=np.float32),
        facts=table[["patient_id"]].assign(path=""),
        boxes=empty_boxes(),
        origin="",
    )


@pytest.mark.parametrize(
    ("source", "own", "films", "shared"),
    [
        ("csv", PLAIN, [("d", "4"), ("e", "2")], "1 of 2 films is .*(e, "),
        ("dicom", PLAIN, [("d", "4"), ("e", "2")], "1 of 2 films is .*(e, "),
        ("csv", PLAIN, [("a", "4"), ("e", "5")], ""),
        ("nih", NIH, [("00000002_007.png", "x"), ("e", "1")], "1 of 2 films is .*(00000002_007"),
        ("phantom", NIH, [("00000002_000", "2"), ("e", "3")], ""),
        (
            "dicom",
            PSEUDONYMS,
            [("1123456789abcdef.png", "c"), ("e", "d")],
            "1 of 2 films is .*(1123456789",
        ),
    ],
)
def test_patients_of_the_run_are_refused_by_name(
    tmp_path: Path,
    source: str,
    own: list[tuple[str, str]],
    films: list[tuple[str, str]],
    shared: str,
):
    other = table(tmp_path / "other")
    run = run_of(tmp_path, {"source": source}, other)

    def read(one: Run) -> Manifest:
        return as_read(own if one is run else films)

    pattern = shared.replace("(", r"\(")
    with pytest.raises(ValueError, match=pattern) if shared else nullcontext():
        check_test(run, "x", read=read)


@pytest.mark.parametrize("there", [False, True])
def test_labels_of_a_command_are_a_file_or_a_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
):
    added = list[External]()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(added_tests, "add_external_test", lambda run, one: added.append(one))
    monkeypatch.setattr(added_tests, "answer", lambda *_, **__: {})
    monkeypatch.setattr(evaluate_commands, "print_answer", lambda *_, **__: None)
    if there:
        Path("negbio").touch()
    about = {"source": "mimic-cxr", "root": tmp_path, "labels": Path("negbio")}
    how = {"name": None, "changes": None, "out": None, "json": False}
    evaluate_commands.test_on_source(tmp_path, about, **how)
    assert added[0].labels == (str(tmp_path / "negbio") if there else "negbio")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"labels": "none.csv"},
            r"^external\.0 \(x\): no label file in .*other: expected none\.csv",
        ),
        (
            {"source": "padchest", "labels": ""},
            r"^external\.0 \(x\): no label file .*; check external\.0\.root and ",
        ),
        ({"root": "/nowhere"}, r"^external\.0\.root is '/nowhere', which is no folder$"),
        ({"exclude": "/none.txt"}, r"^external\.0\.exclude: /none\.txt: no such file"),
        ({"source": "rsna"}, r"^RSNA .* mapped by \[external\.0\.align\] where"),
    ],
)
def test_a_refusal_names_the_key_where_it_begins_with_one(
    tmp_path: Path, keys: dict[str, object], expected: str
):
    run = run_of(tmp_path, table(tmp_path / "films"), table(tmp_path / "other") | keys)
    with pytest.raises(ValueError, match=expected):
        check_test(run, "x", read=stages.labelled_films)


def test_a_test_that_another_process_reads_is_no_refusal(tmp_path: Path):
    run = run_of(tmp_path, table(tmp_path / "films"), table(tmp_path / "other"))
    folder = tmp_path / "run" / "external" / "x"
    folder.mkdir(parents=True)
    with locked(folder / "manifest.partial"), pytest.raises(BusyError, match="another process"):
        check_test(run, "x", read=stages.labelled_films)


def test_films_of_one_patient_are_refused_before_they_are_prepared(tmp_path: Path):
    other = table(tmp_path / "other", [("d", "4"), ("e", "4")])
    run = run_of(tmp_path, table(tmp_path / "films"), other)
    line = (
        r"^external\.0 \(x\): 2 films of 1 patient: expected 2 patients or more, since 0\.2 of them"
    )
    with pytest.raises(ValueError, match=line):
        check_test(run, "x", read=stages.labelled_films)
    run = run_of(tmp_path / "two", table(tmp_path / "own"), table(tmp_path / "more", PLAIN_TWO))
    films = stages.labelled_films(external_run(run, "x"))
    check_test(run, "x", read=stages.labelled_films)
    assert set_apart(films, choices=Split(apart=RECALIBRATED_ON)).sum() == 1


def finish(folder: Path) -> None:
    """Let a test look finished."""
    (folder / "evaluation").mkdir(parents=True)
    (folder / "evaluation" / "receipt.json").write_text("{}")


def test_a_protocol_that_names_no_tests_keeps_those_that_are_finished(
    tmp_path: Path,
    kept: tuple[dict[str, object], dict[str, object], bytes],
    capsys: pytest.CaptureFixture[str],
):
    data, other, before = kept
    out = tmp_path / "run"
    finish(out / "external" / "x")
    new = {"name": "new", **table(tmp_path / "new")}
    run = run_of(tmp_path, data)
    assert [one.name for one in run.protocol.external] == ["x"]
    assert (out / "protocol.toml").read_bytes() == before
    line = capsys.readouterr().err
    assert f"{out} keeps 1 external test that the protocol does not name (x): to remove" in line
    assert f"delete its folder, {out / 'external' / 'x'}, and its [[external]]" in line
    assert [one.name for one in run_of(tmp_path, data, new).protocol.external] == ["new", "x"]
    run_of(tmp_path, data, other, new)
    assert capsys.readouterr().err.count("keeps") == 1
    shutil.rmtree(out / "external" / "x")
    assert run_of(tmp_path, data).protocol.external == ()
    assert "no longer has 2 external tests that the protocol" in capsys.readouterr().err
    assert run_of(tmp_path, data).protocol.external == ()
    assert not capsys.readouterr().err


def test_of_two_tests_that_are_finished_together_none_is_lost(tmp_path: Path):
    data, out = table(tmp_path / "films"), tmp_path / "run"
    tests = [{"name": name, **table(tmp_path / name)} for name in ("one", "two")]
    run_of(tmp_path, data)
    opened = [checked_run(protocol(data, one), out=out, workers=1) for one in tests]
    for run, one in zip(opened, tests, strict=True):
        finish(out / "external" / str(one["name"]))
        keep_protocol(run)
    kept = read_protocol(out / "protocol.toml").external
    assert sorted(one.name for one in kept) == ["one", "two"]


def test_the_protocol_is_written_after_another_process_has_written_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data, file = table(tmp_path / "films"), tmp_path / "run" / "protocol.toml"
    run_of(tmp_path, data)
    before = file.read_bytes()
    other = protocol(data, table(tmp_path / "other"))
    run = checked_run(other, out=tmp_path / "run", workers=1)
    held = threading.Event()

    def write() -> None:
        with locked(file):
            held.set()
            time.sleep(0.3)
            assert file.read_bytes() == before

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        assert held.wait(10)
        keep_protocol(run)
        writing.result()
    assert [one.name for one in read_protocol(file).external] == ["x"]
    monkeypatch.setattr("lucency.pipeline.run.PATIENCE", 0.1)
    with locked(file), pytest.raises(BusyError, match=r"protocol\.toml is being written"):
        run_of(tmp_path, data)


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Add a csv test to a run as `evaluate` does; its networks are not trained, its films compared.

    The run has the film of a noise that `other/same.png` has, too.
    """
    data = table(tmp_path / "films")
    table(tmp_path / "other", [("d", "4"), ("e", "5"), ("f", "6"), ("same", "7")])
    noise = np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8)
    for place in ("films/a", "other/same"):
        cv2.imwrite(str(tmp_path / f"{place}.png"), noise)
    stages.prepared(run_of(tmp_path, data))

    tables = ("findings", "scores", "calibration", "mix", "distance")
    nothing = {name: pd.DataFrame() for name in tables}

    def compared(run: Run, name: str) -> ExternalValidation:
        test = external_run(run, name)
        refuse_known_films(stages.prepared(run), stages.prepared(test), name=name, out=run.out)
        finish(test.out)
        return ExternalValidation(about={"name": name}, conclusion="", **nothing)

    monkeypatch.setattr(added_tests, "require_finished", lambda run: None)
    monkeypatch.setattr(stages, "external_test", compared)
    monkeypatch.setattr(stages, "_fetch_weights", lambda run: None)

    def add(**keys: object) -> None:
        choice = {"name": "x", "source": "csv", "root": tmp_path / "other", "labels": "l.csv"}
        about = {key: str(value) for key, value in {**choice, **keys}.items()}
        added_tests.add_external_test(tmp_path / "run", parse_external(about))

    return add


def test_a_refused_test_leaves_nothing_and_the_corrected_command_is_done(
    tmp_path: Path, added: Callable[..., None]
):
    out = tmp_path / "run"
    before = (out / "protocol.toml").read_bytes()
    line = f"x: 1 of 4 films shows .* name {re.escape(str(out / 'twice-x.csv'))}, which lists them"
    with pytest.raises(ValueError, match=line):
        added()
    assert (out / "protocol.toml").read_bytes() == before
    assert not (out / "external").exists()
    added(exclude=out / "twice-x.csv")
    assert len(load_prepared(out / "external" / "x" / "prepared").manifest) == 3
    assert [one.name for one in read_protocol(out / "protocol.toml").external] == ["x"]
    with pytest.raises(ValueError, match=r"^external\.1 \(y\): 2 films of 1 patient"):
        added(name="y", **table(tmp_path / "one", [("g", "8"), ("h", "8")]))
    assert [one.name for one in (out / "external").iterdir()] == ["x"]


@pytest.mark.parametrize("refusal", [BusyError, ValueError])
def test_what_another_process_makes_of_a_test_meanwhile_stays(
    tmp_path: Path,
    added: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    refusal: type[ValueError],
):
    """`lucency run` makes the test that `evaluate` begins with: its folder is not yet there."""
    film = tmp_path / "run" / "external" / "x" / "manifest.partial" / "film"

    with ExitStack() as other:

        def made_meanwhile(run: Run, name: str, **_: object) -> None:
            film.parent.mkdir(parents=True)
            other.enter_context(locked(film.parent))
            film.touch()
            raise refusal("not now")

        monkeypatch.setattr(added_tests, "check_test", made_meanwhile)
        with pytest.raises(refusal, match="not now"):
            added()
    assert film.is_file()


def test_an_unfinished_test_that_the_protocol_does_not_name_is_made_anew(
    tmp_path: Path,
    added: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    out, finished = tmp_path / "run", stages.external_test

    def stopped(run: Run, name: str) -> None:
        stages.prepared(external_run(run, name))
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "external_test", stopped)
    with pytest.raises(KeyboardInterrupt):
        added()
    assert (out / "external" / "x" / "prepared").is_dir()
    assert not read_protocol(out / "protocol.toml").external
    monkeypatch.setattr(stages, "external_test", finished)
    (tmp_path / "exclude.txt").write_text("same\n")
    added(exclude=tmp_path / "exclude.txt")
    assert "holds an unfinished test of other films: it is made anew" in capsys.readouterr().err
    assert len(load_prepared(out / "external" / "x" / "prepared").manifest) == 3


def test_a_removed_test_named_again_with_other_keys_gets_the_line_of_tests(
    tmp_path: Path, added: Callable[..., None]
):
    out = tmp_path / "run"
    before = (out / "protocol.toml").read_bytes()
    (tmp_path / "exclude.txt").write_text("same\n")
    added(exclude=tmp_path / "exclude.txt")
    (out / "protocol.toml").write_bytes(before)
    with pytest.raises(ValueError, match=r"^external\.0 \(x\): exclude: was \w+, now no list: "):
        added()
    with pytest.raises(ValueError, match=r"^external\.0 \(x\): uncertain: was ignore, now zeros"):
        added(exclude=tmp_path / "exclude.txt", uncertain="zeros")
    assert (out / "external" / "x" / "evaluation").is_dir()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"name": ""}, 'external test: name: found "", expected small letters'),
        ({"name": "x", "changes": ["name=y"]}, "--set name=…: expected another key"),
        ({"changes": ["source=nih"]}, "--set source=…: expected another key"),
        ({"root": None}, "--root is needed: the folder of the films of csv"),
        ({"changes": ["root=/nowhere"]}, "--root is '/nowhere', which is no folder"),
        ({"changes": ["exclude=/none.txt"]}, "--set exclude: /none.txt: no such file"),
        ({"labels": Path("none.csv")}, "external test csv: no label file in "),
        (
            {"labels": Path("twice.csv")},
            "external test csv: 2 of 2 films are of the run's patients",
        ),
    ],
)
def test_a_command_s_refusals_name_its_options(
    tmp_path: Path, added: Callable[..., None], how: dict[str, Any], expected: str
):
    other = tmp_path / "other"
    (other / "twice.csv").write_text("image,patient,Mass\nd,1,0\ne,2,1\n")
    about = {"source": "csv", "root": other, "labels": Path("l.csv")}
    chosen = {key: how.pop(key, value) for key, value in about.items()}
    given = {"name": None, "changes": None, "out": None, "json": False, **how}
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        evaluate_commands.test_on_source(tmp_path / "run", chosen, **given)


def test_a_command_lets_through_that_another_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def busy(folder: Path, choice: External) -> None:
        raise BusyError(f"{folder} is being written by another process: wait for it")

    monkeypatch.setattr(added_tests, "add_external_test", busy)
    about = {"source": "phantom", "root": None, "labels": None}
    with pytest.raises(BusyError, match="another process"):
        evaluate_commands.test_on_source(
            tmp_path, about, name=None, changes=None, out=None, json=False
        )


def test_the_same_films_under_another_name_are_named(
    tmp_path: Path, added: Callable[..., None], capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "exclude.txt").write_text("same\n")
    added(exclude=tmp_path / "exclude.txt")
    assert "these are the films" not in capsys.readouterr().err
    added(exclude=tmp_path / "exclude.txt", name="again")
    assert "again: these are the films of test 'x'\n" in capsys.readouterr().err
    added(exclude=tmp_path / "exclude.txt", name="other", uncertain="zeros")
    assert "these are the films" not in capsys.readouterr().err
    tests = read_protocol(tmp_path / "run" / "protocol.toml").external
    assert [one.name for one in tests] == ["x", "again", "other"]

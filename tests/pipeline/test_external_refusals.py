"""External tests of small tables: each is checked before it is made, and none is trained for."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from lucency.audit.checks.run_checks import save_issues
from lucency.config.protocol import Protocol, parse_protocol
from lucency.pipeline import stages
from lucency.pipeline.run import Run, open_run

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

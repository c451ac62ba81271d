"""CheXpert's layout: every film has one file name, in the folders of its patient and study."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lucency.audit.checks.run_checks import check_lists
from lucency.audit.label_audit import audit_versions
from lucency.config.sections import Source
from lucency.core.predictions import save_predictions
from lucency.data.labels import read_labelled
from lucency.data.sources import read_films
from lucency.evaluation.external import read_predictions_table
from lucency.pipeline.film_inference import _films_of
from lucency.pipeline.table_evaluation import evaluate_tables
from toys import toy_films

NAMES = [
    f"train/patient{film // 2:05d}/study{film % 2 + 1}/view1_frontal.jpg" for film in range(16)
]
BELOW = [f"CheXpert-v1.0-small/{name}" for name in NAMES]
WINDOWS = [name.replace("/", "\\") for name in NAMES]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    table = {"image": BELOW, "patient": [film // 2 for film in range(16)]}
    table |= {"Mass": [0, 1] * 8, "Edema": [0, 0, 1, 1] * 4}
    pd.DataFrame(table).to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path / "labels.csv"


def scores(file: Path, names: list[str], *, films: slice = slice(None)) -> Path:
    score = np.random.default_rng(0).random((16, 2))
    table = pd.DataFrame({"image": names, "Mass": score[:, 0], "Edema": score[:, 1]})
    table.iloc[films].iloc[::-1].to_csv(file, index=False)
    return file


def test_tables_that_name_films_each_in_its_way_are_evaluated_and_compared(
    tmp_path: Path, labels: Path
):
    one = scores(tmp_path / "one.csv", [f"films/{name}" for name in NAMES])
    other = scores(tmp_path / "other.csv", WINDOWS)
    how = {"labels": labels, "val": None, "scale": "probability", "out": None}
    alone = [evaluate_tables([file], **how) for file in (one, other)]
    assert alone[0]["macro"]["auc"] == alone[1]["macro"]["auc"]
    found = evaluate_tables([one, other], **how)
    assert found["pairs"]["one - other"]["difference"] == 0


def test_a_run_s_predictions_are_compared_with_a_table_of_other_spelling(
    tmp_path: Path, labels: Path
):
    films = read_labelled(labels)
    table = scores(tmp_path / "one.csv", NAMES)
    own = read_predictions_table(table, films=films, scale="probability", part="test")
    own = replace(
        own, image=np.array(WINDOWS)[films_rows(own.image)], network="own", split="a split"
    )
    save_predictions(own, tmp_path / "predictions.npz")
    how = {"labels": labels, "scale": "probability", "out": tmp_path / "out"}
    found = evaluate_tables([table, tmp_path / "predictions.npz"], val=None, **how)
    assert [pair["difference"] for pair in found["pairs"].values()] == [0]
    how["out"] = tmp_path / "alone"
    assert evaluate_tables([tmp_path / "predictions.npz"], val=None, **how)["macro"]["films"] == 16


def films_rows(image: np.ndarray) -> list[int]:
    return [BELOW.index(name) for name in image.tolist()]


def test_a_name_that_fits_many_films_is_refused_with_two_of_them(tmp_path: Path, labels: Path):
    file = scores(tmp_path / "short.csv", ["view1_frontal.jpg"] * 16, films=slice(1))
    with pytest.raises(ValueError, match=r"'view1_frontal.jpg' fits both CheXpert\S+ and CheXpert"):
        evaluate_tables([file], labels=labels, val=None, scale="probability", out=None)


def test_films_are_found_excluded_and_named_by_what_the_run_has_written(
    tmp_path: Path, labels: Path
):
    for film, name in enumerate(NAMES):
        (tmp_path / name).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / name), np.full((40, 40), film, np.uint8))
    quality = pd.DataFrame({"image": [BELOW[3], BELOW[3]], "problem": ["turned", "blank"]})
    quality.to_csv(tmp_path / "quality.csv", index=False)
    (tmp_path / "list.txt").write_text("\n".join([WINDOWS[3], WINDOWS[4]]))
    for file, films in (("quality.csv", 15), ("list.txt", 14)):
        place = Source(
            source="csv", root=str(tmp_path), labels="labels.csv", exclude=str(tmp_path / file)
        )
        found = read_films(place, findings=("Mass",), out=tmp_path / f"made-{films}")
        assert len(found) == films
        assert BELOW[3] not in found.image
        assert Path(found.facts["path"][0]) == tmp_path / NAMES[0]


def test_the_leak_doctor_joins_lists_to_labels(tmp_path: Path, labels: Path):
    lists = {"train": NAMES[:9], "test": [*WINDOWS[9:], BELOW[0]]}
    for part, names in lists.items():
        (tmp_path / part).write_text("\n".join(names))
    found = check_lists({part: tmp_path / part for part in lists}, labels=labels)
    issues = {issue.check: issue for issue in found}
    assert "unlabelled_rows" not in issues
    assert {"patients_on_two_sides", "pictures_on_two_sides"} <= set(issues)


def test_versions_of_labels_and_films_of_a_run_are_joined(tmp_path: Path, labels: Path):
    newer = pd.read_csv(labels).assign(image=NAMES)
    newer.loc[0, "Mass"] = 1
    newer.iloc[::-1].to_csv(tmp_path / "newer.csv", index=False)
    changed = audit_versions(labels, tmp_path / "newer.csv", table=None, scale="probability")
    assert changed.tables["labels"][["image", "after"]].to_numpy().tolist() == [[BELOW[0], 1.0]]
    films = toy_films(4)
    films.manifest.image[:] = [f"{patient}/v.png" for patient in "abcd"]
    assert _films_of(films, ["runs/x/c/v", r"A\v.png"]).manifest.image.tolist() == [
        "c/v.png", "a/v.png",
    ]  # fmt: skip

"""Predictions: saved and loaded as they are, without pickle; what does not fit is refused."""

import dataclasses
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit

from lucency.core.manifest import PARTS
from lucency.core.predictions import Predictions, load_predictions, no_knots, save_predictions

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)
FINITE = st.floats(-(2.0**100), 2.0**100, width=32)

KNOT = np.array([[1, -2, -3], [1, 0, -1], [1, 4, -1], [1, 5, 1]], dtype=np.float64)


@st.composite
def prediction_fields(draw: st.DrawFn) -> dict[str, Any]:
    films, depth = draw(st.integers(1, 5)), draw(st.integers(0, 3))

    def table(values: st.SearchStrategy, columns: int) -> np.ndarray:
        cells = draw(st.lists(values, min_size=films * columns, max_size=films * columns))
        return np.array(cells, dtype=np.float32).reshape(films, columns)

    image = draw(st.lists(TEXT, min_size=films, max_size=films, unique=True))
    return {
        "network": draw(TEXT),
        "split": draw(TEXT),
        "findings": ("Mass", draw(TEXT.filter(bool))),
        "image": np.array(image, dtype=str),
        "patient": np.array(draw(st.lists(st.integers(0, 2**63 - 1), min_size=films))[:films]),
        "part": np.array(draw(st.lists(st.sampled_from(PARTS), min_size=films))[:films]),
        "label": table(st.sampled_from([0, 1, np.nan]), 2),
        "logit": table(FINITE, 2),
        "feature": table(FINITE, depth),
        "knot": draw(st.sampled_from([no_knots(), KNOT])),
    }


def predictions(**changes: Any) -> Predictions:
    """Return what a network said of three films."""
    fields: dict[str, Any] = {
        "network": "toy",
        "split": "0123",
        "findings": ("Mass", "Edema"),
        "image": np.array(["a", "b", "c"]),
        "patient": np.array([1, 1, 2]),
        "part": np.array(["val", "test", "test"]),
        "label": np.array([[0, 1], [1, np.nan], [0, 0]], dtype=np.float32),
        "logit": np.array([[0, 3], [-2, 1], [90, -90]], dtype=np.float32),
        "feature": np.zeros((3, 0), dtype=np.float32),
    }
    return Predictions(**(fields | changes))


@given(prediction_fields())
@settings(max_examples=40, deadline=None)
def test_predictions_are_loaded_as_they_were_saved(fields: dict[str, Any]):
    saved = Predictions(**fields)
    with tempfile.TemporaryDirectory() as folder:
        save_predictions(saved, Path(folder) / "predictions.npz")
        loaded = load_predictions(Path(folder) / "predictions.npz")
    for field in dataclasses.fields(Predictions):
        was, now = getattr(saved, field.name), getattr(loaded, field.name)
        assert type(was) is type(now)
        np.testing.assert_array_equal(now, was)


def test_python_objects_are_neither_written_nor_read(tmp_path: Path):
    file = tmp_path / "predictions.npz"
    with pytest.raises(ValueError, match="allow_pickle"):
        save_predictions(predictions(image=np.array(["a", "b", "c"], dtype=object)), file)
    fields: dict[str, Any] = {field.name: getattr(predictions(), field.name) for field in FIELDS}
    np.savez(file, allow_pickle=True, **(fields | {"image": np.array([{}, {}, {}])}))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_predictions(file)


def test_probabilities_are_the_inverse_of_logits():
    found = predictions()
    assert found.probability.dtype == np.float64
    np.testing.assert_allclose(logit(found.probability[:2]), found.logit[:2], atol=1e-12)
    assert 0 < found.probability[2, 1] < 1e-38


def test_a_curve_bends_its_finding_alone():
    plain, bent = predictions(), predictions(knot=KNOT)
    assert np.array_equal(bent.calibrated[:, 0], plain.calibrated[:, 0])
    # Logits 3, 1 and -90 of Edema: level between 0 and 4, and below -2.
    assert bent.calibrated[:, 1].tolist() == [-1, -1, -3]
    steep = replace(bent, slope=np.array([1.0, 2.0]), offset=np.array([0.0, 5.0]))
    assert steep.calibrated[:, 1].tolist() == [3, 3, -1]
    assert np.array_equal(bent.uncalibrated().calibrated, plain.calibrated)
    assert bent.of("test").calibrated[:, 1].tolist() == [-1, -3]


def test_predictions_of_before_there_were_curves_are_lines(tmp_path: Path):
    file = tmp_path / "predictions.npz"
    fields = {field.name: getattr(predictions(), field.name) for field in FIELDS}
    fields.pop("knot")
    np.savez(file, **fields)
    assert load_predictions(file).knot.shape == (0, 3)
    fields.pop("slope")
    np.savez(file, **fields)
    with pytest.raises(ValueError, match=r"no array .slope."):
        load_predictions(file)


def test_a_part_is_taken_in_step():
    test = predictions().of("test")
    assert test.image.tolist() == ["b", "c"]
    assert test.patient.tolist() == [1, 2]
    assert test.part.tolist() == ["test", "test"]
    np.testing.assert_array_equal(test.label, [[1, np.nan], [0, 0]])
    np.testing.assert_array_equal(test.logit, [[-2, 1], [90, -90]])
    assert len(predictions().of("train")) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"findings": ("Mass",)}, r"label: found \(3, 2\)"),
        ({"logit": np.zeros((3, 1), dtype=np.float32)}, r"logit: found \(3, 1\)"),
        ({"logit": np.full((3, 2), np.nan, dtype=np.float32)}, "logits must be finite"),
        ({"patient": np.array([1])}, r"patient, part, feature: found \[1, 3, 3\]"),
        ({"part": np.array(["val", "test", "exam"])}, "part: found .*exam"),
        ({"knot": KNOT[:, :2]}, r"finding, logit and curve of knots: found \(4, 2\)"),
        ({"knot": np.where(KNOT == 5, np.nan, KNOT)}, "knots must be finite"),
        ({"knot": KNOT + np.array([1, 0, 0])}, r"findings of knots: found \[2"),
        ({"knot": KNOT - [0.5, 0, 0]}, r"findings of knots: found \[0.5"),
        ({"knot": KNOT[::-1]}, "curves must rise from knot to knot: found"),
        ({"knot": KNOT * [1, 1, -1]}, r"must rise from knot to knot: found \[\[ 1.  0.  1.\]"),
        ({"knot": KNOT * [1, 0, 1]}, "curves must rise"),
        ({"knot": np.concatenate([KNOT, KNOT - [1, 0, 0]])}, "curves must rise"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        predictions(**change)


def test_predictions_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(predictions(), "network", "other")  # noqa: B010
    assert replace(predictions(), network="other").network == "other"


FIELDS = dataclasses.fields(Predictions)


def test_what_is_no_archive_is_one_line(tmp_path: Path):
    file = tmp_path / "predictions.npz"
    file.write_bytes(b"not an archive")
    with pytest.raises(ValueError, match=r"found no .npz archive, expected predictions"):
        load_predictions(file)

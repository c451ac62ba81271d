"""Values: what is saved is what is loaded, what does not fit is refused, nothing is edited."""

import dataclasses
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucency.core.manifest import (
    BOX_COLUMNS,
    READING_COLUMNS,
    SOFT_COLUMNS,
    UNCERTAIN_COLUMNS,
    Manifest,
    Preparation,
    Prepared,
    cells_where,
    load_manifest,
    load_prepared,
    save_manifest,
    save_prepared_tables,
)
from lucency.core.plan import Plan, load_plan, save_plan

NO_UTF8 = "caf\udce9/1.png"  # as Python reads a folder's name
AWKWARD = (
    "",
    "NA",
    "nan",
    "None",
    "null",
    "007",
    "1e3",
    " x ",
    'a,"b"',
    "ä/胸.png",
    "two\nlines",
    "a\rb",
    NO_UTF8,
)
LETTERS = st.characters(exclude_categories=("Cs", "Cc"))
TEXT = st.sampled_from(AWKWARD) | st.text(LETTERS, max_size=8)
NUMBER = st.floats(width=64, allow_infinity=False)
FINDINGS = ("Mass", "Edema")


@st.composite
def manifest_fields(draw: st.DrawFn) -> dict[str, Any]:
    image = draw(st.lists(TEXT, min_size=1, max_size=6, unique=True))
    films = len(image)

    def column(values: st.SearchStrategy) -> list[Any]:
        return draw(st.lists(values, min_size=films, max_size=films))

    label = column(st.tuples(*[st.sampled_from([0, 1, np.nan])] * 2))
    facts = {"age": column(NUMBER), "sex": column(TEXT), "path": column(TEXT)}
    facts |= {"follow_up": column(st.integers(0, 10**9))}
    cell, share = (st.sampled_from(image), st.sampled_from(FINDINGS)), st.floats(0, 1)
    rows = st.tuples(st.sampled_from(image), st.sampled_from(FINDINGS), share, share, share, share)
    boxes = draw(st.lists(rows, max_size=4))
    return {
        "findings": FINDINGS,
        "image": np.array(image, dtype=str),
        "patient": np.array(column(st.integers(0, 2**63 - 1)), dtype=np.int64),
        "label": np.array(label, dtype=np.float32),
        "facts": pd.DataFrame(facts),
        "boxes": pd.DataFrame(boxes, columns=BOX_COLUMNS),
        "origin": draw(TEXT),
        "uncertain": pd.DataFrame(
            draw(st.lists(st.tuples(*cell), max_size=4)), columns=UNCERTAIN_COLUMNS
        ),
        "soft": pd.DataFrame(
            draw(st.lists(st.tuples(*cell, st.floats(0, 1, width=32)), max_size=4)),
            columns=SOFT_COLUMNS,
        ),
        "reading": pd.DataFrame(
            draw(st.lists(st.tuples(TEXT, TEXT, st.integers(0, 10**6)), max_size=4)),
            columns=READING_COLUMNS,
        ),
    }


def assert_same(one: Manifest, other: Manifest) -> None:
    assert (one.findings, one.origin) == (other.findings, other.origin)
    for name in ("image", "patient", "label"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("facts", "boxes", "uncertain", "soft", "reading"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), check_dtype=False)


def films(**changes: Any) -> Manifest:
    """Return three films of two patients, with a box each."""
    image = np.array(["a", "b", "c"])
    boxes = pd.DataFrame({"image": image, "finding": "Mass", "x": 0.1, "y": 0.2, "w": 0.3, "h": 0})
    fields: dict[str, Any] = {
        "findings": FINDINGS,
        "image": image,
        "patient": np.array([1, 1, 2]),
        "label": np.array([[0, 1], [np.nan, 0], [1, 1]], dtype=np.float32),
        "facts": pd.DataFrame({"age": [1.0, 2.0, 3.0]}),
        "boxes": boxes,
        "origin": "invented",
    }
    return Manifest(**(fields | changes))


def plan(**changes: Any) -> Plan:
    """Return an original, its copy, and a film to test on."""
    fields: dict[str, Any] = {
        "row": np.array([0, 0, 1]),
        "copy": np.array([0, 1, 0]),
        "transform": np.array(["", "reference@1#1", ""]),
        "part": np.array(["train", "train", "test"]),
        "label": np.zeros((3, 2), dtype=np.float32),
        "weight": np.ones((3, 2), dtype=np.float32),
        "mate": np.array([0, 0, 1]),
        "mix": np.zeros(3, dtype=np.float32),
    }
    return Plan(**(fields | changes))


@given(manifest_fields())
@settings(max_examples=40, deadline=None)
def test_a_manifest_is_loaded_as_it_was_saved(fields: dict[str, Any]):
    manifest = Manifest(**fields)
    with tempfile.TemporaryDirectory() as folder:
        save_manifest(manifest, Path(folder))
        assert_same(load_manifest(Path(folder)), manifest)


@pytest.mark.parametrize(("label", "of"), [("1e300", r"manifest\.csv"), ("0.5", r"/")])
def test_a_label_that_is_none_is_refused_with_its_file(tmp_path: Path, label: str, of: str):
    save_manifest(films(), tmp_path)
    table = pd.read_csv(tmp_path / "manifest.csv", dtype=str, keep_default_na=False)
    table.loc[0, films().findings[0]] = label
    table.to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(ValueError, match=rf"{of}.* cannot be read \("):
        load_manifest(tmp_path)


@pytest.mark.parametrize("finding", ["patient", "device", "bed"])
def test_a_finding_and_a_fact_of_one_name_are_refused(tmp_path: Path, finding: str):
    facts = pd.DataFrame({"bed": [1.0, 2.0, 3.0]})
    boxes = pd.DataFrame(columns=BOX_COLUMNS)
    manifest = films(findings=("Mass", finding), facts=facts, boxes=boxes)
    with pytest.raises(ValueError, match=f"findings: '{finding}' is also the name of a column"):
        save_manifest(manifest, tmp_path)
    assert not any(tmp_path.iterdir())


def test_chestxray14_is_loaded_as_it_was_saved(nih_films: Manifest, tmp_path: Path):
    films = nih_films.take(np.arange(0, 112_120, 41))
    save_manifest(films, tmp_path)
    assert_same(load_manifest(tmp_path), films)


def test_a_share_of_readers_above_1_names_its_table(tmp_path: Path):
    save_manifest(films(boxes=pd.DataFrame(columns=BOX_COLUMNS)), tmp_path)
    (tmp_path / "soft.csv").write_text("image,finding,share\na,Mass,1.5\n")
    with pytest.raises(ValueError, match=r"soft.csv cannot be read \(shares must be 0 to 1"):
        load_manifest(tmp_path)


def test_a_plan_of_other_films_is_refused(tmp_path: Path):
    save_plan(plan(), np.array(["a", "b"]), tmp_path)
    with pytest.raises(
        ValueError,
        match=r"plan\.csv.*: found one that is not in the manifest",
    ):
        load_plan(tmp_path, np.array(["a", "c"]))


def test_prepared_films_are_loaded_as_they_were_saved(tmp_path: Path):
    preparation = Preparation(size=16, order="resize-first", clahe_clip=2.5, brightness=-5)
    pixels = np.arange(3 * 256, dtype=np.uint8).reshape(3, 16, 16)
    rejected = pd.DataFrame({"image": ["NA"], "reason": ["zero bytes, so nothing"]})
    saved = Prepared(manifest=films(), preparation=preparation, pixels=pixels, rejected=rejected)
    np.save(tmp_path / "pixels.npy", pixels)
    save_prepared_tables(saved, tmp_path)
    loaded = load_prepared(tmp_path)
    assert loaded.preparation == preparation
    assert_same(loaded.manifest, saved.manifest)
    pd.testing.assert_frame_equal(loaded.rejected, rejected)
    np.testing.assert_array_equal(loaded.pixels, pixels)
    assert not loaded.pixels.flags.writeable


def test_take_keeps_everything_in_step():
    taken = films().take(np.array([2, 0]))
    assert taken.image.tolist() == ["c", "a"]
    assert taken.patient.tolist() == [2, 1]
    assert taken.facts["age"].tolist() == [3, 1]
    assert taken.boxes["image"].tolist() == ["a", "c"]
    np.testing.assert_array_equal(taken.label, [[1, 1], [0, 1]])
    assert len(films()) == 3


def test_uncertain_and_soft_cells_follow_their_films():
    image = np.array(["a", "b", "c"])
    chosen = np.array([[0, 0], [1, 0], [0, 1]], dtype=bool)
    share = np.full((3, 2), 0.7, dtype=np.float32)
    about = {"image": image, "findings": FINDINGS}
    manifest = films(
        uncertain=cells_where(chosen, **about), soft=cells_where(chosen, **about, share=share)
    )
    np.testing.assert_array_equal(manifest.is_uncertain, chosen)
    np.testing.assert_array_equal(
        manifest.targets, np.array([[0, 1], [0.7, 0], [1, 0.7]], dtype=np.float32)
    )
    taken = manifest.take(np.array([2, 0]))
    np.testing.assert_array_equal(taken.is_uncertain, chosen[[2, 0]])
    np.testing.assert_array_equal(taken.targets, manifest.targets[[2, 0]])
    assert np.isnan(films().targets[1, 0])


def test_entries_of_a_plan_are_taken_together_and_named():
    trained = plan().take(plan().part == "train")
    assert trained.names(np.array(["a", "b"])).tolist() == ["a", "a#1"]
    assert trained.transform.tolist() == ["", "reference@1#1"]
    assert trained.weight.shape == (2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"findings": ("Mass", "Mass")}, "a finding is named twice"),
        ({"findings": ("Mass",)}, r"label: found \(3, 2\)"),
        ({"image": np.array(["a", "b", "a"])}, "image 'a' is listed 2 times.*each film once"),
        ({"patient": np.array([1, 1])}, r"patient: found \(2,\)"),
        ({"label": np.full((3, 2), 0.5, dtype=np.float32)}, "labels must be 0, 1 or NaN"),
        ({"label": np.zeros((2, 2), dtype=np.float32)}, r"label: found \(2, 2\)"),
        ({"facts": pd.DataFrame({"age": [1.0]})}, "facts' rows: found 1"),
        ({"uncertain": pd.DataFrame({"image": ["a"]})}, "columns of uncertain: found .'image',"),
        (
            {"soft": pd.DataFrame({"image": ["a"], "finding": ["Mass"], "share": [1.5]})},
            "shares must be 0 to 1",
        ),
        ({"boxes": pd.DataFrame({"image": ["a"]})}, r"box columns: found \['image'\]"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    change: dict[str, Any], message: str, unchecked: None
):
    with pytest.raises(ValueError, match=message):
        films(**change)


def test_pixels_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"pixels: found \(3, 8, 8\)"):
        Prepared(
            manifest=films(),
            preparation=Preparation(size=16),
            pixels=np.zeros((3, 8, 8), dtype=np.uint8),
            rejected=pd.DataFrame(),
        )


def test_values_are_frozen():
    for value, name in ((films(), "image"), (plan(), "row")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, np.array([]))
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        setattr(Preparation(), "size", 32)  # noqa: B010 - a type checker would refuse the plain form
    assert replace(films(), origin="changed").origin == "changed"


@pytest.fixture
def unchecked():
    """Switch off the checks of annotations, as outside tests, so that the value's own speak."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)

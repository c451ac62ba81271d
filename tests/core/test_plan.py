"""The plan: misfits are refused, copies numbered, two steps one, films mixed."""

import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucency.core.manifest import Prepared
from lucency.core.plan import (
    RECIPES,
    Plan,
    clones,
    followed_by,
    joined,
    load_plan,
    originals,
    save_plan,
    with_targets,
)
from lucency.models.augmentation import augment, seed_of
from lucency.models.film_loader import Films
from toys import toy_films

NAMES = tuple(field.name for field in fields(Plan))
MANY = settings(max_examples=40, deadline=None)
AWKWARD = ("", "NA", "nan", "None", "null", "007", "1e3", " x ", 'a,"b"', "ä/胸.png", "two\nlines")


def labels(films: int, seed: int = 0) -> np.ndarray:
    """Return labels of two findings, some not stated."""
    drawn = np.random.default_rng(seed).choice([0, 1, np.nan], size=(films, 2), p=[0.5, 0.4, 0.1])
    return drawn.astype(np.float32)


def differing(one: Plan, other: Plan) -> list[str]:
    """Return the fields in which two plans differ."""
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in NAMES}
    same = {
        name: np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for name, (a, b) in pairs.items()
    }
    return [name for name, alike in same.items() if not alike]


@st.composite
def steps(draw: st.DrawFn, films: int, mixes: bool = True) -> Plan:
    """Return what a resampler may make of `films` films: some left out, some copied, some mixed."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    label = labels(films, seed=draw(st.integers(0, 99)))
    kept = originals(label).take(generator.random(films) < 0.8)
    source = generator.integers(0, films, size=draw(st.integers(0, 12)))
    copied = clones(label, source, copies=draw(st.sampled_from(["exact", "gentle", "x@0.5"])))
    mix = np.where(generator.random(len(source)) < 0.5 * mixes, generator.random(len(source)), 0)
    mate = generator.integers(0, films, size=len(source))
    copied = replace(copied, mix=mix.astype(np.float32), mate=np.where(mix > 0, mate, source))
    made = joined(kept, copied)
    return replace(made, weight=generator.random(made.label.shape, dtype=np.float32) * 3)


@st.composite
def two_steps(draw: st.DrawFn, mixes: bool = False) -> tuple[Plan, Plan]:
    """Return two steps, the second made of the entries of the first."""
    first = draw(steps(draw(st.integers(2, 9)), mixes=mixes).filter(len))
    return first, draw(steps(len(first), mixes=not mixes))


# --- what does not fit


@pytest.fixture
def unchecked():
    """Switch off the checks of annotations, as outside tests, so that the value's own speak."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def fitting() -> dict[str, Any]:
    """Return the fields of an original, its copy, and a mix of two films."""
    return {
        "row": np.array([0, 0, 1]),
        "copy": np.array([0, 1, 1]),
        "transform": np.array(["", "gentle@1#1", "none@1#1"]),
        "part": np.array(["train", "train", "train"]),
        "label": np.array([[0, 1], [0, 1], [1, np.nan]], dtype=np.float32),
        "weight": np.ones((3, 2), dtype=np.float32),
        "mate": np.array([0, 0, 2]),
        "mix": np.array([0, 0, 0.25], dtype=np.float32),
    }


def test_the_plan_that_these_tests_spoil_is_good():
    assert len(Plan(**fitting())) == 3
    assert set(fitting()) == set(NAMES)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mate", [0, 0], r"row, copy, .*, mix: found \[3, 3, 3, 3, 3, 3, 2, 3\]"),
        ("weight", np.ones((3, 1)), r"label, weight: found \(3, 1\)"),
        ("weight", [[1, 1], [1, 1], [1, -0.5]], "weights must not be negative"),
        ("weight", [[1, 1], [1, 1], [1, np.nan]], "weights must not be negative"),
        ("part", ["train", "test", "valid"], "part: found .*valid"),
        ("copy", [0, 0, 1], "copy: found transform"),
        ("transform", ["", "", "none@1#1"], "copy: found transform"),
        ("transform", ["gentle@1#1", "gentle@1#1", "none@1#1"], "copy: found transform"),
        ("mix", [0, 0, 1.01], "mix: found a share outside 0 to 1"),
        ("mix", [0, 0, -0.01], "mix: found a share outside 0 to 1"),
        ("mix", [0, 0, np.nan], "mix: found a share outside 0 to 1"),
        ("mix", [0.5, 0, 0.25], "a mixed film must be a copy"),
    ],
)
def test_a_plan_that_does_not_fit_is_one_clear_line(
    field: str, value: Any, message: str, unchecked: None
):
    kind = fitting()[field].dtype.kind
    spoilt = np.array(value, dtype=np.float32 if kind == "f" else None)
    with pytest.raises(ValueError, match=message) as refusal:
        Plan(**(fitting() | {field: spoilt}))
    assert "\n" not in str(refusal.value)


@given(st.lists(st.integers(0, 6), max_size=30), st.sampled_from([*RECIPES, "reference@0.5"]))
@MANY
def test_copies_count_from_one_in_the_order_in_which_their_film_comes(
    source: list[int], copies: str
):
    label = labels(7)
    made = clones(label, np.array(source, dtype=np.int64), copies=copies)
    number = [source[: place + 1].count(film) for place, film in enumerate(source)]
    assert made.copy.tolist() == number
    assert made.row.tolist() == made.mate.tolist() == source
    np.testing.assert_array_equal(made.label, label[source])
    recipe = RECIPES.get(copies, copies)
    assert made.transform.tolist() == [f"{recipe}#{copy}" for copy in number]
    assert not made.mix.any()


# --- one step after another


@given(two_steps(mixes=True))
@MANY
def test_to_follow_with_originals_or_to_follow_originals_changes_nothing(plans: tuple[Plan, Plan]):
    plan, _ = plans
    assert not differing(followed_by(plan, originals(plan.label)), plan)
    everyone = originals(labels(int(max(plan.row.max(), plan.mate.max())) + 1))
    assert not differing(followed_by(everyone, plan), plan)
    another = replace(plan, weight=plan.weight + 1)
    assert differing(followed_by(another, originals(plan.label)), plan) == ["weight"]


@given(two_steps() | two_steps(mixes=True))
@MANY
def test_both_steps_are_one_plan_of_the_first_s_films(plans: tuple[Plan, Plan]):
    first, second = plans
    both, under = followed_by(first, second), first.take(second.row)
    assert both.row.tolist() == [int(first.row[entry]) for entry in second.row]
    np.testing.assert_array_equal(both.weight, under.weight * second.weight)
    np.testing.assert_array_equal(both.label, second.label)
    mixed = second.mix > 0
    np.testing.assert_array_equal(both.mate[mixed], first.row[second.mate[mixed]])
    np.testing.assert_array_equal(both.mix[mixed], second.mix[mixed])
    np.testing.assert_array_equal(both.mate[~mixed], under.mate[~mixed])
    np.testing.assert_array_equal(both.mix[~mixed], under.mix[~mixed])


@given(two_steps() | two_steps(mixes=True))
@MANY
def test_copies_of_both_steps_have_numbers_of_their_own_and_go_through_both(
    plans: tuple[Plan, Plan],
):
    first, second = plans
    both, under = followed_by(first, second), first.take(second.row)
    assert len({*zip(both.row.tolist(), both.copy.tolist(), strict=True)}) == len(both)
    kept = second.copy == 0
    assert both.copy[kept].tolist() == under.copy[kept].tolist()
    assert both.transform[kept].tolist() == under.transform[kept].tolist()
    for entry in np.flatnonzero(~kept):
        *earlier, last = both.transform[entry].split(">")
        assert ">".join(earlier) == under.transform[entry]
        recipe = second.transform[entry].rpartition("#")[0]
        assert last == f"{recipe}#{both.copy[entry]}"
        assert both.copy[entry] > first.copy[first.row == both.row[entry]].max()


def test_two_steps_by_hand():
    first = joined(originals(labels(3)), clones(labels(3), np.array([1, 1]), copies="gentle"))
    second = joined(
        originals(first.label).take(np.array([0, 4])),
        clones(first.label, np.array([4, 0, 1, 4])),
    )
    both = followed_by(first, second)
    assert both.row.tolist() == [0, 1, 1, 0, 1, 1]
    assert both.copy.tolist() == [0, 2, 3, 1, 4, 5]
    assert both.transform.tolist() == [
        "",
        "gentle@1#2",
        "gentle@1#2>none@1#3",
        "none@1#1",
        "none@1#4",
        "gentle@1#2>none@1#5",
    ]


def mixture(label: np.ndarray, *, row: int, mate: int, share: float) -> Plan:
    """Return all films, then a mix of two."""
    mixed = clones(label, np.array([row]))
    mix = np.array([share], dtype=np.float32)
    return joined(originals(label), replace(mixed, mate=np.array([mate]), mix=mix))


@pytest.mark.parametrize(("row", "mate"), [(3, 0), (0, 3), (3, 3)])
def test_a_film_is_mixed_once_only(row: int, mate: int):
    """Entry 3 of the first step is a mix of films 0 and 1, which no second one can describe."""
    first = mixture(labels(3), row=0, mate=1, share=0.25)
    with pytest.raises(ValueError, match="a film mixed already cannot be mixed again") as refusal:
        followed_by(first, mixture(first.label, row=row, mate=mate, share=0.5))
    assert "\n" not in str(refusal.value)
    other = followed_by(first, mixture(first.label, row=2, mate=0, share=0.5))
    assert (other.row[-1], other.mate[-1], other.mix[-1]) == (2, 0, 0.5)
    again = followed_by(first, joined(originals(first.label), clones(first.label, np.array([3]))))
    assert (again.row[-1], again.mate[-1], again.mix[-1], again.copy[-1]) == (0, 1, 0.25, 2)


# --- on disk


@given(two_steps() | two_steps(mixes=True), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_plan_is_loaded_as_it_was_saved(plans: tuple[Plan, Plan], seed: int):
    plan = followed_by(*plans)
    films = int(max(plan.row.max(initial=0), plan.mate.max(initial=0))) + 1
    image = np.random.default_rng(seed).permutation(AWKWARD)[:films]
    order = np.random.default_rng(seed).permutation(films)
    with tempfile.TemporaryDirectory() as folder:
        save_plan(plan, image[order], Path(folder))
        same = load_plan(Path(folder), image[order])
        moved = load_plan(Path(folder), image)
    assert not differing(same, plan)
    assert not differing(replace(plan, row=order[plan.row], mate=order[plan.mate]), moved)
    assert [getattr(same, name).dtype.kind for name in NAMES] == list("iiUUffif")


def test_a_mate_that_is_no_film_of_the_manifest_is_refused(tmp_path: Path):
    save_plan(mixture(labels(3), row=0, mate=2, share=0.5), np.array(["a", "b", "c"]), tmp_path)
    with pytest.raises(
        ValueError,
        match=r"plan\.csv.*: found one that is not in the manifest",
    ):
        load_plan(tmp_path, np.array(["a", "b"]))


def test_a_damaged_plan_is_named(tmp_path: Path):
    save_plan(mixture(labels(3), row=0, mate=2, share=0.5), np.array(["a", "b", "c"]), tmp_path)
    table = pd.read_csv(tmp_path / "plan.csv")
    table.assign(copy=7).to_csv(tmp_path / "plan.csv", index=False)
    with pytest.raises(ValueError, match=r"plan.csv cannot be read \(copy: found"):
        load_plan(tmp_path, np.array(["a", "b", "c"]))
    np.save(tmp_path / "weight.npy", -np.load(tmp_path / "weight.npy"))
    with pytest.raises(ValueError, match=r"weight.npy cannot be read \(weights must not be neg"):
        load_plan(tmp_path, np.array(["a", "b", "c"]))


# --- as pictures


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return toy_films(8)


def shown(prepared: Prepared, plan: Plan) -> np.ndarray:
    """Return the picture of the last entry."""
    return Films(prepared=prepared, plan=plan, copies=5).picture(len(plan) - 1)


@given(st.floats(2**-20, 1, width=32), st.permutations(range(8)))
@MANY
def test_a_mixed_film_is_the_rounded_mean_of_both_by_their_shares(share: float, films: list[int]):
    prepared, (row, mate, *_) = toy_films(8), films
    plan = mixture(prepared.manifest.label, row=row, mate=mate, share=share)
    picture = shown(prepared, plan)
    one, other = (prepared.pixels[film].astype(np.float64) for film in (row, mate))
    exact = (1 - share) * one + share * other
    assert picture.dtype == np.uint8
    assert np.abs(picture - exact).max() <= 0.5 + 1e-4  # on a tie either neighbour is right
    clear = np.abs(exact % 1 - 0.5) > 1e-4
    np.testing.assert_array_equal(picture[clear], np.round(exact)[clear])


def test_no_share_is_the_film_itself_and_all_of_it_the_mate(prepared: Prepared):
    label, pixels = prepared.manifest.label, prepared.pixels
    pictures = {
        share: shown(prepared, mixture(label, row=1, mate=6, share=share)) for share in (0, 1, 0.5)
    }
    np.testing.assert_array_equal(pictures[0], pixels[1])
    np.testing.assert_array_equal(pictures[1], pixels[6])
    assert not np.array_equal(pictures[0.5], pixels[1])
    assert not np.array_equal(pictures[0.5], pixels[6])


def test_films_are_mixed_from_a_cache_that_is_read_only(prepared: Prepared, tmp_path: Path):
    np.save(tmp_path / "pixels.npy", prepared.pixels)
    mapped = replace(prepared, pixels=np.load(tmp_path / "pixels.npy", mmap_mode="r"))
    plan = mixture(prepared.manifest.label, row=1, mate=6, share=0.3)
    np.testing.assert_array_equal(shown(mapped, plan), shown(prepared, plan))


def test_a_copy_of_a_copy_is_its_source_s_picture_changed_once_more(prepared: Prepared):
    label = prepared.manifest.label
    first = joined(originals(label), clones(label, np.array([2]), copies="gentle"))
    again = clones(first.label, np.array([8]), copies="reference@1")
    both = followed_by(first, joined(originals(first.label), again))
    seed = seed_of(5, str(prepared.manifest.image[2]), 2)
    expected = augment(shown(prepared, first), recipe="reference@1", seed=seed)
    np.testing.assert_array_equal(shown(prepared, both), expected)
    assert not np.array_equal(shown(prepared, both), shown(prepared, first))


def test_soft_targets_reach_training_entries_that_have_their_films_labels() -> None:
    """Film 0 is 1 but two of three readers, film 1 not stated but uncertain."""
    films = toy_films(4).manifest
    label = np.array([[1, 0], [np.nan, 0], [0, 0], [1, 1]], np.float32)
    cells = [(0, 2 / 3), (1, 0.7), (3, 1 / 3)]
    soft = pd.DataFrame(
        [(films.image[row], "Left", share) for row, share in cells],
        columns=["image", "finding", "share"],
    )
    films = replace(films, label=label, soft=soft)
    entries = joined(originals(label), clones(label, np.array([0, 1, 3, 3])))
    entries.label[6, 0] = 0  # changed by a resampler
    mixed = np.zeros(8, np.float32)
    mixed[7] = 0.25
    part = np.where(np.arange(8) == 3, "test", "train")
    plan = replace(entries, mix=mixed, part=part)
    made = with_targets(plan, films)
    expected = [2 / 3, 0.7, 0, 1, 2 / 3, 0.7, 0, 1]
    np.testing.assert_allclose(made.label[:, 0], expected, rtol=1e-6)
    assert differing(made, plan) == ["label"]
    np.testing.assert_array_equal(made.label[:, 1], plan.label[:, 1])

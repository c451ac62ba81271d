"""Resamplers, against the published study's numbers on the real label table."""

import functools
import hashlib
import inspect
from collections.abc import Callable
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest

from lucency.balance.imbalance import Step, followed, measure
from lucency.balance.methods import RESAMPLERS, plan_parts, resample_steps
from lucency.config.sections import BALANCE_KEYS, Balance, Cap, Copy
from lucency.core.manifest import FINDINGS, NO_FINDING, Manifest
from lucency.core.plan import Plan

ALL = (*FINDINGS, NO_FINDING)
# "Research on Chest X-Rays" (2025), its notebooks: finding, films (0: all), copies, sharpening
COPIED = (
    ("Hernia", 0, 26, 1.0),
    ("Pneumonia", 0, 5, 1.0),
    ("Fibrosis", 0, 2, 1.0),
    ("Edema", 0, 1, 1.0),
    ("Emphysema", 0, 1, 1.0),
    ("Cardiomegaly", 1300, 2, 0.5),
    ("Pleural_Thickening", 1000, 2, 0.4),
    ("Consolidation", 500, 2, 0.3),
)
PUBLISHED_SOURCES = {"Hernia": 182, "Pneumonia": 853, "Fibrosis": 1506, "Edema": 2191}
CAPPED = ("No Finding", "Infiltration", "Effusion", "Atelectasis")
CAPPED_AFTER = ("Atelectasis", "Effusion")


SMALL = {
    **{name: Balance(method=name) for name in BALANCE_KEYS},
    "remedial, then ml-ros": Balance(method="remedial", then="ml-ros"),
    "lp-rus, then mlsmote": Balance(method="lp-rus", then="mlsmote"),
    "ml-ros, then partial": Balance(method="ml-ros", then="partial"),
    "cap-and-copy": Balance(
        method="cap-and-copy",
        cap=(Cap(finding=ALL[0], films=60),),
        copy_plan=(Copy(finding="Hernia", copies=3), Copy(finding="Fibrosis", copies=2)),
    ),
}


DIGESTS = {
    "none": "2b514daf3897681f",
    "cap-and-copy": "d4f79f0aa98f9b25",
    "partial": "6f318e541da2c281",
    "positive-weights": "0a4c11a348c343c3",
    "weighted-sampler": "d20208172c04e358",
    "class-aware": "2053db160ef0a227",
    "lp-rus": "56911dfcdc59618e",
    "lp-ros": "2b514daf3897681f",
    "ml-rus": "426df35e52e98052",
    "ml-ros": "9bd737b8b9140cc5",
    "remedial": "d67488fad1f83499",
    "remedial, then ml-ros": "a873eceb204369ce",
    "ml-ros, then partial": "9bd737b8b9140cc5",
}


def study(caps: int = 4, copies: int = 8, after: int = 2, seed: int = 0) -> Balance:
    """Return the study's plan, so many steps of each kind."""
    return Balance(
        method="cap-and-copy",
        cap=tuple(Cap(finding=name, films=5000) for name in CAPPED[:caps]),
        copy_plan=tuple(
            Copy(finding=name, films=films, copies=times, sharpen=sharpen)
            for name, films, times, sharpen in COPIED[:copies]
        ),
        cap_after=tuple(Cap(finding=name, films=5000) for name in CAPPED_AFTER[:after]),
        seed=seed,
    )


@pytest.fixture(scope="module")
def label(nih_films: Manifest) -> np.ndarray:
    return nih_films.label


@pytest.fixture(scope="module")
def steps_of(label: np.ndarray) -> Callable[[int], list[Step]]:
    """Return the study's fourteen steps by seed, each seed's made once."""

    @functools.cache
    def steps(seed: int) -> list[Step]:
        none = np.empty((len(label), 0), dtype=np.float32)
        return [*resample_steps(label, findings=ALL, choices=study(seed=seed), feature=none)]

    return steps


def mean_ir(label: np.ndarray) -> float:
    return float(measure(label, names=ALL).summary.to_dict()["mean_ir"])


def resampled(label: np.ndarray, choices: Balance, findings: tuple[str, ...] = ALL) -> Plan:
    about = {"findings": findings, "choices": choices, "feature": features(len(label))}
    return followed(label, resample_steps(label, **about), findings=findings).plan


def features(films: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(films, 6)).astype(np.float32)


def invented(films: int = 300, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((films, len(ALL))) < np.linspace(0.4, 0.05, len(ALL))).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_forced_totals_of_undersampling(
    label: np.ndarray, steps_of: Callable[[int], list[Step]], seed: int
):
    first, second, third, fourth = (label[step.plan.row] for step in steps_of(seed)[:4])
    assert (len(first), len(second)) == (56_759, 41_865)
    assert third[:, ALL.index("Effusion")].sum() == 5000
    assert len(third) == pytest.approx(36_569, abs=150)
    assert len(fourth) == pytest.approx(33_638, abs=250)
    assert fourth[:, ALL.index("Hernia")].sum() == pytest.approx(182, abs=20)
    assert fourth[:, ALL.index("Pneumonia")].sum() == pytest.approx(827, abs=60)


def test_the_table_of_steps_of_the_whole_study(
    label: np.ndarray, steps_of: Callable[[int], list[Step]]
):
    """Its totals are those of plans that end earlier; the published ones are near."""
    plan, table = followed(label, steps_of(0), findings=ALL)
    assert table["step"].tolist() == list(range(15))
    assert table["total"].tolist()[:3] == [112_120, 56_759, 41_865]
    published = [36_569, 33_638, 38_370, 42_635, 45_647, 47_838, 50_053, 52_653, 54_653, 55_653]
    np.testing.assert_allclose(table["total"][3:13], published, rtol=0.01)
    partly = [study(4, 0, 0), study(4, 3, 0)]
    expected = [len(resampled(label, choices)) for choices in partly]
    assert table["total"].iloc[[4, 7]].tolist() == expected
    assert len(plan) == table["total"].iloc[14]
    named = [*CAPPED, *(name for name, *_ in COPIED), *CAPPED_AFTER]
    assert table["finding"].tolist() == ["", *named]
    assert table["action"].tolist() == ["before", *["cap"] * 4, *["copy"] * 8, *["cap"] * 2]
    assert table["before"].tolist()[1:3] == [60_361, 19_894]
    assert (table["after"][[1, 2, 3, 4, 13, 14]] == 5000).all()
    copied = table.iloc[5:13]
    for row, (_, films, copies, _) in zip(copied.to_dict("records"), COPIED, strict=True):
        assert row["added"] == (films or row["before"]) * copies
        assert row["after"] == row["before"] + row["added"]
    change = table["added"] - table["dropped"]
    assert table["total"].diff()[1:].tolist() == change[1:].tolist()


@pytest.mark.parametrize("name", SMALL)
def test_steps_end_with_the_plan_and_plans_are_what_they_were(name: str):
    """The digests were taken before plans were made in steps; a seed keeps its plan.

    Methods that compare features have none: the last digits of these depend on the machine.
    """
    label = invented()
    given = {"findings": ALL, "choices": SMALL[name], "feature": features(len(label))}
    plan, table = followed(label, resample_steps(label, **given), findings=ALL)
    assert digest(plan) == DIGESTS.get(name, digest(plan))
    assert table["total"].iloc[[0, -1]].tolist() == [len(label), len(plan)]
    dropped = len(label) - int((plan.copy == 0).sum())
    if not SMALL[name].cap_after:
        assert table["dropped"].sum() >= dropped
        assert table["added"].sum() - table["dropped"].sum() == len(plan) - len(label)


def test_the_plan_of_the_study_is_what_it_was(steps_of: Callable[[int], list[Step]]):
    assert digest(steps_of(0)[-1].plan) == "36878ed954e09a2e"


def test_a_sampler_that_drops_and_copies_says_both():
    label = invented()
    steps = resample_steps(
        label, findings=ALL, choices=SMALL["weighted-sampler"], feature=features(len(label))
    )
    plan, table = followed(label, steps, findings=ALL)
    assert table["total"].tolist() == [300, 300]
    gone = 300 - len(np.unique(plan.row))
    assert table.iloc[1][["added", "dropped"]].tolist() == [gone, gone]
    assert gone > 50


def digest(plan: Plan) -> str:
    """Return sixteen digits that no other plan has."""
    found = hashlib.sha256()
    for name in ("row", "copy", "mate"):
        found.update(getattr(plan, name).astype("<i8").tobytes())
    found.update("\n".join(plan.transform.tolist()).encode())
    for array in (plan.label, plan.weight, plan.mix):
        found.update(array.tobytes())
    return found.hexdigest()[:16]


def test_every_step_of_copying(label: np.ndarray, steps_of: Callable[[int], list[Step]]):
    """Each class adds its number of copies of every film that carries it, earlier copies too."""
    plans = [step.plan for step in steps_of(0)[3:12]]
    for (before, after), (name, films, copies, _) in zip(pairwise(plans), COPIED, strict=True):
        carried = int(label[before.row, ALL.index(name)].sum())
        assert len(after) - len(before) == (films or carried) * copies
        if name in PUBLISHED_SOURCES:
            assert carried == pytest.approx(PUBLISHED_SOURCES[name], rel=0.08)
        added = after.take(np.arange(len(before), len(after)))
        assert (label[added.row, ALL.index(name)] == 1).all()
        assert (added.copy > 0).all()


def test_the_imbalance_that_the_study_ends_with(
    label: np.ndarray, steps_of: Callable[[int], list[Step]]
):
    """The study drew once, unseeded; six draws of ours stand around its numbers."""
    assert mean_ir(label) == pytest.approx(32.78, abs=0.005)
    plans = [steps_of(seed)[-1].plan for seed in range(6)]
    after = [mean_ir(label[plan.row]) for plan in plans]
    assert 1.19 <= sum(after) / len(after) <= 1.23
    assert min(after) <= 1.21 <= max(after)
    assert np.mean([len(plan) for plan in plans]) == pytest.approx(51_382, rel=0.01)
    copied = [steps_of(seed)[11].plan.copy for seed in range(6)]
    assert np.mean([(copy > 0).sum() for copy in copied]) == pytest.approx(22_015, rel=0.02)


def test_every_copy_has_a_number_a_source_and_its_source_s_changes(
    steps_of: Callable[[int], list[Step]],
):
    plan = steps_of(0)[11].plan  # nothing is dropped after copying yet: parents remain
    assert len({*zip(plan.row.tolist(), plan.copy.tolist(), strict=True)}) == len(plan)
    transforms = dict(zip(zip(plan.row, plan.copy, strict=True), plan.transform, strict=True))
    chained = 0
    for (row, copy), transform in transforms.items():
        if not copy:
            assert transform == ""
            continue
        *parent, own = transform.split(">")
        name, number = own.split("#")
        assert number == str(copy)
        assert name in {f"reference@{sharpen:g}" for *_, sharpen in COPIED}
        source = int(parent[-1].split("#")[1]) if parent else 0
        assert transforms[row, source] == ">".join(parent)
        chained += bool(parent)
    assert chained > 1000


def test_the_seed_decides():
    choices = [SMALL["cap-and-copy"].model_copy(update={"seed": seed}) for seed in (3, 3, 4)]
    one, same, other = (resampled(invented(), one) for one in choices)
    for name in Plan.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert one.row.tolist() != other.row.tolist()


def test_every_method_of_a_protocol_has_a_resampler():
    assert set(RESAMPLERS) == set(get_args(Balance.model_fields["method"].annotation))
    assert set(RESAMPLERS) == set(BALANCE_KEYS)
    assert set(RESAMPLERS) <= set(SMALL)


@pytest.mark.parametrize("method", RESAMPLERS)
def test_a_method_asks_for_the_keys_that_a_protocol_allows_it(method: str):
    own = set(inspect.signature(RESAMPLERS[method]).parameters) - {"label", "findings", "seed"}
    own = {"features" if name == "feature" else name for name in own}
    elsewhere = {"before_split", "copies_at"}  # read by stages before and after
    assert own == set(BALANCE_KEYS[method]) - elsewhere


@pytest.mark.parametrize("name", SMALL)
def test_only_training_rows_are_resampled(name: str, monkeypatch: pytest.MonkeyPatch):
    label, method = invented(), SMALL[name].method
    part = np.random.default_rng(1).choice(["train", "val", "test"], len(label), p=[0.6, 0.2, 0.2])
    label[part != "train"] = np.nan
    monkeypatch.setitem(RESAMPLERS, method, refusing_nan(RESAMPLERS[method]))
    given = {"findings": ALL, "choices": SMALL[name]}
    train = int((part == "train").sum())
    plan, steps = plan_parts(label, part=part, feature=features(train), **given)
    assert steps["total"].iloc[[0, -1]].tolist() == [train, int((plan.part == "train").sum())]
    assert (plan.part == part[plan.row]).all()
    held_out = plan.take(plan.part != "train")
    assert sorted(held_out.row) == np.flatnonzero(part != "train").tolist()
    assert (held_out.copy == 0).all()
    assert (held_out.weight == 1).all()
    assert (held_out.mix == 0).all()
    np.testing.assert_array_equal(held_out.label, label[held_out.row])
    assert (plan.part[plan.mate == plan.row] == part[plan.row[plan.mate == plan.row]]).all()
    assert (part[plan.mate[plan.part == "train"]] == "train").all()
    everyone = np.full(len(label), "train")
    with pytest.raises(AssertionError, match="held-out"):
        plan_parts(label, part=everyone, feature=features(len(label)), **given)


@pytest.mark.parametrize("name", SMALL)
def test_what_every_resampler_holds(name: str):
    label = invented()
    shown, choices = label.copy(), SMALL[name]
    plan, again = resampled(label, choices), resampled(label, choices)
    np.testing.assert_array_equal(label, shown)
    for field in Plan.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(plan, field), getattr(again, field))
    assert plan.weight.shape == (len(plan), len(ALL))
    assert ((plan.row >= 0) & (plan.row < len(label))).all()
    assert len({*zip(plan.row, plan.copy, strict=True)}) == len(plan)
    assert set(plan.row[plan.copy > 0]) <= set(plan.row[plan.copy == 0])
    if name not in ("lp-rus", "mltl", "mlul", "weighted-sampler", "class-aware"):  # may drop them
        rare = ALL.index("Hernia")
        assert plan.label[:, rare].sum() >= label[:, rare].sum()


def test_no_finding_is_where_nothing_is_found_even_when_it_is_no_output():
    label = invented()[:, : len(FINDINGS)]
    choices = Balance(method="cap-and-copy", cap=(Cap(finding=NO_FINDING, films=0),))
    plan = resampled(label, choices, FINDINGS)
    assert plan.row.tolist() == np.flatnonzero(label.any(axis=1)).tolist()


def test_a_cap_above_what_is_there_drops_nothing_and_zero_drops_all():
    label = invented()
    for films, kept in ((10_000, len(label)), (0, int((label[:, 0] == 0).sum()))):
        cap = (Cap(finding=ALL[0], films=films),)
        assert len(resampled(label, Balance(method="cap-and-copy", cap=cap))) == kept


def test_impossible_plans_are_refused():
    few = (Copy(finding="Hernia", films=5000, copies=1),)
    with pytest.raises(ValueError, match=r"wants 5000 films of Hernia, but only .* are there"):
        resampled(invented(), Balance(method="cap-and-copy", copy_plan=few))
    unknown = (Cap(finding="Hernai", films=1),)
    with pytest.raises(ValueError, match="balance names 'Hernai'; expected one of"):
        resampled(invented(), Balance(method="cap-and-copy", cap=unknown))


def refusing_nan(resampler: Callable[..., Plan]) -> Callable[..., Plan]:
    """Return a resampler that fails when it is shown a film of NaN, here the held-out ones."""

    @functools.wraps(resampler)
    def spy(label: np.ndarray, **choices: object) -> Plan:
        assert not np.isnan(label).any(), "a held-out film was shown"
        return resampler(label, **choices)

    return spy

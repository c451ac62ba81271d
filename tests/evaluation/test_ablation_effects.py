"""Effects of variants: scikit-learn's values, paired differences, a cautious conclusion."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm, t
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    roc_auc_score,
)

from lucency.config.protocol import BASE
from lucency.core.predictions import Predictions
from lucency.evaluation.ablation_effects import (
    COLUMNS,
    RAW,
    ablate,
    conclude_ablation,
    mean_over_seeds,
)
from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.significance import LEVEL, holm

FINDINGS = ("Mass", "Edema")
METRICS = {
    "auc", "average_precision", "f1", "brier", "ece", f"brier{RAW}", f"ece{RAW}",
}  # fmt: skip
VAL, TEST = 150, 350
SLOPE, OFFSET = np.array([0.7, 1.6]), np.array([-0.9, 0.3])


def predictions(*, seed: int = 0, skill: float = 1.5, network: str = "net") -> Predictions:
    """Return what a network trained at `seed` says of the same films, recalibrated."""
    films, noise = np.random.default_rng(99), np.random.default_rng([seed, 7])
    label = (films.random((VAL + TEST, 2)) < 0.3).astype(np.float32)
    hard = films.normal(size=label.shape)
    logit = skill * label - 1 + 0.8 * hard + 0.5 * noise.normal(size=label.shape)
    label[films.random(len(label)) < 0.1, 1] = np.nan
    return Predictions(
        network=network,
        split="0123",
        findings=FINDINGS,
        image=np.array([f"{film:03d}.png" for film in range(VAL + TEST)]),
        patient=films.integers(0, 90, size=VAL + TEST),
        part=np.repeat(["val", "test"], [VAL, TEST]),
        label=label,
        logit=logit.astype(np.float32),
        feature=np.empty((VAL + TEST, 0), dtype=np.float32),
        slope=SLOPE,
        offset=OFFSET,
    )


def several(*seeds: int, skill: float = 1.5, network: str = "net") -> list[Predictions]:
    return [predictions(seed=seed, skill=skill, network=network) for seed in seeds]


def evaluated(resamples: int = 40, seed: int = 0, **networks: list[Predictions]) -> pd.DataFrame:
    """Return the table of the variants named, each with one network."""
    trained = {name: {"net": runs} for name, runs in networks.items()}
    return ablate(trained, threshold="f1", resamples=resamples, seed=seed)


def rows(table: pd.DataFrame, **keys: str) -> pd.DataFrame:
    """Return the rows of such a variant, finding or metric."""
    for key, value in keys.items():
        table = table.loc[table[key] == value]
    return table.reset_index(drop=True)


def apart(table: pd.DataFrame) -> np.ndarray:
    return table[["difference", "difference_low", "difference_high"]].to_numpy()


# --- values


def stated(one: Predictions, finding: int, part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return label, probability and raw probability of the films of a part that state a finding."""
    mine = (one.part == part) & ~np.isnan(one.label[:, finding])
    logit = one.logit[mine, finding].astype(np.float64)
    return one.label[mine, finding], expit(SLOPE[finding] * logit + OFFSET[finding]), expit(logit)


def best_by_force(label: np.ndarray, probability: np.ndarray) -> float:
    """Return the threshold halfway below the probability that gives the highest F1."""
    level = np.unique(probability)[::-1]
    called = probability >= level[:, None]
    f1 = 2 * (called & (label == 1)).sum(axis=1) / (called.sum(axis=1) + label.sum())
    best = int(np.argmax(f1))
    return (level[best] + np.append(level, 0)[best + 1]) / 2


def by_sklearn(one: Predictions, metric: str, finding: int) -> float:
    label, probability, raw = stated(one, finding, "test")
    if metric == "f1":
        threshold = best_by_force(*stated(one, finding, "val")[:2])
        return f1_score(label, probability >= threshold)
    return {
        "auc": lambda: roc_auc_score(label, probability),
        "average_precision": lambda: average_precision_score(label, probability),
        "brier": lambda: brier_score_loss(label, probability),
        f"brier{RAW}": lambda: brier_score_loss(label, raw),
    }[metric]()


@pytest.fixture(scope="module")
def of_three_seeds() -> pd.DataFrame:
    return evaluated(base=several(0, 1, 2), other=several(3, 4, 5))


@pytest.mark.parametrize("metric", sorted(METRICS - {"ece", f"ece{RAW}"}))
def test_a_value_is_the_mean_over_seeds_of_scikit_learn_s(
    metric: str, of_three_seeds: pd.DataFrame
):
    runs, table = several(0, 1, 2), of_three_seeds
    found = rows(table, variant=BASE, metric=metric).set_index("finding")["value"]
    each = [[by_sklearn(one, metric, finding) for one in runs] for finding in range(2)]
    assert np.ptp(each, axis=1).min() > 0  # seeds differ, or a mean would mean nothing
    for finding, name in enumerate(FINDINGS):
        assert found[name] == pytest.approx(np.mean(each[finding]), abs=1e-9)
    assert found[MACRO] == pytest.approx(np.mean(each), abs=1e-9)


@pytest.mark.parametrize("recall", [0.3, 0.8])
def test_the_rule_recall_decides_at_the_recall_asked_for(recall: float):
    runs = {BASE: {"net": several(0)}}
    table = ablate(runs, threshold="recall", recall=recall, resamples=20, seed=0)
    label, probability, _ = stated(predictions(), 0, "val")
    positives = np.sort(probability[label == 1])[::-1]
    least = positives[int(np.ceil(recall * (len(positives) + 1) - 1e-6)) - 1]
    label, probability, _ = stated(predictions(), 0, "test")
    # A test film may stand between the two validation films that the threshold parts.
    found = rows(table, finding=FINDINGS[0], metric="f1")["value"][0]
    assert found == pytest.approx(f1_score(label, probability >= least - 1e-12), abs=0.02)


def test_a_difference_is_that_of_the_values_of_variant_and_base():
    table = evaluated(base=several(0, 1), other=several(2, 3, skill=1.0))
    base, other = (rows(table, variant=name) for name in (BASE, "other"))
    np.testing.assert_allclose(other["difference"], other["value"] - base["value"], atol=1e-12)
    assert (other["difference"].abs() > 0).all()
    assert not apart(base).any()


def test_every_network_variant_finding_and_metric_has_a_row():
    trained = {
        name: {net: several(0, 1, network=net) for net in ("one", "two")} for name in (BASE, "v")
    }
    table = ablate(trained, threshold="youden", resamples=20, seed=0)
    assert tuple(table.columns) == COLUMNS
    keys = table[["network", "variant", "finding", "metric"]].drop_duplicates()
    assert len(keys) == len(table) == 2 * 2 * 3 * len(METRICS)
    assert set(table["metric"]) == METRICS
    assert set(table["seeds"]) == {2}


def test_recalibration_leaves_raw_metrics_and_the_order_of_films_alone():
    plain = [one.uncalibrated() for one in several(0, 1)]
    tables = evaluated(base=several(0, 1)), evaluated(base=plain)
    for metric in ("auc", "average_precision", f"brier{RAW}", f"ece{RAW}"):
        pd.testing.assert_frame_equal(*(rows(table, metric=metric) for table in tables))
    for metric in ("brier", "ece"):
        given, none = (rows(table, metric=metric)["value"] for table in tables)
        assert (given - none).abs().min() > 1e-3
        raw = rows(tables[1], metric=metric + RAW)["value"]
        np.testing.assert_allclose(none, raw, atol=1e-12)


# --- differences and the conclusion


def test_variants_that_are_the_base_differ_by_nothing_at_all():
    same = evaluated(base=several(0, 1), one=several(0, 1), two=several(0, 1))
    assert (apart(same) == 0).all()
    for name in ("one", "two"):
        values = ["value", "low", "high"]
        pd.testing.assert_frame_equal(
            rows(same, variant=name)[values], rows(same, variant=BASE)[values]
        )
    assert (same.loc[same["variant"] != BASE, "p"] == 1).all()
    assert same.loc[same["variant"] == BASE, ["p", "p_holm"]].isna().all(axis=None)
    assert conclude_ablation(same) == (
        "Macro AUC of net: not significantly different with 2 of 2 variants (level .05, "
        "Holm-corrected over 2 variants; 2 seeds)."
    )
    turned = evaluated(base=several(0, 1), one=several(1, 0))
    assert apart(rows(turned, variant="one", metric="auc"))[:, 1:].all()  # seeds are paired


def better(one: Predictions) -> Predictions:
    """Return predictions with every positive film raised: better, film by film."""
    return replace(one, logit=one.logit + np.float32(0.8) * (one.label == 1))


def test_what_is_better_or_worse_by_construction_is_called_so():
    base = several(0, 1, 2)
    worse = [replace(one, logit=-one.logit) for one in base]
    table = evaluated(base=base, good=[better(one) for one in base], bad=worse, same=base)
    difference = rows(table, finding=MACRO, metric="auc").set_index("variant")["difference"]
    assert conclude_ablation(table) == (
        f"Macro AUC of net: significantly higher with good ({difference['good']:+.3f}); "
        f"significantly lower with bad ({difference['bad']:+.3f}); not significantly different "
        "with 1 of 3 variants (level .05, Holm-corrected over 3 variants; 3 seeds)."
    )
    assert difference["good"] > 0 > difference["bad"]
    lower = rows(table, variant="good", metric="brier", finding=MACRO)
    assert (lower["difference_high"] < 0).all()


FEWER = {"Mass": 0.5, "Hernia": np.nan}


@pytest.mark.parametrize(
    ("difference", "p", "effect"),
    [
        (0.01, 0.04, "significantly higher with v (+0.010)"),
        (0.01, 0.05, "not significantly different with 1 of 1 variants"),
        (-0.01, 0.06, "not significantly different with 1 of 1 variants"),
        (-0.01, 0.04, "significantly lower with v (-0.010)"),
        (np.nan, np.nan, "not computable with 1 of 1 variants"),
    ],
)
def test_only_a_corrected_p_below_the_level_is_a_change(difference: float, p: float, effect: str):
    keys = {"network": "net", "finding": MACRO, "metric": "auc", "seeds": 2, "value": 0.5}
    rows = [
        {**keys, "variant": BASE, "difference": 0.0, "p": np.nan, "p_holm": np.nan},
        {**keys, "variant": "v", "difference": difference, "p": p / 2, "p_holm": p},
    ]
    expected = f"Macro AUC of net: {effect} (level .05; 2 seeds)."
    assert conclude_ablation(pd.DataFrame(rows)) == expected
    base = [{**rows[0], "finding": name, "value": value} for name, value in FEWER.items()]
    assert conclude_ablation(pd.DataFrame([*base, *rows])) == expected.replace(
        " of net", " of net (mean over 1 of 2 findings, without Hernia)"
    )


def test_p_is_corrected_over_variants_and_that_of_findings_over_findings_too(
    of_three_variants: pd.DataFrame,
):
    for metric in METRICS:
        mine = rows(of_three_variants, metric=metric)
        for kept in (mine["finding"] == MACRO, mine["finding"] != MACRO):
            some = mine.loc[kept]
            np.testing.assert_array_equal(some["p_holm"], holm(some["p"].to_numpy()))
    macro = rows(of_three_variants, metric="auc", finding=MACRO).dropna(subset="p")
    assert len(macro) == 3
    assert (macro["p_holm"] >= macro["p"]).all()
    assert macro["p_holm"].max() > macro["p"].max()


def test_an_interval_excludes_0_where_p_is_below_the_level(of_three_variants: pd.DataFrame):
    table = of_three_variants.dropna(subset="p")
    excluded = (table["difference_low"] > 0) | (table["difference_high"] < 0)
    assert 0 < excluded.sum() < len(table)
    pd.testing.assert_series_equal(excluded, table["p"] < LEVEL, check_names=False)


@pytest.fixture(scope="module")
def of_three_variants() -> pd.DataFrame:
    base = several(0, 1, 2)
    good = [better(one) for one in several(3, 4, 5)]
    return evaluated(base=base, good=good, one=several(6, 7, 8), two=several(9, 10, 11))


def test_one_seed_gives_no_interval_no_p_and_no_verdict():
    table = evaluated(base=several(0), good=[better(one) for one in several(0)])
    ends = ["low", "high", "difference_low", "difference_high", "p", "p_holm"]
    assert table[ends].isna().all(axis=None)
    assert table[["value", "difference"]].notna().all(axis=None)
    assert conclude_ablation(table) == (
        "Macro AUC of net: no interval and no p value for a difference from the base; one seed "
        "does not show the noise of training, 2 or more are needed."
    )


def test_every_network_gets_its_sentence():
    base = {net: several(0, 1, 2, network=net) for net in ("one", "two")}
    good = {"one": [better(one) for one in base["one"]], "two": base["two"]}
    table = ablate({BASE: base, "v": good}, threshold="f1", resamples=50, seed=0)
    first, second = conclude_ablation(table).split(". ")
    assert first.startswith("Macro AUC of one: significantly higher with v (+")
    assert second == (
        "Macro AUC of two: not significantly different with 1 of 1 variants (level .05; 3 seeds)."
    )


def test_a_difference_without_a_number_is_no_effect():
    """No test film has either finding, so that there is no AUC to compare."""
    none = [replace(one, label=np.zeros_like(one.label)) for one in several(0, 1)]
    table = evaluated(base=none, other=[better(one) for one in none])
    assert rows(table, metric="auc")["value"].isna().all()
    assert "Macro AUC of net: not computable with 1 of 1 variants" in conclude_ablation(table)


# --- intervals


def width(table: pd.DataFrame, *, metric: str = "auc") -> float:
    found = rows(table, variant=BASE, finding=MACRO, metric=metric)
    return float((found["high"] - found["low"]).iloc[0])


def test_the_same_seed_thrice_adds_no_noise_and_seeds_apart_do():
    twice, thrice = evaluated(base=several(0, 0)), evaluated(base=several(0, 0, 0))
    numbers = ["value", "low", "high"]
    np.testing.assert_allclose(thrice[numbers], twice[numbers], atol=1e-9)
    far = evaluated(base=[*several(0, skill=0.2), *several(1, skill=3.0)])
    assert width(far) > 1.5 * width(twice)
    within = far[["low", "high"]].to_numpy()
    assert within.min() == 0  # no metric is below
    assert within.max() <= 1


def seeds_of(*, shared: float, own: float, training: float) -> tuple[np.ndarray, np.ndarray]:
    """Return 3 seeds' scores on all films and in 200 resamples, of 300 data sets, the truth 0.

    `shared` is the standard error of what films do to all seeds, `own` of what they do to each by
    itself, `training` the standard deviation of seeds.
    """
    generator = np.random.default_rng(5)
    score = generator.normal(size=300) * shared + generator.normal(size=(3, 300)) * own
    score += generator.normal(size=(3, 300)) * training
    alike = generator.normal(size=(300, 200)) * shared
    return score, score[:, :, None] + alike + generator.normal(size=(3, 300, 200)) * own


@pytest.mark.parametrize(
    ("noise", "least", "most"),
    [
        ({"shared": 1.0, "own": 0.0, "training": 0.0}, 268, 298),
        ({"shared": 0.0, "own": 0.0, "training": 1.0}, 268, 298),
        ({"shared": 0.0, "own": 1.0, "training": 0.0}, 268, 299),
        ({"shared": 0.5, "own": 0.5, "training": 0.5}, 268, 300),
    ],
)
def test_intervals_hold_the_truth_whatever_the_noise(
    noise: dict[str, float], least: int, most: int
):
    """Resampling seeds covered .73 where training alone has noise."""
    found = mean_over_seeds(*seeds_of(**noise))
    held = int(((found.low <= 0) & (found.high >= 0)).sum())
    assert least <= held <= most  # 285 are nominal; the bounds are four standard errors away


def test_with_one_kind_of_noise_p_is_that_of_the_textbook():
    score = np.array([[0.3], [0.5], [0.1]])
    training = mean_over_seeds(score, np.repeat(score[:, :, None], 9, axis=2))
    wanted = 2 * t.sf(score.mean() / (score.std(ddof=1) / np.sqrt(3)), 2)
    assert training.p[0] == pytest.approx(wanted, rel=1e-6)
    assert training.high[0] - 0.3 == pytest.approx(
        t.ppf(0.975, 2) * score.std(ddof=1) / np.sqrt(3), rel=1e-6
    )
    drawn = np.random.default_rng(0).normal(size=500) / 5
    same = np.full((3, 1), 0.3)
    patients = mean_over_seeds(same, same[:, :, None] + drawn)
    wanted = 2 * norm.sf(0.3 / drawn.std(ddof=1))
    assert patients.p[0] == pytest.approx(wanted, rel=1e-6)


def test_differences_are_paired_over_patients_and_seeds():
    """What makes a film or a seed hard for both is not held against their difference."""
    base = [*several(0, 1, 2)]
    nudged = [replace(one, logit=one.logit + np.float32(0.1) * (one.label == 1)) for one in base]
    table = rows(evaluated(base=base, v=nudged), variant="v", finding=MACRO, metric="auc").iloc[0]
    paired = table["difference_high"] - table["difference_low"]
    assert 0 < 3 * paired < table["high"] - table["low"]
    assert table["difference_low"] > 0
    assert table["difference_low"] <= table["difference"] <= table["difference_high"]


def test_the_seed_of_judging_draws_the_resamples_and_nothing_else():
    runs = {"base": several(0, 1), "v": several(2, 3)}
    one, same, other = (evaluated(seed=seed, **runs) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(one, same)
    plain = ["value", "difference"]
    pd.testing.assert_frame_equal(one[plain], other[plain])
    assert not np.allclose(apart(one), apart(other), atol=1e-6, equal_nan=True)


# --- refusals


Spoil = Callable[[Predictions], Predictions]
OTHERS: dict[str, Spoil] = {
    "split": lambda one: replace(one, split="4567"),
    "findings": lambda one: replace(one, findings=FINDINGS[::-1]),
    "image": lambda one: replace(one, image=one.image[::-1]),
    "patient": lambda one: replace(one, patient=one.patient + 1),
    "label": lambda one: replace(one, label=1 - one.label),
}


@pytest.mark.parametrize("field", OTHERS)
@pytest.mark.parametrize("place", [0, 1])
def test_a_member_of_other_films_is_refused_and_named(field: str, place: int):
    runs = several(0, 1)
    runs[place] = OTHERS[field](runs[place])
    with pytest.raises(ValueError, match=f"net and v differ in {field}: .*expected the same films"):
        evaluated(base=several(0, 1), v=runs)
    with pytest.raises(ValueError, match=f"differ in {field}"):
        evaluated(base=[several(0)[0], OTHERS[field](several(1)[0])])


def test_a_variant_without_a_network_or_a_seed_is_refused_and_named():
    base = {net: several(0, 1, network=net) for net in ("one", "two")}
    missing = {"one": base["one"]}
    other = {"one": base["one"], "three": base["two"]}
    for networks, found in ((missing, "one"), (other, "one, three"), ({}, "")):
        expected = f"variant 'v' has the networks {found}; expected those of the base: one, two"
        with pytest.raises(ValueError, match=expected):
            ablate({BASE: base, "v": networks}, threshold="f1", resamples=20, seed=0)
    with pytest.raises(ValueError, match="'v' has 1 seeds of net; expected 2, as the base"):
        evaluated(base=several(0, 1), v=several(0))

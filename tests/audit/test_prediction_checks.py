"""Checks of predictions and scores: planted mistakes found, honest networks left alone."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from lucency.audit.checks.issue import Fitted, Issue, UnverifiedPredictions, unverified
from lucency.audit.checks.prediction_checks import (
    CAP,
    CHECKS,
    areas_by_column,
    check_predictions,
)
from lucency.core.manifest import FINDINGS
from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import once
from lucency.evaluation.evaluate import COLUMNS, evaluate, trivial
from lucency.evaluation.external import UNKNOWN_SPLIT
from lucency.evaluation.metrics import auc

FOUR = ("Mass", "Edema", "Nodule", "Hernia")
SPLIT = "0123456789abcdef"


def _honest(
    seed: int = 0, *, films: int = 600, findings: tuple[str, ...] = FOUR
) -> UnverifiedPredictions:
    """Return a calibrated network: labels are drawn with the very probabilities it tells."""
    generator = np.random.default_rng(seed)
    risk = expit(generator.normal(-1.2, 1.3, (films, len(findings))))
    image = np.array([f"{film}.png" for film in range(films)])
    return UnverifiedPredictions(
        network="net",
        findings=findings,
        image=image,
        patient=np.arange(films) // 2,
        part=np.full(films, "test"),
        label=(generator.random(risk.shape) < risk).astype(np.float32),
        probability=risk,
        split=SPLIT,
        fitted=(Fitted("thresholds", "val", SPLIT), Fitted("lines", "val", "")),
        listed=np.append(image, ["a.png", "b.png"]),
        listed_part=np.append(np.full(films, "test"), ["train", "val"]),
    )


HONEST = _honest()


def issues(check: str, checked: UnverifiedPredictions) -> list[Issue]:
    return list(CHECKS[check](checked))


def _changed(change: Callable[[np.ndarray], np.ndarray]) -> UnverifiedPredictions:
    """Return the honest network with its probabilities changed."""
    return replace(HONEST, probability=change(HONEST.probability.copy()))


def _with(place: int, change: Callable[[np.ndarray], np.ndarray]) -> UnverifiedPredictions:
    """Return the honest network with the probabilities of one finding changed."""

    def one(score: np.ndarray) -> np.ndarray:
        score[:, place] = change(score[:, place])
        return score

    return _changed(one)


def _put(value: float, cells: int) -> UnverifiedPredictions:
    def some(score: np.ndarray) -> np.ndarray:
        score[:cells, 1] = value
        return score

    return _changed(some)


def _capped(score: np.ndarray) -> np.ndarray:
    """Of thresholds published for torchxrayvision's resnet50-res512 the highest is .731."""
    score[:, :3] = np.minimum(score[:, :3] * 2, CAP - 1e-4)
    score[:, 3] = np.minimum(score[:, 3], 0.7)
    return score


def _noise(score: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).random(score.shape) * 0.1


def _scores(*rows: tuple[str, str, str, float], note: str = "") -> UnverifiedPredictions:
    """Return the honest network beside a table with these rows: network, finding, metric, value."""
    table = pd.DataFrame(
        [(*row, row[3] - 0.01, row[3] + 0.01, 9, 9, 9, note) for row in rows], columns=list(COLUMNS)
    )
    return replace(HONEST, scores=table)


def _aucs(*values: float, **named: float) -> list[tuple[str, str, str, float]]:
    pairs = [*zip(FOUR, values, strict=False), *named.items()]
    return [("net", name, "auc", value) for name, value in pairs]


def _bare(checked: UnverifiedPredictions, columns: list[str]) -> UnverifiedPredictions:
    scores = checked.scores.copy()
    scores.loc[:1, columns] = np.nan
    return replace(checked, scores=scores)


TEST, VAL = HONEST.part, np.where(np.arange(600) < 40, "val", "test")
TRAINED = np.where(np.arange(602) < 7, "train", HONEST.listed_part)
FEW = replace(HONEST, label=np.where(np.arange(600)[:, None] < 60, HONEST.label, 0))
STRANGE = np.append(HONEST.image[:-3], ["x.png", "y.png", "z.png"])

# check -> mistaken predictions and the counts of its issues
PLANTED: dict[str, list[tuple[UnverifiedPredictions, list[int]]]] = {
    "outside_0_to_1": [
        (_put(1.2, 3), [3]),
        (_put(-0.1, 2), [2]),
        (_put(np.nan, 4), [4]),
        (_changed(lambda score: score * 100), [600]),
    ],
    "logits_as_probabilities": [
        (_changed(logit), [4]),
        (_with(2, lambda score: logit(score) - 3), [1]),
    ],
    "double_sigmoid": [(_changed(expit), [4]), (_changed(_capped), [3])],
    "constant_output": [
        (_with(1, lambda score: np.full_like(score, 0.3)), [1]),
        (_changed(lambda score: np.tile(score[:1], (600, 1))), [4]),
    ],
    "chance": [
        (_changed(_noise), [1, 4]),
        (_with(0, lambda score: np.random.default_rng(0).random(len(score)) / 4), [1]),
    ],
    "inverted_labels": [
        (_with(3, lambda score: 1 - score), [1]),
        (replace(HONEST, label=1 - HONEST.label), [4]),
    ],
    "column_order": [
        (_changed(lambda score: score[:, [1, 0, 2, 3]]), [2]),
        (_changed(lambda score: score[:, [3, 0, 1, 2]]), [4]),
    ],
    "overstated_risk": [(_with(0, lambda score: score**0.2), [1])],
    "few_positives": [(FEW, [4])],
    "scored_as_test": [
        (replace(HONEST, part=VAL), [40]),
        (replace(HONEST, part=VAL, listed_part=TRAINED), [7, 33]),
        (replace(HONEST, listed_part=np.where(TRAINED == "train", "val", TRAINED)), [7]),
    ],
    "missing_predictions": [
        (replace(HONEST, listed_part=np.append(TEST, ["test", "val"])), [1]),
        (replace(HONEST, image=STRANGE), [3, 3]),
    ],
    "duplicate_predictions": [
        (replace(HONEST, image=np.append(HONEST.image[:-2], ["7.png", "8.png#1"])), [2])
    ],
    "fitted_elsewhere": [
        (replace(HONEST, fitted=(Fitted("thresholds", "test", SPLIT),)), [1]),
        (replace(HONEST, fitted=(Fitted("thresholds", "train", "beef"),)), [1, 1]),
        (replace(HONEST, fitted=(Fitted("lines", "val", "beef"),)), [1]),
    ],
    "mean_of_another_table": [
        (_scores(*_aucs(0.8, 0.9, macro=0.841)), [1]),
        (_scores(*_aucs(0.8, 0.9, macro=0.87, micro=0.87)), [1]),
    ],
    "unexplained_gaps": [(_bare(_scores(*_aucs(0.8, 0.9, 0.7)), ["value", "low", "high"]), [2])],
    "no_interval": [(_bare(_scores(*_aucs(0.8, 0.9, 0.7)), ["high"]), [2])],
    "no_baseline": [
        (_scores(("net", "Mass", "accuracy", 0.95)), [1]),
        (_scores(*_aucs(0.8, micro=0.9)), [1]),
    ],
}
IMPLIED = {  # what a mistake is besides, by what it is
    "outside_0_to_1": {"overstated_risk"},
    "logits_as_probabilities": set(),
    "double_sigmoid": {"overstated_risk"},
    "constant_output": {"chance"},
    "chance": set(),
    "inverted_labels": {"overstated_risk"},
    "column_order": {"chance", "inverted_labels"},
    "few_positives": {"overstated_risk"},
    "missing_predictions": {"scored_as_test"},
    "scored_as_test": {"missing_predictions"},
    "duplicate_predictions": {"missing_predictions"},
}


def test_every_check_has_a_planted_mistake():
    assert set(PLANTED) == set(CHECKS)
    assert all(function.__name__ == name for name, function in CHECKS.items())


@pytest.mark.parametrize("check", list(PLANTED))
def test_a_planted_mistake_is_found_with_its_count_and_by_no_other(check: str):
    for checked, counts in PLANTED[check]:
        found = issues(check, checked)
        assert [issue.count for issue in found] == counts
        assert {issue.check for issue in found} == {check}
        for issue in found:
            assert 1 <= len(issue.examples) <= 3
            assert ":" in issue.message
            assert issue.remedy
        strangers = {one.check for one in check_predictions(checked)} - {check}
        assert strangers <= IMPLIED.get(check, set())


@pytest.mark.parametrize("seed", range(8))
def test_an_honest_network_has_no_complaint(seed: int):
    assert check_predictions(_honest(seed)) == []


def test_macro_at_chance_is_serious_and_a_finding_is_a_note():
    macro, single = issues("chance", _changed(_noise))
    assert (macro.severity, single.severity) == ("serious", "note")
    assert macro.examples == ("macro",)
    area = roc_auc_score(HONEST.label, _noise(HONEST.probability), average="macro")
    assert f"macro AUC is {area:.3f}" in macro.message
    assert " by 200 resamples, not those of the evaluation" in macro.message
    assert check_predictions(_changed(_noise))[0].severity == "serious"


def test_a_finding_with_one_class_has_no_area_and_no_complaint_of_it():
    label = HONEST.label.copy()
    label[:, 2] = 0
    found = {one.check for one in check_predictions(replace(HONEST, label=label))}
    assert found == {"few_positives", "overstated_risk"}
    label[:, :] = np.nan
    assert check_predictions(replace(HONEST, label=label)) == []


def test_labels_that_are_not_stated_are_left_out():
    label = HONEST.label.copy()
    label[:200, 0] = np.nan
    assert check_predictions(replace(HONEST, label=label)) == []
    lost = issues("few_positives", replace(HONEST, label=np.where(HONEST.label == 1, np.nan, 0)))
    assert lost[0].examples == ("Mass (0)", "Edema (0)", "Nodule (0)")


def test_few_means_fewer_than_thirty():
    label = HONEST.label.copy()
    label[:, 3] = np.arange(600) < 30
    assert not issues("few_positives", replace(HONEST, label=label))
    label[0, 3] = 0
    assert "Hernia (29)" in issues("few_positives", replace(HONEST, label=label))[0].message


def test_no_films_have_no_issue_and_one_film_few():
    for films in (0, 1):
        found = {one.check for one in check_predictions(_honest(films=films))}
        assert found <= {"few_positives"}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), films=st.integers(2, 80))
def test_small_honest_tests_are_never_called_seriously_wrong(seed: int, films: int):
    serious = [
        one for one in check_predictions(_honest(seed, films=films)) if one.severity == "serious"
    ]
    assert {one.check for one in serious} <= {"chance"}


def test_a_network_that_knows_nothing_has_no_order_and_is_not_inverted():
    """14 findings, the best of 14! orders is sought in noise: 8 times, and never believed."""
    for seed in range(8):
        honest = _honest(seed, films=300, findings=FINDINGS)
        generator = np.random.default_rng(1_000 + seed)
        sick = generator.normal(size=(300, 1))  # what all columns of a weak network say
        noise = expit(sick + generator.normal(size=honest.probability.shape) - 2)
        found = {one.check for one in check_predictions(replace(honest, probability=noise))}
        assert not found & {"column_order", "inverted_labels"}


@pytest.fixture(scope="module")
def real(zech: Predictions) -> UnverifiedPredictions:
    return unverified(zech)


def test_a_real_network_has_no_complaint(real: UnverifiedPredictions):
    assert real.area[-1, 0] == pytest.approx(0.8382671332, abs=1e-10)
    assert check_predictions(real) == []


def test_a_real_network_s_columns_in_another_order_are_put_right(real: UnverifiedPredictions):
    """Alphabetical, as labels come out of a sort: the likely order names them as they are."""
    half = replace(_take(real, np.arange(0, len(real.image), 2)), network="half")
    alphabetical = np.argsort(FINDINGS)
    (found,) = issues("column_order", _permuted(half, alphabetical))
    assert found.remedy.endswith(", ".join(np.array(FINDINGS)[alphabetical].tolist()))
    assert 9 <= found.count <= (alphabetical != np.arange(14)).sum() == 12
    swap = np.arange(14)
    swap[[4, 5]] = 5, 4
    (found,) = issues("column_order", _permuted(half, swap))
    assert found.count == 2
    assert found.examples[0].startswith("Nodule ranks Mass (0.8")
    assert found.remedy.endswith(", ".join(np.array(FINDINGS)[swap].tolist()))


def _take(checked: UnverifiedPredictions, rows: np.ndarray) -> UnverifiedPredictions:
    names = ("image", "patient", "part", "label", "probability")
    return replace(checked, **{name: getattr(checked, name)[rows] for name in names})


def _permuted(checked: UnverifiedPredictions, order: np.ndarray) -> UnverifiedPredictions:
    return replace(checked, probability=checked.probability[:, order])


def test_a_real_network_s_other_mistakes_are_found(real: UnverifiedPredictions):
    twice = replace(real, probability=expit(real.probability))
    assert issues("double_sigmoid", twice)[0].count == 14
    weighted = replace(real, probability=expit(logit(real.probability) + 2.5))
    assert issues("overstated_risk", weighted)[0].count == 14
    assert issues("overstated_risk", weighted)[0].severity == "note"


def _predictions(shift: Callable[[np.ndarray], np.ndarray] = np.asarray) -> Predictions:
    return Predictions(
        network="net",
        split=SPLIT,
        findings=FOUR,
        image=HONEST.image,
        patient=HONEST.patient,
        part=HONEST.part,
        label=HONEST.label,
        logit=shift(logit(HONEST.probability)).astype(np.float32),
        feature=np.empty((600, 0), dtype=np.float32),
    )


def test_our_own_predictions_and_tables_have_no_complaint():
    predictions = _predictions()
    half = np.full(4, 0.5)
    nothing = trivial(predictions, prevalence=HONEST.label.mean(axis=0, dtype=np.float64))
    tables = [evaluate(p, threshold=half, resamples=50, seed=0) for p in (predictions, nothing)]
    scores = pd.concat(tables, ignore_index=True)
    checked = replace(unverified(predictions), scores=scores)
    np.testing.assert_allclose(checked.probability, HONEST.probability, rtol=1e-5)
    assert (checked.split, checked.network) == (SPLIT, "net")
    assert check_predictions(checked) == []
    label = HONEST.label.copy()
    label[:, 1] = 0
    gone = evaluate(replace(predictions, label=label), threshold=half, resamples=50, seed=0)
    assert gone["value"].isna().any()  # and the note says why
    tables = ("unexplained_gaps", "no_interval", "mean_of_another_table")
    assert not any(issues(name, replace(checked, scores=gone)) for name in tables)


def test_a_macro_score_counts_0_for_what_is_never_called_and_not_for_what_is_absent():
    label, called = HONEST.label.copy(), np.full(HONEST.label.shape[1], 0.5)
    label[:, 0], called[:2] = 0, 2.0  # no positives, and two findings are never called
    predictions = Predictions(
        network="net", split="0123", findings=HONEST.findings, image=HONEST.image,
        patient=HONEST.patient, part=HONEST.part, label=label,
        logit=np.log(HONEST.probability / (1 - HONEST.probability)),
        feature=np.empty((len(label), 0), dtype=np.float32),
    )  # fmt: skip
    table = evaluate(predictions, threshold=called, resamples=20, seed=0)
    mcc = table[table["metric"] == "mcc"].set_index("finding")
    assert np.isnan(mcc.loc[list(HONEST.findings[:2]), "value"]).all()
    published = replace(HONEST, label=label, scores=table)
    assert "mean_of_another_table" not in {one.check for one in check_predictions(published)}


def test_a_network_that_has_learnt_nothing_of_common_findings_is_no_double_sigmoid():
    """Probabilities of .50 to .53 where half of the films are positive are shares."""
    generator = np.random.default_rng(0)
    label = (generator.random(HONEST.label.shape) < 0.51).astype(np.float32)
    weak = replace(HONEST, label=label, probability=0.5 + 0.03 * generator.random(label.shape))
    assert "double_sigmoid" not in {one.check for one in check_predictions(weak)}
    rare = replace(weak, label=(generator.random(label.shape) < 0.1).astype(np.float32))
    assert "double_sigmoid" in {one.check for one in check_predictions(rare)}


def test_two_findings_that_end_at_the_cap_by_chance_are_no_double_sigmoid():
    """As after recalibration to levels: the mean is the share of positives."""
    share = np.array([0.2, 0.9])[(np.arange(600)[:, None] % 4 == 0).astype(int)] * [[1, 1, 0.5, 0]]
    score = np.where(share == 0.9, CAP - 1e-4, share + 0.01)
    generator = np.random.default_rng(0)
    label = (generator.random(score.shape) < score).astype(np.float32)
    level = replace(HONEST, label=label, probability=score)
    assert "double_sigmoid" not in {one.check for one in check_predictions(level)}
    rare = replace(level, label=np.zeros_like(label))
    assert [one.count for one in issues("double_sigmoid", rare)] == [2]
    unknown = replace(level, label=np.full_like(label, np.nan))
    assert not issues("double_sigmoid", unknown)


def test_few_films_of_which_more_were_expected_are_no_double_sigmoid():
    label = np.zeros((5, 1), np.float32)
    label[0] = 1
    names = ("image", "patient", "part")
    few = replace(
        HONEST, **{name: getattr(HONEST, name)[:5] for name in names}, findings=("Mass",),
        label=label, probability=np.linspace(0.5, 0.6, 5)[:, None],
    )  # fmt: skip
    assert not issues("double_sigmoid", few)


def test_probabilities_of_a_table_handed_over_as_logits_are_a_double_sigmoid():
    table = replace(_predictions(expit), split=UNKNOWN_SPLIT)
    assert issues("double_sigmoid", unverified(table))[0].count == 4


def test_a_network_s_own_logits_are_no_double_sigmoid():
    """After an epoch, all logits may lie in 0 to 1, of findings that are rare."""
    weak = unverified(_predictions(lambda score: 0.1 + 0.8 * expit(score)))
    assert weak.probability.min() > 0.5
    assert weak.probability.max() < CAP
    assert not issues("double_sigmoid", weak)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(0.01, 1), min_size=1, max_size=4),
    digits=st.integers(2, 6),
    units=st.integers(3, 50),
)
def test_a_mean_rounded_as_its_table_is_no_other_table_s(
    values: list[float], digits: int, units: int
):
    mean = round(float(np.mean(values)), digits)
    printed = [round(value, digits) for value in values]
    check = partial(issues, "mean_of_another_table")
    assert not check(_scores(*_aucs(*printed, macro=mean)))
    wrong = mean + units * 10.0**-digits
    values = [*printed, wrong]
    coarser = all(round(value, digits - 1) == round(value, digits) for value in values)
    assert coarser or check(_scores(*_aucs(*printed, macro=wrong)))


def test_the_pooled_value_in_the_mean_s_place_is_named():
    table = _scores(*_aucs(0.81, 0.92, 0.7, macro=0.91, micro=0.91))
    (found,) = issues("mean_of_another_table", table)
    assert "net auc: 0.91, which is the pooled one, the mean is 0.81" in found.message
    assert not issues("mean_of_another_table", _scores(*_aucs(0.8, micro=0.91)))


def test_published_aucs_of_a_real_table_have_their_mean(shared: Path):
    """zech/aucs.csv and the published macro, .8382671332; model cards print another one."""
    table = pd.read_csv(shared / "nih" / "zech" / "aucs.csv")
    rows = [("zech", name, "auc", value) for name, value in table.itertuples(index=False)]
    check = partial(issues, "mean_of_another_table")
    assert not check(_scores(*rows, ("zech", "macro", "auc", 0.8382671332)))
    assert check(_scores(*rows, ("zech", "macro", "auc", 0.8412)))[0].count == 1


def test_what_has_no_note_is_a_gap_and_what_has_is_none():
    gap = PLANTED["unexplained_gaps"][0][0]
    reason = gap.scores.assign(note="not computable: 0 positives")
    assert issues("unexplained_gaps", gap)[0].examples == ("net Mass auc", "net Edema auc")
    assert not issues("unexplained_gaps", replace(gap, scores=reason))
    assert issues("unexplained_gaps", replace(gap, scores=gap.scores.assign(note=np.nan)))


def test_accuracy_beside_the_trivial_predictor_s_is_no_complaint():
    rows = [(name, "Mass", "accuracy", 0.95) for name in ("net", "trivial")]
    assert not issues("no_baseline", _scores(*rows))


def test_predictions_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="columns of scores: found no high, films"):
        replace(HONEST, scores=HONEST.scores.drop(columns=["high", "films"]))
    with pytest.raises((ValueError, TypeError), match="probability"):
        replace(HONEST, probability=HONEST.probability[:, :2])


def test_every_area_of_a_finding_by_a_column_is_the_auc():
    random = np.random.default_rng(0)
    label = (random.random((60, 5)) < 0.3).astype(np.float32)
    label[:9, 2:4], label[:, 4] = np.nan, 0
    score = random.integers(0, 7, (60, 5)) / 7
    found, plainly = areas_by_column(label, score), once(60)
    expected = [[auc(y, p, weights=plainly)[0] for p in score.T] for y in label.T]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.isnan(found[4]).all()


def test_macro_auc_says_over_which_findings_and_of_one_patient_nothing_is_chance():
    label = HONEST.label.copy()
    label[:, 1] = 0
    noise = replace(HONEST, probability=_noise(HONEST.probability), label=label)
    message = issues("chance", noise)[0].message
    assert "; mean over 3 of 4 findings, without Edema)" in message
    assert "mean over" not in issues("chance", replace(noise, label=HONEST.label))[0].message
    alone = replace(noise, patient=np.zeros_like(noise.patient))
    assert not issues("chance", alone)


def test_long_lists_of_findings_are_cut():
    many = tuple(f"finding {place}" for place in range(40))
    shape = (len(HONEST.image), len(many))
    few = replace(HONEST, findings=many, label=np.zeros(shape), probability=np.full(shape, 0.3))
    message = issues("few_positives", few)[0].message
    assert "finding 6 (0) and 33 more: another" in message
    assert "finding 6 and 33 more: it" in issues("constant_output", few)[0].message

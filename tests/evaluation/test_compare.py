"""Paired differences: same patients for both, refusals by name, a cautious conclusion."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from scipy.stats import wilcoxon
from sklearn.metrics import roc_auc_score

from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import resample_patients
from lucency.evaluation.compare import COLUMNS, OVER_FINDINGS, compare, conclude_comparison, rank
from lucency.evaluation.evaluate import evaluate, trivial
from lucency.evaluation.significance import delong_difference, holm

FINDINGS = ("Mass", "Edema")


def _three(seed=0, films=240):
    """Return a good network, one almost as good that errs alike, and one that knows nothing."""
    generator = np.random.default_rng(seed)
    label = (generator.random((films, 2)) < 0.3).astype(np.float32)
    common = generator.normal(size=(films, 2)) + 1.5 * label
    good = Predictions(
        network="good",
        split="0123",
        findings=FINDINGS,
        image=np.array([f"{film}.png" for film in range(films)]),
        patient=generator.integers(0, 80, size=films),
        part=np.full(films, "test"),
        label=label,
        logit=common.astype(np.float32),
        feature=np.empty((films, 0), dtype=np.float32),
    )
    near = common + 0.05 * generator.normal(size=common.shape)
    noise = generator.normal(size=common.shape)
    return [
        good,
        replace(good, network="near", logit=near.astype(np.float32)),
        replace(good, network="noise", logit=noise.astype(np.float32)),
    ]


def _compare(several, *, resamples=120, seed=0):
    return compare(several, resamples=resamples, seed=seed)


def _macro(table):
    return table.loc[table["finding"] == "macro"].iloc[0]


def _ranking(several, *, resamples=60):
    tables = [
        evaluate(one, threshold=np.full(2, 0.5), resamples=resamples, seed=0) for one in several
    ]
    real = [one for one in several if one.network != "trivial"]
    return rank(pd.concat(tables, ignore_index=True), _compare(real, resamples=resamples))


def test_every_pair_has_a_row_per_finding_and_macro():
    several = _three()
    table = _compare(several)
    assert tuple(table.columns) == COLUMNS
    pairs = list(combinations(("good", "near", "noise"), 2))
    columns = (*FINDINGS, "macro", OVER_FINDINGS)
    cells = [(*pair, finding) for pair in pairs for finding in columns]
    assert list(zip(table["network"], table["other"], table["finding"], strict=True)) == cells
    for one, other in combinations(several, 2):
        of_pair = (table["network"] == one.network) & (table["other"] == other.network)
        areas = [roc_auc_score(p.label, p.logit, average=None) for p in (one, other)]
        found = table.loc[of_pair, "difference"].to_numpy()
        np.testing.assert_allclose(found[:2], areas[0] - areas[1], atol=1e-12)
        assert found[2] == pytest.approx(found[:2].mean())
        assert found[3] == pytest.approx(np.median(found[:2]))


def test_interval_and_macro_p_are_those_of_differences_on_the_same_resampled_patients():
    good, near, _ = _three(films=100)
    drawn = resample_patients(good.patient, resamples=50, seed=3)
    differences = []
    for times in drawn.times.T:
        rows = np.repeat(np.arange(100), times[drawn.owner].astype(int))
        areas = [roc_auc_score(p.label[rows], p.logit[rows]) for p in (good, near)]
        differences.append(areas[0] - areas[1])
    row = _macro(_compare([good, near], resamples=50, seed=3))
    rarer = [_rarer(label, good.patient) for label in good.label.T]
    assert min(rarer) > 10
    error = np.std(differences, ddof=1)  # and a little for what few patients do not show
    reach = (row["high"] - row["low"]) / 2 / error
    ends = [student.isf(0.025, freedom) for freedom in (1000, min(rarer) - 1)]
    assert ends[0] < reach < ends[1] * np.sqrt(1 + 1.5 / (min(rarer) - 1))
    assert (row["low"] + row["high"]) / 2 == pytest.approx(row["difference"])
    assert (row["p"] < 0.05) == (row["low"] > 0 or row["high"] < 0)


def _rarer(label, patient):
    return min(len(np.unique(patient[label == value])) for value in (0, 1))


def test_equal_networks_differ_no_more_often_than_one_time_in_twenty_with_rare_findings():
    """Fourteen findings of 1 to 40 patients on 236 films; by the spread alone .06 to .11."""
    prevalence = np.geomspace(0.004, 0.17, 14)
    significant, held = 0, 0
    for seed in range(120):
        generator = np.random.default_rng(seed)
        label = (generator.random((236, 14)) < prevalence).astype(np.float32)
        common = generator.normal(size=label.shape) + 1.5 * label
        several = [
            replace(
                _three()[0], network=name, findings=tuple(map(str, range(14))), label=label,
                image=np.arange(236).astype(str), patient=np.arange(236),
                part=np.full(236, "test"), feature=np.empty((236, 0), np.float32),
                logit=common + generator.normal(size=label.shape),
            )
            for name in ("one", "other")
        ]  # fmt: skip
        row = _macro(_compare(several, resamples=60))
        significant += row["p"] < 0.05
        held += row["low"] <= 0 <= row["high"]
    assert significant / 120 <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 120)
    assert held == 120 - significant  # the interval and the test say the same


def test_pairing_makes_the_interval_narrower_than_the_networks_own():
    good, near, _ = _three()
    paired = _macro(_compare([good, near]))
    alone = _ranking([good, near]).iloc[0]
    assert paired["high"] - paired["low"] < 0.3 * (alone["high"] - alone["low"])


def test_a_network_is_never_better_than_itself():
    good = _three()[0]
    table = _compare([good, replace(good, network="twin")])
    assert (table["difference"] == 0).all()
    assert (table[["low", "high"]].iloc[:3] == 0).all().all()
    assert (table["p"].iloc[:3] == 1).all()
    assert table["note"].iloc[3].startswith("not computable: 0 of 2 differences")


def test_swapping_two_networks_swaps_the_signs():
    good, near, _ = _three()
    forth, back = _compare([good, near]), _compare([near, good])
    np.testing.assert_allclose(forth["difference"], -back["difference"])
    np.testing.assert_allclose(forth["low"], -back["high"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("split", "4567"),
        ("findings", ("Edema", "Mass")),
        ("image", np.array([f"{film}.png" for film in range(1, 241)])),
        ("patient", np.arange(240)),
        ("part", np.full(240, "val")),
        ("label", np.zeros((240, 2), dtype=np.float32)),
    ],
)
def test_predictions_that_do_not_belong_together_are_refused(field, value):
    good, near, _ = _three()
    with pytest.raises(ValueError, match=f"good and near differ in {field}: .*cannot be compared"):
        _compare([good, replace(near, **{field: value})])


def test_unstated_labels_are_alike():
    good, near, _ = _three()
    label = good.label.copy()
    label[:9, 0] = np.nan
    assert len(_compare([replace(good, label=label), replace(near, label=label.copy())])) == 4


def test_several_parts_a_network_twice_and_none_are_refused():
    good, near, _ = _three()
    part = np.repeat(["val", "test"], 120)
    with pytest.raises(ValueError, match="expected one part"):
        _compare([replace(good, part=part), replace(near, part=part)])
    with pytest.raises(ValueError, match="each named once"):
        _compare([good, good])
    with pytest.raises(ValueError, match="one or more"):
        _compare([])


def test_ranks_by_macro_area_and_says_who_is_tied():
    good, near, noise = _three()
    nothing = trivial(good, prevalence=np.full(2, 0.3))
    ranking = _ranking([noise, near, good, nothing])
    assert ranking["rank"].tolist() == [1, 1, 3]
    assert ranking["network"].tolist()[2] == "noise"
    assert ranking["tied_with_best"].tolist() == [True, True, False]
    assert ranking["value"].is_monotonic_decreasing


def test_the_sentence_names_the_tied_ones():
    sentence = conclude_comparison(_ranking(_three()))
    first, second = sentence.split(". ")
    assert first.startswith("Highest macro AUC: near 0.8")
    assert second.startswith("Not significantly lower: good 0.8")
    assert second.endswith("(paired tests, Holm-corrected over 3 pairs).")
    assert "noise" not in sentence


def test_the_sentence_names_the_best_when_all_others_are_worse():
    good, _, noise = _three()
    sentence = conclude_comparison(_ranking([noise, good]))
    assert sentence.startswith("Highest macro AUC: good 0.8")
    assert sentence.endswith(" Significantly higher than every other network (paired tests).")
    assert "which includes .5" not in sentence


def test_the_sentence_warns_of_chance():
    noise = _three()[2]
    assert "which includes .5, chance" in conclude_comparison(_ranking([noise]))
    good = conclude_comparison(_ranking([_three()[0]]))
    assert good.startswith("Macro AUC: good 0.8")
    assert "chance" not in good


def test_nothing_computable_ranks_nobody():
    several = [replace(one, label=np.zeros_like(one.label)) for one in _three()]
    assert conclude_comparison(_ranking(several)).startswith("Macro AUC: not computable")


def test_two_equal_networks_are_called_different_about_one_time_in_twenty():
    """Coverage: the interval of a difference that is truly 0 holds 0 in about 95 of 100 sets.

    A set is the labels and the noise of a finding of its own.
    """
    generator, shape = np.random.default_rng(10_000), (200, 100)
    first = replace(
        _three(films=200)[0],
        findings=tuple(map(str, range(100))),
        label=(generator.random(shape) < 0.3).astype(np.float32),
        logit=generator.normal(size=shape).astype(np.float32),
    )
    other = generator.normal(size=shape).astype(np.float32)
    table = _compare([first, replace(first, network="other", logit=other)], resamples=200)
    held = (table["low"] <= 0) & (table["high"] >= 0)
    assert 88 <= held[:100].sum() <= 99


def test_a_ranked_network_without_its_comparison_is_refused():
    good, near, _ = _three()
    tables = [evaluate(p, threshold=np.full(2, 0.5), resamples=20, seed=0) for p in (good, near)]
    with pytest.raises(ValueError, match="compare all networks that are ranked"):
        rank(pd.concat(tables, ignore_index=True), _compare([good]))


def test_p_is_delong_s_with_patients_as_clusters_and_holm_s_correction():
    several = _three()
    table = _compare(several)
    single = table[table["test"] == "delong"]
    expected = []
    for one, other in combinations(several, 2):
        for k, label in enumerate(one.label.T):
            both = one.logit[:, k], other.logit[:, k]
            difference, error, _ = delong_difference(label, *both, owner=one.patient)
            freedom = _rarer(label, one.patient) - 1
            expected.append(2 * student.sf(abs(difference) / error, freedom))
    np.testing.assert_allclose(single["p"], expected, rtol=1e-9)
    adjusted = holm(np.array(expected))
    np.testing.assert_allclose(single["p_holm"], adjusted, rtol=1e-9)
    macro = table[table["test"] == "bootstrap"]
    np.testing.assert_allclose(macro["p_holm"], holm(macro["p"].to_numpy()))


def test_many_findings_are_tested_over_findings_by_wilcoxon():
    good, near, _ = _three()
    wide = [np.tile(one.label, 4) for one in (good, near)]
    generator = np.random.default_rng(5)
    several = [
        replace(
            one,
            findings=tuple("abcdefgh"),
            label=label,
            logit=label + generator.normal(size=label.shape).astype(np.float32),
        )
        for one, label in zip((good, near), wide, strict=True)
    ]
    table = _compare(several)
    row = table.loc[table["test"] == "wilcoxon"].iloc[0]
    assert row["p"] == pytest.approx(wilcoxon(table["difference"].iloc[:8]).pvalue)
    assert "takes findings as independent" in row["note"]


def test_one_patient_with_all_positives_has_no_test_and_says_why():
    good, near, _ = _three()
    patient = np.where(good.label[:, 0] == 1, 999, good.patient)
    table = _compare([replace(good, patient=patient), replace(near, patient=patient)])
    assert np.isnan(table["p"].iloc[0])
    assert "all positives are of one owner" in table["note"].iloc[0]


def test_networks_share_a_rank_where_the_corrected_test_cannot_tell():
    names, value = list("abcd"), [0.9, 0.89, 0.85, 0.84]
    shown = {"finding": "macro", "metric": "auc", "low": 0.8, "high": 0.95}
    metrics = pd.DataFrame(
        [{"network": n, "value": v, **shown} for n, v in zip(names, value, strict=True)]
    )
    p = {"ab": 0.3, "ac": 0.04, "ad": 0.01, "bc": 0.06, "bd": 0.03, "cd": np.nan}
    metrics["note"] = "mean over 13 of 14 findings, without Hernia"
    shown["note"] = ""
    pairs = [{"network": k[0], "other": k[1], "p_holm": v, **shown} for k, v in p.items()]
    ranking = rank(metrics, pd.DataFrame(pairs))
    assert ranking["rank"].tolist() == [1, 1, 2, 3]
    assert ranking["tied_with_best"].tolist() == [True, True, False, False]
    sentence = conclude_comparison(ranking)
    assert "(95 % interval 0.800 to 0.950; mean over 13 of 14 findings, without Hernia)" in sentence


def test_a_finding_of_two_patients_is_not_tested_and_says_so():
    good, near, _ = _three()
    assert (_compare([good, near])["note"].iloc[:3] == "").all()
    label = good.label.copy()
    label[:, 0] = np.isin(good.patient, np.unique(good.patient)[:2])
    table = _compare([replace(good, label=label), replace(near, label=label)])
    assert table["note"].iloc[0] == "not computable: 2 patients of a class, expected 3 or more"
    assert table.loc[0, ["low", "high", "p", "p_holm"]].isna().all()
    assert table.loc[2, ["low", "high", "p"]].notna().all()


def test_a_difference_without_any_spread_has_no_p():
    """One network is right of every film, the other wrong: no resample says anything else."""
    good = _three()[0]
    right, wrong = (sign * (good.label - 0.5) for sign in (1, -1))
    several = [replace(good, logit=right), replace(good, network="wrong", logit=wrong)]
    table = _compare(several)
    assert table["p"].isna().all()
    assert table["note"].iloc[0] == "the same difference for every patient"
    assert "the same in every resample" in _macro(table)["note"]
    assert "Not significantly lower: wrong 0.000" in conclude_comparison(_ranking(several))


def test_patients_and_films_of_other_splits_are_counted():
    good, near, _ = _three()
    patient = near.patient.copy()
    patient[[3, 9]] += 1000
    with pytest.raises(ValueError, match=r"differ in patient: 2 of 240 films, such as '3.png'"):
        _compare([good, replace(near, patient=patient)])
    image = np.array([f"{film}.png" for film in range(200, 440)])
    with pytest.raises(ValueError, match=r"in both are 40 of 240 and 240 films"):
        _compare([good, replace(near, split="4567", image=image)])
    with pytest.raises(ValueError, match="only one has Edema, Hernia"):
        _compare([good, replace(near, findings=("Mass", "Hernia"))])


def test_the_refusal_says_what_differs():
    good, near, _ = _three()
    label = near.label.copy()
    label[7] = 1 - label[7]
    with pytest.raises(
        ValueError, match=r"1 of 240 films, such as '7.png', are labelled otherwise"
    ):
        _compare([good, replace(near, label=label)])
    image = near.image.astype(object)
    image[3] = "new.png"
    with pytest.raises(ValueError, match=r"239 films are in both, 2 in one alone, such as '3.png'"):
        _compare([good, replace(near, image=image.astype(str))])
    with pytest.raises(ValueError, match="under split 0123 and split 4567"):
        _compare([good, replace(near, split="4567")])

"""The table of metrics: counts, notes, macro and micro, intervals over patients, trivial row."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    label_ranking_loss,
    matthews_corrcoef,
    multilabel_confusion_matrix,
    precision_score,
    roc_auc_score,
)

from lucency.audit.checks.issue import unverified
from lucency.audit.checks.prediction_checks import check_predictions
from lucency.core.manifest import FINDINGS
from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import once, resample_patients
from lucency.evaluation.evaluate import COLUMNS, PER_FILM_ROW, confusion_table, evaluate, trivial
from lucency.evaluation.intervals import INTERVALS
from lucency.evaluation.metrics import METRICS, PER_FILM

HALF = np.full(3, 0.5)
SHARES = [name for name in INTERVALS if name != "auc"]


def _predictions(films=300, patients=90, seed=0):
    generator = np.random.default_rng(seed)
    label = (generator.random((films, 3)) < (0.3, 0.1, 0.2)).astype(np.float32)
    logit = (generator.normal(size=(films, 3)) + label).astype(np.float32)
    return Predictions(
        network="net",
        split="0123",
        findings=("Mass", "Hernia", "Edema"),
        image=np.array([f"{film}.png" for film in range(films)]),
        patient=generator.integers(0, patients, size=films),
        part=np.full(films, "test"),
        label=label,
        logit=logit,
        feature=np.empty((films, 0), dtype=np.float32),
    )


def _take(predictions, rows):
    names = ("image", "patient", "part", "label", "logit", "feature")
    return replace(predictions, **{name: getattr(predictions, name)[rows] for name in names})


def _evaluate(predictions, *, threshold=HALF, resamples=80, seed=0):
    return evaluate(predictions, threshold=threshold, resamples=resamples, seed=seed)


def _cell(table, finding, metric):
    (row,) = table[(table["finding"] == finding) & (table["metric"] == metric)].to_dict("records")
    return row


def test_one_row_per_finding_and_metric_and_macro_and_micro_and_of_whole_films():
    table = _evaluate(_predictions())
    assert tuple(table.columns) == COLUMNS
    cells = {(f, m) for f in ("Mass", "Hernia", "Edema", "macro", "micro") for m in METRICS}
    cells |= {(PER_FILM_ROW, metric) for metric in PER_FILM}
    assert set(zip(table["finding"], table["metric"], strict=True)) == cells
    assert len(table) == len(cells)
    given = table[table["low"].notna()]
    assert (given["low"] <= given["value"]).all()
    assert (given["value"] <= given["high"]).all()
    without = table[table["low"].isna()]
    assert without["note"].str.contains("no interval").all()


def test_macro_is_the_mean_and_micro_the_pool_of_scikit_learn():
    predictions = _predictions()
    threshold = np.array([0.6, 0.4, 0.5])
    table = _evaluate(predictions, threshold=threshold)
    label, decision = predictions.label, predictions.probability >= threshold
    for average in ("macro", "micro"):
        area = roc_auc_score(label, predictions.logit, average=average)
        assert _cell(table, average, "auc")["value"] == pytest.approx(area, abs=1e-12)
        f1 = f1_score(label, decision, average=average)
        assert _cell(table, average, "f1")["value"] == pytest.approx(f1, abs=1e-12)


def test_confusion_is_scikit_learn_s():
    predictions, threshold = _predictions(), np.array([0.6, 0.4, 0.5])
    decision, cells = predictions.probability >= threshold, ["tn", "fp", "fn", "tp"]
    table = confusion_table(predictions, threshold=threshold)
    expected = multilabel_confusion_matrix(predictions.label, decision).reshape(3, 4)
    np.testing.assert_array_equal(table[cells], expected)
    assert (table[cells].sum(axis=1) == 300).all()
    assert table["threshold"].tolist() == threshold.tolist()
    assert table["finding"].tolist() == list(predictions.findings)
    label = predictions.label.copy()
    label[:120, 1] = np.nan  # not stated: in none of the four
    table = confusion_table(replace(predictions, label=label), threshold=threshold)
    stated = confusion_matrix(label[120:, 1], decision[120:, 1]).ravel()
    np.testing.assert_array_equal(table[cells], [expected[0], stated, expected[2]])
    with pytest.raises(ValueError, match="2 thresholds for 3 findings"):
        confusion_table(predictions, threshold=threshold[:2])


def test_counts_only_what_is_stated():
    predictions = _predictions()
    label = predictions.label.copy()
    label[:120, 1] = np.nan
    table = _evaluate(replace(predictions, label=label))
    hernia, macro = _cell(table, "Hernia", "auc"), _cell(table, "macro", "auc")
    assert hernia["films"] == 180
    assert hernia["positives"] == (label[120:, 1] == 1).sum()
    assert hernia["patients"] == len(set(predictions.patient[120:]))
    assert macro["films"] == 300
    assert macro["positives"] == (label == 1).sum()


def test_rows_of_whole_films_equal_scikit_learn_and_resample_patients():
    predictions = _predictions(films=120, patients=30)
    threshold = np.array([0.6, 0.4, 0.5])
    table = _evaluate(predictions, threshold=threshold, resamples=60, seed=7)
    decision = predictions.probability >= threshold
    oracles = {
        "label_ranking_loss": (label_ranking_loss, predictions.logit),
        "exact_match": (accuracy_score, decision),
    }
    drawn = resample_patients(predictions.patient, resamples=60, seed=7)
    for name, (oracle, given) in oracles.items():
        row = _cell(table, PER_FILM_ROW, name)
        assert row["value"] == pytest.approx(oracle(predictions.label, given), abs=1e-12)
        draws = [
            oracle(predictions.label, given, sample_weight=times[drawn.owner])
            for times in drawn.times.T
        ]
        patients = len(set(predictions.patient))
        assert (row["low"], row["high"]) == pytest.approx(_spread(row["value"], draws, patients))
        counts = {"films": 120, "positives": (predictions.label == 1).sum(), "note": ""}
        assert {key: row[key] for key in counts} == counts
        assert row["patients"] == len(set(predictions.patient))


def test_whole_films_without_labels_are_not_counted_and_lost_resamples_are():
    predictions = _predictions()
    label = np.full_like(predictions.label, np.nan)
    for name in PER_FILM:
        row = _cell(_evaluate(replace(predictions, label=label)), PER_FILM_ROW, name)
        assert np.isnan([row["value"], row["low"], row["high"]]).all()
        assert row["note"] == "not computable: 0 films with a label"
        assert (row["films"], row["positives"], row["patients"]) == (0, 0, 0)
    label[predictions.patient == predictions.patient[0]] = 0, 1, np.nan
    table = _evaluate(replace(predictions, label=label), resamples=1000)
    for name in PER_FILM:
        note = _cell(table, PER_FILM_ROW, name)["note"]
        lost = int(note.removeprefix("not computable in ").split()[0])
        assert lost == pytest.approx(1000 * np.exp(-1), abs=60)
        assert note.endswith("of 1000 resamples, left out of the interval")


def test_the_checks_of_tables_find_nothing_wrong_with_this_one():
    """Rows of whole films have no macro and are no finding: they must not be taken for one."""
    predictions = _predictions()
    table = pd.concat([_evaluate(predictions), _evaluate(trivial(predictions, prevalence=HALF))])
    published = replace(unverified(predictions), scores=table)
    checks = {"mean_of_another_table", "unexplained_gaps", "no_interval", "no_baseline"}
    assert checks.isdisjoint(issue.check for issue in check_predictions(published))
    wrong = table.assign(value=table["value"].where(table["finding"] != "macro", 0.9))
    found = {issue.check for issue in check_predictions(replace(published, scores=wrong))}
    assert "mean_of_another_table" in found


def _spread(value, draws, patients):
    """Return the ends of an interval by the standard deviation of resamples."""
    error = np.std(draws, ddof=1) * np.sqrt(patients / (patients - 1))
    reach = student.ppf(0.975, patients - 1) * error
    return max(min(draws), value - reach), min(max(draws), value + reach)


def test_interval_is_by_the_spread_of_plainly_repeated_evaluations():
    """Each resample written out as a longer list of films, and scikit-learn's MCC of it."""
    predictions = _predictions(films=240, patients=80)
    drawn = resample_patients(predictions.patient, resamples=60, seed=7)
    label, called = predictions.label[:, 0], predictions.probability[:, 0] >= 0.5
    values = []
    for times in drawn.times.T:
        rows = np.repeat(np.arange(240), times[drawn.owner].astype(int))
        values.append(matthews_corrcoef(label[rows], called[rows]))
    row = _cell(_evaluate(predictions, resamples=60, seed=7), "Mass", "mcc")
    rarer = min(len(set(predictions.patient[label == one])) for one in (0, 1))
    assert (row["low"], row["high"]) == pytest.approx(_spread(row["value"], values, rarer))


def test_each_resample_draws_whole_patients_as_many_as_there_are():
    predictions = _predictions()
    drawn = resample_patients(predictions.patient, resamples=50, seed=0)
    patients = len(set(predictions.patient))
    assert drawn.times.shape == (patients, 50)
    assert (drawn.times.sum(axis=0) == patients).all()
    assert drawn.times.mean() == 1
    assert 0.8 < drawn.times.var() < 1.2  # Poisson-like, as drawing with replacement is


def test_the_draw_depends_on_seed_and_patients_alone():
    table = _evaluate(_predictions())
    again = _evaluate(_predictions())
    pd.testing.assert_frame_equal(table, again)
    assert not table["low"].equals(_evaluate(_predictions(), seed=1)["low"])
    order = np.random.default_rng(1).permutation(300)
    shuffled = _evaluate(_take(_predictions(), order))
    pd.testing.assert_frame_equal(table, shuffled, rtol=1e-12)


def test_every_film_twice_leaves_all_intervals_as_they_were():
    """Each copy belongs to the same patient, so nothing new is known; films alone would narrow."""
    predictions = _predictions()
    twice = _take(predictions, np.repeat(np.arange(300), 2))
    single, doubled = (
        _evaluate(one).set_index(["finding", "metric"]) for one in (predictions, twice)
    )
    columns, kept = ["value", "low", "high"], ~single.index.isin(["average_precision"], level=1)
    alike = ~single.index.isin(SHARES, level=1) & kept  # the others' intervals are not of shares
    pd.testing.assert_frame_equal(single[columns][alike], doubled[columns][alike], rtol=1e-9)
    np.testing.assert_allclose(single[columns][kept], doubled[columns][kept], atol=0.02)
    strangers = replace(twice, patient=np.arange(600))
    width = [_width(_evaluate(one)) for one in (predictions, strangers)]
    assert width[1] < 0.85 * width[0]


def test_films_of_one_patient_that_agree_widen_the_interval():
    """An interval over films would be too narrow: ten equal films a patient are one film."""
    ten = _take(_predictions(films=90), np.repeat(np.arange(90), 10))
    nine = np.repeat(np.arange(90), 10)
    by_patient = _width(_evaluate(replace(ten, patient=nine)))
    by_film = _width(_evaluate(replace(ten, patient=np.arange(900))))
    assert by_patient > 2 * by_film


def _width(table):
    row = _cell(table, "micro", "auc")
    return row["high"] - row["low"]


def test_what_cannot_be_computed_is_said():
    predictions = _predictions()
    label = predictions.label.copy()
    label[:, 1] = 0
    table = _evaluate(replace(predictions, label=label))
    row = _cell(table, "Hernia", "auc")
    assert np.isnan([row["value"], row["low"], row["high"]]).all()
    assert row["note"] == "not computable: 0 positives"
    macro = _cell(table, "macro", "auc")
    mean = np.mean([_cell(table, finding, "auc")["value"] for finding in ("Mass", "Edema")])
    assert macro["value"] == pytest.approx(mean)
    assert macro["note"] == "mean over 2 of 3 findings, without Hernia"


def test_too_few_patients_have_no_interval_and_the_note_says_how_few():
    predictions = _predictions()
    label = predictions.label.copy()
    label[:, 1] = np.isin(np.arange(300), (5, 200))
    table = _evaluate(replace(predictions, label=label, patient=np.arange(300)))
    row = _cell(table, "Hernia", "auc")
    assert np.isnan(row["low"])
    assert row["note"] == "no interval: patients with positives 2, expected 3 or more"
    note = _cell(table, "Hernia", "brier")["note"]
    assert note == "no interval: patients with positives 2, expected 30 or more"
    macro = _cell(table, "macro", "auc")
    assert macro["note"] == "mean over 3 of 3 findings"
    assert macro["low"] < macro["value"] < macro["high"]


def test_a_finding_that_is_never_called_counts_0_in_a_mean():
    """Else thresholds that call no hard finding would raise macro precision."""
    predictions = _predictions()
    never = np.array([0.5, 2.0, 0.5])
    table = _evaluate(predictions, threshold=never)
    called = predictions.probability >= never
    for name, of in (("precision", precision_score), ("mcc", matthews_corrcoef)):
        pairs = zip(predictions.label[:, [0, 2]].T, called[:, [0, 2]].T, strict=True)
        each = [of(*pair) for pair in pairs]
        assert np.isnan(_cell(table, "Hernia", name)["value"])
        macro = _cell(table, "macro", name)
        assert macro["value"] == pytest.approx(sum(each) / 3)
        assert macro["note"] == "mean over 3 of 3 findings, 0 for Hernia, which is never called so"


def test_the_average_precision_states_its_bias_and_its_interval_is_without_it():
    """Means over data sets: the value is above the truth, what its interval is of is not."""
    truth, values, middles, notes = (
        0.1733,
        [],
        [],
        [],
    )  # by integration: binormal, d = 1, prevalence .05
    for seed in range(40):
        generator = np.random.default_rng(seed)
        label = (generator.random((800, 1)) < 0.05).astype(np.float32)
        predictions = replace(
            _predictions(films=800), findings=("Mass",), label=label, patient=np.arange(800),
            logit=generator.normal(size=label.shape) + label,
        )  # fmt: skip
        row = _cell(
            evaluate(predictions, threshold=HALF[:1], resamples=40, seed=0),
            "macro",
            "average_precision",
        )
        values.append(row["value"])
        middles.append((row["low"] + row["high"]) / 2)
        notes.append("bias +0.0" in row["note"])
    assert np.mean(notes) > 0.8
    error = np.std(values) / np.sqrt(40)
    assert np.mean(values) - np.mean(middles) > 0.01
    assert np.mean(middles) == pytest.approx(truth, abs=2.5 * error)


def test_trivial_predictor_is_accurate_and_knows_nothing():
    predictions = _predictions()
    prevalence = np.array([0.3, 0.1, 0.0])
    predicted = trivial(predictions, prevalence=prevalence)
    np.testing.assert_allclose(predicted.probability[17], (0.3, 0.1, 1e-6), rtol=1e-6)
    table = _evaluate(predicted)
    assert (table["network"] == "trivial").all()
    for finding, share in zip(predictions.findings, predictions.label.mean(axis=0), strict=True):
        area = _cell(table, finding, "auc")
        assert (area["value"], area["low"], area["high"]) == (0.5, 0.5, 0.5)
        assert _cell(table, finding, "accuracy")["value"] == pytest.approx(1 - share)
        assert _cell(table, finding, "recall")["value"] == 0
        assert "0 films called positive" in _cell(table, finding, "precision")["note"]


def test_calling_nothing_positive_is_as_accurate_as_published(shared):
    """Facts, evaluation.md: .924 on the official test films, .94829 on all of ChestX-ray14."""
    columns = ["Image Index", "Finding Labels", "Patient ID"]
    table = pd.read_csv(shared / "nih" / "Data_Entry_2017_v2020.csv", usecols=columns)
    table = table.set_index("Image Index")
    code, distinct = pd.factorize(table["Finding Labels"])
    tokens = pd.Series(distinct).str.get_dummies("|")[list(FINDINGS)]
    label = tokens.to_numpy(dtype=np.float32)[code]
    nothing = np.zeros(label.size, dtype=bool)
    accuracy = METRICS["accuracy"].function(label.ravel(), nothing, weights=once(label.size))
    assert f"{accuracy[0]:.5f}" == "0.94829"

    rows = table.index.get_indexer((shared / "nih" / "test_list.txt").read_text().split())
    films = Predictions(
        network="any",
        split="official",
        findings=FINDINGS,
        image=table.index.to_numpy(dtype=str)[rows],
        patient=table["Patient ID"].to_numpy()[rows],
        part=np.full(len(rows), "test"),
        label=label[rows],
        logit=np.zeros((len(rows), 14), dtype=np.float32),
        feature=np.empty((len(rows), 0), dtype=np.float32),
    )
    predicted = trivial(films, prevalence=label.mean(axis=0, dtype=np.float64))
    found = evaluate(predicted, threshold=np.full(14, 0.5), resamples=2, seed=0)
    for average in ("macro", "micro"):
        assert f"{_cell(found, average, 'accuracy')['value']:.3f}" == "0.924"
    assert _cell(found, "macro", "auc")["value"] == 0.5
    clear = (table["Finding Labels"].iloc[rows] == "No Finding").mean()
    assert _cell(found, PER_FILM_ROW, "exact_match")["value"] == pytest.approx(clear, abs=1e-12)


def test_a_film_at_its_threshold_is_called_positive():
    predictions = _predictions()
    at = replace(predictions, logit=np.zeros_like(predictions.logit))
    assert _cell(_evaluate(at), "micro", "recall")["value"] == 1


@pytest.mark.parametrize("parts", [["val", "test"], []])
def test_several_parts_at_once_are_refused(parts):
    predictions = _predictions()
    rows = np.arange(100 * len(parts))
    part = np.repeat(np.array(parts, dtype=str), 100)
    mixed = replace(_take(predictions, rows), part=part)
    with pytest.raises(ValueError, match=r"expected one part: take predictions\.of"):
        _evaluate(mixed)


def test_a_threshold_for_each_finding_is_required():
    with pytest.raises(ValueError, match="2 thresholds for 3 findings"):
        _evaluate(_predictions(), threshold=np.full(2, 0.5))


def test_one_patient_s_positives_have_no_interval_and_say_so():
    generator = np.random.default_rng(0)
    patient = np.arange(60) // 3
    label = np.zeros((60, 2), dtype=np.float32)
    label[:3, 0], label[::2, 1] = 1, 1
    predicted = Predictions(
        network="net", split="0123", findings=("Hernia", "Mass"),
        image=np.arange(60).astype(str), patient=patient, part=np.full(60, "test"), label=label,
        logit=generator.normal(size=label.shape), feature=np.empty((60, 0), dtype=np.float32),
    )  # fmt: skip
    table = evaluate(predicted, threshold=np.full(2, 0.5), resamples=50, seed=0)
    rows = table.set_index(["finding", "metric"])
    lone, many = rows.loc[("Hernia", "auc")], rows.loc[("Mass", "auc")]
    assert np.isnan([lone["low"], lone["high"]]).all()
    assert lone["note"] == "no interval: patients with positives 1, expected 3 or more"
    assert not np.isnan(lone["value"])
    assert many["low"] < many["value"] < many["high"]
    assert np.isnan(rows.loc[("Hernia", "brier"), "low"])
    assert not np.isnan(rows.loc[("Hernia", "accuracy"), "low"])

"""Conformal sets and cutoff: MAPIE's where a patient has one film; coverage over repeats."""

import os
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from mapie.risk_control import MultiLabelClassificationController
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin

from lucency.core.predictions import Predictions
from lucency.evaluation import conformal
from lucency.evaluation.conformal import (
    conformal_quantile,
    fit_sets,
    risk_cutoff,
    sets_as_plain,
    sets_of,
)
from lucency.phantom.cohort import draw_population
from tasks import mean_grey

FINDINGS = ("Mass", "Hernia", "Edema")
REPEATS, LEVEL = 200, 0.1


def predictions(label, logit, patient, part="val"):
    films = len(label)
    return Predictions(
        network="net",
        split="0123",
        findings=FINDINGS[: label.shape[1]],
        image=np.arange(films).astype(str),
        patient=np.asarray(patient, dtype=np.int64),
        part=np.full(films, part),
        label=label.astype(np.float32),
        logit=logit.astype(np.float32),
        feature=np.empty((films, 0), dtype=np.float32),
    )


class Known(ClassifierMixin, BaseEstimator):
    """Probabilities that are their own features."""

    classes_ = np.array([0, 1])
    n_features_in_ = 1

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, x, y):
        return self

    def predict(self, x):
        return (np.asarray(x)[:, 0] > 0.5).astype(int)

    def predict_proba(self, x):
        x = np.asarray(x)[:, 0]
        return np.column_stack([1 - x, x])


@pytest.mark.parametrize("error", [0.1, 0.25])
def test_sets_are_mapies_where_each_patient_has_one_film(error):
    generator = np.random.default_rng(1)
    label = (generator.random((120, 1)) < 0.4).astype(np.float32)
    shown = predictions(label, generator.normal(size=(120, 1)) + 2 * label, np.arange(120))
    new = np.linspace(0.001, 0.999, 500)[:, None]
    absent, present = fit_sets(shown, error=error, missed=0.2).holds(new)[..., 0]
    for value, mine in ((0, absent), (1, present)):
        films = label[:, 0] == value
        theirs = SplitConformalClassifier(Known(), confidence_level=1 - error, prefit=True)
        with warnings.catch_warnings(action="ignore"):  # that all films have one label
            theirs.conformalize(shown.probability[films], np.full(films.sum(), value))
        np.testing.assert_array_equal(mine, theirs.predict_set(new)[1][:, value, 0])


@pytest.mark.parametrize("missed", [0.05, 0.1, 0.3])
def test_cutoff_is_mapies_where_each_patient_has_one_film(missed):
    generator = np.random.default_rng(2)
    label = (generator.random((150, 3)) < (0.3, 0.1, 0.5)).astype(np.float32)
    label = label[label.any(axis=1)]
    # Of two decimals and a half, so that no probability lies on a step of MAPIE's.
    probability = np.floor(expit(generator.normal(size=label.shape) + 2 * label) * 100) / 100 + 5e-3
    cutoff, note = risk_cutoff(label, probability, patient=np.arange(len(label)), missed=missed)
    theirs = MultiLabelClassificationController(
        predict_function=lambda x: x, risk="recall", method="crc", target_level=1 - missed
    )
    theirs.calibrate(probability, label)
    assert not note
    assert cutoff == pytest.approx(float(theirs.best_predict_param[0]) + 5e-3, abs=1e-9)


def test_quantile_is_the_weighted_one_by_hand():
    # Patients of 1, 2 and 4 films: a film weighs 1/4, 1/8 and 1/16, and 1/4 lies at infinity.
    patient = np.array([7, 8, 8, 9, 9, 9, 9])
    score = np.array([0.5, 0.1, 0.9, 0.2, 0.3, 0.4, 0.6])
    # In order .1 .2 .3 .4 .5 .6 .9 the sums are .125 .1875 .25 .3125 .5625 .625 .75.
    levels = {0.25: 0.9, 0.375: 0.6, 0.4: 0.6, 0.4375: 0.5, 0.7: 0.4, 0.24: np.inf}
    for error, expected in levels.items():
        assert conformal_quantile(score, patient=patient, error=error) == expected
    order = np.random.default_rng(0).permutation(7)
    assert conformal_quantile(score[order], patient=patient[order], error=0.25) == 0.9


@pytest.mark.parametrize(("patients", "finite"), [(8, False), (9, True), (19, True)])
def test_too_few_patients_have_no_bound(patients, finite):
    found = conformal_quantile(np.arange(patients) / 1.0, patient=np.arange(patients), error=0.1)
    assert np.isfinite(found) == finite
    if finite:
        assert found == np.ceil(0.9 * (patients + 1)) - 1


def test_cutoff_by_hand():
    # Two patients with findings of 1 and 2 films; the third has none and does not count.
    label = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], dtype=np.float32)
    probability = np.array([[0.8, 0.2], [0.6, 0.9], [0.1, 0.4], [0.9, 0.9]])
    patient = np.array([1, 2, 2, 3])
    # Losses below .4: 1/2 of patient 1; below .6: and 1/2 of patient 2; (sum + 1) / 3.
    about = {"patient": patient}
    assert risk_cutoff(label, probability, missed=0.5, **about) == (0.4, "")
    assert risk_cutoff(label, probability, missed=0.49, **about) == (0.2, "")
    assert risk_cutoff(label, probability, missed=0.7, **about) == (0.6, "")
    zero, note = risk_cutoff(label, probability, missed=0.3, **about)
    assert (zero, note) == (0.0, "all are possible: 2 patients with findings, expected 3 or more")


def test_few_patients_are_noted_and_sets_hold_the_label():
    label = np.zeros((30, 1))
    label[:8] = 1
    shown = predictions(label, np.linspace(3, -3, 30)[:, None], np.arange(30))
    sets = fit_sets(shown, error=0.1, missed=0.1)
    assert sets.present_from.tolist() == [0]
    assert 0 < sets.absent_to[0] < 1
    note = "always holds present: 8 patients with it, expected 9 or more"
    assert sets.note == (note,)
    assert sets.words(np.array([[0.0], [1.0]])).tolist() == [["undecided"], ["present"]]
    assert sets.cutoff == 0
    assert sets.possible(np.array([[0.0]])).all()


def test_words_are_those_of_what_sets_hold():
    plain = {
        "error": 0.1, "present_from": [0.7, 0.2], "absent_to": [0.3, 0.6], "note": ["", ""],
        "missed": 0.1, "cutoff": 0.25, "cutoff_note": "",
    }  # fmt: skip
    sets = sets_of(plain)
    assert sets is not None
    words = sets.words(np.array([[0.2, 0.1], [0.5, 0.4], [0.7, 0.7]]))
    assert words.tolist() == [["absent", "absent"], ["neither", "undecided"], ["present"] * 2]
    assert sets_as_plain(sets) == plain
    assert sets_of(None) is None


def test_other_films_than_validation_are_refused():
    shown = predictions(np.ones((3, 1)), np.ones((3, 1)), np.arange(3), part="test")
    with pytest.raises(ValueError, match="sets fitted to test films; expected validation"):
        fit_sets(shown, error=0.1, missed=0.1)
    with pytest.raises(ValueError, match="error is 1; expected between 0 and 1"):
        fit_sets(shown, error=1.0, missed=0.1)


def test_recalibration_changes_no_set():
    label, logit, patient = draw(np.random.default_rng(4), 60)
    plain = predictions(label, logit, patient)
    line = replace(plain, slope=np.array([2.0, 0.5, 1.0]), offset=np.array([1.0, -3.0, 0.0]))
    kinds = [fit_sets(one, error=0.1, missed=0.1).words(one.probability) for one in (plain, line)]
    np.testing.assert_array_equal(*kinds)


def draw(generator, patients):
    """Return label and logit of 3 findings, and patient, of films of patients drawn anew.

    Films of a patient are alike. Who is filmed often is ill and easily read: patients of many films
    must not stand for all.
    """
    often = generator.random(patients) < 0.3
    films = np.where(often, 8, 1)
    patient = np.repeat(np.arange(patients), films)
    ill = generator.random((patients, 3)) < np.where(often, 0.7, 0.4)[:, None]
    label = ill[patient] ^ (generator.random((len(patient), 3)) < 0.1)
    apart = np.where(often, 4.0, 1.0)[patient, None] * (2 * label - 1)
    common = generator.normal(size=(patients, 3))[patient]
    logit = apart + common + 0.5 * generator.normal(size=label.shape)
    return label.astype(np.float32), logit, patient


def mean_by_patient(value, rows, patient):
    """Return the mean over patients of their means over these films."""
    _, owner = np.unique(patient[rows], return_inverse=True)
    count = np.bincount(owner)
    return (np.bincount(owner, weights=value[rows]) / count).mean()


@cache
def repeated(patients=40, new=250):
    """Return, of every repeat, the coverage of each finding and label, and the share missed.

    The rows by how sets are fitted: as they are, films as units, and without the K + 1.
    """
    return {
        name: np.array([one_repeat(seed, patients, new, name) for seed in range(REPEATS)])
        for name in ("as they are", "films", "no K + 1")
    }


def one_repeat(seed, patients, new, way):
    generator = np.random.default_rng([seed, 11])
    label, logit, patient = draw(generator, patients)
    fitted = np.arange(len(patient)) if way == "films" else patient
    with pytest.MonkeyPatch.context() as patched:
        if way == "no K + 1":
            honest = conformal.patient_weights

            def without(patient):
                weight, count = honest(patient)
                return weight, count - 1

            patched.setattr(conformal, "patient_weights", without)
        sets = fit_sets(predictions(label, logit, fitted), error=LEVEL, missed=LEVEL)
    label, logit, patient = draw(generator, new)
    shown = predictions(label, logit, patient)
    return [*covered(sets, shown), missed_share(sets, shown)]


def covered(sets, shown):
    """Return the share of sets that hold the truth, by finding, of films without and with it."""
    holds, truth = sets.holds(shown.probability), shown.label
    return [
        mean_by_patient(holds[value][:, k].astype(float), truth[:, k] == value, shown.patient)
        for k in range(truth.shape[1])
        for value in (0, 1)
    ]


def missed_share(sets, shown):
    present = shown.label == 1
    lost = (present & ~sets.possible(shown.probability)).sum(axis=1)
    share = lost / np.maximum(present.sum(axis=1), 1)
    return mean_by_patient(share, present.any(axis=1), shown.patient)


def interval_of(value):
    """Return the 95 % interval of the mean of repeats."""
    reach = 1.96 * value.std(ddof=1) / np.sqrt(len(value))
    return value.mean() - reach, value.mean() + reach


def test_coverage_is_as_promised_over_repeats():
    found = repeated()["as they are"]
    coverage, lost = found[:, :-1], found[:, -1]
    for cell in (*coverage.T, coverage.mean(axis=1)):
        low, high = interval_of(cell)
        assert high >= 1 - LEVEL
        assert low <= 1 - LEVEL + 0.08  # of a step of 1 / (K + 1), about 18 patients
    low, high = interval_of(lost)
    assert low <= LEVEL
    assert high >= LEVEL - 0.04


def test_promise_is_broken_where_films_are_units():
    found = repeated()["films"]
    assert interval_of(found[:, :-1].mean(axis=1))[1] < 1 - LEVEL
    assert interval_of(found[:, -1])[0] > LEVEL


def test_promise_is_broken_without_the_patient_to_come():
    found = repeated()["no K + 1"]
    assert interval_of(found[:, :-1].mean(axis=1))[1] < 1 - LEVEL


SHOWN = ("Effusion", "Atelectasis")  # which whiten a film
LOOSER = 0.2  # a level for few patients: phantoms cost time
PEOPLE, OTHERS = 60, 40  # patients of a repeat to whom sets are fitted, and of the other hospital
MOST = 2  # films of a phantom patient


@cache
def phantoms(patients, *, hospital):
    """Return predictions of phantoms: the mean grey of a film is the logit of both findings."""
    several = draw_population(films=5 * patients, seed=hospital, hospital=hospital)[:patients]
    assert len(several) == patients
    drawn = [(who, film) for who, its in several for film in its[:MOST]]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        grey = list(pool.map(mean_grey, drawn, chunksize=500))
    label = np.array([[name in film.stated for name in SHOWN] for _, film in drawn])
    logit = np.tile((np.array(grey)[:, None] - 125) / 15, (1, 2))
    return predictions(label, logit, [who.number for who, _ in drawn])


@cache
def phantom_repeats():
    """Return coverage and share missed of REPEATS repeats, in hospital 1 and in 2.

    No patient is in two repeats.
    """
    own = dealt(phantoms(2 * REPEATS * PEOPLE, hospital=1), 2 * REPEATS)
    other = dealt(phantoms(REPEATS * OTHERS, hospital=2), REPEATS)
    found = ([], [])
    for fitted, *tested in zip(own[:REPEATS], own[REPEATS:], other, strict=True):
        sets = fit_sets(fitted, error=LOOSER, missed=LOOSER)
        for rows, shown in zip(found, tested, strict=True):
            rows.append([*covered(sets, shown), missed_share(sets, shown)])
    return [np.array(rows) for rows in found]


def dealt(shown, parts):
    """Return the films of as many parts of the patients, which share none."""
    place = np.unique(shown.patient, return_inverse=True)[1] % parts
    return [shown.take(np.flatnonzero(place == part)) for part in range(parts)]


@pytest.mark.slow
def test_coverage_on_phantoms_is_as_promised():
    found = phantom_repeats()[0]
    coverage, lost = found[:, :-1], found[:, -1]
    for cell in (*coverage.T, coverage.mean(axis=1)):
        assert interval_of(cell)[1] >= 1 - LOOSER
        assert interval_of(cell)[0] <= 1 - LOOSER + 0.08
    assert interval_of(lost)[0] <= LOOSER


@pytest.mark.slow
def test_coverage_fails_in_the_second_hospital_of_phantoms():
    coverage = phantom_repeats()[1][:, :-1]
    assert interval_of(coverage.mean(axis=1))[1] < 1 - LOOSER
    for cell in coverage[:, 1::2].T:  # of films with the finding, which are darker there
        assert interval_of(cell)[1] < 1 - LOOSER - 0.1

"""Distances from the training films against scipy and scikit-learn, and the promise they keep."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_expit
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from lucency.evaluation import unfamiliarity as made
from lucency.evaluation.unfamiliarity import (
    KEPT,
    SCORES,
    KnownFilms,
    Unfamiliarity,
    calibrate,
    fit_unfamiliarity,
    know_films,
    load_unfamiliarity,
    needed_patients,
    quantile_of,
    save_unfamiliarity,
    spread_of,
)

WIDTH, REFUSED = 12, 0.1
Calibrated = tuple[np.ndarray, np.ndarray]
Fit = Callable[[np.ndarray, np.ndarray], Calibrated]


def _features(films: int, *, seed: int, width: int = WIDTH) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(width, width)) * np.geomspace(3, 0.1, width)
    return (generator.normal(size=(films, width)) @ mixing.T + 1).astype(np.float32)


def _sklearn_mahalanobis(logit: np.ndarray, feature: np.ndarray, train: np.ndarray) -> np.ndarray:
    return np.sqrt(LedoitWolf().fit(train.astype(np.float64)).mahalanobis(feature))


def _sklearn_neighbour(logit: np.ndarray, feature: np.ndarray, train: np.ndarray) -> np.ndarray:
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (train, feature)]
    return NearestNeighbors(n_neighbors=10).fit(unit[0]).kneighbors(unit[1])[0][:, -1]


ORACLES = {
    "energy": lambda logit, feature, train: log_expit(-logit.astype(np.float64)).sum(axis=1),
    "mahalanobis": _sklearn_mahalanobis,
    "neighbour": _sklearn_neighbour,
}


def test_no_score_lacks_an_oracle():
    assert ORACLES.keys() == SCORES.keys()
    assert {*KEPT} < {*SCORES}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("films", [200, 9], ids=["many films", "fewer films than features"])
def test_a_distance_is_that_of_scipy_and_scikit_learn(name: str, films: int):
    train, feature = _features(films, seed=1), _features(30, seed=2) * 2
    logit = np.random.default_rng(3).normal(size=(30, 5)).astype(np.float32) * 20
    if name == "neighbour" and films < 10:
        train = _features(10, seed=1)
    known = know_films(train, neighbours=10, seed=0)
    expected = ORACLES[name](logit, feature, train)
    assert SCORES[name](logit, feature, known) == pytest.approx(expected, rel=2e-4)


def test_of_more_directions_than_are_kept_the_others_share_their_variance():
    train, feature = _features(300, seed=1), _features(20, seed=2)
    spread = spread_of(train, most=4)
    whole = LedoitWolf().fit(train.astype(np.float64)).covariance_
    value, vector = np.linalg.eigh(whole)
    value[:-4] = value[:-4].mean()
    rest = feature - train.mean(axis=0, dtype=np.float64)
    expected = np.sqrt((np.square(rest @ vector) / value).sum(axis=1))
    known = KnownFilms(spread=spread, direction=np.empty((0, WIDTH), np.float32))
    found = SCORES["mahalanobis"](np.zeros((20, 1), np.float32), feature, known)
    assert found == pytest.approx(expected, rel=1e-4)
    assert spread.direction.shape == (4, WIDTH)


def test_features_that_do_not_differ_are_refused():
    with pytest.raises(ValueError, match="features of 5 training films do not differ"):
        spread_of(np.ones((5, 3), np.float32))


def _population(patients: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Distances of films and their patients: the few with many films lie nearer than others."""
    many = generator.random(patients) < 0.15
    films = np.where(many, 20, 1)
    patient = np.repeat(np.arange(patients), films)
    return generator.normal(size=len(patient)) * 0.1 - np.repeat(many * 3.0, films), patient


def _share_refused(fit: Fit, *, patients: int, repeats: int = 1000) -> float:
    """The mean over repeats of the share of new patients' films that are refused."""
    generator, shares = np.random.default_rng(7), []
    for _ in range(repeats):
        at, share = fit(*_population(patients, generator))
        distance, patient = _population(300, generator)
        out = quantile_of(distance, at, share) >= 1 - REFUSED - made.ROUNDING
        shares.append((np.bincount(patient, out) / np.bincount(patient)).mean())
    return float(np.mean(shares))


def _calibrated(distance: np.ndarray, patient: np.ndarray) -> Calibrated:
    return calibrate(distance, patient=patient, refused=REFUSED)


def _with_films_as_units(distance: np.ndarray, patient: np.ndarray) -> Calibrated:
    return calibrate(distance, patient=np.arange(len(patient)), refused=REFUSED)


def _without_the_new_patient(distance: np.ndarray, patient: np.ndarray) -> Calibrated:
    at, share = _calibrated(distance, patient)
    return at, share / share[-1]


@pytest.mark.parametrize("patients", [9, 10, 60])
def test_no_more_than_the_promised_share_of_new_patients_films_is_refused(patients: int):
    """Over 1,000 draws of validation and of new patients; never by refusing nothing."""
    assert REFUSED / 2 <= _share_refused(_calibrated, patients=patients) <= REFUSED + 0.01


@pytest.mark.parametrize(
    ("mistake", "patients"), [(_with_films_as_units, 60), (_without_the_new_patient, 10)]
)
def test_the_promise_is_broken_by_the_two_usual_mistakes(mistake: Fit, patients: int):
    assert _share_refused(mistake, patients=patients) > REFUSED + 0.02


def test_a_film_is_refused_from_as_many_patients_on_as_are_needed():
    assert needed_patients(REFUSED) == 9
    for patients in (8, 9):
        distance, patient = np.arange(patients, dtype=np.float64), np.arange(patients)
        at, share = calibrate(distance, patient=patient, refused=REFUSED)
        found = _stored(distance=at, share=share, patients=patients)
        assert bool(found.refuses(quantile_of(np.array([99.0]), at, share))[0]) is (patients == 9)
        assert ("from 9 on" in found.note) is (patients == 8)


def _stored(**changes) -> Unfamiliarity:
    train, feature = _features(120, seed=1), _features(40, seed=2)
    about = {"score": "mahalanobis", "refused": REFUSED, "training": len(train)}
    known = know_films(train, neighbours=10, seed=0)
    logit = np.zeros((40, 3), np.float32)
    patient = np.arange(40) // 2
    found = fit_unfamiliarity(known, logit=logit, feature=feature, patient=patient, **about)
    return replace(found, **changes)


def test_of_many_distances_some_are_kept_and_the_limit_is_among_them(
    monkeypatch: pytest.MonkeyPatch,
):
    distance = np.random.default_rng(0).normal(size=3000)
    patient = np.arange(3000) // 3
    monkeypatch.setattr(made, "QUANTILES", 10_000)
    whole = calibrate(distance, patient=patient, refused=0.037)
    monkeypatch.setattr(made, "QUANTILES", 50)
    at, share = calibrate(distance, patient=patient, refused=0.037)
    assert len(at) <= 50
    films = np.linspace(-4, 4, 5001)
    every, kept = quantile_of(films, *whole), quantile_of(films, at, share)
    assert (kept <= every + 1e-12).all()
    assert ((kept >= 0.963) == (every >= 0.963)).all()
    assert every - kept == pytest.approx(0, abs=0.025)


def test_what_is_stored_comes_back_and_holds_no_single_film(tmp_path: Path):
    found = _stored()
    save_unfamiliarity(found, tmp_path)
    back = load_unfamiliarity(tmp_path)
    feature, logit = _features(25, seed=5) * 1.5, np.zeros((25, 3), np.float32)
    assert back.of(logit, feature).tolist() == found.of(logit, feature).tolist()
    assert 0 < back.refuses(back.of(logit, feature)).mean() < 1
    assert (back.score, back.refused, back.films, back.patients) == ("mahalanobis", REFUSED, 40, 20)
    sizes = {len(one) for one in (back.spread.mean, back.spread.direction, back.distance)}
    assert back.training not in sizes
    with pytest.raises(ValueError, match="expected 12, those of the network"):
        back.of(logit, feature[:, :5])
    content = bytearray((tmp_path / made.FILE).read_bytes())
    content[-1] ^= 1
    (tmp_path / made.FILE).write_bytes(content)
    with pytest.raises(ValueError, match="its arrays are not those that were written"):
        load_unfamiliarity(tmp_path)
    (tmp_path / made.FILE).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        load_unfamiliarity(tmp_path)


def test_a_distance_that_needs_single_films_is_not_stored():
    with pytest.raises(ValueError, match="'neighbour' cannot be stored"):
        fit_unfamiliarity(
            know_films(_features(20, seed=1), neighbours=3, seed=0),
            logit=np.zeros((4, 2), np.float32),
            feature=_features(4, seed=2),
            patient=np.arange(4),
            score="neighbour",
            refused=0.1,
            training=20,
        )

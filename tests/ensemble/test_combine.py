"""Ensembles: predictions of tables, files and runs; each method against its definition."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from lucency.config.ensemble_section import Ensemble, LearnerName
from lucency.config.sections import DRAWS, EvaluationChoices
from lucency.core.predictions import Predictions, concatenate, load_predictions, save_predictions
from lucency.ensemble import ensembles
from lucency.ensemble.ensembles import EQUAL, METHODS, make_ensemble
from lucency.ensemble.external_ensembles import ensemble_networks
from lucency.ensemble.feature_classifiers import LEARNERS
from lucency.evaluation.calibration import recalibrated
from lucency.evaluation.compare import Entry, compare, leaderboard

FINDINGS = ("Mass", "Edema")
FILMS = 400
QUICK = EvaluationChoices(resamples=60)


def a_network(name: str, *, noise: float, seed: int) -> Predictions:
    """A network that sees labels through noise: the first half of the films validates."""
    label = (np.random.default_rng(7).random((FILMS, 2)) < (0.4, 0.2)).astype(np.float32)
    heard = np.random.default_rng(seed).normal(size=label.shape)
    return Predictions(
        network=name,
        split="0123",
        findings=FINDINGS,
        image=np.array([f"{film:03d}.png" for film in range(FILMS)]),
        patient=np.arange(FILMS) // 2,
        part=np.repeat(["val", "test"], FILMS // 2),
        label=label,
        logit=(2 * label - 1 + noise * heard).astype(np.float32),
        feature=np.empty((FILMS, 0), dtype=np.float32),
    )


def three() -> list[Predictions]:
    return [a_network(f"net{seed}", noise=1 + 0.3 * seed, seed=seed) for seed in range(3)]


def silent(*_: object) -> None:
    return


def test_protocols_can_name_every_ensemble_and_learner():
    assert set(Ensemble.__args__) == set(METHODS)
    assert set(LearnerName.__args__) == set(LEARNERS)


def test_parts_put_together_are_the_whole():
    one = three()[0]
    whole = concatenate([one.of("val"), one.of("test")])
    for name in ("image", "patient", "part", "label", "logit", "feature"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(one, name))
    with pytest.raises(ValueError, match="network or source, split and findings of parts"):
        concatenate([one, replace(one, network="other")])


@pytest.mark.parametrize("method", METHODS)
def test_poisoned_test_labels_change_no_say(method: str, monkeypatch: pytest.MonkeyPatch):
    """From the fit of an ensemble to its recalibration, test labels are never seen."""
    monkeypatch.setattr(ensembles, "GENERATIONS", 3)
    networks = three()
    tests = networks[0].part == "test"
    poisoned = np.where(tests[:, None], 1 - networks[0].label, networks[0].label)
    found, other = (
        recalibrated(make_ensemble(several, method=method, seed=0).predictions, method="platt")
        for several in (networks, [replace(one, label=poisoned) for one in networks])
    )
    np.testing.assert_array_equal(found.calibrated, other.calibrated)
    known = [replace(one, label=1 - one.label) for one in networks]
    moved = recalibrated(make_ensemble(known, method=method, seed=0).predictions, method="platt")
    assert (moved.calibrated != found.calibrated).any()  # validation labels do count


def the_league(several: list[Predictions], reference: str) -> pd.DataFrame:
    entries = {one.network: Entry("network", 2.5) for one in several}
    return leaderboard(
        several, entries=entries, reference=reference, choices=QUICK, progress=silent
    ).set_index("network")


def test_the_league_s_scores_are_scikit_learn_s_and_its_pairs_those_of_compare():
    several = three()
    table = the_league(several, "net1")
    assert table.index.tolist() == ["net0", "net1", "net2"]
    assert table["place"].tolist() == [1, 2, 3]
    for one in several:
        test = one.of("test")
        score = {"average": None, "y_true": test.label, "y_score": test.logit}
        row = table.loc[one.network]
        assert row["auc"] == pytest.approx(roc_auc_score(**score).mean())
        assert row["average_precision"] == pytest.approx(average_precision_score(**score).mean())
        brier = [
            brier_score_loss(*pair) for pair in zip(test.label.T, test.probability.T, strict=True)
        ]
        assert row["brier"] == pytest.approx(np.mean(brier))
        assert row["auc_low"] < row["auc"] < row["auc_high"]
    pair = compare(
        [several[0].of("test"), several[1].of("test")], resamples=60, seed=QUICK.seed
    ).set_index("finding")
    assert table.loc["net0", "difference"] == pytest.approx(pair.loc["macro", "difference"])
    assert table.loc["net0", "p"] == pytest.approx(pair.loc["macro", "p"])
    assert (table["p_holm"].dropna() >= table["p"].dropna()).all()
    assert np.isnan(table.loc["net1", "difference"])
    assert table.loc["net1", "note"] == "the reference"
    assert table["milliseconds"].eq(2.5).all()


def test_networks_of_other_films_have_no_place_in_a_league():
    stranger = a_network("stranger", noise=1, seed=5)
    stranger = replace(stranger, image=np.char.add("x", stranger.image))
    with pytest.raises(ValueError, match="differ in image"):
        the_league([*three(), stranger], "net0")


def a_run(folder: Path, several: list[Predictions]) -> Path:
    for one in several:
        place = folder / "predictions" / one.network
        place.mkdir(parents=True)
        save_predictions(one, place / "predictions.npz")
    return folder


def tables(folder: Path, one: Predictions) -> tuple[Path, Path]:
    """Write a network's test and validation films as two tables."""
    for part in ("test", "val"):
        found = one.of(part)
        table = pd.DataFrame(expit(found.logit.astype(np.float64)), columns=list(FINDINGS))
        table.assign(image=found.image).to_csv(folder / f"{one.network}-{part}.csv", index=False)
    return folder / f"{one.network}-test.csv", folder / f"{one.network}-val.csv"


def a_label_file(folder: Path) -> Path:
    films = three()[0]
    table = pd.DataFrame(films.label.astype(int), columns=list(FINDINGS))
    file = folder / "labels.csv"
    table.assign(image=films.image, patient=films.patient).to_csv(file, index=False)
    return file


def test_runs_and_tables_are_combined_and_written(tmp_path: Path):
    first, second, third = three()
    test, val = tables(tmp_path, third)
    given = {"labels": a_label_file(tmp_path), "scale": "probability", "methods": ["greedy"]}
    answer = ensemble_networks(
        [a_run(tmp_path / "run", [first, second]), test],
        val=[val], out=tmp_path / "out", **given,
    )  # fmt: skip
    names = {"run/net0", "run/net1", "net2-test", "greedy", EQUAL}
    assert set(answer) == {*names, "conclusion", "difference", "macro AUC", "tables"}
    assert EQUAL in str(answer["conclusion"])
    again = {"methods": ["convex"], "labels": None, "scale": "probability"}
    with pytest.raises(ValueError, match="was made from other inputs"):
        ensemble_networks([tmp_path / "run"], val=[], out=tmp_path / "out", **again)
    league_table = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert league_table.groupby("kind").size().to_dict() == {"ensemble": 2, "network": 3}
    weights = pd.read_csv(tmp_path / "out" / "weights.csv")
    whole = weights[weights["method"] == "greedy"].groupby("finding")["weight"].sum()
    np.testing.assert_allclose(whole, 1)
    kept = load_predictions(tmp_path / "out" / "greedy.npz")
    members = [first, second, recalibrated(third, method="platt")]
    again = recalibrated(
        make_ensemble(members, method="greedy", seed=0).predictions, method="platt"
    )
    np.testing.assert_allclose(
        roc_auc_score(kept.of("test").label, kept.of("test").logit),
        roc_auc_score(again.of("test").label, again.of("test").logit), atol=1e-6,
    )  # fmt: skip
    table = pd.read_csv(tmp_path / "out" / "greedy.csv")
    assert table.columns.tolist() == ["image", "part", *FINDINGS]


def test_what_cannot_be_combined_is_refused_in_one_line(tmp_path: Path):
    first, second, third = three()
    test, val = tables(tmp_path, third)
    run = a_run(tmp_path / "run", [first, second])
    given = {"labels": a_label_file(tmp_path), "scale": "probability", "out": None}
    with pytest.raises(ValueError, match="1 tables and 0 --val tables; expected one each"):
        ensemble_networks([run, test], val=[], methods=[], **given)
    with pytest.raises(ValueError, match=r"nowhere.csv: no such file; expected a table"):
        ensemble_networks([run, tmp_path / "nowhere.csv"], val=[], methods=[], **given)
    with pytest.raises(ValueError, match=r"--method 'greed' is unknown; .*nearest is 'greedy'"):
        ensemble_networks([run], val=[], methods=["greed"], **given)
    with pytest.raises(ValueError, match="holds no labels: expected --labels FILE"):
        ensemble_networks([run, test], val=[val], methods=[], **given | {"labels": None})
    with pytest.raises(ValueError, match="patients are in the test table too"):
        ensemble_networks([run, test], val=[test], methods=[], **given)
    named = a_run(tmp_path / "named", [replace(first, network="greedy")])
    file = named / "predictions" / "greedy" / "predictions.npz"
    with pytest.raises(ValueError, match="a network is called 'greedy', as an ensemble is"):
        ensemble_networks([run, file], val=[], methods=["greedy"], **given)
    lone = a_run(tmp_path / "lone", [first.of("test"), second.of("test")])
    with pytest.raises(ValueError, match="fitted to val films alone, found no films"):
        ensemble_networks([lone], val=[], methods=[], **given)
    with pytest.raises(ValueError, match="found 1 network; expected two or more"):
        ensemble_networks([a_run(tmp_path / "one", [first])], val=[], methods=[], **given)


def test_draws_of_the_command_are_those_of_every_table():
    assert EvaluationChoices().model_dump(include=set(DRAWS)) == DRAWS

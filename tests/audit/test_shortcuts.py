"""What else gives findings away: planted shortcuts are found and priced, none is invented."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

from lucency.audit.shortcuts import (
    SHORTCUTS,
    find_shortcuts,
    known_facts,
    probe,
    shortcut_reasons,
    strata,
)
from lucency.core.predictions import Predictions

DRAWS = {"resamples": 100, "seed": 0}
FILMS = 1_200


def world(seed: int, *, strength: float) -> tuple[Predictions, dict[str, np.ndarray]]:
    """Return predictions whose first finding leans on the view by `strength`, and two facts."""
    generator = np.random.default_rng(seed)
    patient = np.arange(FILMS) // 2
    label = (generator.random((FILMS, 2)) < 0.3).astype(np.float32)
    lean = 0.35 * strength * (label[:, 0] - 0.3)
    view = np.where(generator.random(FILMS) < 0.5 + lean, "AP", "PA")
    sex = np.where(generator.random(FILMS // 2) < 0.5, "F", "M")[patient]
    logit = generator.normal(label, 1.0)
    logit[:, 0] += strength * (view == "AP")
    feature = generator.normal(size=(FILMS, 24))
    feature[:, 0] += 2 * (view == "AP")
    feature[:, 1] += logit[:, 0]
    said = Predictions(
        network="toy", split="", findings=("a", "b"), image=np.arange(FILMS).astype(str),
        patient=patient, part=np.full(FILMS, "test"), label=label, logit=logit,
        feature=feature.astype(np.float32),
    )  # fmt: skip
    return said, {"view": view.astype(object), "sex": sex.astype(object)}


def looked(seed: int, *, strength: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    said, levels = world(seed, strength=strength)
    probes = probe(said, levels, **DRAWS)
    return probes, find_shortcuts(said, levels, probes, **DRAWS)


def test_a_planted_shortcut_is_found_and_priced():
    probes, table = looked(0, strength=1.5)
    read = probes.set_index("fact")
    assert read.loc["view", "auc"] == pytest.approx(0.956, abs=0.015)  # of two normals, 2.42 apart
    assert read.loc["view", "low"] > 0.85
    assert read.loc["sex", "low"] < 0.5 < read.loc["sex", "high"]
    found = table.loc[table["shortcut"]]
    assert found[["finding", "fact"]].to_numpy().tolist() == [["a", "view"]]
    row = found.iloc[0]
    assert row["adjusted_auc"] == pytest.approx(0.76, abs=0.03)  # the two normals, 1 apart
    assert row["confounding_low"] < row["auc"] - 0.76 < row["confounding_high"] + 0.03
    assert shortcut_reasons(table)["a"].startswith("view = AP (association 0.8")
    assert row["levels"] == "AP"
    assert row["association"] == pytest.approx(0.856, abs=0.03)  # of two normals, 1.5 apart
    assert row["with_it"] > row["auc"] > row["without_it"]
    assert tuple(table.columns) == SHORTCUTS


def test_auc_among_films_alike_by_hand():
    said, levels = world(3, strength=1.0)
    probes = probe(said, levels, **DRAWS)
    row = find_shortcuts(said, levels, probes, **DRAWS).iloc[0]
    total = 0.0
    for name in ("AP", "PA"):
        mine = levels["view"] == name
        yes, no = (said.logit[mine & (said.label[:, 0] == one), 0] for one in (1, 0))
        total += mannwhitneyu(yes, no).statistic / len(no)
    assert row["adjusted_auc"] == pytest.approx(total / (said.label[:, 0] == 1).sum())


@pytest.mark.slow
def test_nothing_planted_nothing_found():
    found = [looked(seed, strength=0.0)[1]["shortcut"].any() for seed in range(20)]
    assert sum(found) <= 2  # of 20 worlds, at a level of .05


def test_levels_without_negatives_are_left_out_and_counted():
    said, _ = world(0, strength=0.0)
    drain = np.where((said.label[:, 0] == 1) & (np.arange(FILMS) % 2 == 0), "1", "0").astype(object)
    drained = said.logit.copy()
    drained[drain == "1", 0] += 3
    said = Predictions(**{**vars(said), "logit": drained})
    probes = pd.DataFrame({"fact": ["drain"], "low": [0.9]})
    row = find_shortcuts(said, {"drain": drain}, probes, **DRAWS).iloc[0]
    assert row["left_out"] == (drain == "1").sum()
    assert row["shortcut"]
    yes, no = (said.logit[(drain == one) & (said.label[:, 0] == 1), 0] for one in ("1", "0"))
    against = said.logit[said.label[:, 0] == 0, 0]
    told = [mannwhitneyu(one, against).statistic / len(one) / len(against) for one in (yes, no)]
    np.testing.assert_allclose([row["with_it"], row["without_it"]], told)
    assert row["adjusted_auc"] == pytest.approx(0.76, abs=0.04)


def test_facts_of_films_are_levels():
    facts = pd.DataFrame(
        {
            "view": ["AP", None, "PA"], "age": [12.0, 59.0, 414.0], "follow_up": [0.0, 3.0, np.nan],
            "path": ["a/x.png", "a/y.png", "b/z.png"],
        }
    )  # fmt: skip
    found = {name: level.tolist() for name, level in known_facts(facts).items()}
    assert found == {
        "view": ["AP", "", "PA"], "age": ["under 40", "40 to 59", ""],
        "visit": ["first", "later", ""], "folder": ["a", "a", "b"],
    }  # fmt: skip


def test_too_few_films_and_no_features_are_notes():
    said, levels = world(0, strength=1.0)
    rare = np.where(np.arange(FILMS) < 6, "x", "y").astype(object)
    table = probe(said, {"rare": rare}, **DRAWS)
    assert table["auc"].isna().all()
    assert table["note"][0] == "not computable: 6 films of 3 patients of this level, 20 expected"
    bare = Predictions(**{**vars(said), "feature": np.empty((FILMS, 0), np.float32)})
    assert probe(bare, levels, **DRAWS)["note"][0].endswith("predictions without features")
    assert not len(strata(bare, **DRAWS))


def test_two_kinds_of_positives_are_told_apart():
    said, _ = world(1, strength=0.0)
    easy = (said.label[:, 0] == 1) & (said.patient % 2 == 0)
    feature = said.feature.copy()
    feature[easy, 2:8] += 4
    logit = said.logit.copy()
    logit[easy, 0] += 1.5
    said = Predictions(**{**vars(said), "feature": feature, "logit": logit})
    table = strata(said, **DRAWS)
    mine = table.loc[table["finding"] == "a"]
    assert mine["stratum"].tolist() == [1, 2]
    assert mine["films"].sum() == (said.label[:, 0] == 1).sum()
    hard, found = mine.iloc[0], mine.iloc[1]
    assert hard["auc"] == pytest.approx(0.76, abs=0.04)
    assert found["auc"] == pytest.approx(0.96, abs=0.02)
    assert set(found["examples"].split("|")) <= set(said.image[easy].tolist())


@pytest.mark.parametrize(("worlds", "most"), [(4, 2), pytest.param(12, 4, marks=pytest.mark.slow)])
def test_one_kind_of_positives_is_seldom_cut_in_two(worlds: int, most: int):
    """K-means finds clusters in every Gaussian; of 24 findings of one kind 1.2 may show some."""
    shown = []
    for seed in range(worlds):
        said, _ = world(seed, strength=0.0)
        shown += strata(said, resamples=2, seed=seed)["finding"].unique().tolist()
    assert len(shown) <= most


def test_a_perfect_confounder_is_a_shortcut_and_many_levels_are_no_fact():
    said, _ = world(2, strength=0.0)
    fact = np.where(said.label[:, 0] == 1, "x", np.where(np.arange(FILMS) % 9 == 0, "x", "y"))
    leaning = said.logit.copy()
    leaning[fact == "x", 0] += 50  # told apart in every resample
    said = Predictions(**{**vars(said), "logit": leaning})
    probes = pd.DataFrame({"fact": ["drain"], "low": [0.9]})
    table = find_shortcuts(said, {"drain": fact.astype(object)}, probes, **DRAWS)
    assert table.set_index("finding").loc["a", "shortcut"]
    assert "no positive without it" in shortcut_reasons(table)["a"]
    paths = pd.DataFrame({"path": [f"{film}/x.png" for film in range(30)]})
    assert known_facts(paths) == {}


def test_clusters_that_are_one_film_or_none_are_left_out():
    said, _ = world(1, strength=0.0)
    outlier = said.feature.copy()
    outlier[np.flatnonzero(said.label[:, 0] == 1)[0]] += 500
    assert not (
        strata(Predictions(**{**vars(said), "feature": outlier}), **DRAWS)["films"] < 10
    ).any()
    flat = Predictions(**{**vars(said), "feature": np.ones_like(said.feature)})
    assert not len(strata(flat, **DRAWS))

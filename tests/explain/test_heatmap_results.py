"""Heat map results: baselines paired film by film, faithfulness, and the words that follow."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lucency.evaluation.evaluate import MACRO
from lucency.explain.baselines import baseline_table, conclude_heatmaps
from lucency.explain.heatmap_results import (
    RANDOMISED,
    STRETCHED,
    HeatmapResults,
    faithfulness_table,
    load_heatmap_results,
    no_scores,
    save_heatmap_results,
    score_maps,
)
from lucency.explain.heatmaps import Centres, Heatmaps, even_centres
from lucency.explain.localization import localize, pointing

FILMS = 20
DRAWS = {"resamples": 50, "seed": 0}


def _boxes():
    """A box in the upper left of even films and in the lower right of odd ones."""
    rows = [(f"{n}.png", "Mass", 0.5 * (n % 2), 0.5 * (n % 2), 0.5, 0.5) for n in range(FILMS)]
    return pd.DataFrame(rows, columns=["image", "finding", "x", "y", "w", "h"])


def _maps(method, cells):
    """Heatmaps of 2 x 2 cells, strongest in the one named for each film."""
    grid = np.zeros((FILMS, 1, 4), dtype=np.float32)
    grid[np.arange(FILMS), 0, cells] = 1
    return Heatmaps(
        method=method,
        findings=("Mass",),
        image=np.array([f"{film}.png" for film in range(FILMS)]),
        patient=np.arange(FILMS) // 2,
        grid=grid.reshape(FILMS, 1, 2, 2),
        centres=even_centres((2, 2)),
    )


def _right():
    return _maps("true", np.where(np.arange(FILMS) % 2, 3, 0))


@pytest.fixture(scope="module")
def scores():
    """Right maps, off the even grid, scored beside those of a network with a random head."""
    blind = _maps(f"true, {RANDOMISED}", np.full(FILMS, 1))
    maps = replace(_right(), centres=Centres(np.array([0.2, 0.7]), np.array([0.2, 0.7])))
    return score_maps([maps], randomised_maps=[blind], boxes=_boxes(), **DRAWS)


def test_baselines_are_paired_film_by_film():
    cells = np.where(np.arange(FILMS) % 2, 3, 0)
    cells[: FILMS // 4] = 1
    table = baseline_table(_maps("mostly", cells), baselines=[_right()], boxes=_boxes(), **DRAWS)
    assert table["difference"].tolist() == [-0.25, -0.25]
    assert (table["low"] < -0.25).all()
    assert (table["high"] < 0.1).all()  # 10 patients
    same = baseline_table(_right(), baselines=[_right()], boxes=_boxes(), **DRAWS)
    assert same[["difference", "low", "high"]].to_numpy().tolist() == [[0, 0, 0]] * 2


def test_one_patient_has_no_interval():
    one = np.arange(2)
    boxes = _boxes().iloc[:2]
    maps, other = (name.take(one) for name in (_right(), _maps("wrong", np.full(FILMS, 1))))
    row = baseline_table(maps, baselines=[other], boxes=boxes, **DRAWS).iloc[0]
    assert row["difference"] == 1
    assert np.isnan(row["low"])
    assert "not compared with wrong +1.000 (no interval" in conclude_heatmaps(
        baseline_table(maps, baselines=[other], boxes=boxes, **DRAWS), boxes=boxes
    )
    for table, bounds in (
        (pointing(maps, boxes=boxes, **DRAWS), ["low", "high"]),
        (localize(maps, boxes=boxes, **DRAWS), ["accuracy_low", "afp_high"]),
    ):
        assert table[bounds].isna().all(axis=None)
        assert table["note"].str.contains("no interval: 1 patient, expected").all()


def test_every_map_is_scored_beside_the_baselines(scores):
    found, blind = scores, f"true, {RANDOMISED}"
    names = ["true", f"true, {STRETCHED}", blind, "random", "centre", "mean box"]
    assert list(dict.fromkeys(found.pointing["method"])) == [*names, "box density"]
    baselines = found.baselines.loc[found.baselines["finding"] == MACRO].set_index("baseline")
    assert baselines.loc[blind, "difference"] == 1
    assert "Wang 2017" in set(found.localisation["method"])
    text = conclude_heatmaps(found.baselines, boxes=pd.concat([_boxes()] * 2))
    beaten = f"above {blind} +1.000 (0.323 to 1.000), "  # 10 patients
    assert text.startswith(f"Pointing game of true, difference with 95 % interval: {beaten}")
    assert "Inconclusive" not in text  # 40 boxes
    few = conclude_heatmaps(found.baselines, boxes=_boxes().iloc[:10])
    assert few.endswith("Inconclusive, fewer than 30 boxes: Mass 10.")
    none = conclude_heatmaps(pd.DataFrame(), boxes=_boxes())
    assert none == "Localisation is not computable: no box could be scored."


def test_what_beats_the_maps_is_named():
    table = baseline_table(
        _maps("wrong", np.full(FILMS, 1)), baselines=[_right()], boxes=_boxes(), **DRAWS
    )
    text = conclude_heatmaps(table, boxes=_boxes())
    assert "95 % interval: below true -1.000 (-1.000 to -0.323). " in text


def test_truth_to_the_network_by_hand():
    tried = pd.DataFrame(
        {
            "method": "map", "image": ["a", "b", "c"], "patient": [1, 2, 3],
            "deletion": [0.2, 0.3, 0.1], "deletion_random": [0.5, 0.5, 0.5],
            "insertion": [0.6, 0.8, 0.7], "insertion_random": [0.5, 0.5, 0.5],
            "stability": [0.9, np.nan, 0.7],
        }
    )  # fmt: skip
    table = faithfulness_table(tried, **DRAWS).set_index("measure")
    np.testing.assert_allclose(table.loc[["deletion", "insertion"], "better"], [0.3, 0.2])
    np.testing.assert_allclose(table["value"], [0.2, 0.7, 0.8])
    assert table.loc["stability", "films"] == 2
    left = "1 of 3 maps are the same everywhere, left out"
    assert table.loc["stability", "note"] == f"{left}; no interval: 2 patients, expected 20 or more"
    assert np.isnan(table.loc["stability", "random"])
    many = pd.concat([tried.drop(index=1).assign(patient=one) for one in range(30)])
    many["deletion"] += np.random.default_rng(0).normal(0, 0.1, len(many))
    enough = faithfulness_table(many, **DRAWS).set_index("measure").loc["deletion"]
    assert 0.2 < enough["low"] < enough["better"] < enough["high"] < 0.5
    assert len(faithfulness_table(tried.iloc[:0], **DRAWS)) == 0
    flat = faithfulness_table(tried.assign(stability=np.nan), **DRAWS).iloc[2]
    assert (flat["films"], flat["note"].partition(":")[0]) == (0, "not computable")
    assert np.isnan(flat["value"])
    alone = faithfulness_table(tried.iloc[:1], **DRAWS)
    assert alone["low"].isna().all()
    assert alone["note"].tolist() == ["no interval: 1 patient, expected 20 or more"] * 3


@pytest.mark.parametrize("scored", [True, False])
def test_what_was_seen_is_kept(tmp_path, scored, scores):
    maps = _right()
    scores = scores if scored else no_scores()
    cases = pd.DataFrame(
        {"kind": ["miss"], "image": ["1.png"], "probability": [0.1], "finding": ["Mass"]}
    )
    empty = pd.DataFrame()
    saw = HeatmapResults(
        network="net", remarks=("one",), maps=(maps,) * scored, boxes=_boxes(), cases=cases,
        scores=scores, sanity=empty, faithfulness=empty,
    )  # fmt: skip
    save_heatmap_results(saw, tmp_path)
    again = load_heatmap_results(tmp_path)
    assert (again.network, again.remarks) == ("net", ("one",))
    assert len(again.maps) == scored
    for one, other in zip(saw.maps, again.maps, strict=True):
        assert (one.grid == other.grid).all()
        assert (one.centres.down == other.centres.down).all()
    for one, other in zip(saw.scores, again.scores, strict=True):
        pd.testing.assert_frame_equal(one.fillna({"note": ""}), other, check_dtype=False)

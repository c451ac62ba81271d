"""A grid of preparations: planted differences are found, none where there is none, by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from lucency.core.manifest import FINDINGS, Preparation
from lucency.core.predictions import Predictions
from lucency.core.tables import save_tables
from lucency.evaluation.compare import compare
from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.metrics import macro_auc
from lucency.evaluation.preparation_grid import (
    OFF,
    ORDERS,
    OWN,
    TIMES,
    PreparationStudy,
    average_measures,
    compare_cells,
    conclude_preparations,
    load_study,
    make_grid,
    name_cell,
)

FEW = {"clips": (2.0, 3.0), "tiles": (8, 10), "orders": ("clahe-first",)}
GRID = make_grid(Preparation(), **FEW)
DRAWS = {"resamples": 100, "seed": 0}
NO_EFFECT = "CLAHE: no significant effect. CLAHE's parameters: no significant effect. "
Cells = Mapping[str, Sequence[Predictions]]


def some(score: np.ndarray, label: np.ndarray, *, repeat: int = 0) -> Predictions:
    films = len(label)
    return Predictions(
        network="logistic on net",
        split=f"5 folds by patient, seed {repeat}",
        findings=FINDINGS[: label.shape[1]],
        image=np.array([f"{film}.png" for film in range(films)]),
        patient=np.arange(films) // 2,
        part=np.full(films, "test"),
        label=label.astype(np.float32),
        logit=score,
        feature=np.empty((films, 0), dtype=np.float32),
    )


def a_grid(
    signal: Mapping[str, float] | None = None, *, seed: int = 0, films: int = 400, repeats: int = 2
) -> Cells:
    """Cells that see the same films as well as `signal` says, 1 if it does not, in repeats."""
    generator = np.random.default_rng(seed)
    label = generator.random((films, 2)) < (0.4, 0.25)
    common = generator.normal(size=label.shape)
    predictions = {}
    for name in GRID:
        seen = (signal or {}).get(name, 1.0) * label + common
        seen += generator.normal(0, 0.2, label.shape)
        noise = generator.normal(0, 0.1, (repeats, *label.shape))
        predictions[name] = [some(seen + noise[k], label, repeat=k) for k in range(repeats)]
    return predictions


def concluded(predictions: Cells) -> tuple[pd.DataFrame, str]:
    cells, summary = compare_cells(predictions, grid=GRID, **DRAWS)
    return cells.set_index("cell"), conclude_preparations(cells, summary, films=400, patients=200)


# --- the grid


def test_the_whole_grid_has_41_cells_and_a_narrow_one_keeps_both_references():
    clips, tiles = (1.0, 2.0, 3.0, 4.0, 8.0), (4, 8, 10, 16)
    whole = make_grid(Preparation(), clips=clips, tiles=tiles, orders=ORDERS)
    assert len(whole) == 1 + 5 * 4 * 2
    assert list(GRID) == [OFF, "2x8", "2x10", "3x8", "3x10"]
    least = make_grid(Preparation(), clips=(8.0,), tiles=(4,), orders=("resize-first",))
    assert list(least) == [OFF, "8x4-resize-first", OWN]
    for name, one in whole.items():
        assert name_cell(one) == name
    assert whole[OWN] == Preparation()


def test_all_but_clahe_is_as_the_protocol_says():
    base = Preparation(size=64, interpolation="bicubic", brightness=5, denoise="median")
    kept = {"size", "interpolation", "brightness", "denoise"}
    for one in make_grid(base, **FEW).values():
        assert one.model_dump(include=kept) == base.model_dump(include=kept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clips": (0.0,)}, "preparation.clahe_clip is 0.0: .* greater than 0"),
        ({"tiles": (65,)}, "preparation.clahe_tiles is 65: .* less than or equal to 64"),
        ({"orders": ("first",)}, "preparation.order is 'first': .*'clahe-first'"),
        ({"orders": ("no-clahe",)}, "preparation.order is 'no-clahe': .*'resize-first'"),
    ],
)
def test_what_clahe_does_not_know_is_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        make_grid(Preparation(), **FEW | changes)


# --- differences


def test_a_cell_s_numbers_are_those_of_a_paired_comparison():
    predictions = a_grid(repeats=1)
    cells, summary = compare_cells(predictions, grid=GRID, **DRAWS)
    cells = cells.set_index("cell")
    for cell, reference, column in (("2x8", OFF, "off"), (OFF, OWN, "own"), ("3x8", OWN, "own")):
        pair = [replace(predictions[name][0], network=name) for name in (cell, reference)]
        table = compare(pair, **DRAWS)
        expected = table[table["finding"] == MACRO].iloc[0]
        found = cells.loc[cell]
        assert found["auc"] == pytest.approx(macro_auc(pair[0].label, pair[0].logit))
        for end in ("difference", "low", "high", "p"):
            assert found[f"{column}_{end}"] == pytest.approx(expected[end], abs=1e-12), end
    number = dict(zip(summary["name"], summary["value"], strict=True))
    assert number["spread"] == cells["auc"].max() - cells["auc"].min()
    assert number["width"] == pytest.approx((cells["high"] - cells["low"]).mean())


def test_a_reference_has_no_test_and_holm_corrects_the_others():
    cells, _ = concluded(a_grid({OFF: 0.6}))
    for reference, column in ((OFF, "off"), (OWN, "own")):
        mine = cells.loc[reference]
        assert mine[f"{column}_difference"] == 0
        assert np.isnan(mine[f"{column}_p"])
        p = cells[f"{column}_p"].drop(reference).sort_values()
        by_hand = np.minimum(np.maximum.accumulate(p.to_numpy() * [4, 3, 2, 1]), 1)
        np.testing.assert_allclose(cells.loc[p.index, f"{column}_p_holm"], by_hand)


def test_a_planted_effect_of_clahe_is_found_and_its_parameters_are_acquitted():
    cells, conclusion = concluded(a_grid({OFF: 0.6}))
    assert (cells["off_low"].drop(OFF) > 0).all()
    assert conclusion.startswith(
        "CLAHE: a significant effect. CLAHE's parameters: no significant effect. Films: 400 of 200 "
        "patients. Preparations with CLAHE that differ from films without it: 4 of 4 (4 higher, 0 "
        "lower). Others that differ from clip limit 3 with 10 "
        f"{TIMES} 10 tiles before resizing: 0 of 3"
    )
    assert cells["auc"].idxmin() == OFF


def test_planted_parameters_are_found():
    cells, conclusion = concluded(a_grid({"2x8": 0.5, "2x10": 1.6}))
    assert cells["auc"].idxmax() == "2x10"
    assert cells.loc["2x8", "own_high"] < 0 < cells.loc["2x10", "own_low"]
    assert "CLAHE's parameters: a significant effect." in conclusion
    assert (
        "before resizing: 2 of 3 (1 higher, 1 lower). Level: p below .05 after Holm's" in conclusion
    )
    assert "Best of 5 cells: 2x10, in " in conclusion
    assert "Its macro AUC is biased upward by about 0.0" in conclusion


def test_where_all_see_alike_no_difference_is_claimed():
    """A single false alarm in 20 grids is what a level of .05 allows."""
    alarms = sum(not concluded(a_grid(seed=seed))[1].startswith(NO_EFFECT) for seed in range(20))
    assert alarms <= 2


def test_the_same_predictions_everywhere_differ_in_nothing():
    one = a_grid()[OFF]
    cells, conclusion = concluded(dict.fromkeys(GRID, one))
    assert (cells["off_p"].drop(OFF) == 1).all()
    assert (cells[["off_low", "own_high"]] == 0).all(axis=None)
    np.testing.assert_allclose(cells["share_best"], 1 / 5)
    assert conclusion.startswith(NO_EFFECT)
    assert "a spread of 0.000" in conclusion
    assert "by about 0.000" in conclusion


def test_folds_that_disagree_widen_the_intervals_of_differences():
    calm, label = a_grid(), a_grid()[OFF][0].label
    torn = {name: list(several) for name, several in calm.items()}
    for k, by in enumerate((2.0, -2.0)):
        torn["2x8"][k] = replace(torn["2x8"][k], logit=torn["2x8"][k].logit + by * label)
    both = [
        compare_cells(predictions, grid=GRID, **DRAWS)[0].set_index("cell")
        for predictions in (calm, torn)
    ]
    narrow, wide = (table.loc["2x8", "own_high"] - table.loc["2x8", "own_low"] for table in both)
    assert wide > 3 * narrow
    others = [table.drop("2x8")["own_low"].tolist() for table in both]
    assert others[0] == others[1], "other cells are compared as before"


def test_what_the_best_owes_to_its_choice_is_told():
    """Of cells that see alike, the best is above the truth by as much as resampling says."""
    excess, optimism = [], []
    for seed in range(12):
        predictions = a_grid(seed=seed, films=200, repeats=1)
        cells, summary = compare_cells(predictions, grid=GRID, resamples=60, seed=0)
        excess.append(cells["auc"].max() - cells["auc"].mean())  # the noise that all share cancels
        optimism.append(dict(zip(summary["name"], summary["value"], strict=True))["optimism"])
    assert 0.6 < np.mean(optimism) / np.mean(excess) < 1.6
    assert min(optimism) > 0


def test_a_grid_of_the_two_references_has_no_others():
    grid = {name: GRID[name] for name in (OFF, OWN)}
    predictions = {name: several for name, several in a_grid().items() if name in grid}
    cells, summary = compare_cells(predictions, grid=grid, **DRAWS)
    conclusion = conclude_preparations(cells, summary, films=400, patients=200)
    assert "CLAHE's parameters: not compared." in conclusion
    assert "differ from films without it: 0 of 1 (0 higher, 0 lower)." in conclusion


def test_what_cannot_be_compared_is_refused():
    predictions = a_grid()
    without = {name: several for name, several in predictions.items() if name != OWN}
    with pytest.raises(ValueError, match="cell '3x10' is not among off, 2x8"):
        compare_cells(without, grid=GRID, **DRAWS)
    with pytest.raises(ValueError, match="3x8: found 1 repeats, expected 2"):
        compare_cells({**predictions, "3x8": predictions["3x8"][:1]}, grid=GRID, **DRAWS)
    with pytest.raises(ValueError, match="differ in split"):
        compare_cells({**predictions, "3x8": predictions["3x8"][::-1]}, grid=GRID, **DRAWS)
    fewer = [one.take(np.arange(300)) for one in predictions["3x8"]]
    with pytest.raises(ValueError, match="differ in image"):
        compare_cells({**predictions, "3x8": fewer}, grid=GRID, **DRAWS)
    with pytest.raises(ValueError, match="expected those of off, 3x10"):
        compare_cells(predictions, grid={name: GRID[name] for name in (OFF, OWN)}, **DRAWS)
    single = {
        n: [replace(o, label=np.zeros_like(o.label)) for o in s] for n, s in predictions.items()
    }
    with pytest.raises(ValueError, match="expected a finding with both classes"):
        compare_cells(single, grid=GRID, **DRAWS)


# --- measures


def test_measures_are_averaged_over_films_and_resampled_by_patient():
    patient = np.array([1, 1, 2, 3])
    plain = pd.DataFrame({"eme": [1.0, 2.0, 3.0, 6.0], "cii": [1.0, 1.0, 1.0, np.nan]})
    other = pd.DataFrame({"eme": [2.0, 4.0, 3.0, 9.0], "cii": [1.5, 2.0, 1.0, np.nan]})
    table = average_measures({OFF: plain, OWN: other}, patient=patient, **DRAWS)
    row = table.set_index(["cell", "measure"])
    assert row.loc[(OWN, "eme"), "value"] == 4.5
    assert row.loc[(OWN, "eme"), "change"] == 1.5
    assert row.loc[(OWN, "cii"), ["films", "value", "change"]].tolist() == [3, 1.5, 0.5]
    assert (row.loc[OFF, "change"] == 0).all()
    assert row["low"].isna().all(), "three patients"
    eme = np.random.default_rng(0).normal(4, 1, 200)
    many = {OFF: pd.DataFrame({"eme": eme}), OWN: pd.DataFrame({"eme": eme + 1})}
    found = average_measures(many, patient=np.arange(200), **DRAWS).iloc[1]
    expected = ttest_1samp(eme + 1, 0).confidence_interval(0.95)
    assert found[["low", "high"]].tolist() == pytest.approx(list(expected), abs=0.03)


# --- on disk


def test_a_study_is_saved_and_loaded(tmp_path: Path):
    cells, summary = compare_cells(a_grid(), grid=GRID, **DRAWS)
    one = pd.DataFrame({"eme": np.arange(4.0)})
    measures = average_measures({OFF: one}, patient=np.arange(4), **DRAWS)
    about = {"films": 400, "network": "net"}
    study = PreparationStudy(
        cells=cells, summary=summary, measures=measures, about=about, conclusion="A conclusion."
    )
    save_tables(study, tmp_path)
    again = load_study(tmp_path)
    assert (again.about, again.conclusion) == (about, "A conclusion.")
    for name in ("cells", "summary", "measures"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(study, name))
    assert load_study(tmp_path / "absent").conclusion == PreparationStudy().conclusion == ""

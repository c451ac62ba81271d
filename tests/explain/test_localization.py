"""Tables of localisation: a plain recount, brute force, what was published, and baselines."""

from dataclasses import replace
from itertools import product
from statistics import mean

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from lucency.data.labels import read_nih
from lucency.explain import localization
from lucency.explain.baselines import (
    baseline_maps,
    box_density_maps,
    centre_maps,
    mean_box_maps,
    mean_maps,
    random_maps,
)
from lucency.explain.heatmap_results import BOUND, map_similarity, sanity_table
from lucency.explain.heatmaps import Heatmaps, cover, even_centres
from lucency.explain.localization import (
    LOCALIZATION_COLUMNS,
    THRESHOLDS,
    WANG_BOXES,
    energy_inside,
    fitted_iou,
    localize,
    pair_up,
    place_boxes,
    pointing,
    pointing_game,
    published_localisation,
    reach,
)

UNIT = 1 / 1024


def _maps(grid, *, patient=None):
    films, count = grid.shape[:2]
    return Heatmaps(
        method="made up",
        findings=tuple(f"F{number}" for number in range(count)),
        image=np.array([f"{film}.png" for film in range(films)]),
        patient=np.arange(films) if patient is None else np.array(patient),
        grid=grid.astype(np.float32),
        centres=even_centres(grid.shape[2:]),
    )


def _boxes(*rows):
    return pd.DataFrame(rows, columns=["image", "finding", "x", "y", "w", "h"])


def _random(films=12, findings=2, cells=7, *, seed=0, patients=5):
    """Return noise, and one box on most films, two on every third."""
    generator = np.random.default_rng(seed)
    patient = generator.integers(0, patients, size=films)
    rows = []
    for film, finding in product(range(films), range(findings)):
        for _ in range((1, 2, 1, 0, 1, 2)[film % 6]):
            side = generator.uniform(0.15, 0.6, size=2)
            start = generator.uniform(0, 1 - side)
            rows.append((f"{film}.png", f"F{finding}", *start, *side))
    grid = generator.random((films, findings, cells, cells))
    return _maps(grid, patient=patient), _boxes(*rows)


def _cell(table, finding, measure, threshold):
    rows = table[(table["finding"] == finding) & (table["measure"] == measure)]
    (row,) = rows[rows["threshold"] == threshold].to_dict("records")
    return row


def _detected(maps, boxes, finding):
    """Return detected and true boxes of each film with a box of a finding, with OpenCV."""
    column, pairs = maps.findings.index(finding), []
    for film, mine in boxes[boxes["finding"] == finding].groupby("image"):
        cells = maps.grid[list(maps.image).index(film), column]
        cells = (cells - cells.min()) / (cells.max() - cells.min()) * 255
        large = cv2.resize(cells, (1024, 1024), interpolation=cv2.INTER_LINEAR)
        found = []
        for level in (60, 180):
            mask = (large > level).astype(np.uint8)
            found += cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:, :4].tolist()
        pairs.append((found, (mine[["x", "y", "w", "h"]].to_numpy() * 1024).tolist()))
    return pairs


def _recount(pairs, measure, threshold):
    """Return hits and false boxes in plain steps."""
    hits = wrong = 0
    for found, true in pairs:
        hit = [[_overlap(one, box, measure) > threshold for box in true] for one in found]
        hits += sum(any(row[place] for row in hit) for place in range(len(true)))
        wrong += sum(not any(row) for row in hit)
    return hits, wrong


def _overlap(one, box, measure):
    across = min(one[0] + one[2], box[0] + box[2]) - max(one[0], box[0])
    down = min(one[1] + one[3], box[1] + box[3]) - max(one[1], box[1])
    shared = max(across, 0) * max(down, 0)
    area, true = one[2] * one[3], box[2] * box[3]
    return shared / area if measure == "IoBB" else shared / (area + true - shared)


def test_every_number_is_that_of_a_plain_recount():
    maps, boxes = _random(films=6, patients=3)
    table = localize(maps, boxes=boxes, resamples=20, seed=0)
    assert tuple(table.columns) == LOCALIZATION_COLUMNS
    assert len(table) == 3 * 12
    pairs = {finding: _detected(maps, boxes, finding) for finding in maps.findings}
    for measure, limits in THRESHOLDS.items():
        for threshold in limits:
            shares, falses = [], []
            for finding in maps.findings:
                row = _cell(table, finding, measure, threshold)
                hits, wrong = _recount(pairs[finding], measure, threshold)
                count = (boxes["finding"] == finding).sum()
                assert row["boxes"] == count
                assert row["accuracy"] == pytest.approx(hits / count)
                assert row["afp"] == pytest.approx(wrong / len(boxes))
                shares.append(hits / count)
                falses.append(wrong / len(boxes))
            macro = _cell(table, "macro", measure, threshold)
            assert macro["accuracy"] == pytest.approx(mean(shares))
            assert macro["afp"] == pytest.approx(mean(falses))
            assert macro["boxes"] == len(boxes)
    assert table["accuracy"].between(0.05, 0.95).any()


def test_perfect_maps_hit_everything_and_nothing_else():
    rows = [(f"{film}.png", "F0", 100 * film * UNIT, 0.25, 0.25, 0.5) for film in range(3)]
    boxes = _boxes(*rows)
    side = boxes[["x", "y", "w", "h"]].to_numpy()
    corners = np.concatenate([side[:, :2], side[:, :2] + side[:, 2:]], axis=1)
    maps = _maps(cover(corners, cells=(1024, 1024))[:, None])
    table = localize(maps, boxes=boxes, resamples=10, seed=0)
    assert (table[["accuracy", "accuracy_high"]] == 1).all(axis=None)
    assert table["accuracy_low"].between(0.1, 0.5).all(), "three patients do not show that all are"
    assert (table["afp"] == 0).all()
    points = pointing(maps, boxes=boxes, resamples=10, seed=0)
    np.testing.assert_allclose(points["value"], 1)
    few = points["measure"] != "pointing game"
    assert points.loc[few, "note"].str.contains("no interval: 3 patients, expected 20").all()
    half = localize(replace(maps, grid=-maps.grid), boxes=boxes, resamples=10, seed=0)
    assert _cell(half, "F0", "IoU", 0.5)["accuracy"] == 0


def test_empty_maps_hit_nothing_and_claim_nothing():
    maps, boxes = _random()
    empty = replace(maps, grid=np.zeros_like(maps.grid))
    table = localize(empty, boxes=boxes, resamples=10, seed=0)
    assert (table[["accuracy", "afp"]] == 0).all(axis=None)
    points = pointing(empty, boxes=boxes, resamples=10, seed=0).set_index(["finding", "measure"])
    assert points.loc[("F0", "pointing game"), "value"] == 0
    assert points.loc[("F0", "fitted IoU"), "value"] == 0
    assert np.isnan(points.loc[("F0", "energy inside"), "value"])
    assert "10 films not computable" in points.loc[("F0", "energy inside"), "note"]


def test_a_finding_without_boxes_is_not_computable_and_outside_the_mean():
    maps, boxes = _random()
    some = boxes[boxes["finding"] == "F0"].reset_index(drop=True)
    table = localize(maps, boxes=some, resamples=10, seed=0)
    none, macro = (_cell(table, finding, "IoBB", 0.25) for finding in ("F1", "macro"))
    assert np.isnan([none["accuracy"], none["accuracy_low"], none["afp"], none["afp_high"]]).all()
    assert none["note"] == "not computable: no box of this finding"
    assert macro["accuracy"] == _cell(table, "F0", "IoBB", 0.25)["accuracy"]
    few = "no interval: 5 patients, expected 20 or more (AFP)"
    assert macro["note"] == f"mean over 1 of 2 findings, without F1; {few}"
    points = pointing(maps, boxes=some, resamples=10, seed=0)
    assert points.loc[points["finding"] == "F1", "value"].isna().all()
    coarse = reach(maps, boxes=some)
    assert coarse.loc[coarse["finding"] == "F1", "reachable"].isna().all()
    assert (coarse.loc[coarse["finding"] == "F1", "note"] != "").all()


def test_no_boxes_at_all_give_a_table_that_says_so():
    maps, boxes = _random()
    table = localize(maps, boxes=boxes[:0], resamples=5, seed=0)
    assert len(table) == 3 * 12
    assert table[["accuracy", "afp"]].isna().all(axis=None)
    assert (table["note"] != "").all()
    assert pointing(maps, boxes=boxes[:0], resamples=5, seed=0)["value"].isna().all()
    assert reach(maps, boxes=boxes[:0])["reachable"].isna().all()


def test_films_twice_leave_the_intervals_as_they_were():
    maps, boxes = _random(films=9, patients=5)
    once = localize(maps, boxes=boxes, resamples=50, seed=3)
    again = boxes.assign(image="again " + boxes["image"])
    twice = replace(
        maps,
        image=np.concatenate([maps.image, np.char.add("again ", maps.image)]),
        patient=np.tile(maps.patient, 2),
        grid=np.tile(maps.grid, (2, 1, 1, 1)),
    )
    doubled = localize(
        twice, boxes=pd.concat([boxes, again], ignore_index=True), resamples=50, seed=3
    )
    values = list(LOCALIZATION_COLUMNS[7:13])
    np.testing.assert_allclose(once[values], doubled[values])
    assert (once["accuracy_low"] < once["accuracy_high"]).any()


def test_the_strongest_place_may_miss_a_box_by_15_pixels(monkeypatch):
    grid = np.zeros((2, 1, 1024, 1024))
    grid[0, 0, 512, 314] = grid[1, 0, 512, 316] = 1
    boxes = _boxes(*[(f"{film}.png", "F0", 0.0, 0.25, 300 * UNIT, 0.5) for film in range(2)])
    maps = _maps(grid)
    pairs = pair_up(place_boxes(maps, boxes))
    np.testing.assert_array_equal(pointing_game(maps, pairs=pairs), [1, 0])
    monkeypatch.setattr(localization, "TOLERANCE", 0.0)
    np.testing.assert_array_equal(pointing_game(maps, pairs=pairs), [0, 0])


def test_equal_maxima_share_the_point():
    grid = np.array([[[[1, 0], [0, 0.5]]], [[[1, 1], [0, 1]]]])
    boxes = _boxes(*[(f"{film}.png", "F0", 0, 0, 0.4, 0.4) for film in range(2)])
    maps = _maps(grid)
    found = pointing_game(maps, pairs=pair_up(place_boxes(maps, boxes)))
    np.testing.assert_allclose(found, [1, 1 / 3])


def test_energy_is_the_boxes_share_of_what_is_positive():
    grid = np.zeros((2, 1, 1024, 1024))
    grid[0, 0, 100, 100], grid[0, 0, 900, 900], grid[0, 0, 50, 50] = 3, 1, -5
    grid[1] = 2
    corner = ("F0", 0, 0, 0.25, 0.25)
    over = ("1.png", "F0", 0.125, 0, 0.25, 0.25)  # overlaps by half: 3/32 of the film together
    boxes = _boxes(("0.png", *corner), ("1.png", *corner), over)
    maps = _maps(grid)
    found = energy_inside(maps, pairs=pair_up(place_boxes(maps, boxes)))
    np.testing.assert_allclose(found, [0.75, 3 / 32])
    small = _maps(np.random.default_rng(0).normal(size=(2, 1, 7, 7)))
    pairs = pair_up(place_boxes(small, boxes))
    large = [
        cv2.resize(np.maximum(cells[0], 0), (1024, 1024), interpolation=cv2.INTER_LINEAR)
        for cells in small.grid
    ]
    theirs = [
        large[0][:256, :256].sum() / large[0].sum(),
        large[1][:256, :384].sum() / large[1].sum(),
    ]
    np.testing.assert_allclose(energy_inside(small, pairs=pairs), theirs, rtol=1e-4)


def test_the_level_of_one_patient_is_the_best_of_the_other():
    """Two rings: the inner is the box of one patient, the outer that of the other."""
    grid = np.full((2, 1, 1024, 1024), 0.0)
    grid[..., 256:768, 256:768] = 0.5
    grid[..., 384:640, 384:640] = 1
    boxes = _boxes(("0.png", "F0", 0.25, 0.25, 0.5, 0.5), ("1.png", "F0", 0.375, 0.375, 0.25, 0.25))
    maps = _maps(grid)
    found, level = fitted_iou(maps, pairs=pair_up(place_boxes(maps, boxes)), seed=0)
    np.testing.assert_allclose(found, [0.25, 0.25])  # each by the other's level
    assert sorted(level[0]) == [pytest.approx(0.05), pytest.approx(0.55)]
    alone = replace(maps, patient=np.array([4, 4]))
    found, level = fitted_iou(alone, pairs=pair_up(place_boxes(alone, boxes)), seed=0)
    assert np.isnan(found).all()
    assert np.isnan(level).all()
    note = pointing(alone, boxes=boxes, resamples=5, seed=0)["note"]
    assert note.str.contains("2 films not computable").any()


def test_reach_is_that_of_trying_every_rectangle_of_cells():
    maps, boxes = _random(films=24, findings=1, cells=5, seed=4)
    tiny = _boxes(("0.png", "F0", 0.41, 0.43, 0.05, 0.11), ("1.png", "F0", 0.1, 0.2, 0.6, 0.4))
    boxes = pd.concat([boxes, tiny], ignore_index=True)
    table = reach(maps, boxes=boxes)
    spans = [(a / 5, b / 5) for a in range(5) for b in range(a + 1, 6)]
    rectangles = [(a, c, b - a, d - c) for (a, b), (c, d) in product(spans, spans)]
    true = boxes[["x", "y", "w", "h"]].to_numpy().tolist()
    for measure, limits in THRESHOLDS.items():
        best = np.array([max(_overlap(r, one, measure) for r in rectangles) for one in true])
        for threshold in limits:
            row = _cell(table, "F0", measure, threshold)
            assert row["reachable"] == pytest.approx((best > threshold).mean())
    assert set(table["grid"]) == {"5 x 5"}


def test_what_was_published_is_whole_numbers_of_boxes():
    table = published_localisation()
    assert set(table.columns) <= set(LOCALIZATION_COLUMNS)
    assert len(table) == 5 * 9
    single = table[table["finding"] != "macro"]
    for value, whole in (("accuracy", single["boxes"]), ("afp", 984)):
        count = single[value] * whole
        assert ((count - count.round()).abs() <= 1e-4 * whole).all()
    row = _cell(table, "Cardiomegaly", "IoBB", 0.5)
    assert (row["accuracy"], row["afp"]) == (0.9452, 0.2785)
    assert _cell(table, "macro", "IoBB", 0.5)["accuracy"] == pytest.approx(0.4078, abs=5e-5)


def _real(shared, cells):
    manifest = read_nih(shared / "nih")
    boxes = manifest.boxes
    films = manifest.take(pd.Index(manifest.image).get_indexer(boxes["image"].unique()))
    size = (len(films), len(WANG_BOXES), cells, cells)
    maps = Heatmaps(
        method="none",
        findings=tuple(WANG_BOXES),
        image=films.image,
        patient=films.patient,
        grid=np.zeros(size, dtype=np.float32),
        centres=even_centres(size[2:]),
    )
    return maps, boxes


def test_the_real_boxes_are_the_published_denominators(shared):
    maps, boxes = _real(shared, 7)
    table = reach(maps, boxes=boxes)
    counted = table.groupby("finding")["boxes"].first()
    assert counted.drop("macro").to_dict() == WANG_BOXES
    assert counted["macro"] == 984
    assert len(maps.image) == 880
    assert _cell(table, "Nodule", "IoU", 0.5)["reachable"] < 0.05
    assert _cell(table, "Cardiomegaly", "IoU", 0.5)["reachable"] > 0.95


@pytest.mark.slow
def test_where_boxes_lie_elsewhere_rivals_what_was_published(shared):
    maps, boxes = _real(shared, 7)
    table = localize(box_density_maps(maps, boxes=boxes), boxes=boxes, resamples=10, seed=0)
    ours = [_cell(table, "macro", "IoBB", limit)["accuracy"] for limit in (0.1, 0.5)]
    np.testing.assert_allclose(ours, [0.705, 0.405], atol=2e-3)
    assert list(table.groupby("finding", sort=False)["boxes"].first()) == [
        *WANG_BOXES.values(),
        984,
    ]


def test_naive_maps_have_the_shape_of_the_method_and_know_no_film():
    maps, boxes = _random()
    several = baseline_maps(maps, boxes=boxes, seed=1)
    assert [one.method for one in several] == ["random", "centre", "mean box", "box density"]
    other = baseline_maps(replace(maps, grid=maps.grid + 5), boxes=boxes, seed=1)
    for one, same in zip(several, other, strict=True):
        assert one.grid.shape == maps.grid.shape
        np.testing.assert_array_equal(one.grid, same.grid)
    assert not np.array_equal(several[0].grid, random_maps(maps, seed=2).grid)
    near = centre_maps(maps).grid[0, 0]
    assert near.argmax() == 24
    np.testing.assert_allclose(near, near[::-1, ::-1])
    np.testing.assert_allclose(near, near.T)


def test_mean_boxes_are_those_of_other_patients():
    left, right = (0, 0, 0.5, 1), (0.5, 0, 0.5, 1)
    rows = [("0.png", "F0", *left), ("1.png", "F0", *left), ("2.png", "F0", *right)]
    maps = _maps(np.zeros((4, 1, 1, 2)), patient=[7, 7, 8, 9])
    mean_box = mean_box_maps(maps, boxes=_boxes(*rows)).grid[:, 0, 0]
    np.testing.assert_allclose(mean_box[:3], [[0, 1], [0, 1], [1, 0]])
    # Left means 0, 0, .5; right .5, .5, 1: the mean box runs from 1/6 to 2/3.
    np.testing.assert_allclose(mean_box[3], [2 / 3, 1 / 3], rtol=1e-6)
    density = box_density_maps(maps, boxes=_boxes(*rows)).grid[:, 0, 0]
    np.testing.assert_allclose(density, [[0, 1], [0, 1], [1, 0], [2 / 3, 1 / 3]], rtol=1e-6)
    lone = box_density_maps(maps, boxes=_boxes(*rows[:2])).grid
    assert not lone[:2].any()
    assert lone[2:].any()


def test_mean_maps_are_over_films_with_a_box():
    maps = _maps(np.arange(12).reshape(3, 2, 1, 2))
    boxes = _boxes(("0.png", "F0", 0, 0, 1, 1), ("1.png", "F0", 0, 0, 1, 1))
    found = mean_maps(maps, boxes=boxes)
    np.testing.assert_allclose(found[0], [[2, 3]])
    assert np.isnan(found[1]).all()


def test_similarity_is_scipys_rank_correlation():
    one, other = np.random.default_rng(0).normal(size=(2, 3, 2, 5, 5)).round(1).astype(np.float32)
    found = map_similarity(one, other=other)
    for film, finding in product(range(3), range(2)):
        theirs = spearmanr(one[film, finding].ravel(), other[film, finding].ravel())
        assert found[film, finding] == pytest.approx(theirs.statistic)
    np.testing.assert_allclose(map_similarity(one, other=np.exp(one)), 1)
    assert np.isnan(map_similarity(one, other=np.ones_like(one))).all()


def _similar(method, head, whole):
    rows = [(method, "head", value) for value in head] + [
        (method, "stem", value) for value in whole
    ]
    return pd.DataFrame(rows, columns=["method", "block", "similarity"])


def test_a_method_passes_when_its_maps_change_with_the_network():
    table = sanity_table(
        pd.concat([
            _similar("honest", [0.6, 0.8], [0.2, -0.1]),
            _similar("edges", [1, 1], [0.9, 0.95]),
            _similar("upside down", [0.9, 0.9], [-0.9, -0.95]),
            _similar("both ways", [0.9, 0.9], [-0.9, 0.9]),
            _similar("partly flat", [0.5, 0.5], [np.nan, 0.1]),
            _similar("flat", [np.nan], [np.nan]),
        ])
    ).set_index("method")  # fmt: skip
    assert table["outcome"].to_dict() == {
        "honest": "passes",
        "edges": "fails",
        "upside down": "fails",
        "both ways": "fails",
        "partly flat": "passes",
        "flat": "not computable",
    }
    assert table.loc["honest", "head_randomised"] == pytest.approx(0.7)
    assert table.loc["honest", "network_randomised"] == pytest.approx(0.15)
    assert table.loc["partly flat", "note"].startswith("1 of 2 maps")
    assert (table["bound"] == BOUND).all()
    with pytest.raises(ValueError, match="similarities lack block; expected the columns"):
        sanity_table(pd.DataFrame({"method": ["a"], "similarity": [1.0]}))

"""From maps to boxes and hits: OpenCV and torchvision as oracles, cases by hand, refusals."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage
from torchvision.ops import box_iou

from lucency.explain.heatmaps import Heatmaps, boxed_in_train, cover, enlarge, even_centres
from lucency.explain.localization import (
    THRESHOLDS,
    count_hits,
    detect,
    iobb,
    iou,
    paint,
    pair_up,
    place_boxes,
    regions,
    scale,
)


def _maps(grid, *, patient=None, findings=None):
    films, count = grid.shape[:2]
    return Heatmaps(
        method="made up",
        findings=findings or tuple(f"F{number}" for number in range(count)),
        image=np.array([f"{film}.png" for film in range(films)]),
        patient=np.arange(films) if patient is None else np.array(patient),
        grid=grid.astype(np.float32),
        centres=even_centres(grid.shape[2:]),
    )


def _boxes(*rows):
    return pd.DataFrame(rows, columns=["image", "finding", "x", "y", "w", "h"])


@pytest.mark.parametrize("cells", [(7, 7), (16, 9), (1, 1), (224, 224)])
def test_maps_are_enlarged_as_opencv_does(cells):
    small = np.random.default_rng(0).normal(size=cells).astype(np.float32)
    theirs = cv2.resize(small, (1024, 1024), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(enlarge(small, even_centres(cells)), theirs, atol=2e-5)


@pytest.mark.parametrize("seed", range(5))
def test_regions_are_those_of_scipy(seed):
    mask = np.random.default_rng(seed).random((40, 60)) < 0.3
    labelled, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    theirs = [(a.start, d.start, a.stop, d.stop) for d, a in ndimage.find_objects(labelled)]
    ours = regions(mask) * (60, 40, 60, 40)
    assert sorted(ours.round(9).tolist()) == sorted(map(list, theirs))
    assert regions(np.zeros((5, 5), dtype=bool)).shape == (0, 4)


def test_a_map_is_stretched_by_itself_and_a_flat_one_becomes_nothing():
    stretched = scale(np.array([[-1, 0], [1, 3]], dtype=np.float32), top=255.0)
    np.testing.assert_allclose(stretched, [[0, 63.75], [127.5, 255]])
    assert not scale(np.full((3, 3), 7, dtype=np.float32), top=255.0).any()


def test_each_level_gives_its_own_boxes():
    cells = np.zeros((8, 8), dtype=np.float32)
    cells[1:3, 2:6] = 10  # 255
    cells[5:8, 0:2] = 4  # 102
    found = sorted((detect(cells, even_centres(cells.shape), frame=8) * 8).tolist())
    assert found == [[0, 5, 2, 8], [2, 1, 6, 3], [2, 1, 6, 3]]


def test_a_map_that_is_the_same_everywhere_has_no_boxes():
    assert detect(np.full((7, 7), 3, dtype=np.float32), even_centres((7, 7))).shape == (0, 4)


def test_regions_are_those_of_opencv_with_corners_touching():
    generator = np.random.default_rng(1)
    for density in (0.05, 0.2, 0.5):
        mask = generator.random((40, 60)) < density
        theirs = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)[2][1:, :4]
        theirs = np.concatenate([theirs[:, :2], theirs[:, :2] + theirs[:, 2:]], axis=1)
        mine = np.rint(regions(mask) * (60, 40, 60, 40)).astype(int)
        assert sorted(mine.tolist()) == sorted(theirs.tolist())
    assert len(regions(np.eye(5, dtype=bool))) == 1


def test_overlaps_by_hand_and_by_torchvision():
    true = np.array([[0.0, 0.0, 0.4, 0.5]])
    half_in, inside, away = [0.2, 0.0, 0.6, 0.5], [0.1, 0.1, 0.2, 0.2], [0.5, 0.6, 0.9, 0.9]
    detected = np.array([half_in, inside, away])
    np.testing.assert_allclose(iobb(detected, true)[:, 0], [0.5, 1, 0])
    np.testing.assert_allclose(iou(detected, true)[:, 0], [1 / 3, 0.05, 0])
    corner, side = np.random.default_rng(2).random((2, 30, 2))
    several = np.concatenate([corner, corner + side + 0.01], axis=1)
    theirs = box_iou(torch.from_numpy(several[:20]), torch.from_numpy(several[20:]))
    np.testing.assert_allclose(iou(several[:20], several[20:]), theirs.numpy())


def test_hits_count_true_boxes_and_wrong_counts_detected_ones():
    grid = np.zeros((1, 1, 1024, 1024))
    grid[0, 0, 0:100, 0:100] = 1
    grid[0, 0, 0:100, 500:700] = 1
    grid[0, 0, 800:900, 0:100] = 1
    maps = _maps(grid)
    unit = 1 / 1024
    first = ("0.png", "F0", 0, 0, 100 * unit, 100 * unit)
    second = ("0.png", "F0", 500 * unit, 0, 80 * unit, 100 * unit)  # IoBB and IoU .4
    third = ("0.png", "F0", 900 * unit, 900 * unit, 50 * unit, 50 * unit)  # hit by nothing
    hits, wrong = count_hits(maps, pair_up(place_boxes(maps, _boxes(first, second, third))))
    limits = np.concatenate(list(THRESHOLDS.values()))
    strict = limits >= 0.4
    np.testing.assert_array_equal(hits[:, 0], np.where(strict, 1, 2))
    # Each of the three regions is found twice, once a level.
    np.testing.assert_array_equal(wrong[:, 0], np.where(strict, 4, 2))


def test_a_box_covers_its_area_of_cells_and_of_pixels():
    corners = np.array([[0.25, 0.5, 0.75, 1.0], [0.1, 0.2, 0.15, 0.9]])
    covered = cover(corners, cells=(2, 4))
    np.testing.assert_allclose(covered[0], [[0, 0, 0, 0], [0, 1, 1, 0]])
    np.testing.assert_allclose(covered.sum(axis=(1, 2)) / 8, [0.25, 0.05 * 0.7])
    assert paint(corners[:1], frame=4).sum() == 4
    both = paint(np.array([[0, 0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75]]), frame=4)
    assert both.sum() == 7


def test_boxes_are_joined_by_name_and_paired_by_film_and_finding():
    maps = _maps(np.zeros((3, 2, 1, 1)))
    boxes = _boxes(
        ("2.png", "F1", 0.1, 0.2, 0.3, 0.4),
        ("0.png", "F0", 0, 0, 0.5, 0.5),
        ("2.png", "F1", 0.5, 0.5, 0.5, 0.5),
    )
    pairs = pair_up(place_boxes(maps, boxes))
    assert list(zip(pairs.row, pairs.column, strict=True)) == [(0, 0), (2, 1)]
    np.testing.assert_allclose(pairs.corners[1], [[0.1, 0.2, 0.4, 0.6], [0.5, 0.5, 1, 1]])
    assert not len(pair_up(place_boxes(maps, boxes[:0])).row)


def test_boxes_that_do_not_fit_are_refused():
    maps = _maps(np.zeros((2, 1, 3, 3)))
    with pytest.raises(ValueError, match=r"1 of 2 boxes have no map, such as F0 on 9\.png"):
        place_boxes(maps, _boxes(("9.png", "F0", 0, 0, 1, 1), ("0.png", "F0", 0, 0, 1, 1)))
    with pytest.raises(ValueError, match="1 of 1 boxes have no map, such as Mass"):
        place_boxes(maps, _boxes(("0.png", "Mass", 0, 0, 1, 1)))
    for odd in ((225, 547, 86, 79), (0.1, 0.1, 0, 0.2), (0.1, np.nan, 0.2, 0.2)):
        with pytest.raises(ValueError, match="divide pixels by the film's width"):
            place_boxes(maps, _boxes(("0.png", "F0", *odd)))
    with pytest.raises(ValueError, match="box columns"):
        place_boxes(maps, pd.DataFrame({"image": ["0.png"]}))


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        _maps(np.full((1, 1, 2, 2), np.nan))
    with pytest.raises(ValueError, match="findings"):
        _maps(np.zeros((1, 2, 2, 2)), findings=("Mass",))
    with pytest.raises(ValueError, match="two of one film"):
        replace(_maps(np.zeros((2, 1, 2, 2))), image=np.array(["0.png", "0.png"]))


def test_films_that_were_trained_are_refused_whatever_their_folder():
    boxed = np.array(["00000001_000.png", "00000002_000.png", "00000001_000.png"])
    assert boxed_in_train(boxed, trained=np.array(["images/00000003_000.png"])) == ""
    issue = boxed_in_train(boxed, trained=np.array(["images/00000002_000.png", "00000009_000.png"]))
    assert issue.startswith("1 of 2 films with boxes is in train, such as 00000002")

"""Textures: hand-computed matrices of published examples, scipy and scikit-image, and masks."""

import numpy as np
import pytest
from scipy import ndimage, stats
from skimage.feature import graycomatrix, graycoprops

from lucency.ensemble import radiomics
from lucency.ensemble.radiomics import (
    CO_OCCURRENCE,
    co_occurrence,
    discretised,
    feature_names,
    first_order,
    run_features,
    runs,
    runs_by_direction,
    texture_features,
    waves,
)

HARALICK = np.array([[4, 2, 1, 0], [2, 4, 0, 0], [1, 0, 6, 1], [0, 0, 1, 2]]) / 24
GALLOWAY = np.array([[0, 1, 2, 3], [0, 2, 3, 3], [2, 1, 1, 1], [3, 0, 3, 0]], dtype=np.uint8) + 1
WHOLE = np.ones((64, 64), dtype=bool)


def noise(seed: int = 0, *, shape: tuple[int, int] = (64, 64)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def test_co_occurrence_of_haralick_s_example_by_hand():
    """Haralick et al. (1973), figure 3: co_occurrence across."""
    found = {name: measure(HARALICK) for name, measure in CO_OCCURRENCE.items()}
    assert found["angular second moment"] == pytest.approx(84 / 576)
    assert found["contrast"] == pytest.approx(14 / 24)
    assert found["difference average"] == pytest.approx(10 / 24)
    assert found["inverse difference"] == pytest.approx((16 + 6 / 2 + 2 / 3) / 24)
    assert found["inverse difference moment"] == pytest.approx((16 + 6 / 2 + 2 / 5) / 24)
    assert found["joint entropy"] == pytest.approx(stats.entropy(HARALICK.ravel(), base=2))


def test_co_occurrence_is_scikit_image_s_where_nothing_is_masked():
    level = discretised(noise(), WHOLE)
    found = co_occurrence(level)
    names = {
        "contrast": "contrast",
        "dissimilarity": "difference average",
        "homogeneity": "inverse difference moment",
        "ASM": "angular second moment",
        "correlation": "correlation",
    }
    counts = graycomatrix(
        level, radiomics.DISTANCES, radiomics.ANGLES, levels=33, symmetric=True, normed=True
    )
    for theirs, ours in names.items():
        expected = graycoprops(counts, theirs).mean(axis=1)
        ours_by_distance = [found[f"{ours}, {distance} px"] for distance in radiomics.DISTANCES]
        np.testing.assert_allclose(ours_by_distance, expected)


def test_runs_of_galloway_s_example_by_hand():
    """Galloway (1975): across, 13 runs of 16 pixels, 11 of them single."""
    across = runs_by_direction(GALLOWAY)[0]
    matrix = np.zeros((4, 4), dtype=int)
    np.add.at(matrix, (across[0] - 1, across[1] - 1), 1)
    assert matrix.tolist() == [[4, 0, 0, 0], [1, 0, 1, 0], [3, 0, 0, 0], [3, 1, 0, 0]]
    found = run_features(*across)
    assert found["short runs emphasis"] == pytest.approx((11 + 1 / 4 + 1 / 9) / 13)
    assert found["long runs emphasis"] == pytest.approx((11 + 4 + 9) / 13)
    assert found["run percentage"] == pytest.approx(13 / 16)
    assert found["normalised grey level non-uniformity"] == pytest.approx(
        (4**2 + 2**2 + 3**2 + 4**2) / 13**2
    )
    assert found["normalised run length non-uniformity"] == pytest.approx((11**2 + 1 + 1) / 13**2)
    assert found["low grey level run emphasis"] == pytest.approx((4 + 2 / 4 + 3 / 9 + 4 / 16) / 13)
    assert found["high grey level run emphasis"] == pytest.approx((4 + 2 * 4 + 3 * 9 + 4 * 16) / 13)


def lines(level: np.ndarray) -> list[list[np.ndarray]]:
    """Rows, columns and both diagonals, as numpy gives them."""
    height, width = level.shape
    offsets = range(-height + 1, width)
    return [
        list(level),
        list(level.T),
        [np.diagonal(level, k) for k in offsets],
        [np.diagonal(level[:, ::-1], k) for k in offsets],
    ]


def test_runs_are_those_counted_one_by_one_and_end_at_the_mask():
    level = np.random.default_rng(1).integers(0, 4, (9, 13)).astype(np.uint8)
    for found, expected in zip(runs_by_direction(level), lines(level), strict=True):
        counted = []
        for line in expected:
            start = 0
            for end in range(1, len(line) + 1):
                if end == len(line) or line[end] != line[start]:
                    if line[start]:
                        counted.append((int(line[start]), end - start))
                    start = end
        assert sorted(zip(found[0].tolist(), found[1].tolist(), strict=True)) == sorted(counted)
    flat = np.ones((5, 5), dtype=np.uint8)
    assert runs(flat)["long runs emphasis"] > runs(GALLOWAY)["long runs emphasis"]


def test_first_order_is_scipy_s():
    grey = noise().ravel().astype(np.float64)
    found = first_order(grey)
    assert found["skewness"] == pytest.approx(stats.skew(grey))
    assert found["excess kurtosis"] == pytest.approx(stats.kurtosis(grey))
    assert found["interquartile range"] == pytest.approx(stats.iqr(grey))
    assert found["root mean square"] ** 2 == pytest.approx(found["mean"] ** 2 + found["variance"])
    share = np.histogram(grey, bins=32, range=(0, 256))[0] / len(grey)
    assert found["intensity histogram entropy"] == pytest.approx(stats.entropy(share, base=2))
    flat = first_order(np.full(10, 7.0))
    assert (flat["variance"], flat["skewness"], flat["intensity histogram entropy"]) == (0, 0, 0)


def test_waves_keep_the_energy_of_white_noise_and_find_the_direction_of_stripes():
    """An orthonormal Haar step keeps a sum of squares; halved kernels quarter it a band."""
    film = noise(shape=(128, 128))
    mask = np.zeros((128, 128), dtype=bool)
    mask[16:112, 16:112] = True
    found = waves(film, mask)
    variance = film.astype(np.float64).var()
    first = [found[f"{name} wave energy, scale 1"] for name in ("across", "down", "diagonal")]
    np.testing.assert_allclose(first, variance / 4, rtol=0.06)
    stripes = np.tile(np.array([0, 200], dtype=np.uint8), (64, 32))
    striped = waves(stripes, WHOLE)
    assert striped["across wave energy, scale 1"] > 100 * striped["down wave energy, scale 1"]
    flat = waves(np.full((64, 64), 50, dtype=np.uint8), WHOLE)
    assert sum(flat.values()) == pytest.approx(2500)


def test_what_lies_outside_the_lungs_counts_in_nothing():
    film = noise()
    mask = np.zeros((64, 64), dtype=bool)
    mask[20:44, 20:44] = True
    other = np.where(
        ndimage.binary_dilation(mask, np.ones((3, 3)), iterations=radiomics.REACH), film, 255
    )
    found, same = texture_features(film, mask), texture_features(other.astype(np.uint8), mask)
    assert found == same
    assert tuple(found) == feature_names()
    assert np.isfinite(list(found.values())).all()
    whole = texture_features(film, WHOLE)
    assert all(whole[name] != found[name] for name in ("mean", "contrast, 1 px"))
    with pytest.raises(ValueError, match="the mask holds no pixel"):
        texture_features(film, np.zeros_like(mask))

"""Measures of pictures against scikit-image, OpenCV, cases counted by hand, and planted noise."""

import cv2
import numpy as np
import pytest
from skimage.measure import shannon_entropy
from skimage.metrics import structural_similarity

from lucency.data.image_measures import (
    BLOCK,
    MEASURES,
    Film,
    brightness_error,
    contrast_improvement,
    eme,
    entropy,
    measure_film,
    noise,
    noise_amplification,
    similarity,
)

NOTHING = np.zeros((64, 64), dtype=bool)


def a_film(seed: int = 0, *, spread: float = 30.0, side: int = 64) -> Film:
    generator = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(generator.normal(0, 1, (side, side)), (0, 0), 4)
    return (120 + spread * smooth / smooth.std()).clip(0, 255).astype(np.uint8)


def test_no_measure_is_forgotten():
    asked = "entropy eme cii ambe noise ssim"
    assert list(MEASURES) == asked.split()
    for one in MEASURES.values():
        assert all((one.takes, one.unit, one.meaning, one.source))


def test_a_film_beside_itself_is_unchanged():
    film, lungs = a_film(), NOTHING.copy()
    lungs[20:44, 8:24] = True
    found = measure_film(film, original=film, lungs=lungs)
    assert {name: found[name] for name in ("cii", "ambe", "noise", "ssim")} == pytest.approx(
        {"cii": 1, "ambe": 0, "noise": 1, "ssim": 1}
    )


def test_no_measure_changes_its_film():
    film, original, lungs = a_film(1), a_film(2), NOTHING | (a_film(3) > 120)
    kept = [one.copy() for one in (film, original, lungs)]
    measure_film(film, original=original, lungs=lungs)
    for was, now in zip(kept, (film, original, lungs), strict=True):
        np.testing.assert_array_equal(was, now)


def test_entropy_is_scikit_image_s():
    for film in (a_film(), a_film(1, spread=3)):
        assert entropy(film) == pytest.approx(shannon_entropy(film, base=2), abs=1e-12)
    assert entropy(np.full((64, 64), 7, np.uint8)) == 0
    assert entropy(np.arange(256, dtype=np.uint8).reshape(16, 16)) == pytest.approx(8)


def test_eme_of_two_blocks_counted_by_hand():
    film = np.full((BLOCK, 2 * BLOCK + 3), 9, dtype=np.uint8)
    film[0, 0], film[1, 1] = 99, 0  # the first block: 20 log10(100 / 1) = 40 dB; the second: 0
    film[0, -1] = 255  # in the columns that fill no block
    assert eme(film) == pytest.approx((40 + 0) / 2)
    film[2, BLOCK] = 99  # the second: 20 log10(100 / 10) = 20 dB
    assert eme(film) == pytest.approx((40 + 20) / 2)


def test_a_black_block_has_no_contrast_and_a_minimum_of_0_a_finite_one():
    film = np.zeros((BLOCK, BLOCK), dtype=np.uint8)
    assert eme(film) == 0
    film[0, 0] = 255
    assert eme(film) == pytest.approx(20 * np.log10(256))


def test_contrast_of_lungs_counted_by_hand():
    lungs = NOTHING.copy()
    lungs[16:48, 16:28] = True
    before, after = (np.where(lungs, *greys).astype(np.uint8) for greys in ((80, 120), (50, 150)))
    assert contrast_improvement(after, before, lungs) == pytest.approx((100 / 200) / (40 / 200))
    before[:, 60:] = after[:, 60:] = 255  # beyond the ring of a tenth of the side: no background
    assert contrast_improvement(after, before, lungs) == pytest.approx((100 / 200) / (40 / 200))


@pytest.mark.parametrize("lungs", [NOTHING, ~NOTHING], ids=["no lungs", "nothing but lungs"])
def test_without_lungs_or_background_there_is_no_contrast_of_lungs(lungs: np.ndarray):
    assert np.isnan(contrast_improvement(a_film(1), a_film(2), lungs))


def test_an_original_without_contrast_has_no_improvement():
    lungs = NOTHING.copy()
    lungs[16:48, 16:28] = True
    for grey in (0, 90):
        assert np.isnan(contrast_improvement(a_film(), np.full((64, 64), grey, np.uint8), lungs))


def test_brightness_error_is_the_shift_that_was_planted():
    film = a_film(spread=10)
    assert brightness_error(film + np.uint8(40), film) == pytest.approx(40)
    assert brightness_error(film - np.uint8(40), film) == pytest.approx(40)


@pytest.mark.parametrize("sigma", [3.0, 8.0])
def test_planted_noise_is_estimated(sigma: float):
    smooth = np.add.outer(np.arange(256.0), np.arange(256.0)) / 4 + 60
    noisy = smooth + np.random.default_rng(0).normal(0, sigma, smooth.shape)
    assert noise(noisy.round().astype(np.uint8)) == pytest.approx(sigma, rel=0.04)


def test_noise_is_immerkaer_s_kernel_by_opencv():
    film = a_film()
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float64)
    answer = cv2.filter2D(film.astype(np.float64), -1, kernel)[1:-1, 1:-1]
    height, width = film.shape
    expected = np.sqrt(np.pi / 2) / (6 * (width - 2) * (height - 2)) * np.abs(answer).sum()
    assert noise(film) == pytest.approx(expected)


def test_stretched_noise_is_amplified_by_the_stretch():
    generator = np.random.default_rng(0)
    film = (60 + generator.normal(0, 5, (128, 128))).round().clip(0, 85).astype(np.uint8)
    assert noise_amplification(film * np.uint8(3), film) == pytest.approx(3)
    flat = np.full((64, 64), 9, np.uint8)
    assert np.isnan(noise_amplification(a_film(), flat))


def test_similarity_is_scikit_image_s_with_wang_s_window():
    film = a_film()
    clahe = cv2.createCLAHE(3, (4, 4)).apply(film)
    expected = structural_similarity(
        film.astype(np.float64), clahe.astype(np.float64), data_range=255, gaussian_weights=True,
        sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert similarity(clahe, film) == pytest.approx(expected)
    assert similarity(clahe, film) < 0.95
    assert similarity(film, film) == pytest.approx(1)


def test_more_clahe_is_more_contrast_more_noise_and_less_similarity():
    generator = np.random.default_rng(0)
    film = (a_film(side=128, spread=12) + generator.normal(0, 2, (128, 128))).round()
    film = film.clip(0, 255).astype(np.uint8)
    nothing = np.zeros(film.shape, dtype=bool)
    several = [
        measure_film(cv2.createCLAHE(clip, (4, 4)).apply(film), original=film, lungs=nothing)
        for clip in (1, 3, 8)
    ]
    for name, sign in (("eme", 1), ("noise", 1), ("ssim", -1)):
        assert (np.diff([sign * one[name] for one in several]) > 0).all(), name

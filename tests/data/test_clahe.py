"""CLAHE of padded films: OpenCV's of the film without its padding, and of whole tiles within."""

import cv2
import numpy as np
import pytest

from dicom_films import phantom_grey
from lucency.data.clahe import NOT_PADDED, equalise

CLIPS = ((3.0, 10), (2.0, 8), (40.0, 4), (0.0, 8), (0.01, 3))


def by_opencv(film: np.ndarray, clip: float, tiles: int) -> np.ndarray:
    return cv2.createCLAHE(clip, (tiles, tiles)).apply(film)


def film(height: int = 320, width: int = 320) -> np.ndarray:
    return cv2.resize(phantom_grey(512), (width, height), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(("clip", "tiles"), CLIPS)
@pytest.mark.parametrize("border", [(1, 0, 0, 0), (0, 7, 40, 3), (90, 90, 90, 90)])
@pytest.mark.parametrize("value", [0, 99, 255])
def test_a_border_changes_nothing_inside(clip: float, tiles: int, border: tuple, value: int):
    top, bottom, left, right = border
    place = ((top, bottom), (left, right))
    plain = film(233, 180)
    padded = np.pad(np.zeros(plain.shape, dtype=bool), place, constant_values=True)
    shown = np.pad(plain, place, constant_values=value)
    found = equalise(shown, clip=clip, tiles=tiles, padded=padded)
    assert (found[padded] == 0).all()
    np.testing.assert_array_equal(
        found[~padded].reshape(plain.shape), by_opencv(plain, clip, tiles)
    )


@pytest.mark.parametrize(("clip", "tiles"), CLIPS)
@pytest.mark.parametrize("shape", [(400, 400), (233, 180), (320, 181)])
def test_with_one_padded_pixel_it_is_opencv_s(clip: float, tiles: int, shape: tuple):
    plain, one = film(*shape), np.zeros(shape, dtype=bool)
    one[shape[0] // 3, shape[1] // 2] = True
    found = equalise(plain, clip=clip, tiles=tiles, padded=one)
    apart = np.abs(found.astype(int) - by_opencv(plain, clip, tiles))[~one]
    assert apart.max() <= 2  # a pixel fewer in a histogram, and rounding
    assert (apart <= 1).mean() > 0.99
    assert found[one] == 0


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize(("clip", "tiles"), [(3.0, 8), (0.0, 16)])
def test_either_side_of_padded_tiles_is_opencv_s_of_that_side(value: int, clip: float, tiles: int):
    plain, padded, side = film(), np.zeros((320, 320), dtype=bool), 320 // tiles
    padded[:, 3 * side : 5 * side] = True
    shown = np.where(padded, value, plain).astype(np.uint8)
    found = equalise(shown, clip=clip, tiles=tiles, padded=padded)
    for first, last in ((0, 3), (5, tiles)):
        part = (slice(None), slice(first * side, last * side))
        expected = cv2.createCLAHE(clip, (last - first, tiles)).apply(plain[part].copy())
        assert np.abs(found[part].astype(int) - expected).max() <= 1
    assert (found[padded] == 0).all()


def test_padding_changes_nothing_beyond_the_next_tiles():
    plain, padded = film(), np.zeros((320, 320), dtype=bool)
    padded[:107, :111] = True  # tiles of 40 pixels
    found, expected = equalise(plain, clip=3.0, tiles=8, padded=padded), by_opencv(plain, 3.0, 8)
    apart = np.abs(found.astype(int) - expected)
    apart[:140, :140] = 0
    assert apart.max() <= 1


def test_the_weight_of_a_tile_is_continuous():
    """A pixel more or less of padding in a tile changes its neighbours hardly."""
    plain, padded = film(), np.zeros((320, 320), dtype=bool)
    padded[:120, :120] = True
    almost = padded.copy()
    almost[119, 119] = False
    one, other = (equalise(plain, clip=3.0, tiles=8, padded=mask) for mask in (padded, almost))
    assert np.abs(one.astype(int) - other)[~padded].max() <= 1


@pytest.mark.parametrize("clip", [0.0, 3.0])
def test_films_almost_or_wholly_padded(clip: float):
    plain, padded = film(), np.ones((320, 320), dtype=bool)
    assert equalise(plain, clip=clip, tiles=10, padded=padded).shape == plain.shape
    padded[100, 200] = False
    one = equalise(plain, clip=clip, tiles=10, padded=padded)
    assert (one[padded] == 0).all()
    padded[103, 201] = False
    two = equalise(plain, clip=clip, tiles=10, padded=padded)
    assert (two[padded] == 0).all()


def test_without_padding_it_is_opencv_bit_for_bit():
    for padded in (NOT_PADDED, np.zeros((320, 320), dtype=bool)):
        found = equalise(film(), clip=3.0, tiles=10, padded=padded)
        np.testing.assert_array_equal(found, by_opencv(film(), 3.0, 10))

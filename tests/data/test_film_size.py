"""Films of an absurd size, of next to no bytes, or of scans without end, are never decoded."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dicom_films import dicom_bytes, phantom_grey, stored_for
from lucency.data.dicom import decode_dicom
from lucency.data.film_files import load_film
from lucency.data.film_size import (
    FREE_PIXELS,
    LARGEST_FILE,
    MOST_PIXELS,
    MOST_SCANS,
    AbsurdSizeError,
    refuse_absurd,
)
from lucency.data.images import decode
from torture.hostile_dicom import encapsulated
from torture.hostile_pictures import (
    blank_jpeg,
    chunk,
    deflated,
    grey,
    many_scans,
    png_header,
    png_of,
)


def test_of_next_to_no_bytes_come_no_films_that_fill_the_memory():
    side = 8192
    least = -(-(side * side - FREE_PIXELS) // MOST_PIXELS)
    refuse_absurd(side, side, held=least)
    with pytest.raises(AbsurdSizeError, match="8192 x 8192 pixels in 671,088 bytes, expected"):
        refuse_absurd(side, side, held=least - 1)
    refuse_absurd(5000, 5000, held=1)  # a blank film


def test_a_png_bomb_is_refused_before_it_inflates():
    rows = chunk(b"IDAT", deflated(16_385 * 16_384))
    with pytest.raises(ValueError, match="absurd size: 16384 x 16384 pixels in 26"):
        decode(png_of(png_header(16_384, 16_384), rows))


def test_a_jpeg_of_many_scans_is_refused_in_a_dicom_film_too():
    made = many_scans(96, MOST_SCANS + 1)
    reason = f"absurd size: a JPEG of more than {MOST_SCANS} scans"
    for decoder, content in ((decode, made), (decode_dicom, encapsulated(made, 96))):
        with pytest.raises(ValueError, match=reason):
            decoder(content)
    few = blank_jpeg(96, progressive=True)
    for decoded in (decode(few), decode_dicom(encapsulated(few, 96)).grey):
        assert decoded.shape == (96, 96)
    wide = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1]
    assert decode(cv2.imencode(".jpg", grey(256), wide)[1].tobytes()).shape == (256, 256)


@pytest.mark.parametrize(
    "name", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"]
)
def test_numbers_of_a_dicom_film_beyond_measure_are_refused(name: str):
    others = {"WindowCenter": "0", "WindowWidth": "9"} | {name: "1e308"}
    with pytest.raises(ValueError, match=rf"damaged: a number of {name} \(0028,105[0-3]\) is bey"):
        decode_dicom(dicom_bytes(stored_for(phantom_grey()), **others))


def test_a_file_that_is_larger_than_any_film_is_not_read(tmp_path: Path):
    film = tmp_path / "sparse.png"
    with film.open("wb") as content:
        content.truncate(LARGEST_FILE + 1)
    assert load_film(film).reason.startswith("absurd size: a file of 553,648,129 bytes, expected")
    assert np.size(load_film(film).content) == 1

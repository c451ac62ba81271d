"""Colour tables: OpenCV's own bytes, seen alike wherever a network sees a film."""

from typing import get_args

import cv2
import numpy as np
import pytest
import torch
from test_zoo import films

from lucency.config.sections import Colour
from lucency.models.networks import OPENCV, build, colour_table

GREYS = np.arange(256, dtype=np.uint8)


def test_the_protocol_offers_every_table() -> None:
    assert set(get_args(Colour)) == {"none", "green-fire-blue", *OPENCV}


@pytest.mark.parametrize("name", OPENCV)
def test_a_film_in_colour_is_opencvs(name: str) -> None:
    constant = getattr(cv2, "COLORMAP_" + name.replace("-", "_").upper())
    network = build("test_resnet", findings=2, colour=name, mean_std=((0.0,) * 3, (1.0,) * 3))
    film = films(3, 40)
    film[0, 0] = torch.from_numpy(GREYS[:40])
    found = (network.pictures(film) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for one, grey in zip(found, film.numpy(), strict=True):
        blue_green_red = cv2.applyColorMap(grey, constant)
        np.testing.assert_array_equal(one, cv2.cvtColor(blue_green_red, cv2.COLOR_BGR2RGB))


def test_green_fire_blue_goes_through_its_five_colours() -> None:
    """ImageJ's table at the greys where its colours are pure, and half-way between the first."""
    table = colour_table("green-fire-blue")
    at_hand = {0: (0, 0, 0), 255: (255, 255, 255), 32: (0, 43, 85), 96: (0, 171, 84)}
    for grey, colour in at_hand.items():
        assert tuple(table[grey]) == colour
    assert np.abs(table[64].astype(int) - (0, 85, 170)).max() <= 1
    assert np.abs(table[[127, 128]].astype(int) - (0, 255, 0)).max() <= 2
    assert (np.diff(table.astype(int), axis=0)[192:, 2] >= 0).all()


def test_without_a_table_grey_is_repeated_as_ever() -> None:
    plain, film = build("test_resnet", findings=2), films()
    expected = (film.unsqueeze(1).float() / 255 - plain.mean) / plain.std
    assert torch.equal(plain.pictures(film), expected)
    np.testing.assert_array_equal(colour_table("none"), np.stack([GREYS] * 3, 1))


def test_colours_are_made_before_a_film_is_reduced_and_are_standardised() -> None:
    network = build("test_resnet", findings=2, colour="jet", size=20)
    film = torch.full((1, 40, 40), 77, dtype=torch.uint8)
    flat = torch.from_numpy(colour_table("jet")[77].astype(np.float32) / 255).view(1, 3, 1, 1)
    expected = ((flat - network.mean) / network.std).expand(1, 3, 20, 20)
    torch.testing.assert_close(network.pictures(film), expected)


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(ValueError, match="nearest is 'viridis'"):
        build("test_resnet", findings=2, colour="virides")

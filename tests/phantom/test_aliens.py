"""Pictures that are no chest films: of the film's size, the same again, and no two alike."""

import cv2
import numpy as np
import pytest

from lucency.phantom.aliens import ALIENS

FILM = np.linspace(20, 220, 90 * 70).reshape(90, 70).astype(np.uint8)


def _drawn(kind: str, *, seed: int) -> np.ndarray:
    return ALIENS[kind](FILM, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", ALIENS)
def test_an_alien_has_the_film_s_size_and_is_drawn_again_from_its_seed(kind: str):
    before = FILM.copy()
    one, again, other = (_drawn(kind, seed=seed) for seed in (1, 1, 2))
    assert (one.shape, one.dtype) == (FILM.shape, np.uint8)
    assert (before == FILM).all()
    assert (one == again).all()
    assert (one == other).all() == (kind == "inverted")  # whose film is the same
    assert one.std() > 5


def test_inverted_is_the_negative():
    assert (_drawn("inverted", seed=0).astype(int) + FILM == 255).all()


def test_a_hand_lies_before_a_dark_film_and_an_abdomen_has_no_lungs():
    hands, abdomens = (
        np.mean([cv2.resize(_drawn(kind, seed=seed), (9, 9)) for seed in range(8)], axis=0)
        for kind in ("hand", "abdomen")
    )
    assert hands[5, 4] > hands[:, [0, 8]].max() + 60
    middle = abdomens[2:6]
    assert middle[:, 4].mean() > middle[:, [2, 6]].mean() + 10  # the spine

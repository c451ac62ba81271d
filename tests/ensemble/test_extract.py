"""Textures of many films: who has none and why, resumed and in parallel with the same bytes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lucency.core.manifest import Prepared
from lucency.ensemble import radiomics
from lucency.ensemble.lungs import lung_mask
from lucency.ensemble.radiomics import feature_names, lungs_table, texture_features, texture_table
from toys import toy_films

CHUNK = 4


def lungs(count: int, *, blank: tuple[int, ...] = (0,)) -> Prepared:
    """Films with two dark lungs, but for those that show nothing."""
    pixels = np.full((count, 96, 96), 200, dtype=np.uint8)
    pixels[:, 20:75, 15:42] = 60
    pixels[:, 20:75, 54:81] = 60
    pixels += np.random.default_rng(0).integers(0, 20, pixels.shape).astype(np.uint8)
    pixels[list(blank)] = 200
    return replace(toy_films(count, size=96), pixels=pixels)


def test_a_table_of_films_says_which_have_no_lungs(tmp_path: Path):
    films, seen = lungs(4), []
    lost = texture_table(
        films, folder=tmp_path, workers=1, progress=lambda done, total, note: seen.append(done)
    )
    feature = np.load(tmp_path / "feature.npy")
    assert feature.shape == (4, len(feature_names()))
    assert lost["image"].tolist() == [str(films.manifest.image[0])]
    assert lost["reason"].str.len().gt(10).all()
    assert np.isnan(feature[0]).all()
    assert np.isfinite(feature[1:]).all()
    assert seen == [4]
    expected = texture_features(films.pixels[1], lung_mask(films.pixels[1]).mask)
    np.testing.assert_allclose(feature[1], list(expected.values()), rtol=1e-5)
    assert not (tmp_path / "reasons.txt").exists()


def test_two_workers_and_a_killed_pass_make_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(radiomics, "CHUNK", CHUNK)
    films = lungs(3 * CHUNK + 1, blank=(0, CHUNK, CHUNK + 2))
    places = [tmp_path / name for name in ("whole", "two", "killed")]
    for place in places:
        place.mkdir()
    lost = texture_table(films, folder=places[0], workers=1)
    two = texture_table(films, folder=places[1], workers=2)

    def kill(done: int, total: int, note: str) -> None:
        if done == 2 * CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        texture_table(films, folder=places[2], workers=1, progress=kill)
    seen: list[int] = []
    resumed = texture_table(
        films, folder=places[2], workers=1, progress=lambda done, *_: seen.append(done)
    )
    assert seen == [3 * CHUNK, len(films.manifest)]
    assert two.equals(lost)
    assert resumed.equals(lost)
    assert len({(place / "feature.npy").read_bytes() for place in places}) == 1


def test_failures_are_counted_for_every_finding():
    films = toy_films(6).manifest
    label = np.array([[1, 0], [1, 1], [0, 0], [0, 0], [0, 1], [np.nan, 0]], dtype=np.float32)
    films = replace(films, label=label)
    feature = np.zeros((6, 3), dtype=np.float32)
    feature[[0, 2]] = np.nan
    table = lungs_table(films, feature).set_index("films")
    assert table["count"].tolist() == [6, 2, 2, 2]
    assert table["failed"].tolist() == [2, 1, 0, 1]
    np.testing.assert_allclose(table["share"], [1 / 3, 0.5, 0, 0.5])

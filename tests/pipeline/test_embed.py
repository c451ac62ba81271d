"""Which films are alike: thumbnails and a network's features, the same whenever they are asked."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lucency.config.sections import Network
from lucency.data.preprocess import thumbnails
from lucency.models.features import embed, frozen_network
from lucency.pipeline.feature_stage import features_folder, similarity_features
from toys import toy_films

ROWS = np.array([3, 0, 5])


def test_thumbnails_are_area_averages_without_their_mean():
    films = toy_films(8)
    found = thumbnails(films, rows=ROWS).reshape(3, 32, 32)
    for place, row in enumerate(ROWS):
        small = cv2.resize(films.pixels[row], (32, 32), interpolation=cv2.INTER_AREA) / 255
        np.testing.assert_allclose(found[place], small - small.mean(), atol=1e-6)


def test_a_network_s_features_do_not_depend_on_when_they_are_asked_for():
    films, choice = toy_films(8), Network(name="test_resnet")
    one, again = (
        embed(films, rows=ROWS, network=frozen_network(choice, root=Path())) for _ in range(2)
    )
    np.testing.assert_array_equal(one, again)
    assert one.shape[0] == len(ROWS)
    assert one.std() > 0


def test_features_are_made_once_and_other_ones_are_refused(tmp_path: Path):
    films, thumbnail = toy_films(8), Network(name="thumbnail")
    given = {"rows": ROWS, "root": Path(), "choice": thumbnail, "home": tmp_path}
    first = similarity_features(films, upstream={"split": "a"}, **given)
    out = features_folder(tmp_path, thumbnail)
    written = (out / "feature.npy").stat().st_mtime_ns
    again = similarity_features(films, upstream={"split": "a"}, **given)
    np.testing.assert_array_equal(first, again)
    assert (out / "feature.npy").stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="made from other inputs"):
        similarity_features(films, upstream={"split": "b"}, **given)

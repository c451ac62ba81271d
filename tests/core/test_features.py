"""Features: rows are taken whole, predictions are made beside them, and what does not fit."""

from dataclasses import replace

import jaxtyping
import numpy as np
import pytest

from lucency.core.predictions import Features, concatenate

BY_FILM = ("image", "patient", "part", "label", "feature")


def some_features() -> Features:
    return Features(
        source="net", split="0123", findings=("a", "b"), image=np.array(["x", "y", "z"]),
        patient=np.array([1, 1, 2]), part=np.array(["train", "train", "test"]),
        label=np.arange(6, dtype=np.float32).reshape(3, 2),
        feature=np.arange(12, dtype=np.float32).reshape(3, 4),
    )  # fmt: skip


def test_rows_are_taken_whole_and_put_together_again():
    films = some_features()
    assert (len(films), repr(films)) == (3, "<Features net: 3 films, 4 dimensions>")
    rows = films.take(np.array([2, 0]))
    assert (rows.image.tolist(), rows.feature[:, 0].tolist()) == (["z", "x"], [8, 0])
    assert films.of("test").image.tolist() == ["z"]
    whole = concatenate([films.of("train"), films.of("test")])
    for name in BY_FILM:
        np.testing.assert_array_equal(getattr(whole, name), getattr(films, name))
    with pytest.raises(ValueError, match="source, split and findings of parts"):
        concatenate([films, replace(films, source="other")])


def test_predictions_are_of_the_same_films_without_the_features():
    films = some_features()
    made = films.predictions(network="a vote", logit=np.zeros((3, 2)))
    assert (made.network, made.split, made.feature.shape) == ("a vote", "0123", (3, 0))
    for name in ("image", "patient", "part", "label"):
        assert getattr(made, name) is getattr(films, name)
    network = replace(made, network="net", feature=films.feature)
    assert network.features.source == "net"
    assert network.features.feature is films.feature


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"label": np.zeros((3, 1), dtype=np.float32)}, r"label: found \(3, 1\)"),
        ({"patient": np.arange(2)}, r"patient, part, feature: found \[2, 3, 3\]"),
        ({"feature": np.zeros((2, 4), np.float32)}, r"patient, part, feature: found \[3, 3, 2\]"),
        ({"part": np.array(["train", "train", "exam"])}, "part: found .*exam"),
    ],
)
def test_features_that_do_not_fit_are_refused(
    wrong: dict[str, np.ndarray], what: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=what):
        replace(some_features(), **wrong)

"""Fitted classical classifiers as arrays, and the logits that follow from these arrays alone.

What scikit-learn has fitted is kept without pickle, and does not depend on scikit-learn's version:
each of FORMS is the formula of one kind of classifier. Scores are those of the fitted model.

Letters in shapes: n or m films, k findings, d feature dimensions, c axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Shaped
from scipy.special import expit

SMOOTHING = 0.01  # added to both shares before their log-odds: no vote is ever certain
LEAF = -1
CELLS = 2**20  # distances at once: 8 MB
Arrays = Mapping[str, Shaped[np.ndarray, "..."]]
Axis = Float64[np.ndarray, "m c"]
Score = Float64[np.ndarray, " m"]


class Form(NamedTuple):
    """A fitted classifier: its kind, one of FORMS, and its arrays by name."""

    name: str
    arrays: dict[str, np.ndarray]


class Axes(NamedTuple):
    """How features come onto axes: filled, standardised, and turned to principal components.

    `component` has no row where standardised features are the axes themselves.
    """

    median: Float64[np.ndarray, " d"]
    mean: Float64[np.ndarray, " d"]
    scale: Float64[np.ndarray, " d"]
    centre: Float64[np.ndarray, " d"]
    component: Float64[np.ndarray, "c d"]
    spread: Float64[np.ndarray, ""]

    def place(self, feature: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n c"]:
        """Return where films stand; what is NaN takes the median."""
        wide = feature.astype(np.float64)
        standard = (np.where(np.isnan(wide), self.median, wide) - self.mean) / self.scale
        if not len(self.component):
            return standard
        return (standard - self.centre) @ self.component.T / self.spread

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name."""
        return {f"axes.{name}": np.asarray(value) for name, value in self._asdict().items()}

    @classmethod
    def of(cls, arrays: Arrays) -> Axes | None:
        """Return the axes among arrays by name, None where they are not there."""
        names = {name: f"axes.{name}" for name in cls._fields}
        held = names["mean"] in arrays
        return cls(**{name: arrays[key] for name, key in names.items()}) if held else None


class FittedLearner(NamedTuple):
    """A fitted classifier of every finding: plain arrays by name, and each one's form.

    The form is "" where nothing was fitted: then all films are predicted alike.
    """

    form: tuple[str, ...]
    arrays: dict[str, np.ndarray]

    def logit(self, feature: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n k"]:
        """Return the calibrated logits of films by their features."""
        axes = Axes.of(self.arrays)
        assert axes is not None, "every learner keeps its axes"
        place = axes.place(feature)
        score = np.zeros((len(feature), len(self.form)))
        for k, form in enumerate(self.form):
            if form:
                start = f"finding.{k}."
                mine = {
                    name.removeprefix(start): value
                    for name, value in self.arrays.items()
                    if name.startswith(start)
                }
                score[:, k] = scores(form, mine, place[:, mine["chosen"]])
        return self.arrays["line.slope"] * score + self.arrays["line.offset"]


def scores(form: str, arrays: Arrays, axis: Axis) -> Score:
    """Return the scores of films, higher for positives."""
    return FORMS[form](arrays, axis)


def linear_form(model: Any) -> Form:
    """Return a linear model of scikit-learn."""
    return Form("linear", {"weight": model.coef_[0], "intercept": model.intercept_})


def kernel_form(model: Any) -> Form:
    """Return a linear model on landmarks of an RBF kernel."""
    kernel, line = (step for _, step in model.steps)
    landmarks = {"landmark": kernel.components_, "normalisation": kernel.normalization_}
    return Form("kernel", landmarks | {"gamma": np.array(kernel.gamma)} | linear_form(line).arrays)


def bayes_form(model: Any) -> Form:
    """Return a naive Bayes of normal distributions."""
    prior = np.log(model.class_prior_)
    return Form("bayes", {"mean": model.theta_, "variance": model.var_, "log_prior": prior})


def perceptron_form(model: Any) -> Form:
    """Return a perceptron of one hidden layer of rectified units."""
    (hidden, last), (shift, bias) = model.coefs_, model.intercepts_
    return Form("perceptron", {"hidden": hidden, "shift": shift, "last": last, "bias": bias})


def neighbours_form(model: Any) -> Form:
    """Return the films that vote, and how many of them do."""
    films: Any = model
    voters = {"film": films._fit_X, "truth": films._y.astype(np.int64)}
    return Form("neighbours", voters | {"neighbours": np.array(films.n_neighbors)})


def forest_form(model: Any) -> Form:
    """Return the trees of a forest; a node's value is the share of positives in it."""
    trees = [one.tree_ for one in model.estimators_]
    share = [tree.value[:, 0, 1] / tree.value[:, 0].sum(axis=1) for tree in trees]
    nodes = {
        "feature": [tree.feature for tree in trees],
        "threshold": [tree.threshold for tree in trees],
        "left": [tree.children_left for tree in trees],
        "right": [tree.children_right for tree in trees],
        "value": share,
    }
    return Form("forest", _joined(nodes))


def boosting_form(model: Any) -> Form:
    """Return the trees of a gradient boosting, and the score that they are added to."""
    boosted: Any = model
    trees = [one.nodes for (one,) in boosted._predictors]
    leaf = [tree["is_leaf"].astype(bool) for tree in trees]
    children = {
        side: [
            np.where(end, LEAF, tree[side].astype(np.int64))
            for tree, end in zip(trees, leaf, strict=True)
        ]
        for side in ("left", "right")
    }
    nodes = {
        "feature": [tree["feature_idx"].astype(np.int64) for tree in trees],
        "threshold": [tree["num_threshold"] for tree in trees],
        "value": [tree["value"] for tree in trees],
        **children,
    }
    return Form("boosting", {**_joined(nodes), "base": np.ravel(boosted._baseline_prediction)})


def _joined(nodes: Mapping[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the nodes of all trees one after another, and where each tree begins."""
    sizes = [len(tree) for tree in nodes["left"]]
    joined = {
        name: np.concatenate(parts).astype(np.float64 if name in ("threshold", "value") else int)
        for name, parts in nodes.items()
    }
    return {**joined, "start": np.cumsum([0, *sizes[:-1]])}


def _linear(arrays: Arrays, axis: Axis) -> Score:
    return axis @ arrays["weight"] + arrays["intercept"]


def _kernel(arrays: Arrays, axis: Axis) -> Score:
    """Williams and Seeger, NIPS 2000: the kernel to each landmark, then to normalised axes."""
    landmark = arrays["landmark"]
    square = _lengths(axis)[:, None] + _lengths(landmark) - 2 * axis @ landmark.T
    kernel = np.exp(-arrays["gamma"] * np.maximum(square, 0))
    return _linear(arrays, kernel @ arrays["normalisation"].T)


def _bayes(arrays: Arrays, axis: Axis) -> Score:
    """Return the difference of both classes' log joint densities."""
    mean, variance = arrays["mean"], arrays["variance"]
    square = (axis[:, None] - mean) ** 2 / variance
    density = arrays["log_prior"] - 0.5 * (np.log(2 * np.pi * variance) + square).sum(axis=2)
    return density[:, 1] - density[:, 0]


def _perceptron(arrays: Arrays, axis: Axis) -> Score:
    hidden = np.maximum(axis @ arrays["hidden"] + arrays["shift"], 0)
    return _odds(expit((hidden @ arrays["last"] + arrays["bias"])[:, 0]))


def _neighbours(arrays: Arrays, axis: Axis) -> Score:
    """Return the log-odds of the share of positives among the nearest films.

    Of films equally far those that stand first vote. Squared distances lack the query's own squared
    length, which changes no order.
    """
    film, positive, count = arrays["film"], arrays["truth"] == 1, arrays["neighbours"].item()
    length, votes = _lengths(film), np.empty(len(axis))
    size = max(1, CELLS // len(film))
    for start in range(0, len(axis), size):
        square = length - 2 * axis[start : start + size] @ film.T
        last = np.partition(square, count - 1, axis=1)[:, count - 1 : count]
        nearest = square <= last
        if (np.count_nonzero(nearest, axis=1) > count).any():
            nearer = square < last
            free = count - np.count_nonzero(nearer, axis=1)
            tied = nearest & ~nearer
            nearest = nearer | (tied & (tied.cumsum(axis=1) <= free[:, None]))
        votes[start : start + size] = np.count_nonzero(nearest & positive, axis=1)
    return _odds(votes / count)


def _lengths(place: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, " n"]:
    """Return squared lengths."""
    return np.einsum("nc,nc->n", place, place)


def _forest(arrays: Arrays, axis: Axis) -> Score:
    """Return the log-odds of the mean share; trees compare in single precision."""
    return _odds(_reached(arrays, axis.astype(np.float32)) / len(arrays["start"]))


def _boosting(arrays: Arrays, axis: Axis) -> Score:
    return arrays["base"] + _reached(arrays, axis)


def _reached(arrays: Arrays, axis: Shaped[np.ndarray, "m c"]) -> Score:
    """Return the sum over all trees of the value of the leaf that each film comes to."""
    left, right, film = arrays["left"], arrays["right"], np.arange(len(axis))
    total = np.zeros(len(axis))
    for start in arrays["start"].tolist():
        node = np.full(len(axis), start, dtype=np.int64)
        while (inner := left[node] != LEAF).any():
            here = node[inner]
            goes = axis[film[inner], arrays["feature"][here]] <= arrays["threshold"][here]
            node[inner] = start + np.where(goes, left[here], right[here])
        total += arrays["value"][node]
    return total


def _odds(share: Score) -> Score:
    return np.log(share + SMOOTHING) - np.log(1 - share + SMOOTHING)


FORMS: dict[str, Callable[[Arrays, Axis], Score]] = {
    "linear": _linear,
    "kernel": _kernel,
    "bayes": _bayes,
    "perceptron": _perceptron,
    "neighbours": _neighbours,
    "forest": _forest,
    "boosting": _boosting,
}

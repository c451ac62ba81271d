"""A head found by logistic regression on the features before it: a linear probe.

A training may begin with it, so that the first steps do not spoil the features (LP-FT: Kumar,
Raghunathan, Jones, Ma and Liang, "Fine-tuning can distort pretrained features", ICLR 2022), or end
with it, each class weighing the same. That is the counterpart for findings of cRT, decoupled
classifier retraining (Kang et al., "Decoupling representation and classifier", ICLR 2020), whose
authors train one softmax on batches drawn by class, without a penalty.
Letters in shapes: n films, d feature dimensions, k findings.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from lucency.evaluation.metrics import macro_auc
from lucency.models.film_loader import Films
from lucency.models.heads import has_linear_classifier
from lucency.models.inference import forward
from lucency.models.networks import FilmNetwork

STRENGTHS = (1e-4, 1e-3, 1e-2)  # C of scikit-learn, on standardised features
STEPS = 200
Linear = tuple[Float64[np.ndarray, "k d"], Float64[np.ndarray, " k"]]


def fit_head(
    network: FilmNetwork,
    *,
    train: Films,
    val: Films,
    classes: str,
) -> None:
    """Set the last layer to logistic regression on the features of the training entries.

    A finding each against the rest: with `classes` "natural" by the plan's weights, with "balanced"
    both classes weigh the same; the ridge penalty, one for all, is that of the highest macro AUC on
    validation films. Films are shown as they are. Raises ValueError for a network whose last layer
    is not a linear one.
    """
    last = require_linear(network.body)
    _, feature = forward(network, films=train)
    _, known = forward(network, films=val)
    label, weights = train.plan.label, train.plan.weight
    if classes == "balanced":
        weights = balanced_weights(label, weights)
    heads = logistic_heads(feature, label, weights, strengths=STRENGTHS)
    scores = [macro_auc(val.plan.label, known @ weight.T + bias) for weight, bias in heads]
    weight, bias = heads[int(np.nanargmax(scores))] if not np.isnan(scores).all() else heads[1]
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(weight))
        last.bias.copy_(torch.from_numpy(bias))


def require_linear(body: nn.Module, *, name: str = "the network") -> nn.Linear:
    """Return the layer that makes logits of features; ValueError where another thing does."""
    if has_linear_classifier(body):
        return body.get_classifier()  # pyright: ignore
    raise ValueError(
        f"training.probe and training.retrain need logits that are one linear layer of features, "
        f"which those of {name} are not: leave them out, or state another head"
    )


def balanced_weights(
    label: Float32[np.ndarray, "n k"], weight: Float32[np.ndarray, "n k"]
) -> Float32[np.ndarray, "n k"]:
    """Return the weights scaled so that both stated classes of a finding weigh half of all each."""
    scaled, total = np.zeros_like(weight), np.where(np.isnan(label), 0, weight).sum(axis=0)
    for value in (0, 1):
        of_class = np.where(label == value, weight, 0)
        both = of_class.sum(axis=0)
        scaled += of_class * np.divide(total, 2 * both, out=np.zeros_like(both), where=both > 0)
    return scaled


def logistic_heads(
    feature: Float32[np.ndarray, "n d"],
    label: Float32[np.ndarray, "n k"],
    weight: Float32[np.ndarray, "n k"],
    *,
    strengths: Sequence[float],
) -> list[Linear]:
    """Return, by strength, weights and offsets of logistic regressions on features as they come.

    They are fitted to standardised features. A finding of which one class has no weight has
    weights 0 and an offset by how common it is.
    """
    scaler: Any = StandardScaler()
    scaled = scaler.fit_transform(feature.astype(np.float64))
    heads = [_standard_head(scaled, label, weight, strength=one) for one in strengths]
    slopes = [(slope / scaler.scale_, offset) for slope, offset in heads]
    return [(slope, offset - slope @ scaler.mean_) for slope, offset in slopes]


def _standard_head(
    scaled: Float64[np.ndarray, "n d"],
    label: Float32[np.ndarray, "n k"],
    weight: Float32[np.ndarray, "n k"],
    *,
    strength: float,
) -> Linear:
    slope, offset = np.zeros((label.shape[1], scaled.shape[1])), np.zeros(label.shape[1])
    for k, truth in enumerate(label.T):
        counted = ~np.isnan(truth) & (weight[:, k] > 0)
        positives, negatives = (int((truth[counted] == value).sum()) for value in (1, 0))
        if not (positives and negatives):
            offset[k] = np.log((positives + 0.5) / (negatives + 0.5))
            continue
        model: Any = LogisticRegression(C=strength, max_iter=STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # as near as STEPS lead
            model.fit(scaled[counted], truth[counted], sample_weight=weight[counted, k])
        slope[k], offset[k] = model.coef_[0], model.intercept_[0]
    return slope, offset

"""Two labellings in the same words: findings merged into groups, films and findings in common.

Consolidation, pneumonia and infiltration describe one appearance, and no reader tells them apart
from the picture alone: Oakden-Rayner, Academic Radiology 27 (2020), 106-112. Letters in shapes: n
films, k findings, g groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, Shaped

from lucency.balance.measures import no_finding
from lucency.predictions import Predictions
from lucency.values import NO_FINDING, Manifest, nearest

Groups = Mapping[str, tuple[str, ...]]


def merge_labels(labels: Manifest, groups: Groups) -> Manifest:
    """Return the labels of groups: 1 where a member is, 0 where all are 0, else NaN (not stated).

    Boxes are left out. Raises ValueError for a group with an unknown member.
    """
    label = [merged(labels.label[:, row]) for row in _members(labels.findings, groups)]
    return replace(
        labels,
        findings=tuple(groups),
        label=np.stack(label, axis=1),
        boxes=labels.boxes.iloc[:0],
    )


def merge_predictions(predictions: Predictions, groups: Groups) -> Predictions:
    """Return the predictions of groups: the chance of any member, as if members were independent.

    So the probability of a group is never below any member's. Raises ValueError for a group with
    an unknown member.
    """
    members = _members(predictions.findings, groups)
    said = predictions.calibrated
    return replace(
        predictions.uncalibrated(),
        findings=tuple(groups),
        label=np.stack([merged(predictions.label[:, row]) for row in members], axis=1),
        logit=np.stack([_any_of(said[:, row]) for row in members], axis=1),
    )


def with_no_finding(labels: Manifest) -> Manifest:
    """Return the labels with "No Finding" as one more: none of the others is present.

    It is known where all others are, or one is present. Labels that have it are left as they are.
    """
    if NO_FINDING in labels.findings:
        return labels
    column = no_finding(labels.label, names=labels.findings)[:, None]
    return replace(
        labels,
        findings=(*labels.findings, NO_FINDING),
        label=np.concatenate([labels.label, column], axis=1),
    )


def merged(label: Float[np.ndarray, "n k"]) -> Float32[np.ndarray, " n"]:
    """Return 1 where any label is, 0 where all are 0, NaN where neither is known."""
    there = (label == 1).any(axis=1)
    absent = (label == 0).all(axis=1)
    return np.where(there, 1, np.where(absent, 0, np.nan)).astype(np.float32)


def meet(one: Manifest, other: Manifest) -> tuple[Manifest, Manifest]:
    """Return both labellings of the films and findings that both have, in the order of `one`.

    Raises ValueError when they have no film or no finding in common.
    """
    findings = tuple(name for name in one.findings if name in other.findings)
    if not findings:
        raise ValueError(
            f"findings {', '.join(one.findings)} and {', '.join(other.findings)} have none in "
            "common; expected some: merge them with lucency.audit.ontology.merge_labels"
        )
    known = np.flatnonzero(np.isin(one.image, other.image)).astype(np.int64)
    if not len(known):
        raise ValueError(
            f"{one.origin}, and {other.origin}: no film is in both; expected image names alike"
        )
    mine = one.take(known)
    return _only(mine, findings), _only(other.take(rows_of(other, mine.image)), findings)


def rows_of(labels: Manifest, image: Shaped[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return the row of each image in `labels`; -1 where it is not there."""
    order = np.argsort(labels.image)
    place = np.searchsorted(labels.image, image, sorter=order)
    row = order[np.minimum(place, len(order) - 1)]
    return np.where(labels.image[row] == image, row, -1)


def align(
    labels: Manifest, *, image: Shaped[np.ndarray, " n"], findings: tuple[str, ...]
) -> Float32[np.ndarray, "n k"]:
    """Return what `labels` say of these films and findings; NaN where they say nothing."""
    label = np.full((len(image), len(findings)), np.nan, dtype=np.float32)
    row = rows_of(labels, image)
    for place, name in enumerate(findings):
        if name in labels.findings:
            column = labels.label[:, labels.findings.index(name)]
            label[:, place] = np.where(row >= 0, column[row], np.nan)
    return label


def _any_of(logit: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, " n"]:
    """Return the logit of 1 - the product of 1 - p, without rounding p to 0 or 1."""
    none = np.logaddexp(0, logit).sum(axis=1)  # minus the log of that product
    return none + np.log(-np.expm1(-np.maximum(none, np.finfo(np.float64).tiny)))


def _only(labels: Manifest, findings: tuple[str, ...]) -> Manifest:
    column = [labels.findings.index(name) for name in findings]
    return replace(labels, findings=findings, label=labels.label[:, column])


def _members(findings: tuple[str, ...], groups: Groups) -> list[list[int]]:
    """Return the places of each group's members among the findings."""
    for group, members in groups.items():
        for name in members:
            if name not in findings:
                known = f"expected some of {', '.join(findings)}{nearest(name, findings)}"
                raise ValueError(f"group {group!r}: finding {name!r} is unknown; {known}")
    return [[findings.index(name) for name in members] for members in groups.values()]


GROUPS: dict[str, tuple[str, ...]] = {
    "Opacity": ("Infiltration", "Consolidation", "Pneumonia", "Atelectasis", "Edema"),
    "Nodule or mass": ("Nodule", "Mass"),
}
FOUR_GROUPS: dict[str, tuple[str, ...]] = {  # as the four-finding release of experts names them
    "Pneumothorax": ("Pneumothorax",),
    "Airspace opacity": ("Consolidation", "Infiltration", "Pneumonia", "Edema"),
    "Nodule or mass": ("Nodule", "Mass"),
}

"""Predictions, the hinge: left of them torch, right of them numpy; all that judges takes only this.

Letters in shapes: n films, k findings, d feature dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, Shaped
from scipy.special import expit

from lucency.values import PARTS, require


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What a network said of films; `split` is the fingerprint of the parts it was made under.

    `logit` is what the network gave; slope x logit + offset is its recalibrated logit, and all
    probabilities come from that. One slope and offset a finding, or a single number for all.
    """

    network: str
    split: str
    findings: tuple[str, ...]
    image: Shaped[np.ndarray, " n"]
    patient: Int64[np.ndarray, " n"]
    part: Shaped[np.ndarray, " n"]
    label: Float32[np.ndarray, "n k"]
    logit: Float[np.ndarray, "n k"]
    feature: Float32[np.ndarray, "n d"]
    slope: Float64[np.ndarray, ...] = field(default_factory=lambda: np.ones(()))
    offset: Float64[np.ndarray, ...] = field(default_factory=lambda: np.zeros(()))

    def __post_init__(self) -> None:
        films = len(self.image)
        require(self.label.shape == (films, len(self.findings)), "label", self.label.shape)
        require(self.logit.shape == self.label.shape, "logit", self.logit.shape)
        lengths = [len(rows) for rows in (self.patient, self.part, self.feature)]
        require(lengths == [films] * 3, "patient, part, feature", lengths)
        require(bool(np.isfinite(self.logit).all()), "logits must be finite", "NaN or infinity")
        require(bool(np.isin(self.part, PARTS).all()), "part", np.unique(self.part))
        for line in (self.slope, self.offset):
            require(line.shape in ((), (len(self.findings),)), "slope, offset", line.shape)
            require(bool(np.isfinite(line).all()), "slope, offset", "NaN or infinity")
        require(bool((self.slope > 0).all()), "slopes must be above 0", self.slope)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def probability(self) -> Float64[np.ndarray, "n k"]:
        """The sigmoid of the recalibrated logits."""
        return expit(self.calibrated)

    @property
    def calibrated(self) -> Float64[np.ndarray, "n k"]:
        """The recalibrated logits, in double precision; films keep their order in each finding."""
        return self.logit.astype(np.float64) * self.slope + self.offset

    def uncalibrated(self) -> Predictions:
        """Return the same predictions as the network gave them."""
        return replace(self, slope=np.ones(()), offset=np.zeros(()))

    def of(self, part: str) -> Predictions:
        """Return the rows of one part."""
        rows = self.part == part
        names = ("image", "patient", "part", "label", "logit", "feature")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def save_predictions(predictions: Predictions, file: Path) -> None:
    """Write one compressed .npz that holds no Python objects."""
    arrays = {name: np.asarray(getattr(predictions, name)) for name in _PREDICTED}
    np.savez_compressed(file, allow_pickle=False, **arrays)


def load_predictions(file: Path) -> Predictions:
    """Read what `save_predictions` wrote; pickled content is refused."""
    with np.load(file, allow_pickle=False) as arrays:
        fields = {name: arrays[name] for name in _PREDICTED}
    names = tuple(str(name) for name in fields.pop("findings"))
    network, split = str(fields.pop("network")), str(fields.pop("split"))
    return Predictions(network=network, split=split, findings=names, **fields)


_PREDICTED = tuple(Predictions.__dataclass_fields__)

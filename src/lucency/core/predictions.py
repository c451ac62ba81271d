"""Predictions with their recalibration, and features of films; both as files.

Letters in shapes: n films, k findings (so k2), d feature dimensions, m knots of all curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Float64, Int64, Shaped
from scipy.special import expit

from lucency.core.files import why_no_file, write_arrays
from lucency.core.manifest import PARTS, counted, require
from lucency.core.saved_files import NUMBER, TEXT, WHOLE, naming_damage, read_array, read_arrays
from lucency.core.written import refuse_changed_file

REPEATS_FILE = "repeats.npy"  # beside predictions: the probabilities of each repeat of their folds
_BY_FILM = ("image", "patient", "part", "label", "logit", "feature")
_FEATURES_BY_FILM = ("image", "patient", "part", "label", "feature")
Line = Float64[np.ndarray, "..."]  # slope or offset: one a finding, or a single number for all
Knots = Float64[np.ndarray, "m 3"]
FORMS = {  # of the saved arrays: their kinds, and their most dimensions
    **dict.fromkeys(("network", "split"), (TEXT, 0)),
    **dict.fromkeys(("findings", "image", "part"), (TEXT, 1)),
    "patient": (WHOLE, 1),
    **dict.fromkeys(("label", "logit", "feature", "knot"), (NUMBER, 2)),
    **dict.fromkeys(("slope", "offset"), (NUMBER, 1)),
}
AS_SAVED = (
    "expected predictions as a run saves them, or a table; a run makes its own anew when their "
    "folder is deleted"
)
ARCHIVE = b"PK\3\4"  # how a .npz file begins
_OF_ALL_FILMS = ("network", "source", "split", "findings")
Films = TypeVar("Films", "Predictions", "Features")


def no_knots() -> Knots:
    """Return the knots of recalibrations that are lines: none."""
    return np.empty((0, 3))


@dataclass(frozen=True, kw_only=True, eq=False)
class Recalibration:
    """A line or a curve for each finding, as `rescale` applies them.

    `note` says why a finding was not fitted, or what held its slope; it is empty when all is well.
    """

    method: str
    slope: Float64[np.ndarray, " k"]
    offset: Float64[np.ndarray, " k2"]
    note: tuple[str, ...]
    knot: Float64[np.ndarray, "m 3"] = field(default_factory=no_knots)

    def __post_init__(self) -> None:
        lengths = [len(self.slope), len(self.offset), len(self.note)]
        require(len(set(lengths)) == 1, "slope, offset, note", lengths)
        require(bool((self.slope > 0).all()), "slopes must be above 0", self.slope.min(initial=1))
        check_knots(self.knot, findings=len(self.slope))

    def apply(self, logit: Float[np.ndarray, "n k"]) -> Float64[np.ndarray, "n k"]:
        """Return the calibrated logits; raises ValueError when their findings are not as many."""
        if logit.shape[1] != len(self.slope):
            raise ValueError(
                f"logits of {logit.shape[1]} findings; expected {len(self.slope)}, as many as were "
                "recalibrated"
            )
        return rescale(logit, slope=self.slope, offset=self.offset, knot=self.knot)


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """A network's predictions for films; `split` is the fingerprint of the parts of its training.

    `logit` is the network's own; `rescale` makes its recalibrated logit with slope, offset and
    knots, and all probabilities come from that. One slope and offset a finding, or a single number
    for all. `unfamiliarity` says of each film how unlike the training films it is
    (`lucency.evaluation.unfamiliarity`); a single NaN where that is not known. It is not saved.
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
    slope: Line = field(default_factory=lambda: np.ones(()))
    offset: Line = field(default_factory=lambda: np.zeros(()))
    knot: Knots = field(default_factory=no_knots)
    unfamiliarity: Line = field(default_factory=lambda: np.full((), np.nan))

    def __post_init__(self) -> None:
        _check_films(self)
        require(self.unfamiliarity.shape in ((), self.image.shape), "unfamiliarity", len(self))
        require(self.logit.shape == self.label.shape, "logit", self.logit.shape)
        require(bool(np.isfinite(self.logit).all()), "logits must be finite", "NaN or infinity")
        for line in (self.slope, self.offset):
            require(line.shape in ((), (len(self.findings),)), "slope, offset", line.shape)
            require(bool(np.isfinite(line).all()), "slope, offset", "NaN or infinity")
        require(bool((self.slope > 0).all()), "slopes must be above 0", self.slope)
        check_knots(self.knot, findings=len(self.findings))

    def __len__(self) -> int:
        return len(self.image)

    def __repr__(self) -> str:
        parts = ", ".join(part for part in PARTS if part in self.part)
        films, findings = counted(len(self), "film"), counted(len(self.findings), "finding")
        return f"<Predictions {self.network}: {films} ({parts}), {findings}>"

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(max_rows=10, index=False, float_format=lambda x: f"{x:.3f}")

    def to_frame(self) -> pd.DataFrame:
        """Return a row a film: image, and the recalibrated probability of every finding."""
        score = pd.DataFrame(self.probability, columns=list(self.findings))
        return pd.concat([pd.DataFrame({"image": self.image}), score], axis=1)

    @property
    def probability(self) -> Float64[np.ndarray, "n k"]:
        """The sigmoid of the recalibrated logits."""
        return expit(self.calibrated)

    @property
    def calibrated(self) -> Float64[np.ndarray, "n k"]:
        """The recalibrated logits, in double precision; no finding's films change their order."""
        return rescale(self.logit, slope=self.slope, offset=self.offset, knot=self.knot)

    def uncalibrated(self) -> Predictions:
        """Return the same predictions as the network gave them."""
        return replace(self, slope=np.ones(()), offset=np.zeros(()), knot=no_knots())

    def of(self, part: str) -> Predictions:
        """Return the rows of one part."""
        return self.take(np.flatnonzero(self.part == part))

    def take(self, rows: Int64[np.ndarray, " m"]) -> Predictions:
        """Return these rows, in this order."""
        names = (*_BY_FILM, "unfamiliarity") if self.unfamiliarity.ndim else _BY_FILM
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def of_findings(self, findings: Sequence[str]) -> Predictions:
        """Return the columns of these findings, in this order; ValueError for an unknown one."""
        if strange := [name for name in findings if name not in self.findings]:
            raise ValueError(
                f"{self.network}: no finding {strange[0]!r}; expected of {', '.join(self.findings)}"
            )
        place = [self.findings.index(name) for name in findings]
        knots = [self.knot[self.knot[:, 0] == one].copy() for one in place]
        for column, knot in enumerate(knots):
            knot[:, 0] = column
        return replace(
            self,
            findings=tuple(findings),
            label=self.label[:, place],
            logit=self.logit[:, place],
            slope=self.slope[place] if self.slope.ndim else self.slope,
            offset=self.offset[place] if self.offset.ndim else self.offset,
            knot=np.concatenate([no_knots(), *knots]),
        )

    @property
    def features(self) -> Features:
        """The features alone."""
        held = {name: getattr(self, name) for name in ("split", "findings", *_FEATURES_BY_FILM)}
        return Features(source=self.network, **held)


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Numbers that a source makes of films, such as embeddings; NaN for a film without any.

    `source` is a network, textures, or several joined by +; `split` is as in `Predictions`.
    """

    source: str
    split: str
    findings: tuple[str, ...]
    image: Shaped[np.ndarray, " n"]
    patient: Int64[np.ndarray, " n"]
    part: Shaped[np.ndarray, " n"]
    label: Float32[np.ndarray, "n k"]
    feature: Float32[np.ndarray, "n d"]

    def __post_init__(self) -> None:
        _check_films(self)

    def __len__(self) -> int:
        return len(self.image)

    def __repr__(self) -> str:
        return (
            f"<Features {self.source}: {len(self):,} films, {self.feature.shape[1]:,} dimensions>"
        )

    def of(self, part: str) -> Features:
        """Return the rows of one part."""
        return self.take(np.flatnonzero(self.part == part))

    def take(self, rows: Int64[np.ndarray, " m"]) -> Features:
        """Return these rows, in this order."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _FEATURES_BY_FILM})

    def predictions(self, *, network: str, logit: Float[np.ndarray, "n k"]) -> Predictions:
        """Return predictions of the same films, made from these features and without them."""
        held = {name: value for name, value in vars(self).items() if name != "source"}
        held["feature"] = np.empty((len(self), 0), dtype=np.float32)
        return Predictions(network=network, logit=logit, **held)


def _check_films(films: Predictions | Features) -> None:
    count = len(films.image)
    require(films.label.shape == (count, len(films.findings)), "label", films.label.shape)
    lengths = [len(rows) for rows in (films.patient, films.part, films.feature)]
    require(lengths == [count] * 3, "patient, part, feature", lengths)
    strange = films.part[~np.isin(films.part, PARTS)]
    require(not len(strange), "part", np.unique(strange))


def concatenate(several: Sequence[Films]) -> Films:
    """Return several parts of one network's predictions, or one source's features, as one.

    Raises ValueError where their network or source, split or findings differ.
    """
    held = [vars(one) for one in several]
    about = {tuple(one[name] for name in one if name in _OF_ALL_FILMS) for one in held}
    require(len(about) == 1, "network or source, split and findings of parts", about)
    by_film = _BY_FILM if isinstance(several[0], Predictions) else _FEATURES_BY_FILM
    whole = {name: np.concatenate([one[name] for one in held]) for name in by_film}
    if "unfamiliarity" in held[0]:
        each = [np.broadcast_to(one["unfamiliarity"], len(one["image"])) for one in held]
        whole["unfamiliarity"] = np.concatenate(each)
    return replace(several[0], **whole)


def rescale(
    logit: Float[np.ndarray, "n k"], *, slope: Line, offset: Line, knot: Knots
) -> Float64[np.ndarray, "n k"]:
    """Return slope x curve(logit) + offset, in double precision; no two films change their order.

    A row of `knot` is the place of a finding, a logit and the curve there: straight between knots,
    level outside them, so that films may come to be equal. Without knots the curve is the logit.
    """
    bent = logit.astype(np.float64)
    for finding in np.unique(knot[:, 0]).astype(np.int64):
        _, at, to = knot[knot[:, 0] == finding].T
        own = bent[:, finding]
        above = np.minimum(np.searchsorted(at, own, side="right"), len(at) - 1)
        # A last digit must not lift a film above the next knot.
        bent[:, finding] = np.minimum(np.interp(own, at, to), to[above])
    return bent * slope + offset


def check_knots(knot: Knots, *, findings: int) -> None:
    """Raise ValueError unless the knots are those of rising curves, finding by finding."""
    require(knot.ndim == 2 and knot.shape[1] == 3, "finding, logit and curve of knots", knot.shape)
    require(bool(np.isfinite(knot).all()), "knots must be finite", "NaN or infinity")
    place, at, to = np.diff(knot, axis=0).T
    require(bool(np.isin(knot[:, 0], np.arange(findings)).all()), "findings of knots", knot[:, 0])
    rising = (place > 0) | ((place == 0) & (at > 0) & (to >= 0))
    require(bool(rising.all()), "curves must rise from knot to knot", knot[1:][~rising])


def save_predictions(predictions: Predictions, file: Path) -> None:
    """Write one compressed .npz that holds no Python objects."""
    arrays = {name: np.asarray(getattr(predictions, name)) for name in FORMS}
    write_arrays(arrays, file)


def why_no_predictions(file: Path) -> str:
    """Return the message where predictions are expected in a file that is none."""
    pipe = ": save what comes by a pipe to a file first" if file.is_fifo() else ""
    return f"{file}: {why_no_file(file)}; expected a table, a predictions.npz or a run{pipe}"


def load_predictions(file: str | Path) -> Predictions:
    """Read what `save_predictions` wrote; pickled content is refused, and what a run did not write.

    Files of before recalibration had curves hold no knots: theirs are lines.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(why_no_predictions(file))
    with file.open("rb") as stream, naming_damage(file):
        begins = stream.read(len(ARCHIVE))
    if begins != ARCHIVE:
        raise ValueError(
            f"{file}: found no .npz archive, expected predictions as a run saves them; a run makes "
            "them anew when their folder is deleted"
        )
    refuse_changed_file(file, remedy=AS_SAVED)
    held = read_arrays(file, FORMS, otherwise={"knot": no_knots()}, remedy=AS_SAVED)
    names = tuple(str(name) for name in held.pop("findings"))
    network, split = str(held.pop("network")), str(held.pop("split"))
    with naming_damage(file, remedy=AS_SAVED):
        return Predictions(network=network, split=split, findings=names, **held)


def load_repeats(file: Path, predictions: Predictions) -> Float64[np.ndarray, "f n k"]:
    """Return the probabilities by repeat that lie beside predictions, or none."""
    beside = file.parent / REPEATS_FILE
    if not beside.is_file():
        return np.empty((0, *predictions.label.shape))
    refuse_changed_file(beside)
    return read_array(beside)

"""classifier.json: what a trained network finds, how films are prepared for it; without torch.

model.json, of an exported network's folder, holds the same and more (docs/deploy.md).
Letters in shapes: k findings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from pydantic import ConfigDict, Field, model_validator

from lucency.config.sections import Head
from lucency.core.manifest import Preparation
from lucency.core.predictions import Recalibration, no_knots
from lucency.core.saved_files import SavedFields, naming_damage, read_json, write_json
from lucency.core.written import read_stage_json
from lucency.evaluation.conformal import ConformalSets, sets_as_plain, sets_of

METADATA, WEIGHTS = "classifier.json", "weights.safetensors"
FEATURES_ONLY = "features only"  # in place of findings, of a network whose logits mean nothing
FEATURE_VIEWS: dict[str, Any] = {"recipe": "gentle", "seed": 0}  # of frozen networks' features
MODEL, FORMAT, VERSION = "model.json", "lucency model", 1  # of an exported folder
MODEL_ONNX, MEMBERS = "model.onnx", "members"  # a network's file there, what others are made of
NETWORK = "network"  # the kind of an exported folder that holds one


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedNetwork:
    """What is known of a trained network besides its weights and its shape.

    `name` is what a protocol calls the network, `architecture` the name by which it is built;
    `mean` and `std` are its scaling. `protocol` is the whole experiment as plain data; `provenance`
    says what pre-trained weights have seen; `split` is the fingerprint of the parts it was trained
    under, `device` where; `epoch`, from 1, is the one whose weights these are. A film has a finding
    where the recalibrated probability reaches its `threshold`; both were fitted on validation
    films. So were `sets`; None of a network that gives features only, or of before there were any.
    """

    name: str
    architecture: str
    findings: tuple[str, ...]
    preparation: Preparation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    provenance: str
    split: str
    device: str
    epoch: int
    recalibration: Recalibration
    threshold: Float64[np.ndarray, " k"]
    protocol: dict[str, Any]
    sets: ConformalSets | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Metadata(TrainedNetwork):
    """What classifier.json holds: all but the weights; `parameters` is their number.

    `weights` is the fingerprint of their file, "" of before it was kept. `size`, `colour` and
    `head` are those of `lucency.models.networks.FilmNetwork`.
    """

    size: int
    colour: str
    head: Head
    parameters: int
    weights: str = ""


class RecalibrationFields(SavedFields):
    """What JSON holds of a recalibration; `knot` is absent of before there were curves."""

    method: str
    slope: list[float]
    offset: list[float]
    note: list[str]
    knot: list[list[float]] | None = None


class SetsFields(SavedFields):
    """What JSON holds of conformal sets."""

    model_config = ConfigDict(extra="forbid")
    error: float
    present_from: list[float]
    absent_to: list[float]
    note: list[str]
    missed: float
    cutoff: float
    cutoff_note: str


class ModelFields(SavedFields):
    """What model.json holds of every exported model."""

    kind: str
    name: str
    findings: list[str]
    fingerprints: dict[str, str]


class DecisionFields(SavedFields):
    """What JSON holds of all that predicts; preparation and head are validated by their classes."""

    name: str
    findings: list[str]
    preparation: dict[str, Any]
    split: str
    recalibration: RecalibrationFields
    threshold: list[float]
    sets: SetsFields | None = None

    @model_validator(mode="after")
    def _one_a_finding(self) -> DecisionFields:
        """Raise ValueError unless there are as many of each as findings."""
        held = {"threshold": self.threshold, "slope": self.recalibration.slope}
        if self.sets is not None:
            held["present_from"] = self.sets.present_from
        for name, numbers in held.items():
            if len(numbers) != len(self.findings):
                raise ValueError(
                    f"{name}: found {len(numbers)}, expected one for each of "
                    f"{len(self.findings)} findings"
                )
        return self


class NetworkFields(DecisionFields):
    """What classifier.json holds, and model.json with `fingerprints`; the defaults are of before.

    An exported model's leave out what only training needs.
    """

    architecture: str = ""
    mean: list[float] = Field(min_length=3, max_length=3)
    std: list[float] = Field(min_length=3, max_length=3)
    provenance: str | None = None
    device: str | None = None
    epoch: int | None = None
    protocol: dict[str, Any] | None = None
    size: int = Field(ge=0)
    colour: str = ""
    head: dict[str, Any] = Field(default_factory=dict)
    parameters: int | None = None
    weights: str = ""
    fingerprints: dict[str, str] = Field(default_factory=dict)


def write_metadata(metadata: Metadata, folder: Path) -> None:
    """Write classifier.json into `folder`."""
    write_json(folder / METADATA, vars(metadata), plain=_plain)


def read_metadata(folder: Path) -> Metadata:
    """Read what `write_metadata` wrote, or an exported network's; ValueError without either."""
    if (folder / MODEL).is_file():
        return read_model_json(folder)
    if not (folder / METADATA).is_file():
        again = f"; {how_to_replace(folder)}" if (folder / WEIGHTS).is_file() else ""
        raise ValueError(
            f"{folder} holds no {METADATA}: expected a trained network's folder{again}"
        )
    remedy = how_to_replace(folder)
    plain = read_stage_json(folder / METADATA, remedy=remedy)
    return _parse(folder / METADATA, plain, remedy=remedy)


def how_to_replace(folder: Path) -> str:
    """Return what to do where a file in a network's folder, a run's or exported, is damaged."""
    if (folder / MODEL).is_file():
        return f"delete {folder} and export the model again (lucency export RUN --out DIR)"
    if folder.parent.name != "networks":
        return "fetch its folder again from where it was trained"
    return f"delete {folder}, then the same `lucency run` as before trains this network again"


def read_model_json(folder: Path) -> Metadata:
    """Read model.json of an exported network; what only programs elsewhere need is left out.

    Raises ValueError as `read_model` does, and for another kind of model.
    """
    plain = read_model(folder)
    if plain["kind"] != NETWORK:
        raise ValueError(f"{folder} holds {plain['name']} of kind {plain['kind']}, no {NETWORK}")
    return _parse(folder / MODEL, plain, remedy=how_to_replace(folder))


def read_model(folder: Path) -> dict[str, Any]:
    """Return model.json of an exported folder as plain data.

    Raises ValueError where there is none, and for a format that is newer than this program.
    """
    file = folder / MODEL
    if not file.is_file():
        raise ValueError(f"{folder} holds no {MODEL}: expected the --out folder of lucency export")
    plain = read_json(file, remedy=how_to_replace(folder))
    if plain.get("format") != FORMAT:
        raise ValueError(f"{file}: found format {plain.get('format')!r}, expected {FORMAT!r}")
    if not isinstance(plain.get("version"), int) or plain["version"] > VERSION:
        raise ValueError(
            f"{file} has version {plain.get('version')}, and this program reads up to {VERSION}: "
            "update lucency"
        )
    with naming_damage(file, remedy=how_to_replace(folder)):
        ModelFields.model_validate(plain)
    return plain


def _parse(file: Path, plain: dict[str, Any], *, remedy: str) -> Metadata:
    """Return the fields of `Metadata` among what a file holds; ValueError for other types."""
    with naming_damage(file, remedy=remedy):
        NetworkFields.model_validate(plain)
        _require_own_findings(plain)
        return _metadata_of(plain)


def _require_own_findings(plain: Mapping[str, Any]) -> None:
    """Raise ValueError where a file without a checksum names other findings than its protocol."""
    stated = (plain.get("protocol") or {}).get("findings", plain["findings"])
    if plain["findings"] not in (stated, [FEATURES_ONLY]):
        raise ValueError(f"findings {plain['findings']}, those of its protocol are {stated}")


def _metadata_of(plain: dict[str, Any]) -> Metadata:
    sequences = {key: tuple(plain[key]) for key in ("findings", "mean", "std")}
    parsed = {
        "architecture": plain.get("architecture", plain["name"]),
        "colour": plain.get("colour", "none"),  # absent: of before colours and heads
        "head": Head.model_validate(plain.get("head", {})),
        "preparation": Preparation.model_validate(plain["preparation"]),
        "recalibration": recalibration_of(plain["recalibration"]),
        "threshold": np.array(plain["threshold"], dtype=np.float64),
        "sets": sets_of(plain.get("sets")),
        "weights": plain.get("fingerprints", {}).get(WEIGHTS, plain.get("weights", "")),
    }
    known = {field.name: plain.get(field.name) for field in fields(Metadata)}
    return Metadata(**{**known, **sequences, **parsed})


def recalibration_of(plain: Mapping[str, Any]) -> Recalibration:
    """Return the recalibration of what JSON holds; it may be of before there were curves."""
    return Recalibration(
        method=plain["method"],
        slope=np.array(plain["slope"], dtype=np.float64),
        offset=np.array(plain["offset"], dtype=np.float64),
        knot=np.array(plain.get("knot") or no_knots(), dtype=np.float64),
        note=tuple(plain["note"]),
    )


def recalibration_as_plain(line: Recalibration) -> dict[str, Any]:
    """Return what JSON holds of a recalibration."""
    held = {key: getattr(line, key) for key in ("method", "slope", "offset", "knot", "note")}
    return {key: one.tolist() if isinstance(one, np.ndarray) else one for key, one in held.items()}


def _plain(value: Preparation | Head | Recalibration | ConformalSets | np.ndarray) -> Any:
    """Return what JSON holds of a value."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Recalibration):
        return recalibration_as_plain(value)
    if isinstance(value, ConformalSets):
        return sets_as_plain(value)
    return value.model_dump()

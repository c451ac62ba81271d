"""What is fitted is kept: predictors beside networks, as plain data and arrays that predict films.

A predictor is stored as predictor.json and predictor.safetensors, without pickle. Its rule, one of
RULES, makes logits of what networks and other sources give for films.

Letters in shapes: n films, k findings, d feature dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, Shaped
from pydantic import ConfigDict
from scipy.special import logit

from lucency.config.sections import AND, TEXTURE
from lucency.core.files import write_whole
from lucency.core.manifest import Preparation
from lucency.core.predictions import Recalibration
from lucency.core.saved_files import (
    SavedFields,
    fingerprint_content,
    naming_damage,
    write_json,
)
from lucency.core.written import read_stage_json
from lucency.ensemble import retrieval
from lucency.ensemble.blend import Blend, Stack
from lucency.ensemble.learner_forms import Axes, FittedLearner
from lucency.evaluation.conformal import ConformalSets, sets_as_plain, sets_of
from lucency.models.metadata import DecisionFields, recalibration_as_plain, recalibration_of

DATA, ARRAYS = "predictor.json", "predictor.safetensors"
VERSION = 1  # of the two files
ANEW = (
    "expected what a run or an export wrote; delete the folder, and go on with lucency run or "
    "export anew"
)
KEEPING = ("neighbours", "kernel")  # forms of learners that are made of films


@runtime_checkable
class Outputs(Protocol):
    """What networks and other sources give for some films."""

    @property
    def patient(self) -> Int64[np.ndarray, " n"]:
        """Whose films they are; NOBODY where that is not known."""
        ...

    def calibrated(self, name: str) -> Float64[np.ndarray, "n k"]:
        """Return the recalibrated logits of a network or predictor."""
        ...

    def viewed(
        self, network: str, *, view: int, recipe: str, seed: int
    ) -> Float[np.ndarray, "n k"]:
        """Return a network's own logits of one augmented view of the films; -1 is none."""
        ...

    def feature(self, source: str) -> Float32[np.ndarray, "n d"]:
        """Return the features by one source, or by several joined by +."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule:
    """How a predictor's logits come about: one of RULES, with plain data and arrays by name.

    `members` are the networks and predictors, `sources` the features that it is made of.
    """

    name: str
    members: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Shaped[np.ndarray, ...]] = field(default_factory=dict)

    @property
    def needed(self) -> dict[str, None]:
        """The names of all members and single sources, each once, in order."""
        single = (one for joined in self.sources for one in joined.split(AND) if one != TEXTURE)
        return dict.fromkeys([*self.members, *single])

    @cached_property
    def index(self) -> retrieval.Index:
        """The training films that vote."""
        return retrieval.Index(
            image=np.arange(len(self.arrays["patient"])).astype(str),
            patient=self.arrays["patient"],
            direction=self.arrays["direction"].astype(np.float32),
        )

    def logit(self, films: Outputs) -> Float64[np.ndarray, "n k"]:
        """Return the logits of films, before recalibration."""
        return RULES[self.name](self, films)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedPredictor:
    """A predictor beside networks, and what is known of it.

    `kind` is that of the leaderboard. Recalibration, `threshold` and `sets` were fitted to
    validation films, `validation_auc` is the macro AUC there. `sets` are None of before
    there were any.
    """

    name: str
    kind: str
    findings: tuple[str, ...]
    preparation: Preparation
    split: str
    recalibration: Recalibration
    threshold: Float64[np.ndarray, " k"]
    validation_auc: float
    rule: Rule
    sets: ConformalSets | None = None


def folder_name(name: str) -> str:
    """Return what a predictor's folder in a run is called."""
    return name.replace(" ", "-")


def save_predictor(predictor: FittedPredictor, folder: Path) -> None:
    """Write predictor.json and predictor.safetensors into `folder`."""
    from safetensors.numpy import save

    held = {name: np.array(one, order="C") for name, one in predictor.rule.arrays.items()}
    content = save(held)
    write_whole(folder / ARRAYS, content)
    about = {"version": VERSION, **vars(predictor), "arrays": fingerprint_content(content)}
    write_json(folder / DATA, about, plain=_plain)


class RuleFields(SavedFields):
    """What predictor.json holds of a rule."""

    model_config = ConfigDict(extra="forbid")
    name: str
    members: list[str]
    sources: list[str]
    about: dict[str, Any]


class PredictorFields(DecisionFields):
    """What predictor.json holds beside its version, and the fingerprint of its arrays."""

    model_config = ConfigDict(extra="forbid")
    kind: str
    validation_auc: float
    rule: RuleFields


def load_predictor(folder: Path) -> FittedPredictor:
    """Read what `save_predictor` wrote.

    Raises ValueError where it is not there or damaged, and OSError where the system does not read.
    """
    for file in (folder / DATA, folder / ARRAYS):
        if not file.is_file():
            raise ValueError(f"{file} cannot be read (there is none); {ANEW}")
    plain = read_stage_json(folder / DATA)
    arrays = _arrays_of(folder / ARRAYS, known=plain.pop("arrays", ""))
    if plain.pop("version", 0) != VERSION:
        raise ValueError(f"{folder / DATA} is of another version: expected version {VERSION}")
    with naming_damage(folder / DATA, remedy=ANEW):
        PredictorFields.model_validate(plain)
        return _parse(plain, arrays)


def _arrays_of(file: Path, *, known: object) -> dict[str, np.ndarray]:
    """Return the arrays of a file; ValueError where it is damaged, `known` its fingerprint."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    with naming_damage(file, kinds=(SafetensorError, ValueError, KeyError), remedy=ANEW):
        content = file.read_bytes()
        arrays = load(content)
        if known not in ("", fingerprint_content(content)):
            raise ValueError("it is not the one that predictor.json was written with")
        return arrays


def _parse(plain: dict[str, Any], arrays: dict[str, np.ndarray]) -> FittedPredictor:
    """Return the predictor of what the two files hold; ValueError where they do not fit."""
    line, rule = recalibration_of(plain["recalibration"]), plain.pop("rule")
    rule |= {name: tuple(rule[name]) for name in ("members", "sources")}
    if rule["name"] not in RULES:
        raise ValueError(f"rule {rule['name']!r}, expected one of {', '.join(RULES)}")
    if lost := [name for name in NEEDED[rule["name"]] if name not in {**rule["about"], **arrays}]:
        raise ValueError(f"{lost[0]!r} is absent")
    plain |= {
        "findings": tuple(plain["findings"]),
        "preparation": Preparation.model_validate(plain["preparation"]),
        "threshold": np.array(plain["threshold"], dtype=np.float64),
        "recalibration": line,
        "sets": sets_of(plain.get("sets")),
        "rule": Rule(arrays=arrays, **rule),
    }
    return FittedPredictor(**plain)


def keeps_films(rule: Rule) -> bool:
    """Return whether a rule's arrays hold features of single training films.

    Those of neighbours are all training films, with their labels; those of a kernel its landmarks.
    """
    return rule.name == "neighbours" or not {*rule.about.get("form", ())}.isdisjoint(KEEPING)


def _plain(value: Preparation | Recalibration | ConformalSets | Rule | np.ndarray) -> Any:
    """Return what JSON holds of a value."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Rule):
        return {name: one for name, one in vars(value).items() if name != "arrays"}
    if isinstance(value, Recalibration):
        return recalibration_as_plain(value)
    if isinstance(value, ConformalSets):
        return sets_as_plain(value)
    return value.model_dump()


def _of_views(rule: Rule, films: Outputs) -> Float64[np.ndarray, "n k"]:
    """Return the mean logit of films as they are and of views of them."""
    (network,), about = rule.members, rule.about
    how = {"recipe": about["recipe"], "seed": about["seed"]}
    total = films.viewed(network, view=-1, **how).astype(np.float64)
    for view in range(about["views"]):
        total += films.viewed(network, view=view, **how)
    return total / (1 + about["views"])


def _of_members(rule: Rule, films: Outputs) -> Float64[np.ndarray, "n k"]:
    value = np.stack([films.calibrated(name) for name in rule.members])
    kind: Any = Blend if rule.name == "blend" else Stack
    return kind(members=rule.members, **rule.about, **rule.arrays).logit(value)


def _of_learner(rule: Rule, films: Outputs) -> Float64[np.ndarray, "n k"]:
    (source,) = rule.sources
    learner = FittedLearner(tuple(rule.about["form"]), rule.arrays)
    return learner.logit(films.feature(source))


def _of_neighbours(rule: Rule, films: Outputs) -> Float64[np.ndarray, "n k"]:
    """Return the vote of similar training films; the prevalence for films without features."""
    (source,), arrays = rule.sources, rule.arrays
    feature, label = films.feature(source), arrays["label"]
    shown = np.flatnonzero(~np.isnan(feature).all(axis=1))
    place = feature[shown]
    if axes := Axes.of(arrays):
        place = axes.place(place).astype(np.float32)
    index, prior = rule.index, retrieval.prevalence(label)
    patient = retrieval.owners(index, place, patient=films.patient[shown])
    found = retrieval.search(index, place, patient=patient, top=rule.about["neighbours"])
    whole = np.tile(logit(prior), (len(feature), 1))
    whole[shown] = logit(retrieval.vote(label, found, prior=prior))
    return whole


RULES: dict[str, Callable[[Rule, Outputs], Float64[np.ndarray, "n k"]]] = {
    "views": _of_views,
    "blend": _of_members,
    "stack": _of_members,
    "learner": _of_learner,
    "neighbours": _of_neighbours,
}
NEEDED: dict[str, tuple[str, ...]] = {  # of a rule, what its plain data and arrays must hold
    "views": ("recipe", "seed", "views"),
    "blend": ("method", "space", "weight", "known"),
    "stack": ("middle", "scale", "coefficient", "intercept"),
    "learner": ("form", "axes.mean", "line.slope", "line.offset"),
    "neighbours": ("neighbours", "label", "patient", "direction"),
}

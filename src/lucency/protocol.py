"""The protocol: every choice of an experiment, frozen and validated; TOML in, TOML out."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lucency.values import FINDINGS, NO_FINDING, Preparation, nearest


class _Choices(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Source(_Choices):
    """Where films and labels come from."""

    source: Literal["nih", "csv", "phantom"] = "phantom"
    root: str = ""
    labels: str = ""
    allow_missing: bool = False
    image_column: str = "image"
    patient_column: str = "patient"
    films: int = Field(default=2000, ge=20)
    size: int = Field(default=512, ge=64, le=2048)
    seed: int = Field(default=0, ge=0)
    label_noise: float = Field(default=0.0, ge=0, lt=1)
    shortcut: float = Field(default=0.0, ge=0, le=1)


class Split(_Choices):
    """Which films train, validate and test."""

    method: Literal["patient", "official", "image"] = "patient"
    train: float = Field(default=0.70, gt=0, lt=1)
    val: float = Field(default=0.15, gt=0, lt=1)
    test: float = Field(default=0.15, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _shares_add_up(self) -> Split:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"train + val + test is {self.train + self.val + self.test:g}, not 1")
        return self


class Cap(_Choices):
    """Drop random films that carry `finding` until `films` are left."""

    finding: str
    films: int = Field(ge=0)


class Copy(_Choices):
    """Add `copies` augmented copies of `films` films that carry `finding` (0 means of all)."""

    finding: str
    copies: int = Field(ge=1)
    films: int = Field(default=0, ge=0)
    sharpen: float = Field(default=1.0, ge=0, le=1)


class Balance(_Choices):
    """What is done about rare findings; `before_split` is the published mistake, kept to study."""

    method: Literal["none", "cap-and-copy"] = "none"
    before_split: bool = False
    cap: tuple[Cap, ...] = ()
    copy_plan: tuple[Copy, ...] = ()
    cap_after: tuple[Cap, ...] = ()
    seed: int = Field(default=0, ge=0)


class Training(_Choices):
    """How a network learns."""

    epochs: int = Field(default=10, ge=1)
    batch: int = Field(default=32, ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-4, gt=0, le=10)
    schedule: Literal["constant", "cosine", "plateau"] = "cosine"
    warmup_epochs: float = Field(default=0.0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float = Field(default=0.0, ge=0)
    frozen_epochs: int = Field(default=0, ge=0)
    patience: int = Field(default=0, ge=0)
    keep: Literal["best", "last"] = "best"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    augment: Literal["none", "gentle"] = "none"
    normalise: Literal["network", "unit"] = "network"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    loss: Literal["bce"] = "bce"
    tensorboard: bool = False
    seed: int = Field(default=0, ge=0)


class Network(_Choices):
    """One network to compare: any name of `lucency.learn.zoo`, its weights, what it changes.

    `size` is the side it sees, reduced from the prepared films; 0 is their own.
    """

    name: str
    weights: str = "random"
    provenance: str = ""
    match: Literal["name", "order"] = "name"
    size: int = Field(default=0, ge=0, le=2048)
    training: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _weights_have_a_history(self) -> Network:
        if self.weights not in ("random", "timm") and not self.provenance:
            raise ValueError("weights from a file need `provenance`: what have they been shown?")
        return self


class Judging(_Choices):
    """How networks are judged."""

    resamples: int = Field(default=1000, ge=20)
    threshold: Literal["f1", "youden"] = "f1"
    seed: int = Field(default=0, ge=0)


class Protocol(_Choices):
    """The whole experiment."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    note: str = ""
    findings: tuple[str, ...] = Field(default=FINDINGS, min_length=1)
    data: Source = Source()
    preparation: Preparation = Preparation()
    split: Split = Split()
    balance: Balance = Balance()
    training: Training = Training()
    network: tuple[Network, ...] = Field(min_length=1)
    judging: Judging = Judging()

    @model_validator(mode="after")
    def _fits_together(self) -> Protocol:
        names = [network.name for network in self.network]
        if len(set(names)) < len(names):
            raise ValueError("network: a name is listed twice; expected each once")
        if self.balance.before_split and self.split.method != "image":
            raise ValueError('balance.before_split leaks: it needs split.method = "image"')
        for place, name in enumerate(names):
            try:
                self.training_of(name)
            except ValidationError as error:
                raise ValueError(f"network.{place}.training.{_explain(error)}") from error
        return self

    @model_validator(mode="after")
    def _balances_its_findings(self) -> Protocol:
        if self.balance.method == "none" and self.balance != Balance(seed=self.balance.seed):
            raise ValueError('balance.method is "none": no other key of balance can mean anything')
        known = (*self.findings, NO_FINDING)
        for rule in (*self.balance.cap, *self.balance.copy_plan, *self.balance.cap_after):
            if rule.finding not in known:
                hint = nearest(rule.finding, known)
                raise ValueError(f"balance: {rule.finding!r} is not among the findings{hint}")
        return self

    def training_of(self, network: str) -> Training:
        """Return the training of one network: the common choices and what it changes."""
        changes = next(n.training for n in self.network if n.name == network)
        return Training.model_validate({**self.training.model_dump(), **changes})


def read_protocol(file: Path, *, changes: tuple[str, ...] = ()) -> Protocol:
    """Read a TOML protocol and apply `key=value` changes (value in TOML, or a bare word).

    Raises ValueError in one line that names the key, what was found and what was expected.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such protocol; see the protocols/ folder for examples")
    try:
        choices = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not valid TOML: {error}") from error
    for change in changes:
        _apply(choices, change)
    return parse_protocol(choices, name=str(file))


def parse_protocol(choices: Mapping[str, object], *, name: str) -> Protocol:
    """Validate the choices of a protocol called `name` in error messages."""
    try:
        return Protocol.model_validate(choices)
    except ValidationError as error:
        raise ValueError(f"{name}: {_explain(error)}") from error


def protocol_text(protocol: Protocol) -> str:
    """Return the complete protocol as TOML, every default written out."""
    return _toml(protocol.model_dump(mode="json")).replace("\x7f", "\\u007f")


def _apply(choices: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals:
        raise ValueError(f"--set {change}: expected key=value, for example training.epochs=3")
    *path, last = key.strip().split(".")
    place: Any = choices
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    try:
        for step in path:
            place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
        place[int(last) if isinstance(place, list) else last] = value
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        found = f"a list of {len(place)}, counted from 0" if isinstance(place, list) else place
        raise ValueError(f"--set {change}: no such key, found {found}") from error


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(step) for step in first["loc"])
    found = json.dumps(first["input"], default=str)
    if first["type"] == "extra_forbidden":
        known = [n for part in (Preparation, *_Choices.__subclasses__()) for n in part.model_fields]
        return f"{place}: unknown key{nearest(place.rpartition('.')[2], known)}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "literal_error":
        message += nearest(str(first["input"]), re.findall(r"'([^']*)'", message))
    return f"{place}: {message}, found {found[:80]}" if place else message


def _toml(choices: Mapping[str, Any], prefix: str = "") -> str:
    plain = {k: v for k, v in choices.items() if not isinstance(v, dict) and not _is_tables(v)}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    for key, value in choices.items():
        if isinstance(value, dict):
            lines += ["", f"[{prefix}{key}]", _toml(value, f"{prefix}{key}.")]
        elif _is_tables(value):
            lines += [f"\n[[{prefix}{key}]]\n{_toml(v, f'{prefix}{key}.')}" for v in value]
    return "\n".join(lines)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)

"""The search space of a sweep: keys of the protocol, and the values that trials may give them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from math import prod
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from lucency.config.sections import Choices, Seed
from lucency.core.manifest import nearest

SWEPT = ("balance", "training", "network")  # sections whose keys may be searched
CORNERS = 256  # combinations of extreme values that are validated before any work
STRIDE = 7919  # a prime, by which they are spread over all where there are more
EXPECTED = "expected a list of two values or more, or a table such as {low = 1e-5, high = 1e-3}"


class Span(Choices):
    """Numbers from `low` to `high`, both included: whole ones where both ends are.

    `log` draws them evenly by their logarithm; `step` is the distance of neighbours, 0 any (of
    whole numbers 1).
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float = Field(default=0, ge=0)

    @property
    def is_whole(self) -> bool:
        """Whether the values are whole numbers."""
        return all(isinstance(one, int) for one in (self.low, self.high, self.step))

    @field_validator("low", "high", "step", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return str(value).lower() if isinstance(value, bool) else value  # true is no number

    def _check(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g}, high {self.high:g}: expected low below high")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g}: expected more than 0 where log is true")
        if self.log and self.step:
            raise ValueError("log and step: expected one of them")
        if self.step:
            steps = (self.high - self.low) / self.step
            if abs(steps - round(steps)) > 1e-6 or steps < 1:
                raise ValueError(
                    f"step is {self.step:g}: expected steps that lead from low to high"
                )


class Sweep(Choices):
    """A search of the protocol's keys: how many trials, of what, and at which seeds the best again.

    `space` maps keys, as `--set` names them, to a list of values or a Span. `seed` is that of the
    search, `seeds` those at which the best candidate, and the protocol as it stands, are trained in
    the end. `pruning` ends trials that are behind others after an epoch.
    """

    trials: int = Field(default=30, ge=1)
    pruning: Literal["none", "median", "hyperband"] = "median"
    seed: Seed = 0
    seeds: tuple[Seed, ...] = Field(default=(1, 2, 3), min_length=1)
    space: dict[str, Span | tuple[Any, ...]] = Field(default_factory=dict)

    @field_validator("space", mode="before")
    @classmethod
    def _keys_in_a_row(cls, space: Any) -> Any:
        return dict(_leaves(space)) if isinstance(space, Mapping) else space

    def _check(self) -> None:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: found {list(self.seeds)}, expected each once")
        for key in self.space:
            section, *rest = key.split(".")
            if section not in SWEPT or key == "network":
                raise ValueError(
                    f"space: {key!r} cannot be searched, since all trials share films and parts: "
                    f"expected a key of {', '.join(SWEPT)}, such as training.learning_rate or "
                    "network.0.training.dropout"
                )
            if key.endswith((".seed", ".tracker")) or (section == "network" and rest[-1] == "name"):
                raise ValueError(f"space: {key!r} is no choice to search: leave it out")
            if below := [other for other in self.space if other.startswith(f"{key}.")]:
                raise ValueError(f"space: {key!r} and {below[0]!r}: expected one of them")

    def ends(self, key: str) -> tuple[Any, Any]:
        """Return the first and the last value of a key."""
        several = _ends(self.space[key])
        return several[0], several[-1]

    def corners(self) -> Iterator[dict[str, Any]]:
        """Yield candidates at the ends of the space: all of them, or CORNERS spread over it."""
        several = {key: _ends(values) for key, values in self.space.items()}
        total = prod(map(len, several.values()))
        for row in range(min(total, CORNERS)):
            place = row if total <= CORNERS else row * STRIDE % total
            candidate = {}
            for key, values in several.items():
                place, which = divmod(place, len(values))
                candidate[key] = values[which]
            yield candidate


def label_of(value: Any) -> Any:
    """Return what stands for one value of a list in a journal: itself, or a table as JSON."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def nested(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by keys with dots as nested tables.

    >>> nested({"training.epochs": 3, "network.0.training.dropout": 0.2})
    {'training': {'epochs': 3}, 'network': {'0': {'training': {'dropout': 0.2}}}}
    """
    made: dict[str, Any] = {}
    for key, value in candidate.items():
        *path, last = key.split(".")
        place = made
        for step in path:
            place = place.setdefault(step, {})
        place[last] = deepcopy(value)
    return made


def _ends(values: Span | tuple[Any, ...]) -> tuple[Any, ...]:
    return (values.low, values.high) if isinstance(values, Span) else values


def _leaves(space: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys of a space with their values; a table without low and high has keys below."""
    for name, value in space.items():
        key = f"{above}.{name}" if above else str(name)
        if isinstance(value, Mapping) and not {"low", "high"} & {*value} and value:
            yield from _leaves(value, key)
        else:
            yield key, _values(key, value)


def _values(key: str, value: Any) -> Span | tuple[Any, ...]:
    if isinstance(value, Span):
        return value
    if isinstance(value, Mapping) and value:
        try:
            return Span.model_validate(value)
        except ValidationError as error:
            several = error.errors(include_url=False)
            unknown = [one for one in several if one["type"] == "extra_forbidden"]
            raise ValueError(_explain_span(key, [*unknown, *several][0])) from error
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise ValueError(f"{key} is {json.dumps(value)}: {EXPECTED}")
    if len({label_of(one) for one in value}) < len(value):
        raise ValueError(f"{key} is {json.dumps(value)}: expected each value once")
    return tuple(value)


def _explain_span(key: str, error: ErrorDetails) -> str:
    """Return one line on what is wrong with the Span of a key."""
    if not error["loc"]:
        return f"{key}: {error['msg'].removeprefix('Value error, ')}"
    name = str(error["loc"][0])
    if error["type"] == "missing":
        return f"{key}: {name} is missing: {EXPECTED}"
    if error["type"] == "extra_forbidden":
        return f"{key}.{name}: unknown key{nearest(name, Span.model_fields)}"
    expected = "true or false" if name == "log" else "a number"
    return f"{key}.{name}: found {json.dumps(error['input'])}, expected {expected}"

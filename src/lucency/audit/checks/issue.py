"""An Issue, which the leak doctor reports, and a SplitTable, the films and parts that it checks.

Letters in shapes: n rows of a split, t, u and v listed names, b films with boxes, p pairs of films.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Int64, Shaped

from lucency.core.manifest import PARTS, require
from lucency.core.tables import film_names

EXAMPLES = 3
Severity = Literal["serious", "note"]


@dataclass(frozen=True, kw_only=True)
class Issue:
    """One thing that is wrong: found with numbers, why it matters, how many, what to do."""

    severity: Severity
    check: str
    message: str
    count: int
    examples: tuple[str, ...]
    remedy: str


def no_names() -> Shaped[np.ndarray, " 0"]:
    """Return an empty list of films."""
    return np.empty(0, dtype=str)


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitTable:
    """The part of each film: a row a film, or an entry of a plan, whose copies are named film#copy.

    What is not at hand stays empty: `method` of the protocol's split; `listed`, the films of the
    label table; NIH's two lists as they lie on disk; `boxed`, films whose boxes are to be scored;
    `origins` of the manifests in play; `alike`, pairs that show one picture (data.duplicates).
    """

    image: Shaped[np.ndarray, " n"]
    patient: Int64[np.ndarray, " n"]
    part: Shaped[np.ndarray, " n"]
    method: str = ""
    listed: Shaped[np.ndarray, " t"] = field(default_factory=no_names)
    official_train_val: Shaped[np.ndarray, " u"] = field(default_factory=no_names)
    official_test: Shaped[np.ndarray, " v"] = field(default_factory=no_names)
    boxed: Shaped[np.ndarray, " b"] = field(default_factory=no_names)
    origins: tuple[str, ...] = ()
    alike: Shaped[np.ndarray, "p 2"] = field(default_factory=lambda: no_names().reshape(0, 2))

    def __post_init__(self) -> None:
        lengths = [len(self.patient), len(self.part)]
        require(lengths == [len(self.image)] * 2, "patient, part", lengths)
        require(bool(np.isin(self.part, PARTS).all()), "part", np.unique(self.part))

    @cached_property
    def film(self) -> Shaped[np.ndarray, " n"]:
        """The film behind each row: of a copy, its source."""
        return film_names(self.image)

    @cached_property
    def copy(self) -> Shaped[np.ndarray, " n"]:
        """The copy's number as text, empty for a film itself."""
        return np.array([str(name).partition("#")[2] for name in self.image], dtype=object)


def issues_of(
    check: str,
    found: Sequence[str],
    message: str,
    *,
    remedy: str,
    severity: Severity = "serious",
    count: int = 0,
) -> list[Issue]:
    """Return one issue about what was found, its first members as examples; none of nothing.

    `count` is how many were found, unless given.
    """
    if not len(found):
        return []
    return [
        Issue(
            severity=severity,
            check=check,
            message=message,
            count=count or len(found),
            examples=tuple(found[:EXAMPLES]),
            remedy=remedy,
        )
    ]


def ranked(issues: Sequence[Issue]) -> list[Issue]:
    """Return the serious issues, then the notes, else in their order."""
    return sorted(issues, key=lambda issue: issue.severity != "serious")


def count_serious(table: pd.DataFrame) -> int:
    """Return how many issues of a table are serious."""
    return int(np.count_nonzero(table["severity"].to_numpy(dtype=str) == "serious"))


def issue_table(issues: Sequence[Issue]) -> pd.DataFrame:
    """Return a row an issue: severity, check, message, count, examples (| between), remedy."""
    rows = [asdict(one) | {"examples": "|".join(one.examples)} for one in issues]
    return pd.DataFrame(rows, columns=[one.name for one in fields(Issue)])

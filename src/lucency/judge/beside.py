"""What networks claim on their own test films, beside what they reach and what was published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lucency.judge.inflate import COLUMNS
from lucency.judge.published_study import BESIDE
from lucency.values import read_table

TEXT = ("network", "metric", "finding", "as_published")


@dataclass(frozen=True, kw_only=True, eq=False)
class Beside:
    """Two tables, each empty where nothing was set apart or no published study is named.

    `inflation` is of judge.inflate, on patients set apart; `study` of judge.published_study.
    `conclusion` says the first in words.
    """

    inflation: pd.DataFrame
    study: pd.DataFrame
    conclusion: str

    def __bool__(self) -> bool:
        return bool(len(self.inflation) or len(self.study))


def nothing_beside() -> Beside:
    """Return two empty tables."""
    tables = {"inflation": pd.DataFrame(columns=list(COLUMNS))}
    return Beside(**tables, study=pd.DataFrame(columns=list(BESIDE)), conclusion="")


def save_beside(beside: Beside, folder: Path) -> None:
    """Write inflation.csv, study.csv and conclusion.txt."""
    for name in ("inflation", "study"):
        getattr(beside, name).to_csv(folder / f"{name}.csv", index=False)
    (folder / "conclusion.txt").write_text(beside.conclusion + "\n", encoding="utf-8")


def load_beside(folder: Path) -> Beside:
    """Read what `save_beside` wrote; nothing where there is no such folder."""
    if not folder.is_dir():
        return nothing_beside()
    names = ("inflation", "study")
    tables = {name: read_table(folder / f"{name}.csv", text=TEXT) for name in names}
    return Beside(**tables, conclusion=(folder / "conclusion.txt").read_text().strip())

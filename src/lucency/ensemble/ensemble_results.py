"""The results of a run's ensembles: the leaderboard and its companion tables, in one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lucency.core.manifest import read_table


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsembleResults:
    """All tables of the chapter on ensembles; all are empty where a protocol makes none.

    `leaderboard` is of evaluation.leaderboard; `weights` has method, network, finding and weight
    of ensembles; `diversity` is of ensemble.ensembles, on test films; `choices` of
    ensemble.feature_classifiers, with its network; `similar` of ensemble.retrieval_metrics, with
    the source of the features; `lungs` of ensemble.radiomics.extract.
    """

    leaderboard: pd.DataFrame
    weights: pd.DataFrame
    diversity: pd.DataFrame
    choices: pd.DataFrame
    similar: pd.DataFrame
    lungs: pd.DataFrame


def no_ensemble_results() -> EnsembleResults:
    """Return the empty results, of a protocol without ensembles."""
    return EnsembleResults(**{name: pd.DataFrame() for name in TABLES})


def save_ensemble_results(results: EnsembleResults, folder: Path) -> None:
    """Write one CSV a table; none for a table that is empty."""
    for name in TABLES:
        table: pd.DataFrame = getattr(results, name)
        if len(table):
            table.to_csv(folder / f"{name}.csv", index=False)


def load_ensemble_results(folder: Path) -> EnsembleResults:
    """Read what `save_ensemble_results` wrote; empty tables where it wrote none."""
    return EnsembleResults(**{name: _table(folder / f"{name}.csv") for name in TABLES})


def _table(file: Path) -> pd.DataFrame:
    return read_table(file, text=TEXT) if file.is_file() else pd.DataFrame()


TABLES = ("leaderboard", "weights", "diversity", "choices", "similar", "lungs")
TEXT = (
    "network", "other", "kind", "note", "method", "finding", "choice", "source", "metric", "films",
)  # fmt: skip

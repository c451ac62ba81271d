"""The results of a run's ensembles: the leaderboard and its companion tables, in one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lucency.core.tables import load_tables


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsembleResults:
    """All tables of the chapter on ensembles; all are empty where a protocol makes none.

    `leaderboard` is of evaluation.compare; `weights` has method, network, finding and weight
    of ensembles; `diversity` is of ensemble.ensembles, on test films; `choices` of
    ensemble.feature_classifiers, with its network; `similar` of ensemble.retrieval_metrics, with
    the source of the features; `lungs` of ensemble.radiomics.extract.
    """

    leaderboard: pd.DataFrame = field(default_factory=pd.DataFrame)
    weights: pd.DataFrame = field(default_factory=pd.DataFrame)
    diversity: pd.DataFrame = field(default_factory=pd.DataFrame)
    choices: pd.DataFrame = field(default_factory=pd.DataFrame)
    similar: pd.DataFrame = field(default_factory=pd.DataFrame)
    lungs: pd.DataFrame = field(default_factory=pd.DataFrame)


def load_ensemble_results(folder: Path) -> EnsembleResults:
    """Read what `save_tables` wrote; empty tables where it wrote none."""
    return load_tables(EnsembleResults, folder, text=TEXT)


TEXT = (
    "network", "other", "kind", "note", "method", "finding", "choice", "source", "metric", "films",
)  # fmt: skip

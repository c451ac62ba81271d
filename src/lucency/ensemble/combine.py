"""Anybody's networks combined: ensembles fitted on validation films, judged on test films."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lucency.config.sections import EvaluationChoices
from lucency.core.manifest import Manifest, nearest
from lucency.core.predictions import Predictions, concatenate, save_predictions
from lucency.core.progress import progress, say
from lucency.core.stage import is_complete, produce
from lucency.data.labels import read_labelled
from lucency.ensemble.ensembles import EQUAL, METHODS, check_members, pool
from lucency.evaluation.calibration import recalibrated
from lucency.evaluation.external import (
    check_sides,
    labelled_table,
    of_one_split,
    predictions_of,
    read_entries,
)
from lucency.evaluation.leaderboard import Entrant, conclude, leaderboard

UNKNOWN_COST = float("nan")
SHOWN = ("kind", "auc", "auc_low", "auc_high", "difference", "p_holm")
PAIRED = f"macro AUC less that of {EQUAL}, paired; p_holm corrected for all rows (Holm 1979)"


def combine(
    several: Sequence[Path],
    *,
    val: Sequence[Path],
    labels: Path | None,
    scale: str,
    methods: Sequence[str],
    out: Path | None,
) -> dict[str, object]:
    """Return the leaderboard of networks and their ensembles; predictions and tables go to `out`.

    Each of `several` is as `entries.read_entries` says; of tables, `val` names in the same order
    those of validation films, which ensembles are fitted to. No method means all. Raises ValueError
    where a network lacks validation films, and where networks are not of the same films.
    """
    chosen = _known(methods)
    _require_there([*several, *val])
    films = None if labels is None else read_labelled(labels)
    beside = _beside(several, val)

    def table(file: Path) -> Predictions:
        return _both(file, beside.get(file), films, scale=scale)

    networks = of_one_split(read_entries(several, table=table))
    for part in ("val", "test"):
        check_members([one.of(part) for one in networks], part=part)
    if taken := {one.network for one in networks} & {EQUAL, *chosen}:
        raise ValueError(
            f"a network is called {min(taken)!r}, as an ensemble is: rename its file or folder"
        )
    inputs = {"methods": list(chosen), "networks": {one.network: _digest(one) for one in networks}}
    if out is not None:
        is_complete(out, inputs=inputs)  # refuses a folder of other tables before the work
    made = []
    for method in dict.fromkeys((EQUAL, *chosen)):
        say(f"EnsembleChoices {len(networks)} networks: {method}")
        made.append(pool(networks, method=method, seed=0))
    ensembles = [recalibrated(one.said, method=EvaluationChoices().recalibration) for one in made]
    every = [*networks, *ensembles]
    kinds = {one.network: "network" for one in networks} | {
        one.network: "ensemble" for one in ensembles
    }
    with progress("EvaluationChoices", unit="predictors") as advance:
        found = leaderboard(
            every,
            entrants={name: Entrant(kind, UNKNOWN_COST) for name, kind in kinds.items()},
            reference=EQUAL,
            choices=EvaluationChoices(),
            progress=advance,
        )
    if out is None:
        return _answer(found)
    weights = pd.concat([one.weights for one in made], ignore_index=True)
    produce(out, inputs=inputs, write=lambda folder: _write(folder, found, weights, ensembles))
    return {**_answer(found), "tables": str(out)}


def _answer(found: pd.DataFrame) -> dict[str, object]:
    """Return the leaderboard for people and programs: what it says, then a row a predictor."""
    answer: dict[str, object] = {"conclusion": conclude(found, reference=EQUAL)}
    answer["difference"] = PAIRED
    for row in found.to_dict(orient="records"):
        told = {name: row[name] for name in SHOWN if not pd.isna(row[name])}
        answer[str(row["network"])] = told
    return answer


def _known(methods: Sequence[str]) -> Sequence[str]:
    for method in methods:
        if method not in METHODS:
            hint = nearest(method, METHODS)
            raise ValueError(
                f"--method {method!r} is unknown; expected of {', '.join(METHODS)}{hint}"
            )
    return methods or METHODS


def _require_there(files: Sequence[Path]) -> None:
    for file in files:
        if not file.exists():
            raise ValueError(f"{file}: no such file; expected a table, a predictions.npz or a run")


def _digest(one: Predictions) -> str:
    """Return 16 hexadecimal digits of what a network says, so that another say is other work."""
    digest = hashlib.sha256(one.calibrated.tobytes() + one.label.tobytes())
    digest.update("\n".join([*one.findings, *one.image.tolist(), *one.part.tolist()]).encode())
    return digest.hexdigest()[:16]


def _beside(several: Sequence[Path], val: Sequence[Path]) -> dict[Path, Path]:
    """Return table -> the table of its validation films."""
    tables = [file for file in several if file.is_file() and file.suffix != ".npz"]
    if len(val) != len(tables):
        raise ValueError(
            f"{len(tables)} tables and {len(val)} --val tables; expected one each, in the same "
            "order: ensembles are fitted to validation films, never to test films"
        )
    return dict(zip(tables, val, strict=True))


def _both(file: Path, val: Path | None, films: Manifest | None, *, scale: str) -> Predictions:
    """Return the validation and test films of a network whose predictions are tables."""
    test = labelled_table(file, films, scale=scale)
    assert films is not None
    assert val is not None
    known = predictions_of(val, films=films, scale=scale, part="val")
    check_sides(known, test, name=val)
    both = concatenate([replace(known, network=test.network), test])
    return recalibrated(both, method=EvaluationChoices().recalibration)


def _as_table(said: Predictions) -> pd.DataFrame:
    """Return a row a film: image, part, and a probability a finding."""
    table = pd.DataFrame(said.probability, columns=list(said.findings))
    table.insert(0, "part", said.part)
    table.insert(0, "image", said.image)
    return table


def _write(
    out: Path, found: pd.DataFrame, weights: pd.DataFrame, made: Sequence[Predictions]
) -> None:
    """Write leaderboard.csv, weights.csv, and each ensemble's predictions as METHOD.npz and
    .csv."""
    found.to_csv(out / "leaderboard.csv", index=False)
    weights.to_csv(out / "weights.csv", index=False)
    for one in made:
        save_predictions(one, out / f"{one.network}.npz")
        _as_table(one).to_csv(out / f"{one.network}.csv", index=False)

"""Ensembles of external networks: fitted on validation films, evaluated on test films."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from lucency.config.sections import EvaluationChoices
from lucency.core.files import write_table
from lucency.core.manifest import Manifest, nearest
from lucency.core.predictions import Predictions, concatenate, save_predictions, why_no_predictions
from lucency.core.progress import progress, say
from lucency.core.stage import is_complete, produce_answer
from lucency.core.tables import refuse_label_file, refuse_same_files
from lucency.data.labels import USUAL_COLUMNS, Columns, read_labelled
from lucency.ensemble.ensembles import EQUAL, METHODS, check_members, make_ensemble
from lucency.evaluation import external
from lucency.evaluation.calibration import recalibrated
from lucency.evaluation.compare import Entry, conclude_leaderboard, leaderboard
from lucency.evaluation.summary import macro_over

UNKNOWN_COST = float("nan")
SHOWN = ("kind", "auc", "auc_low", "auc_high", "difference", "p_holm")
PAIRED = (
    f"Paired difference of macro AUC from {EQUAL}; p_holm: p corrected for all rows (Holm 1979)"
)


def ensemble_networks(
    several: Sequence[Path],
    *,
    val: Sequence[Path],
    labels: Path | None,
    scale: str,
    methods: Sequence[str],
    out: Path | None,
    columns: Columns = USUAL_COLUMNS,
) -> dict[str, object]:
    """Return the leaderboard of networks and their ensembles; predictions and tables go to `out`.

    Each of `several` is as in `external.read_networks`; of tables, `val` names in the same order
    those of validation films, which ensembles are fitted to; `columns` are as of `read_labelled`.
    No method means all. Raises ValueError where a network lacks validation films, and where
    networks are not of the same films.
    """
    chosen = _known(methods)
    _refuse_files(several, val, labels)
    external.refuse_scale(several, scale)
    films = None if labels is None else read_labelled(labels, **columns)
    validation = _validation_of(several, val)
    table = partial(_read_table, validation=validation, films=films, scale=scale)
    networks = external.assume_one_split(
        [external.named_as(films, one) for one in external.read_networks(several, table=table)]
    )
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
        say(f"Ensemble of {len(networks)} networks: {method}")
        made.append(make_ensemble(networks, method=method, seed=0))
    choices = EvaluationChoices()
    ensembles = [recalibrated(one.predictions, method=choices.recalibration) for one in made]
    entries = {one.network: Entry("network", UNKNOWN_COST) for one in networks}
    entries |= {one.network: Entry("ensemble", UNKNOWN_COST) for one in ensembles}
    with progress("Evaluating", unit="predictors") as advance:
        found = leaderboard(
            [*networks, *ensembles], entries=entries, reference=EQUAL, choices=choices,
            progress=advance,
        )  # fmt: skip
    tests = networks[0].of("test")
    answer: dict[str, object] = {
        "conclusion": conclude_leaderboard(found, reference=EQUAL),
        "difference": PAIRED,
        "macro AUC": macro_over(tests.label, tests.findings),
    }
    for row in found.to_dict(orient="records"):
        answer[str(row["network"])] = {name: row[name] for name in SHOWN if not pd.isna(row[name])}
    if out is None:
        return answer
    weights = pd.concat([one.weights for one in made], ignore_index=True)
    write = partial(_write, found=found, weights=weights, made=ensembles)
    produce_answer(out, inputs=inputs, write=write)
    return answer | {"tables": str(out)}


def _known(methods: Sequence[str]) -> Sequence[str]:
    for method in methods:
        if method not in METHODS:
            expected = f"expected one of {', '.join(METHODS)}{nearest(method, METHODS)}"
            raise ValueError(f"--method {method!r} is unknown; {expected}")
    return methods or METHODS


def _digest(one: Predictions) -> str:
    """Return 16 hexadecimal digits of a network's predictions, labels, films and findings."""
    digest = hashlib.sha256(one.calibrated.tobytes() + one.label.tobytes())
    digest.update("\n".join([*one.findings, *one.image.tolist(), *one.part.tolist()]).encode())
    return digest.hexdigest()[:16]


def _refuse_files(several: Sequence[Path], val: Sequence[Path], labels: Path | None) -> None:
    """Raise ValueError for a file that is named twice, absent, or the label file."""
    refuse_same_files(several)
    refuse_label_file([*several, *val], labels)
    if lost := [file for file in (*several, *val) if not file.exists()]:
        raise ValueError(why_no_predictions(lost[0]))


def _validation_of(several: Sequence[Path], val: Sequence[Path]) -> dict[Path, Path]:
    """Return table -> the table of its validation films."""
    tables = [file for file in several if file.is_file() and file.suffix != ".npz"]
    if len(val) != len(tables):
        raise ValueError(
            f"{len(tables)} tables and {len(val)} --val tables; expected one each, in the same "
            "order: ensembles are fitted to validation films, never to test films"
        )
    return dict(zip(tables, val, strict=True))


def _read_table(
    file: Path, *, validation: Mapping[Path, Path], films: Manifest | None, scale: str
) -> Predictions:
    """Return the validation and test films of a network whose predictions are tables."""
    test = external.read_test_table(file, films, scale=scale)
    assert films is not None
    known = external.read_validation(validation[file], test, films=films, scale=scale)
    return recalibrated(concatenate([known, test]), method=EvaluationChoices().recalibration)


def _write(
    out: Path, *, found: pd.DataFrame, weights: pd.DataFrame, made: Sequence[Predictions]
) -> None:
    """Write leaderboard.csv, weights.csv, and each ensemble's METHOD.npz and METHOD.csv."""
    write_table(found, out / "leaderboard.csv")
    write_table(weights, out / "weights.csv")
    for one in made:
        save_predictions(one, out / f"{one.network}.npz")
        table = one.to_frame()
        table.insert(1, "part", one.part)
        write_table(table, out / f"{one.network}.csv")

"""The leak doctor's calls: check a protocol, a run, external lists, or a table of predictions.

Letters in shapes: n films, t listed films.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int64, Shaped

from lucency.audit.checks import nih_checks, prediction_checks, protocol_checks, split_checks
from lucency.audit.checks.issue import Issue, SplitTable, issue_table, no_names, ranked
from lucency.audit.checks.unverified import Fitted, UnverifiedPredictions, unverified
from lucency.balance.methods import needs_features, planned, splitter
from lucency.config.protocol import Protocol
from lucency.core.manifest import APART, PARTS, Manifest, Prepared, read_table
from lucency.core.plan import Plan, originals
from lucency.core.predictions import Predictions
from lucency.core.tables import NIH_NAME, film_names
from lucency.data.csv_tables import read_names
from lucency.data.duplicates import near_identical
from lucency.data.labels import OFFICIAL_LISTS, read_labelled
from lucency.data.sources import list_films
from lucency.data.split import set_apart
from lucency.evaluation.evaluate import TRIVIAL

TEXT = ("severity", "check", "message", "examples", "remedy")
RANGES = (
    prediction_checks.double_sigmoid,
    prediction_checks.constant_output,
)  # of the network's own probabilities
REMARKS = (*protocol_checks.BEFORE, *protocol_checks.BESIDE)
CHECKS = len(split_checks.CHECKS) + len(prediction_checks.CHECKS) + len(REMARKS)


def check_protocol(protocol: Protocol) -> list[Issue]:
    """Return what is wrong with the parts and the balance that a protocol makes of its labels.

    Nothing is prepared or trained, and pictures need not be there.
    """
    films, part = list_films(protocol.data, findings=protocol.findings, split=splitter(protocol))
    plan = _planned(films, part, protocol)
    listed = films.image[part != APART]
    table = split_table_of(plan, films=films, listed=listed, protocol=protocol)
    return ranked(
        [
            *split_checks.check_split(table),
            *protocol_checks.invented(protocol),
            *protocol_checks.pretrained(protocol),
        ]
    )


def check_run(
    protocol: Protocol,
    *,
    prepared: Prepared,
    plan: Plan,
    missing: Sequence[str],
    predictions: Sequence[Predictions],
    thresholds: pd.DataFrame,
    scores: pd.DataFrame,
) -> list[Issue]:
    """Return what is wrong with a finished run: its parts, pictures and predictions.

    `missing` are the listed films without a file; `thresholds` and `scores` as
    evaluation.thresholds and evaluation.evaluate give them, or empty.
    """
    films = prepared.manifest
    listed = films.image[~set_apart(films, choices=protocol.split)]  # others are meant to be out
    listed = np.concatenate([listed, prepared.rejected["image"].to_numpy(dtype=str), missing])
    table = split_table_of(plan, films=films, listed=listed, protocol=protocol)
    pairs = near_identical(prepared, side=_own_parts(plan, films=len(films)))
    alike = pairs[["image", "other"]].to_numpy(dtype=object).reshape(-1, 2)
    found = split_checks.check_split(replace(table, alike=alike))
    found += protocol_checks.remark(
        protocol, test=predictions[0].of("test"), rejected=prepared.rejected, missing=missing
    )
    for one in predictions:
        rows = scores["network"].isin((one.network, TRIVIAL))
        splits = thresholds.loc[thresholds["network"] == one.network, "split"].unique().tolist()
        fitted = tuple(Fitted("thresholds", "val", str(split)) for split in splits)
        given = replace(
            unverified(one.of("test")),
            listed=table.image,
            listed_part=table.part,
            fitted=fitted,
            scores=scores.loc[rows],
        )
        found += prediction_checks.check_predictions(given)
        raw = replace(given, probability=one.of("test").uncalibrated().probability)
        found += [c for check in RANGES for c in check(raw)]
    return ranked(list(dict.fromkeys(found)))


def save_issues(found: Sequence[Issue], folder: Path) -> None:
    """Write issues.csv."""
    issue_table(found).to_csv(folder / "issues.csv", index=False)


def load_issues(folder: Path) -> pd.DataFrame:
    """Read what `save_issues` wrote, as `audit.checks.issue.issue_table` gives it."""
    return read_table(folder / "issues.csv", text=TEXT)


def check_lists(lists: Mapping[str, Path], *, labels: Path) -> list[Issue]:
    """Return what is wrong with an external split: part -> file of image names.

    NIH's lists and boxes are looked for beside the label file.
    """
    return split_checks.check_split(split_table_of_lists(lists, labels=labels))


def check_external(
    predictions: UnverifiedPredictions, lists: Mapping[str, Path], *, labels: Path
) -> list[Issue]:
    """Return what is wrong with external predictions, and with their split where it is given."""
    if not lists:
        part = np.full(len(predictions.image), "test")
        tests = SplitTable(image=predictions.image, patient=predictions.patient, part=part)
        known = nih_checks.community_lists(_with_lists(tests, labels.parent))
        return ranked([*known, *prediction_checks.check_predictions(predictions)])
    table = split_table_of_lists(lists, labels=labels)
    predictions = replace(predictions, listed=table.image, listed_part=table.part)
    return ranked(
        [*split_checks.check_split(table), *prediction_checks.check_predictions(predictions)]
    )


def split_table_of(
    plan: Plan, *, films: Manifest, listed: Shaped[np.ndarray, " t"], protocol: Protocol
) -> SplitTable:
    """Return the parts of a plan; a mixed film is a copy of both its parents."""
    mixed = np.flatnonzero(plan.mix > 0)
    mates = [f"{films.image[plan.mate[entry]]}#mate-of-{entry}" for entry in mixed.tolist()]
    names = np.concatenate([plan.names(films.image).astype(object), np.array(mates, object)])
    row = np.concatenate([plan.row, plan.mate[mixed]])
    published = protocol.data.source == "nih"
    officially = protocol.split.method == "official"
    table = SplitTable(
        image=names,
        patient=films.patient[row],
        part=np.concatenate([plan.part, plan.part[mixed]]),
        method=protocol.split.method,
        listed=listed,
        boxed=films.boxes["image"].to_numpy(dtype=str) if officially else no_names(),
        origins=(films.origin,) if published else (),
    )
    return _with_lists(table, Path(protocol.data.root)) if published else table


def split_table_of_lists(lists: Mapping[str, Path], *, labels: Path) -> SplitTable:
    """Return the parts of external lists; patients come from the label file by name."""
    films = read_labelled(labels)
    names = {part: read_names(file) for part, file in lists.items()}
    image = np.concatenate([names[part] for part in PARTS if part in names])
    part = np.concatenate([np.full(len(names[part]), part) for part in PARTS if part in names])
    table = SplitTable(
        image=image,
        patient=_patients(image, films),
        part=part,
        listed=films.image,
        boxed=films.boxes["image"].to_numpy(dtype=str),
        origins=(films.origin,) if "Data_Entry" in films.origin else (),
    )
    return _with_lists(table, labels.parent)


def _planned(films: Manifest, part: np.ndarray, protocol: Protocol) -> Plan:
    """Return the plan; of methods that look at pictures only the films that they start from."""
    if needs_features(protocol.balance):
        seen = np.flatnonzero(part != APART)
        return replace(originals(films.label).take(seen), part=part[seen].astype(str))
    return planned(films, part, protocol).plan


def _own_parts(plan: Plan, *, films: int) -> Shaped[np.ndarray, " n"]:
    """Return the part in which each film stands as itself, empty where in none."""
    own = np.full(films, "", dtype=object)
    itself = plan.copy == 0
    own[plan.row[itself]] = plan.part[itself]
    return own.astype(str)


def _with_lists(table: SplitTable, folder: Path) -> SplitTable:
    """Return the table with NIH's two lists, where they lie in `folder`."""
    files = [folder / name for name in OFFICIAL_LISTS]
    train_val, test = (read_names(file) if file.is_file() else no_names() for file in files)
    return replace(table, official_train_val=train_val, official_test=test)


def _patients(image: Shaped[np.ndarray, " n"], films: Manifest) -> Int64[np.ndarray, " n"]:
    """Return each film's patient: as labelled, else by NIH's name, else one of its own."""
    film = film_names(image)
    row = pd.Index(film_names(films.image)).get_indexer(pd.Index(film))
    patient = np.where(row >= 0, films.patient[row], -1 - np.arange(len(film)))
    for place in np.flatnonzero(row < 0).tolist():
        if NIH_NAME.fullmatch(film[place]):
            patient[place] = int(film[place][:8])
    return patient.astype(np.int64)

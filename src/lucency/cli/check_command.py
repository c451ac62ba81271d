"""What `lucency check` answers of a protocol, a run, a table of predictions or lists of films."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lucency.audit.checks import prediction_checks, split_checks
from lucency.audit.checks.issue import count_serious, issue_table, unverified_table
from lucency.audit.checks.run_checks import (
    BEFORE,
    CHECKS,
    check_external,
    check_lists,
    check_protocol,
)
from lucency.config.protocol import read_protocol
from lucency.pipeline.run import open_run_folder
from lucency.pipeline.stages import issues


def find_issues(
    what: Path | None,
    *,
    lists: Mapping[str, Path],
    labels: Path | None,
    scale: str,
    changes: tuple[str, ...],
) -> tuple[pd.DataFrame, int]:
    """Return the issues as audit.checks.issue.issue_table does, and how many checks ran.

    `what` is a protocol (.toml), a run's folder, a table of predictions, or None for `lists` alone,
    which map parts to files of image names; `labels` is the label file of a table or of lists.
    Raises ValueError when these do not fit together.
    """
    if what is not None and (what.is_dir() or what.suffix == ".toml"):
        if lists or labels:
            raise ValueError(
                f"{what} brings its own films: expected it alone, without --labels and lists"
            )
        return _own(what, changes)
    if labels is None:
        raise ValueError("expected --labels FILE: it says whose film each is")
    if what is None:
        if changes or scale != "probability":
            raise ValueError("lists are names alone: expected neither --set nor --scale")
        if not {"train", "test"} <= set(lists):
            given = ", ".join(lists) or "nothing"
            raise ValueError(f"found lists for {given}; expected --train and --test, maybe --val")
        return issue_table(check_lists(lists, labels=labels)), len(split_checks.CHECKS)
    if changes:
        raise ValueError("--set changes a protocol: found a table, expected no --set")
    claimed = unverified_table(what, labels=labels, scale=scale)
    of_split = len(split_checks.CHECKS) if lists else 1  # without lists, whose films these are
    found = check_external(claimed, lists, labels=labels)
    return issue_table(found), len(prediction_checks.CHECKS) + of_split


def issues_in_words(table: pd.DataFrame, *, checks: int) -> str:
    """Return the issues for people: a line each, what to do below it, and a last line."""
    lines = []
    for row in table.to_dict("records"):
        examples = f" (such as {row['examples'].replace('|', ', ')})" if row["examples"] else ""
        lines.append(f"{row['severity']}: {row['message']}{examples}")
        lines.append(f"  {row['check']}, {row['count']:,}: {row['remedy']}")
    serious = count_serious(table)
    counts = f"{serious} serious, {len(table) - serious} to note" if len(table) else "nothing found"
    return "\n".join([*lines, f"{counts}, by {checks} checks"]) + "\n"


def issues_in_json(table: pd.DataFrame, *, checks: int) -> dict[str, object]:
    """Return the issues for programs, examples as lists."""
    rows = [
        {**row, "examples": row["examples"].split("|") if row["examples"] else []}
        for row in table.to_dict("records")
    ]
    serious = count_serious(table)
    return {"checks": checks, "serious": serious, "notes": len(rows) - serious, "issues": rows}


def _own(what: Path, changes: tuple[str, ...]) -> tuple[pd.DataFrame, int]:
    if what.suffix == ".toml":
        found = check_protocol(read_protocol(what, changes=changes))
        return issue_table(found), len(split_checks.CHECKS) + len(BEFORE)
    if changes:
        raise ValueError(f"--set changes a protocol, and {what} is done: check a .toml file")
    run, file = open_run_folder(what), what / "protocol.toml"
    predicted = [what / "predictions" / network.name for network in run.protocol.network]
    if not all((place / "receipt.json").is_file() for place in (*predicted, what / "evaluation")):
        raise ValueError(
            f"{what} is not evaluated yet: expected a finished run; check its protocol.toml alone, "
            f"or finish it with lucency run {file} --out {what}"
        )
    return issues(run), CHECKS

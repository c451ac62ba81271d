"""What `lucency check` answers: the leak doctor on a protocol, a run, a table or lists of films."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lucency.checkup import CHECKS, check_lists, check_predictions, check_protocol
from lucency.foreign import claim_of_table
from lucency.judge import doctor, suspicion
from lucency.judge.complaints import complaint_table, count_serious
from lucency.judgement import complaints
from lucency.protocol import read_protocol
from lucency.workspace import open_run


def consult(
    what: Path | None,
    *,
    lists: Mapping[str, Path],
    labels: Path | None,
    scale: str,
    changes: tuple[str, ...],
) -> pd.DataFrame:
    """Return the complaints as a table: severity, check, message, count, examples, remedy.

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
        return complaint_table(check_lists(lists, labels=labels))
    if changes:
        raise ValueError("--set changes a protocol: found a table, expected no --set")
    claim = claim_of_table(what, labels=labels, scale=scale)
    return complaint_table(check_predictions(claim, lists, labels=labels))


def checks_made(what: Path | None, lists: Mapping[str, Path]) -> int:
    """Return how many checks `consult` makes of what it is given."""
    if what is not None and what.is_dir():
        return CHECKS
    of_split, of_table = len(doctor.CHECKS), len(suspicion.CHECKS)
    if what is None or what.suffix == ".toml":
        return of_split
    return of_table + (of_split if lists else 1)


def complaints_in_words(table: pd.DataFrame, *, checks: int) -> str:
    """Return the complaints for people: a line each, what to do below it, and a last line."""
    lines = []
    for row in table.to_dict("records"):
        examples = f" (such as {row['examples'].replace('|', ', ')})" if row["examples"] else ""
        lines.append(f"{row['severity']}: {row['message']}{examples}")
        lines.append(f"  {row['check']}, {row['count']:,}: {row['remedy']}")
    serious = count_serious(table)
    counts = f"{serious} serious, {len(table) - serious} to note" if len(table) else "nothing found"
    return "\n".join([*lines, f"{counts}, by {checks} checks"]) + "\n"


def complaints_in_json(table: pd.DataFrame, *, checks: int) -> dict[str, object]:
    """Return the complaints for programs, examples as lists."""
    rows = [
        {**row, "examples": row["examples"].split("|") if row["examples"] else []}
        for row in table.to_dict("records")
    ]
    serious = count_serious(table)
    return {"checks": checks, "serious": serious, "notes": len(rows) - serious, "complaints": rows}


def _own(what: Path, changes: tuple[str, ...]) -> pd.DataFrame:
    if what.suffix == ".toml":
        return complaint_table(check_protocol(read_protocol(what, changes=changes)))
    if changes:
        raise ValueError(f"--set changes a protocol, and {what} is done: check a .toml file")
    file = what / "protocol.toml"
    if not file.is_file():
        raise ValueError(f"{what} holds no run: expected the --out folder of `lucency run`")
    protocol = read_protocol(file)
    if protocol.variant:
        raise ValueError(f"{what} holds variants: name the folder of one, variants/NAME/seed-N")
    predicted = [what / "predictions" / network.name for network in protocol.network]
    if not all((place / "receipt.json").is_file() for place in (*predicted, what / "evaluation")):
        raise ValueError(
            f"{what} is not judged yet: expected a finished run; check its protocol.toml alone, or "
            f"finish it with lucency evaluate {file} --out {what}"
        )
    return complaints(open_run(protocol, out=what))

"""The sets' part of the chapter "When not to answer": what sets cover, and what is missed."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lucency.evaluation.bootstrap import MACRO
from lucency.evaluation.set_coverage import ALL, BOTH, OWN, SetCoverage

ONE_VALUE = ("network", "films", "group")


def coverage_values(found: SetCoverage, *, best: str) -> dict[str, Any]:
    """Return what the section of sets shows: a network each, the best first; empty without sets."""
    if not len(found.coverage):
        return {}
    names = list(dict.fromkeys(found.coverage["network"]))
    order = sorted(names, key=lambda name: name != best)
    return {
        "conclusion": found.conclusion,
        "networks": [_of_network(found, name) for name in order],
    }


def _of_network(found: SetCoverage, network: str) -> dict[str, Any]:
    """Return a network's rows: by finding of its test films, then of all films and groups."""
    coverage, missed = (
        one.loc[one["network"] == network].fillna({"note": ""})
        for one in (found.coverage, found.missed)
    )
    own = coverage.loc[(coverage["films"] == OWN) & (coverage["group"] == ALL)]
    cell = own.set_index(["finding", "label"]).to_dict("index")
    mean = coverage.loc[(coverage["finding"] == MACRO) & (coverage["label"] == BOTH)]
    several = mean.merge(missed, on=list(ONE_VALUE), suffixes=("", "_missed"))
    first = own.iloc[0]
    return {
        "network": network,
        "promised": float(first["promised"]),
        "largest": float(missed["promised"].iloc[0]),
        "cutoff": float(missed["cutoff"].iloc[0]),
        "findings": list(dict.fromkeys(own["finding"])),
        "cell": cell,
        "places": [_place(row) for row in several.to_dict("records")],
        "notes": _notes(own),
    }


def _place(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of films and group: coverage and what is missed, each with its interval."""
    name = row["films"] if row["group"] == ALL else f"{row['films']}, {row['group']}"
    missed = {
        "value": row["missed"],
        "low": row["low_missed"],
        "high": row["high_missed"],
        "note": row["note_missed"],
        "patients": row["patients_missed"],
    }
    return {"name": name, "coverage": row, "missed": missed, "possible": row["possible"]}


def _notes(own: pd.DataFrame) -> list[str]:
    """Return why sets of a finding always hold a label."""
    pairs = zip(own["finding"], own["note"], strict=True)
    return [f"{name} {note.partition(';')[0]}" for name, note in pairs if note.startswith("always")]

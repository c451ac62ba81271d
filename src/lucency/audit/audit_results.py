"""AuditResults: all tables that speak against the numbers of a run, in one value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lucency.core.manifest import read_table


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditResults:
    """What speaks against one network's scores: tables of the modules they are named after.

    `label_quality` ends in words; `pictures` counts what `odd` lists, of audit.image_quality.
    """

    network: str
    label_quality: pd.DataFrame
    probes: pd.DataFrame
    shortcuts: pd.DataFrame
    strata: pd.DataFrame
    pictures: pd.DataFrame
    odd: pd.DataFrame


def save_audit_results(doubts: AuditResults, folder: Path) -> None:
    """Write one CSV a table, and doubts.json."""
    for name in TABLES:
        getattr(doubts, name).to_csv(folder / f"{name}.csv", index=False)
    (folder / "doubts.json").write_text(json.dumps({"network": doubts.network}))


def load_audit_results(folder: Path) -> AuditResults:
    """Read what `save_audit_results` wrote."""
    about = json.loads((folder / "doubts.json").read_text())
    tables = {name: read_table(folder / f"{name}.csv", text=TEXT) for name in TABLES}
    shortcuts = tables["shortcuts"]
    tables["shortcuts"] = shortcuts.assign(shortcut=shortcuts["shortcut"].astype(bool))
    return AuditResults(network=about["network"], **tables)


TABLES = ("label_quality", "probes", "shortcuts", "strata", "pictures", "odd")
TEXT = (
    "finding", "verdict", "reason", "fact", "level", "levels", "note", "examples", "problem",
    "image",
)  # fmt: skip

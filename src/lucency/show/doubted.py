"""The report's chapter on what may be believed, from the tables of `audit`."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lucency.audit.belief import CANNOT, DOUBTFUL, MAY, MODERATE, conclude_belief
from lucency.audit.doubted import Doubts
from lucency.audit.shortcuts import shortcut_reasons

PAIRS, EXAMPLES = 12, 3  # at most this many are shown


def doubt_values(doubts: Doubts, *, source: str) -> dict[str, Any]:
    """Return what the chapter shows, by the names that its template uses."""
    largest = doubts.shortcuts.sort_values(
        ["shortcut", "leans"], ascending=False, kind="stable"
    ).head(PAIRS)
    found = shortcut_reasons(doubts.shortcuts)
    told = [f"{finding}: {reason}" for finding, reason in found.items()]
    shortcuts = "; ".join(told) if told else "no shortcut was found among the facts known"
    said = conclude_belief(doubts.belief)
    return {
        "network": doubts.network,
        "conclusion": f"{said[0].upper()}{said[1:]}. Shortcuts of {doubts.network}: {shortcuts}.",
        "objections": objections(doubts),
        "origin": ORIGINS.get(source, "Nobody has read these films again."),
        "belief": doubts.belief.to_dict("records"),
        "probes": doubts.probes.to_dict("records"),
        "shortcuts": largest.to_dict("records"),
        "pairs": len(doubts.shortcuts),
        "strata": [
            {**row, "shown": ", ".join(row["examples"].split("|")[:EXAMPLES])}
            for row in doubts.strata.to_dict("records")
        ],
        "pictures": doubts.pictures.to_dict("records"),
    }


def objections(doubts: Doubts) -> dict[str, str]:
    """Return what a run's own numbers say to the three objections of Oakden-Rayner.

    "Exploring the ChestXray14 dataset: problems" (2017): how accurate the labels are, what they
    mean medically, and how useful they are for image analysis.
    """
    return {
        "How accurate the labels are": _accuracy(doubts.belief),
        "What the labels mean": _meaning(doubts),
        "How useful the labels are for learning from pictures": _use(doubts),
    }


def _accuracy(belief: pd.DataFrame) -> str:
    seen = {row["finding"]: row["ppv"] for row in belief.to_dict("records")}
    read = {finding: ppv for finding, ppv in seen.items() if ppv == ppv}
    if not read:
        return "Not known: nobody has read these films again."
    count = belief["verdict"].tolist().count
    low, high = min(read, key=read.__getitem__), max(read, key=read.__getitem__)
    span = f"from {read[low]:.3f} ({low}) to {read[high]:.3f} ({high})"
    return (
        f"Labels of {count(MAY)} of {len(belief)} findings may carry a claim, {count(DOUBTFUL)} "
        f"are doubtful, {count(CANNOT)} cannot. The share of films labelled so that show the "
        f"finding (PPV): {span if read[low] < read[high] else f'{read[low]:.3f}'}."
    )


def _meaning(doubts: Doubts) -> str:
    kappa = {row["finding"]: row["kappa"] for row in doubts.belief.to_dict("records")}
    known = {finding: value for finding, value in kappa.items() if value == value}
    unsure = [finding for finding, value in known.items() if value < MODERATE]
    agreed = "How far experts agree on them is not known here."
    if known:
        agreed = (
            f"Experts agree less than moderately (kappa below {MODERATE:g}) on {len(unsure)} of "
            f"{len(known)} findings{': ' if unsure else ''}{', '.join(unsure)}."
        )
    pairs = [row for row in doubts.shortcuts.to_dict("records") if row["shortcut"]]
    named = ", ".join(f"{row['finding']} ({row['fact']})" for row in pairs)
    leans = f"leans on a fact beside the finding for {named}" if named else NO_SHORTCUT
    return f"{agreed} The score of {doubts.network} {leans}."


def _use(doubts: Doubts) -> str:
    kinds = doubts.strata.to_dict("records")
    if not kinds:
        return (
            "No finding's positives fall into kinds further apart than one kind is cut; where "
            "they are few, that cannot be decided."
        )
    worst = min(kinds, key=lambda row: row["auc"])
    several = len({row["finding"] for row in kinds})
    return (
        f"The positives of {several} finding{'s' if several > 1 else ''} fall into kinds that one "
        f"AUC hides; the lowest is {worst['auc']:.3f} ({worst['finding']}, {worst['films']:.0f} "
        "films)."
    )


NO_SHORTCUT = "leans on no known fact beside the findings"
ORIGINS = {
    "nih": "NIH's labels held against radiologists on 810 test films (Nabulsi et al., 2021), which "
    "were chosen to hold many findings.",
    "phantom": "The label file held against what was drawn.",
}

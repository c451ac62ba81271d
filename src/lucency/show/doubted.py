"""The report's chapter on what may be believed, from the tables of `audit`."""

from __future__ import annotations

from typing import Any

from lucency.audit.belief import conclude_belief
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


ORIGINS = {
    "nih": "NIH's labels held against radiologists on 810 test films (Nabulsi et al., 2021), which "
    "were chosen to hold many findings.",
    "phantom": "The label file held against what was drawn.",
}

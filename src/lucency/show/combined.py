"""The report's chapter on combining: networks and what was made of them, in one league."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from lucency.combine.combined import Combined
from lucency.combine.recognition import OVERALL, privacy
from lucency.show.leagues import draw_league

LEVEL = 0.05
ROUGH = "rough"  # how notes begin where too few patients make p too small


def combined_values(combined: Combined) -> dict[str, Any]:
    """Return what the chapter shows, by the names that its template uses; nothing for no league."""
    if not len(combined.league):
        return {}
    table = combined.league.fillna({"note": ""})
    weights = _weights(combined.weights)
    reference = table.loc[table["note"] == "the reference", "network"].iloc[0]
    return {
        "league": table.to_dict("records"),
        "figure": Markup(draw_league(table, reference=reference)),
        "reference": reference,
        "conclusion": _conclude(table, reference),
        "weights": weights,
        "members": list(dict.fromkeys(row for one in weights for row in one["of"])),
        "diversity": combined.diversity.to_dict("records"),
        **_similar(combined.similar),
        "lungs": combined.lungs.to_dict("records"),
    }


def _similar(table: pd.DataFrame) -> dict[str, Any]:
    """Return the overall rows of a search for similar films, and what they mean for patients."""
    if not len(table):
        return {"similar": [], "privacy": []}
    overall = table.loc[table["finding"] == OVERALL].fillna({"note": ""})
    each = {one: overall.loc[overall["source"] == one] for one in overall["source"].unique()}
    return {
        "similar": overall.to_dict("records"),
        "privacy": [f"{source}: {privacy(rows)}" for source, rows in each.items()],
    }


def _conclude(table: pd.DataFrame, reference: str) -> str:
    """Return one sentence: what surely beats the reference, and what it costs."""
    above = table[(table["difference"] > 0) & (table["p_holm"] < LEVEL)]
    below = len(table[(table["difference"] < 0) & (table["p_holm"] < LEVEL)])
    others = len(table) - 1
    rest = f"{below} of {others} {'does' if below == 1 else 'do'} worse, the rest may be chance"
    rough = sorted({note for note in table["note"] if note.startswith(ROUGH)})
    rest += f" ({rough[0]}, so that p is too small)" if rough else ""
    if not len(above):
        return f"Nothing surely beats {reference}; {rest}."
    named = ", ".join(
        f"{name} (+{difference:.3f})"
        for name, difference in zip(above["network"], above["difference"], strict=True)
    )
    return f"More than chance above {reference}: {named}; {rest}."


def _weights(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row a method: each member's mean weight over findings, and how far it varies."""
    if not len(table):
        return []
    grouped = table.groupby(["method", "network"], sort=False)["weight"]
    found = grouped.agg(["mean", "min", "max"]).reset_index()
    return [
        {"method": method, "of": rows.set_index("network").to_dict("index")}
        for method, rows in found.groupby("method", sort=False)
    ]

"""The report's chapter on combining: networks and what was made of them, in one league."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from lucency.combine.combined import Combined
from lucency.combine.recognition import OVERALL, privacy
from lucency.judge.league import conclude
from lucency.show.leagues import draw_league


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
        "conclusion": conclude(table, reference=reference),
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

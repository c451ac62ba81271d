"""Label quality: the labels of which findings are reliable, and all tables of a network's audit.

The rule by which labels are rated is ours; it rates the labels, not the networks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from lucency.core.manifest import FINDINGS, NO_FINDING, read_table
from lucency.evaluation.bootstrap import ratio
from lucency.evaluation.significance import wilson

COUNTS = ("finding", "labelled", "seen", "both", "kappa")
LABEL_QUALITY = ("finding", "verdict", "ppv", "low", "high", "sensitivity", *COUNTS[1:], "reason")
MAY, DOUBTFUL, CANNOT = "may", "doubtful", "cannot"
MODERATE = 0.4  # of kappa: Landis and Koch, Biometrics 33 (1977), 159-174
HALF = 0.5
PUBLISHED = "published_agreement.csv"
TABLES = ("label_quality", "probes", "shortcuts", "strata", "pictures", "odd")
TEXT = (
    "finding", "verdict", "reason", "fact", "level", "levels", "note", "examples", "problem",
    "image",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditResults:
    """The audit of one network's scores: tables of the modules that they are named after.

    `pictures` counts what `odd` lists, of audit.image_quality.
    """

    network: str
    label_quality: pd.DataFrame
    probes: pd.DataFrame
    shortcuts: pd.DataFrame
    strata: pd.DataFrame
    pictures: pd.DataFrame
    odd: pd.DataFrame


def rate_label_quality(counts: pd.DataFrame, *, doubts: Mapping[str, str]) -> pd.DataFrame:
    """Return for each finding whether its labels are reliable, and why not.

    `counts` has the columns COUNTS: how many films of a sample are labelled, how many experts call
    positive, how many are both, and Fleiss' kappa among the experts (NaN if unknown). `cannot`:
    most labels are wrong, for Wilson's interval of the predictive value (of films, taken as
    independent) ends below a half. `doubtful`: it does not lie above a half; or experts do not
    agree at least moderately; or the finding is a key of `doubts`, whose text is the reason. Else
    `may`, of films labelled so; `sensitivity` is the share of positives that are labelled.
    """
    both, labelled = counts["both"].to_numpy(float), counts["labelled"].to_numpy(float)
    ppv = ratio(both, labelled)
    low, high = wilson(both, labelled)
    rows = []
    for row, value, least, most in zip(counts.to_dict("records"), ppv, low, high, strict=True):
        reasons = [] if least > HALF else [_unsure(row["both"], row["labelled"])]
        if row["kappa"] < MODERATE:
            reasons.append(f"experts agree little among themselves (kappa {row['kappa']:.2f})")
        if row["finding"] in doubts:
            reasons.append(doubts[row["finding"]])
        rating, reason = DOUBTFUL if reasons else MAY, "; ".join(reasons)
        if most < HALF:
            rating = CANNOT
            reason = "; ".join([_seen(row["both"], row["labelled"]), *reasons[1:]])
        reason = reason or _seen(row["both"], row["labelled"])
        about = (row[name] for name in COUNTS[1:])
        found = row["both"] / row["seen"] if row["seen"] else np.nan
        rows.append((row["finding"], rating, value, least, most, found, *about, reason))
    return pd.DataFrame(rows, columns=list(LABEL_QUALITY))


def counts_of(agreement: pd.DataFrame, readers: pd.DataFrame) -> pd.DataFrame:
    """Return the columns COUNTS of audit.agreement's tables; kappa NaN without `readers`."""
    first = agreement.drop_duplicates("finding").set_index("finding")
    kappa = readers.set_index("finding")["kappa"].reindex(first.index)
    return first.assign(kappa=kappa).reset_index().loc[:, list(COUNTS)]


def published_counts(findings: tuple[str, ...] = (*FINDINGS, NO_FINDING)) -> pd.DataFrame:
    """Return the counts of ChestX-ray14's 14 findings and "No Finding", on 810 films.

    NIH's labels (v2020) against the majority of three radiologists, and the kappa of all five, of
    Nabulsi et al., Scientific Reports 11 (2021), 15523; "No Finding" is none of the 14. Of a
    finding that they did not read the counts are 0.
    """
    with (files("lucency.audit") / PUBLISHED).open() as table:
        read = pd.read_csv(table).set_index("finding").reindex(list(findings))
    counted = dict.fromkeys(COUNTS[1:4], 0)
    return read.fillna(counted).astype(dict.fromkeys(counted, int)).reset_index()


def conclude_label_quality(label_quality: pd.DataFrame) -> str:
    """Return the findings by their rating, in words."""
    parts = []
    for rating, words in CONCLUSIONS.items():
        names = label_quality.loc[label_quality["verdict"] == rating, "finding"].tolist()
        parts += [f"labels of {', '.join(names)} {words}"] if names else []
    return "; ".join(parts)


def save_audit_results(results: AuditResults, folder: Path) -> None:
    """Write one CSV a table, and audit.json."""
    for name in TABLES:
        getattr(results, name).to_csv(folder / f"{name}.csv", index=False)
    (folder / "audit.json").write_text(json.dumps({"network": results.network}))


def load_audit_results(folder: Path) -> AuditResults:
    """Read what `save_audit_results` wrote."""
    about = json.loads((folder / "audit.json").read_text())
    tables = {name: read_table(folder / f"{name}.csv", text=TEXT) for name in TABLES}
    shortcuts = tables["shortcuts"]
    tables["shortcuts"] = shortcuts.assign(shortcut=shortcuts["shortcut"].astype(bool))
    return AuditResults(network=about["network"], **tables)


def _unsure(both: int, labelled: int) -> str:
    if not labelled:
        return "no film labelled so was read by experts"
    return f"{_seen(both, labelled)}: about a half, or too few"


def _seen(both: int, labelled: int) -> str:
    return f"it is seen on {both} of {labelled} films labelled so"


CONCLUSIONS = {
    MAY: "are reliable",
    DOUBTFUL: "are doubtful: say so beside every number",
    CANNOT: "are unreliable: most are wrong",
}

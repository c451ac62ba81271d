"""Which findings of a data set can carry a claim, which cannot, and why.

The rule is ours: facts weigh the labels, not the networks. Letters in shapes: k findings.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

import numpy as np
import pandas as pd

from lucency.core.manifest import FINDINGS, NO_FINDING
from lucency.evaluation.significance import wilson

COUNTS = ("finding", "labelled", "seen", "both", "kappa")
LABEL_QUALITY = ("finding", "verdict", "ppv", "low", "high", "sensitivity", *COUNTS[1:], "reason")
MAY, DOUBTFUL, CANNOT = "may", "doubtful", "cannot"
MODERATE = 0.4  # of kappa: Landis and Koch, Biometrics 33 (1977), 159-174
HALF = 0.5
PUBLISHED = "published_agreement.csv"


def rate_label_quality(counts: pd.DataFrame, *, doubts: Mapping[str, str]) -> pd.DataFrame:
    """Return for each finding whether its labels may carry a claim, and why not.

    `counts` has the columns COUNTS: how many films of a sample are labelled, how many experts call
    positive, how many are both, and Fleiss' kappa among the experts (NaN if unknown). `cannot`:
    most labels are wrong, for Wilson's interval of the predictive value (of films, taken as
    independent) ends below a half.
    `doubtful`: it does not lie above a half; or experts do not agree at least moderately; or the
    finding is a key of `doubts`, whose text says what else speaks against it. Else `may`: of films
    labelled so; how many others show it too `sensitivity` says.
    """
    both, labelled = counts["both"].to_numpy(float), counts["labelled"].to_numpy(float)
    ppv = np.divide(both, labelled, out=np.full(len(both), np.nan), where=labelled > 0)
    low, high = wilson(both, labelled)
    rows = []
    for row, value, least, most in zip(counts.to_dict("records"), ppv, low, high, strict=True):
        reasons = [] if least > HALF else [_unsure(row["both"], row["labelled"])]
        if row["kappa"] < MODERATE:
            reasons.append(f"experts agree little among themselves (kappa {row['kappa']:.2f})")
        if row["finding"] in doubts:
            reasons.append(doubts[row["finding"]])
        verdict, reason = DOUBTFUL if reasons else MAY, "; ".join(reasons)
        if most < HALF:
            verdict = CANNOT
            reason = "; ".join([_seen(row["both"], row["labelled"]), *reasons[1:]])
        reason = reason or _seen(row["both"], row["labelled"])
        about = (row[name] for name in COUNTS[1:])
        found = row["both"] / row["seen"] if row["seen"] else np.nan
        rows.append((row["finding"], verdict, value, least, most, found, *about, reason))
    return pd.DataFrame(rows, columns=list(LABEL_QUALITY))


def counts_of(agreement: pd.DataFrame, readers: pd.DataFrame) -> pd.DataFrame:
    """Return what `believe` needs from audit.agreement's tables; kappa NaN without `readers`."""
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
    """Return the verdicts in plain words."""
    said = {
        MAY: "may carry a claim",
        DOUBTFUL: "are doubtful: say so beside every number",
        CANNOT: "cannot carry one: most are wrong",
    }
    parts = []
    for verdict, verb in said.items():
        names = label_quality.loc[label_quality["verdict"] == verdict, "finding"].tolist()
        parts += [f"labels of {', '.join(names)} {verb}"] if names else []
    return "; ".join(parts)


def _unsure(both: int, labelled: int) -> str:
    if not labelled:
        return "no film labelled so was read by experts"
    return f"{_seen(both, labelled)}: about a half, or too few"


def _seen(both: int, labelled: int) -> str:
    return f"it is seen on {both} of {labelled} films labelled so"

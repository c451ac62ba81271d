"""What stands against a result: leaks between parts, and everything else a reader must know.

Letters in shapes: n films, or entries of a plan when copies are named film#copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Int64, Shaped

from lucency.judge.evaluate import MACRO, MICRO, TRIVIAL
from lucency.predictions import Predictions
from lucency.protocol import Protocol
from lucency.values import PARTS

FEW = 30  # positives below which a finding's numbers say little
SERIOUS, NOTE = "serious", "note"
OVERLAP_COLUMNS = ("part", "other", "patients", "films", "patient_share", "film_share")
Warned = tuple[str, str, int]


def overlap(
    image: Shaped[np.ndarray, " n"],
    *,
    patient: Int64[np.ndarray, " n"],
    part: Shaped[np.ndarray, " n"],
) -> pd.DataFrame:
    """Return what each two parts share: a row for train and val, train and test, val and test.

    `patients` and `films` stand in both; `patient_share` and `film_share` say how much of the
    rows of `other` has its patient, or its very picture, in `part` (0 to 1, NaN when `other` is
    empty). A copy `film#3` is the picture `film`.
    """
    film = np.array([str(name).partition("#")[0] for name in image], dtype=object)
    table = pd.DataFrame({"patient": patient, "film": film, "part": part})
    rows = [(*pair, *_shared(table, *pair)) for pair in combinations(PARTS, 2)]
    return pd.DataFrame(rows, columns=list(OVERLAP_COLUMNS))


def warnings_for(
    protocol: Protocol,
    *,
    overlap: pd.DataFrame,
    test: Predictions,
    metrics: pd.DataFrame,
    rejected: pd.DataFrame,
    missing: Sequence[str],
) -> pd.DataFrame:
    """Return what must be read beside the results: severity (serious, note), message, count.

    `overlap` as the function of that name gives it for the films as the plan names them; `test`
    the predictions of any network on test films; `rejected` the films that could not be decoded
    and `missing` the names of those without a file.
    """
    warned = [
        *_leaks(protocol, overlap),
        *_chance(metrics),
        *_few_positives(test),
        *_random_weights(protocol),
        *_lost_films(rejected, missing),
        *_unstated(test),
    ]
    table = pd.DataFrame(warned, columns=["severity", "message", "count"])
    return table.sort_values(by="severity", ascending=False, kind="stable", ignore_index=True)


def _shared(table: pd.DataFrame, part: str, other: str) -> tuple[int, int, float, float]:
    mine, theirs = (table.loc[table["part"] == name] for name in (part, other))
    counts, shares = [], []
    for column in ("patient", "film"):
        known = theirs[column].isin(mine[column])
        counts.append(theirs.loc[known, column].nunique())
        shares.append(float(known.mean()) if len(known) else float("nan"))
    return counts[0], counts[1], shares[0], shares[1]


def _leaks(protocol: Protocol, overlap: pd.DataFrame) -> list[Warned]:
    warned: list[Warned] = []
    if protocol.balance.before_split:
        message = "Films were dropped and copied before the split, so test films were chosen too"
        warned.append((SERIOUS, f"{message}: scores are not those of untouched films.", 1))
    if protocol.split.method == "image":
        message = "The split is by film, not by patient: films of one patient may be on both sides."
        warned.append((SERIOUS, message, 1))
    for row in overlap.to_dict("records"):
        place = f"{row['part']} and {row['other']}"
        for what, share in (("patients", "patient_share"), ("films", "film_share")):
            if row[what]:
                means = f"{row[share]:.1%} of {row['other']} films leak that way"
                warned.append((SERIOUS, f"{what.capitalize()} in {place}: {means}.", row[what]))
    return warned


def _chance(metrics: pd.DataFrame) -> list[Warned]:
    """Warn where the interval of an AUC reaches .5: of a network as a whole, and of findings."""
    shown = metrics.loc[(metrics["metric"] == "auc") & (metrics["network"] != TRIVIAL)]
    doubtful = shown.loc[shown["low"] <= 0.5]
    warned: list[Warned] = []
    for network, rows in doubtful.groupby("network", sort=False):
        found = [name for name in rows["finding"] if name not in (MACRO, MICRO)]
        if MACRO in set(rows["finding"]):
            message = f"{network}: the interval of macro AUC is not above .5, which is chance"
            warned.append((SERIOUS, f"{message}: it may have learnt nothing.", 1))
        if found:
            message = f"{network}: the interval of AUC is not above .5 for {', '.join(found)}."
            warned.append((NOTE, message, len(found)))
    return warned


def _few_positives(test: Predictions) -> list[Warned]:
    positives = (test.label == 1).sum(axis=0).tolist()
    few = [f"{f} ({n})" for f, n in zip(test.findings, positives, strict=True) if n < FEW]
    if not few:
        return []
    message = f"Fewer than {FEW} positive test films: {', '.join(few)}. Their numbers say little."
    return [(NOTE, message, len(few))]


def _random_weights(protocol: Protocol) -> list[Warned]:
    names = [network.name for network in protocol.network if network.weights == "random"]
    if not names:
        return []
    message = (
        f"Trained from random initialisation, not from pre-trained weights: {', '.join(names)}."
    )
    return [(NOTE, message, len(names))]


def _lost_films(rejected: pd.DataFrame, missing: Sequence[str]) -> list[Warned]:
    warned: list[Warned] = []
    if len(rejected):
        warned.append((NOTE, "Films could not be decoded and were left out.", len(rejected)))
    if len(missing):
        examples = f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}"
        warned.append((NOTE, f"Films are listed but have no file: {examples}.", len(missing)))
    return warned


def _unstated(test: Predictions) -> list[Warned]:
    unstated = int(np.isnan(test.label).sum())
    message = "Labels of test films are not stated and count neither as right nor as wrong."
    return [(NOTE, message, unstated)] if unstated else []

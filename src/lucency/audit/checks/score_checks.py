"""The leak doctor on scores: rows and parts of predictions, thresholds, and tables of scores.

Letters in shapes: k findings.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float64

from lucency.audit.checks.issue import Issue, issues_of
from lucency.audit.checks.unverified import UnverifiedPredictions
from lucency.core.tables import film_names, within
from lucency.evaluation.evaluate import MACRO, MICRO, TRIVIAL

FEW = 30  # positives below which a finding's numbers say little
DIGITS = range(1, 7)  # of a printed score; more are not compared


def few_positives(predictions: UnverifiedPredictions) -> list[Issue]:
    """Return the findings with fewer than FEW positive films."""
    counts = (predictions.label == 1).sum(axis=0).tolist()
    pairs = zip(predictions.findings, counts, strict=True)
    few = [f"{name} ({count})" for name, count in pairs if count < FEW]
    message = (
        f"fewer than {FEW} positive test films of {', '.join(few)}: another few films would give "
        "another number"
    )
    remedy = "print positives and intervals beside the scores, or test on more films"
    return issues_of("few_positives", few, message, remedy=remedy, severity="note")


def scored_as_test(predictions: UnverifiedPredictions) -> list[Issue]:
    """Return the films scored as test that are of another part, by themselves or by the split."""
    part = predictions.part.astype(object)
    listed = dict(zip(film_names(predictions.listed), predictions.listed_part, strict=True))
    there = np.array([listed.get(name, "test") for name in film_names(predictions.image)], object)
    part = np.where((part == "test") | (there == "train"), there, part)
    found: list[Issue] = []
    for other, use in (("train", "trained the network"), ("val", "chose epoch and thresholds")):
        names = predictions.image[part == other].tolist()
        message = (
            f"{predictions.network}: {len(names):,} of {len(part):,} films scored as test are "
            f"{other} films, which {use}: such a score is too high"
        )
        remedy = 'score the test part alone: predictions.of("test")'
        found += issues_of("scored_as_test", names, message, remedy=remedy)
    return found


def missing_predictions(predictions: UnverifiedPredictions) -> list[Issue]:
    """Return the split's test films without prediction, and predicted films that it does not list.

    Nothing where no split is at hand.
    """
    listed, film = film_names(predictions.listed), film_names(predictions.image)
    tests = listed[predictions.listed_part == "test"]
    lost = tests[~within(tests, film)].tolist()
    message = (
        f"{predictions.network}: {len(lost):,} of {len(tests):,} test films have no prediction: a "
        "score on the rest is not one on the test part"
    )
    found = issues_of("missing_predictions", lost, message, remedy="predict them, or say why not")
    strange = film[~within(film, listed)].tolist() if len(listed) else []
    message = (
        f"{predictions.network}: {len(strange):,} of {len(film):,} predicted films are in no part "
        "of the split: whether they were trained on is unknown"
    )
    remedy = "take the split that the network was trained under, and join by image name"
    return found + issues_of("missing_predictions", strange, message, remedy=remedy)


def duplicate_predictions(predictions: UnverifiedPredictions) -> list[Issue]:
    """Return the films that are scored more than once, copies included."""
    again = pd.Series(film_names(predictions.image)).duplicated().to_numpy()
    names = predictions.image[again].tolist()
    message = (
        f"{predictions.network}: {len(names):,} of {len(again):,} rows score a film once more: it "
        "counts several times"
    )
    remedy = "keep one row a film; of several predictions, their mean, if that is what is studied"
    return issues_of("duplicate_predictions", names, message, remedy=remedy)


def fitted_elsewhere(predictions: UnverifiedPredictions) -> list[Issue]:
    """Return what was fitted on another part than validation, or under another split."""
    found: list[Issue] = []
    for fitted in predictions.fitted:
        place = f"{predictions.network}: {fitted.what}"
        wrong = [fitted.part] if fitted.part != "val" else []
        message = f"{place} were fitted on {fitted.part} films, not on validation: "
        message += "they know what they are scored on" if fitted.part == "test" else _SEEN
        remedy = "fit them on validation films: lucency.evaluation.thresholds.threshold_table"
        found += issues_of("fitted_elsewhere", wrong, message, remedy=remedy)
        known = bool(fitted.split and predictions.split)
        strange = [fitted.split] if known and fitted.split != predictions.split else []
        message = (
            f"{place} were fitted under split {fitted.split}, the predictions are of split "
            f"{predictions.split}: test films may have been among those they were fitted on"
        )
        remedy = "fit them on the validation films of the split that is scored"
        found += issues_of("fitted_elsewhere", strange, message, remedy=remedy)
    return found


def mean_of_another_table(predictions: UnverifiedPredictions) -> list[Issue]:
    """Return the macro scores that are not the mean of the findings beside them.

    As exactly as the table is printed: a unit of its last digit is allowed.
    """
    scores, wrong = predictions.scores, []
    for network, metric in dict.fromkeys(zip(scores["network"], scores["metric"], strict=True)):
        rows = scores.loc[(scores["network"] == network) & (scores["metric"] == metric)]
        value = dict(zip(rows["finding"], rows["value"].astype(float).tolist(), strict=True))
        macro, micro = value.pop(MACRO, np.nan), value.pop(MICRO, np.nan)
        single = np.array([one for one in value.values() if not np.isnan(one)])
        unit = _unit(np.array([*single, macro]))
        if len(single) and abs(macro - single.mean()) > unit:
            pooled = ", which is the pooled one" if abs(macro - micro) <= unit else ""
            values = f"{macro:.6g}{pooled}, the mean is {single.mean():.6g}"
            wrong.append(f"{network} {metric}: {values}")
    message = (
        f"{len(wrong):,} macro scores are not the mean of their table ({'; '.join(wrong)}): one of "
        "the two is of another run"
    )
    remedy = "print both from one file, as lucency.evaluation.evaluate makes it"
    return issues_of("mean_of_another_table", wrong, message, remedy=remedy)


def unexplained_gaps(predictions: UnverifiedPredictions) -> list[Issue]:
    """Return the scores that are absent without a reason."""
    scores = predictions.scores
    bare = scores["note"].isna() | (scores["note"] == "")
    gaps = scores.loc[scores["value"].isna() & bare]
    message = (
        f"{len(gaps):,} of {len(scores):,} scores are absent without a reason: an error was "
        "swallowed, and a mean over the rest hides it"
    )
    remedy = "let the error be seen, or say why the score cannot be computed"
    return issues_of("unexplained_gaps", _cells(gaps), message, remedy=remedy)


def no_interval(predictions: UnverifiedPredictions) -> list[Issue]:
    """Return the AUCs without an interval."""
    scores = predictions.scores
    explained = scores["note"].fillna("").astype(str).str.contains("no interval", regex=False)
    bare = (scores["low"].isna() | scores["high"].isna()) & ~explained
    rows = scores.loc[(scores["metric"] == "auc") & scores["value"].notna() & bare]
    message = (
        f"{len(rows):,} AUCs have no interval: a difference between networks may be one between "
        "samples of patients"
    )
    remedy = "resample patients: lucency.evaluation.evaluate.evaluate"
    return issues_of("no_interval", _cells(rows), message, remedy=remedy, severity="note")


def no_baseline(predictions: UnverifiedPredictions) -> list[Issue]:
    """Return the tables with accuracy but no trivial predictor, or with pooled AUC but no macro."""
    scores = predictions.scores
    networks = scores.loc[scores["metric"] == "accuracy", "network"].drop_duplicates()
    alone = networks.tolist() if TRIVIAL not in set(scores["network"]) else []
    message = (
        f"accuracy is given for {', '.join(alone)} without the trivial predictor's beside it: "
        "calling everything negative scores about .92 to .95 on these labels"
    )
    remedy = "add its rows: lucency.evaluation.evaluate.trivial"
    found = issues_of("no_baseline", alone, message, remedy=remedy, severity="note")
    area = scores.loc[scores["metric"] == "auc"].groupby("network", sort=False)["finding"]
    pooled = [str(name) for name, of in area if MICRO in set(of) and MACRO not in set(of)]
    message = (
        f"AUC is pooled over findings for {', '.join(pooled)}: knowing which findings are common "
        "raises it, so it does not compare with published means"
    )
    remedy = "give the mean over findings first, and name the pooled one"
    return found + issues_of("no_baseline", pooled, message, remedy=remedy, severity="note")


def _unit(value: Float64[np.ndarray, " k"]) -> float:
    """Return one unit of the last digit that any score has."""
    exact = (d for d in DIGITS if np.allclose(value, value.round(d), rtol=0, atol=1e-9))
    return 1.001 * 10.0 ** -next(exact, DIGITS[-1])


def _cells(rows: pd.DataFrame) -> list[str]:
    named = rows[["network", "finding", "metric"]].astype(str)
    return named.agg(" ".join, axis=1).tolist() if len(rows) else []


_SEEN = "the network saw them, so that its probabilities are too sure there"

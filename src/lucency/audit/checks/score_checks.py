"""What is wrong with the books beside predictions: rows, parts, thresholds, tables of scores.

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


def few_positives(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the findings with fewer than FEW positive films."""
    counts = (claim.label == 1).sum(axis=0).tolist()
    pairs = zip(claim.findings, counts, strict=True)
    few = [f"{name} ({count})" for name, count in pairs if count < FEW]
    message = (
        f"fewer than {FEW} positive test films of {', '.join(few)}: another few films would give "
        "another number"
    )
    remedy = "print positives and intervals beside the scores, or test on more films"
    return issues_of("few_positives", few, message, remedy=remedy, severity="note")


def scored_as_test(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the films scored as test that are of another part, by themselves or by the split."""
    part = claim.part.astype(object)
    listed = dict(zip(film_names(claim.listed), claim.listed_part, strict=True))
    there = np.array([listed.get(name, "test") for name in film_names(claim.image)], object)
    part = np.where((part == "test") | (there == "train"), there, part)
    found: list[Issue] = []
    for other, use in (("train", "trained the network"), ("val", "chose epoch and thresholds")):
        names = claim.image[part == other].tolist()
        message = (
            f"{claim.network}: {len(names):,} of {len(part):,} films scored as test are {other}"
            f" films, which {use}: such a score is too high"
        )
        remedy = 'score the test part alone: predictions.of("test")'
        found += issues_of("scored_as_test", names, message, remedy=remedy)
    return found


def missing_predictions(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the split's test films without prediction, and predicted films that it does not list.

    Nothing where no split is at hand.
    """
    listed, film = film_names(claim.listed), film_names(claim.image)
    tests = listed[claim.listed_part == "test"]
    lost = tests[~within(tests, film)].tolist()
    message = (
        f"{claim.network}: {len(lost):,} of {len(tests):,} test films have no prediction: a "
        "score on the rest is not one on the test part"
    )
    found = issues_of("missing_predictions", lost, message, remedy="predict them, or say why not")
    strange = film[~within(film, listed)].tolist() if len(listed) else []
    message = (
        f"{claim.network}: {len(strange):,} of {len(film):,} predicted films are in no part of "
        "the split: nobody knows whether they were trained on"
    )
    remedy = "take the split that the network was trained under, and join by image name"
    return found + issues_of("missing_predictions", strange, message, remedy=remedy)


def duplicate_predictions(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the films that are scored more than once, copies included."""
    again = pd.Series(film_names(claim.image)).duplicated().to_numpy()
    names = claim.image[again].tolist()
    message = (
        f"{claim.network}: {len(names):,} of {len(again):,} rows score a film once more: it "
        "counts several times"
    )
    remedy = "keep one row a film; of several predictions, their mean, if that is what is studied"
    return issues_of("duplicate_predictions", names, message, remedy=remedy)


def fitted_elsewhere(claim: UnverifiedPredictions) -> list[Issue]:
    """Return what was fitted on another part than validation, or under another split."""
    found: list[Issue] = []
    for fitted in claim.fitted:
        place = f"{claim.network}: {fitted.what}"
        wrong = [fitted.part] if fitted.part != "val" else []
        message = f"{place} were fitted on {fitted.part} films, not on validation: "
        message += "they know what they are scored on" if fitted.part == "test" else _SEEN
        remedy = "fit them on validation films: lucency.evaluation.thresholds.threshold_table"
        found += issues_of("fitted_elsewhere", wrong, message, remedy=remedy)
        known = bool(fitted.split and claim.split)
        strange = [fitted.split] if known and fitted.split != claim.split else []
        message = (
            f"{place} were fitted under split {fitted.split}, the predictions are of split "
            f"{claim.split}: test films may have been among those they were fitted on"
        )
        remedy = "fit them on the validation films of the split that is scored"
        found += issues_of("fitted_elsewhere", strange, message, remedy=remedy)
    return found


def mean_of_another_table(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the macro scores that are not the mean of the findings beside them.

    As exactly as the table is printed: a unit of its last digit is allowed.
    """
    scores, wrong = claim.scores, []
    for network, metric in dict.fromkeys(zip(scores["network"], scores["metric"], strict=True)):
        rows = scores.loc[(scores["network"] == network) & (scores["metric"] == metric)]
        value = dict(zip(rows["finding"], rows["value"].astype(float).tolist(), strict=True))
        macro, micro = value.pop(MACRO, np.nan), value.pop(MICRO, np.nan)
        single = np.array([one for one in value.values() if not np.isnan(one)])
        unit = _unit(np.array([*single, macro]))
        if len(single) and abs(macro - single.mean()) > unit:
            pooled = ", which is the pooled one" if abs(macro - micro) <= unit else ""
            said = f"{network} {metric}: {macro:.6g}{pooled}, the mean is {single.mean():.6g}"
            wrong.append(said)
    message = (
        f"{len(wrong):,} macro scores are not the mean of their table ({'; '.join(wrong)}): one of "
        "the two is of another run"
    )
    remedy = "print both from one file, as judge.evaluate writes it"
    return issues_of("mean_of_another_table", wrong, message, remedy=remedy)


def unexplained_gaps(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the scores that are absent without a reason."""
    scores = claim.scores
    unsaid = scores["note"].isna() | (scores["note"] == "")
    gaps = scores.loc[scores["value"].isna() & unsaid]
    message = (
        f"{len(gaps):,} of {len(scores):,} scores are absent without a reason: an error was "
        "swallowed, and a mean over the rest hides it"
    )
    remedy = "let the error be seen, or say why the score cannot be computed"
    return issues_of("unexplained_gaps", _cells(gaps), message, remedy=remedy)


def no_interval(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the AUCs without an interval."""
    scores = claim.scores
    explained = scores["note"].fillna("").astype(str).str.contains("no interval", regex=False)
    bare = (scores["low"].isna() | scores["high"].isna()) & ~explained
    rows = scores.loc[(scores["metric"] == "auc") & scores["value"].notna() & bare]
    message = (
        f"{len(rows):,} AUCs have no interval: nobody can tell a difference between networks from "
        "one between samples of patients"
    )
    remedy = "resample patients: lucency.evaluation.evaluate.evaluate"
    return issues_of("no_interval", _cells(rows), message, remedy=remedy, severity="note")


def no_baseline(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the tables with accuracy but no trivial predictor, or with pooled AUC but no macro."""
    scores = claim.scores
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
        "raises it, so it stands beside no published mean"
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

"""What is wrong with predictions, taken as somebody gave them, and with tables made from them.

Every check is a mistake seen in published work, named in CHECKS; here are those of the numbers,
those of rows, parts, thresholds and tables are in `bookkeeping`. Letters in shapes: n films,
k findings, r resamples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy.optimize import linear_sum_assignment
from scipy.special import expit

from lucency.audit.checks.issue import Issue, issues_of, ranked
from lucency.audit.checks.score_checks import (
    duplicate_predictions,
    few_positives,
    fitted_elsewhere,
    mean_of_another_table,
    missing_predictions,
    no_baseline,
    no_interval,
    scored_as_test,
    unexplained_gaps,
)
from lucency.audit.checks.unverified import UnverifiedPredictions
from lucency.evaluation.bootstrap import interval, once
from lucency.evaluation.metrics import auc

CLEAR = 4.0  # standard errors: by chance once in 30,000
GAIN = 0.05  # of AUC, below which another column is not clearly the better one
CAP, NEAR_CAP = float(expit(1.0)), 1e-3  # the sigmoid of a probability lies in .5 to CAP
LOGITS = 0.01  # share below 0 from which numbers are logits, not probabilities gone astray
OVERSTATED = 2.0  # mean probability over the share of positives
NEARLY_STILL = 0.02  # so that films are hardly told apart
STILL = 1e-6  # relative range below which an output is one number


def suspect(claim: UnverifiedPredictions) -> list[Issue]:
    """Return what is wrong with predictions, the serious first; nothing where nothing is."""
    return ranked([issue for check in CHECKS.values() for issue in check(claim)])


def outside_0_to_1(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the films with a number that is no probability, unless all are logits."""
    said = claim.probability
    outside = ~((said >= 0) & (said <= 1))
    films = [] if _logits(said) else claim.image[outside.any(axis=1)].tolist()
    message = (
        f"{claim.network}: {outside.sum():,} of {said.size:,} probabilities lie outside 0 to 1 "
        "or are no numbers: calibration and thresholds mean nothing on them"
    )
    remedy = "find where they come from (percent? films not predicted?) and predict again"
    return issues_of("outside_0_to_1", films, message, remedy=remedy)


def logits_as_probabilities(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the findings whose probabilities are logits, being below 0 too often for a slip."""
    said = claim.probability
    names = _named(claim, np.asarray((said < 0).any(axis=0))) if _logits(said) else []
    message = (
        f"{claim.network}: {np.mean(said < 0) if said.size else 0:.0%} of the probabilities "
        "are below 0: they are logits, on which a threshold of .5 is not one of probability"
    )
    remedy = "apply the sigmoid, once, or hand them over as logits"
    return issues_of("logits_as_probabilities", names, message, remedy=remedy)


def double_sigmoid(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the findings whose probabilities went through a sigmoid twice.

    All lie in .5 to sigmoid(1) = .7311 then; or none passes that and several findings reach it.
    """
    said = claim.probability
    if not said.size or not (said <= CAP + STILL).all():
        return []
    squeezed, capped = said.min() >= 0.5, np.asarray(said.max(axis=0) >= CAP - NEAR_CAP)
    if not squeezed and capped.sum() < 2:
        return []
    message = (
        f"{claim.network}: the probabilities run from {said.min():.4f} to {said.max():.4f}, "
        f"and sigmoid(1) is {CAP:.4f}: a sigmoid was applied twice, so none is a share"
    )
    names = _named(claim, np.full(len(capped), True) if squeezed else capped)
    remedy = "apply the sigmoid to logits alone, once, and fit the thresholds anew"
    return issues_of("double_sigmoid", names, message, remedy=remedy)


def constant_output(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the findings of which all films are told the same; a note, where nearly the same."""
    said = claim.probability
    if len(said) < 2:
        return []
    spread = np.ptp(said, axis=0) / np.maximum(np.abs(said).max(axis=0), STILL)
    names = _named(claim, np.asarray(spread <= STILL))
    message = (
        f"{claim.network}: all {len(said):,} films are told the same of {', '.join(names)}: "
        "the network does not look at them"
    )
    remedy = "check that weights were loaded and that the films differ"
    found = issues_of("constant_output", names, message, remedy=remedy)
    names = _named(claim, np.asarray((spread > STILL) & (spread <= NEARLY_STILL)))
    message = f"{claim.network}: all films are told nearly the same of {', '.join(names)}, so that "
    message += "last digits decide what is called positive"
    return found + issues_of("constant_output", names, message, remedy=remedy, severity="note")


def chance(claim: UnverifiedPredictions) -> list[Issue]:
    """Return where the interval of AUC holds .5: macro is serious, single findings are a note."""
    low, high = interval(claim.area[:, 1:])
    holds = (low <= 0.5) & (high >= 0.5)
    value, names = claim.area[-1, 0], _named(claim, holds[:-1])
    message = (
        f"{claim.network}: macro AUC is {value:.3f} ({low[-1]:.3f} to {high[-1]:.3f}), whose "
        "interval holds .5, chance: it may have learnt nothing"
    )
    whole = ["macro"] if holds[-1] else []
    remedy = "check that weights were loaded, all of them, and that labels are joined by name"
    found = issues_of("chance", whole, message, remedy=remedy)
    message = (
        f"{claim.network}: the interval of AUC holds .5, chance, for {', '.join(names)}: these "
        "films do not show that it knows them"
    )
    remedy = "print the intervals beside the numbers, or test on more films"
    return found + issues_of("chance", names, message, remedy=remedy, severity="note")


def inverted_labels(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the findings whose AUC is clearly below .5, by CLEAR standard errors."""
    area = claim.area[:-1]
    error = [_error(claim, place, row[1:]) for place, row in enumerate(area)]
    places = np.flatnonzero(area[:, 0] + CLEAR * np.array(error) < 0.5).tolist()
    names = [f"{claim.findings[place]} ({area[place, 0]:.3f})" for place in places]
    message = (
        f"{claim.network}: AUC is clearly below .5 for {', '.join(names)}: it tells the "
        "finding, and says the contrary"
    )
    remedy = "look for 1 - p, for labels where 0 means present, and for the order of columns"
    return issues_of("inverted_labels", names, message, remedy=remedy)


def column_order(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the findings that another column ranks clearly better, where columns were permuted.

    The order of columns of highest mean AUC is sought (Kuhn's assignment). It is believed when of
    the findings it moves two at least, and most, gain GAIN of AUC and CLEAR standard errors of it.
    """
    best = _assigned(claim)
    moved = np.flatnonzero(best != np.arange(len(best))).tolist()
    gain = {place: _gain(claim, place, int(best[place])) for place in moved}
    clear = [place for place in moved if gain[place]]
    if len(clear) < max(2, len(moved) / 2):
        return []
    said = [
        f"{claim.findings[best[place]]} ranks {claim.findings[place]} ({gain[place]})"
        for place in clear
    ]
    order = ", ".join(claim.findings[place] for place in np.argsort(best))
    message = (
        f"{claim.network}: columns stand in another order than the findings: "
        f"{'; '.join(said)}: scores are those of other findings"
    )
    remedy = f"name the columns where they are made; the likely order is {order}"
    return issues_of("column_order", said, message, remedy=remedy)


def overstated_risk(claim: UnverifiedPredictions) -> list[Issue]:
    """Return the findings whose mean probability is clearly twice the share of positives or more.

    The mark of training with weights or on copies; clearly is CLEAR standard errors of the count.
    """
    stated = ~np.isnan(claim.label) & ~np.isnan(claim.probability)
    told = np.where(stated, claim.probability, 0).sum(axis=0)
    there = np.where(stated, claim.label, 0).sum(axis=0)
    over = (told >= OVERSTATED * there) & (told - there > CLEAR * np.sqrt(np.abs(told)))
    films = np.maximum(1, stated.sum(axis=0))
    triples = zip(claim.findings, told / films, there / films, over, strict=True)
    names = [f"{name} ({mean:.1%} for {share:.1%})" for name, mean, share, bad in triples if bad]
    message = (
        f"{claim.network}: the mean probability is twice the share of positives or more for "
        f"{', '.join(names)}: these are no risks, as after training with weights or copies"
    )
    remedy = 'recalibrate on validation films: evaluation.recalibration = "platt"'
    return issues_of("overstated_risk", names, message, remedy=remedy, severity="note")


def _named(claim: UnverifiedPredictions, which: Bool[np.ndarray, " k"]) -> list[str]:
    return [name for name, true in zip(claim.findings, which, strict=True) if true]


def _logits(said: Float[np.ndarray, "n k"]) -> bool:
    return bool(said.size and np.mean(said < 0) >= LOGITS)


def _error(claim: UnverifiedPredictions, place: int, sampled: Float64[np.ndarray, " r"]) -> float:
    """Return the standard error of an AUC: over resamples, and not below that of chance.

    Under chance it is sqrt((P + N + 1) / 12 P N) (Mann and Whitney 1947), NaN without both classes.
    """
    label = claim.label[:, place]
    positives, negatives = int((label == 1).sum()), int((label == 0).sum())
    if not (positives and negatives):
        return np.nan
    least = np.sqrt((positives + negatives + 1) / (12 * positives * negatives))
    known = sampled[~np.isnan(sampled)]
    return float(max(least, known.std() if len(known) else 0))


def _assigned(claim: UnverifiedPredictions) -> Int64[np.ndarray, " k"]:
    """Return for each finding the column that ranks it best, each column once, in sum."""
    label, said = claim.label[claim.whole], claim.probability[claim.whole]
    weights = once(len(said))
    area = [[auc(y, p, weights=weights)[0] for p in said.T] for y in label.T]
    square = np.array(area).reshape(said.shape[1], -1)
    return linear_sum_assignment(-np.nan_to_num(square, nan=0.5))[1].astype(np.int64)


def _gain(claim: UnverifiedPredictions, place: int, other: int) -> str:
    """Return both AUCs of a finding where the other column's is clearly higher, else nothing.

    Higher than chance too: labels that are inverted would be ranked better by any column.
    """
    own, theirs = claim.area[place], claim.sampled(place, other)
    more = theirs - np.maximum(own, 0.5)
    clear = more[0] >= GAIN and more[0] > CLEAR * _error(claim, place, more[1:])
    return f"{theirs[0]:.3f} for {own[0]:.3f}" if clear else ""


CHECKS: dict[str, Callable[[UnverifiedPredictions], list[Issue]]] = {
    "outside_0_to_1": outside_0_to_1,
    "logits_as_probabilities": logits_as_probabilities,
    "double_sigmoid": double_sigmoid,
    "constant_output": constant_output,
    "chance": chance,
    "inverted_labels": inverted_labels,
    "column_order": column_order,
    "overstated_risk": overstated_risk,
    "few_positives": few_positives,
    "scored_as_test": scored_as_test,
    "missing_predictions": missing_predictions,
    "duplicate_predictions": duplicate_predictions,
    "fitted_elsewhere": fitted_elsewhere,
    "mean_of_another_table": mean_of_another_table,
    "unexplained_gaps": unexplained_gaps,
    "no_interval": no_interval,
    "no_baseline": no_baseline,
}

"""The leak doctor on predictions: their numbers, rows and parts, thresholds, and tables of scores.

Every check is a mistake seen in published work, named in CHECKS. Letters in shapes: n films, k
findings, r resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int64
from scipy.optimize import linear_sum_assignment
from scipy.special import expit
from scipy.stats import rankdata

from lucency.audit.checks.issue import (
    RESAMPLES,
    Issue,
    UnverifiedPredictions,
    issues_of,
    ranked,
)
from lucency.core.manifest import counted, listed, mean_over
from lucency.core.tables import film_names, within
from lucency.evaluation.bootstrap import ratio
from lucency.evaluation.evaluate import MACRO, MICRO, TRIVIAL
from lucency.evaluation.intervals import auc_intervals

CLEAR = 4.0  # standard errors: by chance once in 30,000
GAIN = 0.05  # of AUC, below which another column is not clearly the better one
CAP, NEAR_CAP = float(expit(1.0)), 1e-3  # the sigmoid of a probability lies in .5 to CAP
LOGITS = 0.01  # share below 0 from which numbers are logits, not probabilities gone astray
SQUEEZED = 0.05  # above the share of positives, which a second sigmoid brings at least
OVERSTATED = 2.0  # mean probability over the share of positives
NEARLY_STILL = 0.02  # so that films hardly differ
STILL = 1e-6  # relative range below which an output is one number
FEW = 30  # positives below which a finding's numbers say little
DIGITS = range(1, 7)  # of a printed score; more are not compared


def check_predictions(predictions: UnverifiedPredictions) -> list[Issue]:
    """Return what is wrong with predictions, the serious issues first."""
    return ranked(issue for check in CHECKS.values() for issue in check(predictions))


def outside_0_to_1(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return the films with a number that is no probability, unless all are logits."""
    probability = predictions.probability
    outside = ~((probability >= 0) & (probability <= 1))
    films = [] if _logits(probability < 0) else predictions.image[outside.any(axis=1)].tolist()
    message = (
        f"{predictions.network}: {outside.sum():,} of {outside.size:,} probabilities lie outside "
        "0 to 1 or are no numbers: calibration and thresholds mean nothing on them"
    )
    remedy = "find where they come from (percent? films not predicted?) and predict again"
    return issues_of("outside_0_to_1", films, message, remedy=remedy)


def logits_as_probabilities(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return the findings whose probabilities are logits, being below 0 too often for a slip."""
    below = predictions.probability < 0
    names = _named(predictions, np.asarray(below.any(axis=0))) if _logits(below) else []
    message = (
        f"{predictions.network}: {np.mean(below) if below.size else 0:.0%} of the probabilities "
        "are below 0: they are logits, on which a threshold of .5 is not one of probability"
    )
    remedy = "apply the sigmoid, once, or hand them over as logits"
    return issues_of("logits_as_probabilities", names, message, remedy=remedy)


def double_sigmoid(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return the findings of a table whose probabilities went through a sigmoid twice.

    All lie in .5 to sigmoid(1) = .7311 then, or none passes that and several findings reach it; and
    they are clearly above the shares of positives, by SQUEEZED and CLEAR standard errors of the
    count. Nothing of a network's own logits, nor where no label is stated.
    """
    probability = predictions.probability
    if predictions.own or not probability.size or not (probability <= CAP + STILL).all():
        return
    squeezed = probability.min() >= 0.5
    capped = np.asarray(probability.max(axis=0) >= CAP - NEAR_CAP)
    found = np.full(len(capped), True) if squeezed else capped
    if found.sum() < 1 + (not squeezed) or not _above_shares(predictions, found):
        return
    message = (
        f"{predictions.network}: the probabilities run from {probability.min():.4f} to "
        f"{probability.max():.4f}, and sigmoid(1) is {CAP:.4f}: a sigmoid was applied twice, so "
        "none is a share"
    )
    remedy = "apply the sigmoid to logits alone, once, and fit the thresholds anew"
    yield from issues_of("double_sigmoid", _named(predictions, found), message, remedy=remedy)


def constant_output(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return the findings with one probability for all films; a note, where it is nearly one."""
    probability = predictions.probability
    if len(probability) < 2:
        return
    spread = np.ptp(probability, axis=0) / np.maximum(np.abs(probability).max(axis=0), STILL)
    names = _named(predictions, np.asarray(spread <= STILL))
    message = (
        f"{predictions.network}: all {len(probability):,} films have the same probability of "
        f"{listed(names)}: it does not depend on the films"
    )
    remedy = "check that weights were loaded and that the films differ"
    yield from issues_of("constant_output", names, message, remedy=remedy)
    names = _named(predictions, np.asarray((spread > STILL) & (spread <= NEARLY_STILL)))
    message = (
        f"{predictions.network}: all films have nearly the same probability of {listed(names)}, "
        "so that last digits decide what is called positive"
    )
    yield from issues_of("constant_output", names, message, remedy=remedy, severity="note")


def chance(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return where the interval of AUC holds .5: macro is serious, single findings are a note."""
    films = predictions.whole
    low, high = auc_intervals(
        predictions.label[films],
        predictions.probability[films],
        area=predictions.area[:-1],
        owner=predictions.patient[films],
    )
    holds = (low <= 0.5) & (high >= 0.5) & (low < high)
    value, names = predictions.area[-1, 0], _named(predictions, holds[:-1])
    known = ~np.isnan(predictions.area[:-1, 0])
    over = "" if known.all() else f"; {mean_over(predictions.findings, known)}"
    message = (
        f"{predictions.network}: macro AUC is {value:.3f} ({low[-1]:.3f} to {high[-1]:.3f} by "
        f"{RESAMPLES} resamples, not those of the evaluation{over}), "
        "whose interval holds .5, chance: it may have learnt nothing"
    )
    whole = ["macro"] if holds[-1] else []
    remedy = "check that weights were loaded, all of them, and that labels are joined by name"
    yield from issues_of("chance", whole, message, remedy=remedy)
    message = (
        f"{predictions.network}: the interval of AUC holds .5, chance, for {listed(names)}: "
        "no evidence of better than chance on these films"
    )
    remedy = "print the intervals beside the numbers, or test on more films"
    yield from issues_of("chance", names, message, remedy=remedy, severity="note")


def inverted_labels(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return the findings whose AUC is clearly below .5, by CLEAR standard errors."""
    area = predictions.area[:-1]
    error = [_error(predictions, place, row[1:]) for place, row in enumerate(area)]
    places = np.flatnonzero(area[:, 0] + CLEAR * np.array(error) < 0.5).tolist()
    names = [f"{predictions.findings[place]} ({area[place, 0]:.3f})" for place in places]
    message = (
        f"{predictions.network}: AUC is clearly below .5 for {listed(names)}: it knows the "
        "finding, and predicts the contrary"
    )
    remedy = "look for 1 - p, for labels where 0 means present, and for the order of columns"
    return issues_of("inverted_labels", names, message, remedy=remedy)


def column_order(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return the findings that another column ranks clearly better, where columns were permuted.

    The order of columns of highest mean AUC is sought (Kuhn's assignment). It counts when of the
    findings it moves two at least, and most, gain GAIN of AUC and CLEAR standard errors of it.
    """
    best = _assigned(predictions)
    moved = np.flatnonzero(best != np.arange(len(best))).tolist()
    gain = {place: _gain(predictions, place, int(best[place])) for place in moved}
    clear = [place for place in moved if gain[place]]
    if len(clear) < max(2, len(moved) / 2):
        return
    pairs = [
        f"{predictions.findings[best[place]]} ranks {predictions.findings[place]} ({gain[place]})"
        for place in clear
    ]
    order = ", ".join(predictions.findings[place] for place in np.argsort(best))
    message = (
        f"{predictions.network}: columns stand in another order than the findings: "
        f"{listed(pairs)}: scores are those of other findings"
    )
    remedy = f"name the columns where they are made; the likely order is {order}"
    yield from issues_of("column_order", pairs, message, remedy=remedy)


def overstated_risk(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return the findings whose mean probability is clearly twice the share of positives or more.

    The mark of training with weights or on copies; clearly is CLEAR standard errors of the count.
    """
    stated = ~np.isnan(predictions.label) & ~np.isnan(predictions.probability)
    expected = np.where(stated, predictions.probability, 0).sum(axis=0)
    there = np.where(stated, predictions.label, 0).sum(axis=0)
    over = expected >= OVERSTATED * there
    over &= expected - there > CLEAR * np.sqrt(np.abs(expected))
    films = np.maximum(1, stated.sum(axis=0))
    triples = zip(predictions.findings, expected / films, there / films, over, strict=True)
    names = [f"{name} ({mean:.1%} for {share:.1%})" for name, mean, share, bad in triples if bad]
    message = (
        f"{predictions.network}: the mean probability is twice the share of positives or more for "
        f"{listed(names)}: these are no risks, as after training with weights or copies"
    )
    remedy = 'recalibrate on validation films: evaluation.recalibration = "platt"'
    return issues_of("overstated_risk", names, message, remedy=remedy, severity="note")


def few_positives(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return the findings that are stated, with fewer than FEW positive films."""
    counts = (predictions.label == 1).sum(axis=0).tolist()
    stated = np.any(~np.isnan(predictions.label), axis=0)
    triples = zip(predictions.findings, counts, stated, strict=True)
    few = [f"{name} ({count})" for name, count, known in triples if known and count < FEW]
    message = (
        f"fewer than {FEW} positive test films of {listed(few)}: another few films would give "
        "another number"
    )
    remedy = "print positives and intervals beside the scores, or test on more films"
    return issues_of("few_positives", few, message, remedy=remedy, severity="note")


def scored_as_test(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return the films scored as test that are of another part, by themselves or by the split."""
    part = predictions.part.astype(object)
    listed = dict(zip(film_names(predictions.listed), predictions.listed_part, strict=True))
    there = np.array([listed.get(name, "test") for name in film_names(predictions.image)], object)
    part = np.where((part == "test") | (there == "train"), there, part)
    for other, use in (("train", "trained the network"), ("val", "chose epoch and thresholds")):
        names = predictions.image[part == other].tolist()
        message = (
            f"{predictions.network}: {len(names):,} of {len(part):,} films scored as test are "
            f"{other} films, which {use}: such a score is too high"
        )
        remedy = 'score the test part alone: predictions.of("test")'
        yield from issues_of("scored_as_test", names, message, remedy=remedy)


def missing_predictions(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return the split's test films without prediction, and predicted films that it does not list.

    Nothing where no split is at hand.
    """
    listed, film = film_names(predictions.listed), film_names(predictions.image)
    tests = listed[predictions.listed_part == "test"]
    lost = tests[~within(tests, film)].tolist()
    message = (
        f"{predictions.network}: {counted(len(lost), 'test film', 'has/have', of=len(tests))} no "
        "prediction: a score on the rest is not one on the test part"
    )
    remedy = "predict them, or say why not"
    yield from issues_of("missing_predictions", lost, message, remedy=remedy)
    strange = film[~within(film, listed)].tolist() if len(listed) else []
    message = (
        f"{predictions.network}: {len(strange):,} of {len(film):,} predicted films are in no part "
        "of the split: whether they were trained on is unknown"
    )
    remedy = "take the split that the network was trained under, and join by image name"
    yield from issues_of("missing_predictions", strange, message, remedy=remedy)


def duplicate_predictions(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return the films that are scored more than once, copies included."""
    again = pd.Series(film_names(predictions.image)).duplicated().to_numpy()
    names = predictions.image[again].tolist()
    message = (
        f"{predictions.network}: {counted(len(names), 'row', 'scores/score', of=len(again))} a "
        "film once more: it counts several times"
    )
    remedy = "keep one row a film; of several predictions, their mean, if that is what is studied"
    return issues_of("duplicate_predictions", names, message, remedy=remedy)


def fitted_elsewhere(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return what was fitted on another part than validation, or under another split."""
    for fitted in predictions.fitted:
        place = f"{predictions.network}: {fitted.what}"
        wrong = [fitted.part] if fitted.part != "val" else []
        seen = "they know what they are scored on"
        if fitted.part != "test":
            seen = "the network saw them, so that its probabilities are too sure there"
        message = f"{place} were fitted on {fitted.part} films, not on validation: {seen}"
        remedy = "fit them on validation films: lucency.evaluation.thresholds.threshold_table"
        yield from issues_of("fitted_elsewhere", wrong, message, remedy=remedy)
        known = bool(fitted.split and predictions.split)
        strange = [fitted.split] if known and fitted.split != predictions.split else []
        message = (
            f"{place} were fitted under split {fitted.split}, the predictions are of split "
            f"{predictions.split}: test films may have been among those they were fitted on"
        )
        remedy = "fit them on the validation films of the split that is scored"
        yield from issues_of("fitted_elsewhere", strange, message, remedy=remedy)


def mean_of_another_table(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return the macro scores that are not the mean of the findings beside them.

    A finding that is never called may count 0. As exactly as the table is printed: a unit of its
    last digit is allowed.
    """
    scores, wrong = predictions.scores, []
    for network, metric in dict.fromkeys(zip(scores["network"], scores["metric"], strict=True)):
        rows = scores.loc[(scores["network"] == network) & (scores["metric"] == metric)]
        value = dict(zip(rows["finding"], rows["value"].astype(float).tolist(), strict=True))
        macro, micro = value.pop(MACRO, np.nan), value.pop(MICRO, np.nan)
        single = np.array([one for one in value.values() if not np.isnan(one)])
        unit = _unit(np.array([*single, macro]))
        absent = rows.loc[rows["value"].isna() & ~rows["finding"].isin([MACRO, MICRO])]
        why = absent["note"].fillna("").astype(str)
        never = (why.str.contains("called") & ~why.str.contains("positives|negatives")).sum()
        counts = (len(single), len(single) + never) if len(single) else ()
        apart = [abs(macro - single.sum() / count) for count in counts]
        if apart and min(apart) > unit:
            pooled = ", which is the pooled one" if abs(macro - micro) <= unit else ""
            values = f"{macro:.6g}{pooled}, the mean is {single.mean():.6g}"
            wrong.append(f"{network} {metric}: {values}")
    message = (
        f"{len(wrong):,} macro scores are not the mean of their table ({'; '.join(wrong)}): one of "
        "the two is of another run"
    )
    remedy = "print both from one file, as lucency.evaluation.evaluate makes it"
    return issues_of("mean_of_another_table", wrong, message, remedy=remedy)


def unexplained_gaps(predictions: UnverifiedPredictions) -> Iterator[Issue]:
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


def no_interval(predictions: UnverifiedPredictions) -> Iterator[Issue]:
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


def no_baseline(predictions: UnverifiedPredictions) -> Iterator[Issue]:
    """Return the tables with accuracy but no trivial predictor, or with pooled AUC but no macro."""
    scores = predictions.scores
    networks = scores.loc[scores["metric"] == "accuracy", "network"].drop_duplicates()
    alone = networks.tolist() if TRIVIAL not in set(scores["network"]) else []
    message = (
        f"accuracy is given for {', '.join(alone)} without the trivial predictor's beside it: "
        "calling everything negative scores about .92 to .95 on these labels"
    )
    remedy = "add its rows: lucency.evaluation.evaluate.trivial"
    yield from issues_of("no_baseline", alone, message, remedy=remedy, severity="note")
    area = scores.loc[scores["metric"] == "auc"].groupby("network", sort=False)["finding"]
    pooled = [str(name) for name, of in area if MICRO in set(of) and MACRO not in set(of)]
    message = (
        f"AUC is pooled over findings for {', '.join(pooled)}: knowing which findings are common "
        "raises it, so it does not compare with published means"
    )
    remedy = "give the mean over findings first, and name the pooled one"
    yield from issues_of("no_baseline", pooled, message, remedy=remedy, severity="note")


def _named(predictions: UnverifiedPredictions, which: Bool[np.ndarray, " k"]) -> list[str]:
    return [name for name, true in zip(predictions.findings, which, strict=True) if true]


def _above_shares(predictions: UnverifiedPredictions, findings: Bool[np.ndarray, " k"]) -> bool:
    """Return whether the mean probability of findings is clearly above their share of positives."""
    probability, label = predictions.probability[:, findings], predictions.label[:, findings]
    stated = ~np.isnan(label)
    expected, films = probability[stated], max(1, stated.sum())
    excess = (expected - label[stated]).sum() / films
    error = np.sqrt((expected * (1 - expected)).sum()) / films
    return bool(excess >= max(SQUEEZED, CLEAR * error))


def _logits(below: Bool[np.ndarray, "n k"]) -> bool:
    return bool(below.size and np.mean(below) >= LOGITS)


def _error(
    predictions: UnverifiedPredictions, place: int, sampled: Float64[np.ndarray, " r"]
) -> float:
    """Return the standard error of an AUC: over resamples, and not below that of chance.

    Under chance it is sqrt((P + N + 1) / 12 P N) (Mann and Whitney 1947), NaN without both classes.
    """
    label = predictions.label[:, place]
    positives, negatives = int((label == 1).sum()), int((label == 0).sum())
    if not (positives and negatives):
        return np.nan
    least = np.sqrt((positives + negatives + 1) / (12 * positives * negatives))
    known = sampled[~np.isnan(sampled)]
    return float(max(least, known.std() if len(known) else 0))


def _assigned(predictions: UnverifiedPredictions) -> Int64[np.ndarray, " k"]:
    """Return for each finding the column that ranks it best, each column once, in sum."""
    whole = predictions.whole
    square = areas_by_column(predictions.label[whole], predictions.probability[whole])
    return linear_sum_assignment(-np.nan_to_num(square, nan=0.5))[1].astype(np.int64)


def areas_by_column(
    label: Float[np.ndarray, "n k"], probability: Float[np.ndarray, "n k"]
) -> Float64[np.ndarray, "k k"]:
    """Return the AUC of every finding, a row, by every column of probabilities.

    From the sum of the positives' ranks (Mann and Whitney 1947), among the films that are stated;
    NaN without both classes.
    """
    stated, findings = ~np.isnan(label), label.shape[1]
    alike = {mask.tobytes(): [] for mask in stated.T}
    for place, mask in enumerate(stated.T):
        alike[mask.tobytes()].append(place)
    area = np.empty((findings, findings))
    for places in alike.values():  # findings whose label is stated on the same films
        films = stated[:, places[0]]
        truth = label[films][:, places].T.astype(np.float64)
        rank = rankdata(probability[films], axis=0)
        positives = truth.sum(axis=1, keepdims=True)
        pairs = positives * (films.sum() - positives)
        above = truth @ rank - positives * (positives + 1) / 2
        area[places] = ratio(above, np.broadcast_to(pairs, above.shape))
    return area


def _gain(predictions: UnverifiedPredictions, place: int, other: int) -> str:
    """Return both AUCs of a finding where the other column's is clearly higher, else nothing.

    Higher than chance too: labels that are inverted would be ranked better by any column.
    """
    own, theirs = predictions.area[place], predictions.sampled_auc(place, other)
    more = theirs - np.maximum(own, 0.5)
    clear = more[0] >= GAIN and more[0] > CLEAR * _error(predictions, place, more[1:])
    return f"{theirs[0]:.3f} for {own[0]:.3f}" if clear else ""


def _unit(value: Float64[np.ndarray, " k"]) -> float:
    """Return one unit of the last digit that any score has."""
    exact = (d for d in DIGITS if np.allclose(value, value.round(d), rtol=0, atol=1e-9))
    return 1.001 * 10.0 ** -next(exact, DIGITS[-1])


def _cells(rows: pd.DataFrame) -> list[str]:
    named = rows[["network", "finding", "metric"]].astype(str)
    return named.agg(" ".join, axis=1).tolist() if len(rows) else []


CHECKS: dict[str, Callable[[UnverifiedPredictions], Iterator[Issue]]] = {
    check.__name__: check
    for check in (
        outside_0_to_1, logits_as_probabilities, double_sigmoid, constant_output, chance,
        inverted_labels, column_order, overstated_risk, few_positives, scored_as_test,
        missing_predictions, duplicate_predictions, fitted_elsewhere, mean_of_another_table,
        unexplained_gaps, no_interval, no_baseline,
    )
}  # fmt: skip

"""The metrics: of a finding's ranking, decisions and probabilities, and of whole films.

Every function returns one value for each column of weights: a column says how often each film
counts, once on the films as they are or as a resample of the bootstrap has it. A film whose label
is NaN (not stated) is left out. A value that cannot be computed is NaN, never 0 and never a
warning; `not_computable` says why. METRICS are of one finding, PER_FILM of films over all their
findings. Ranking metrics (RANKED) depend on the order of scores alone, and are all read off counts
at the distinct scores of the positive films. Decision metrics (DECIDED) are functions of the
confusion matrix.

Letters in shapes: n films, k findings, r columns of weights, g levels (the
distinct scores of positive films) or points of a curve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from scipy.special import gammaln, xlog1py, xlogy

from lucency.evaluation.bootstrap import Weights, mean_over_findings, once, ratio

BLOCK = 2**19  # numbers in one working array, 4 MiB; four times as many, and it is slower
LINE = 8  # columns of a working array at least: memory is read by as many numbers at a time
RATE = 0.1  # the false positive rate up to which partial AUC is taken
SPECIFICITY = RECALL = 0.9  # the least that is required
NOTHING = 1e-100  # a probability
WITHOUT_INTERVAL = ("ece",)  # whose values in resamples mean nothing
BINS = 15  # of probability, each of as many films
WITHOUT_BIAS = "average_precision_of_others"
ROUNDING = 1e-9  # of all weight: two sums that differ by less are equal
Label = Float[np.ndarray, " n"]  # 1, 0 or NaN
Labels = Float[np.ndarray, "n k"]
Score = Float[np.ndarray, " n"]  # a logit or a probability
Scores = Float[np.ndarray, "n k"]
Decision = Bool[np.ndarray, " n"]  # True where the film is called positive
Values = Float64[np.ndarray, " r"]
AtLevels = Float64[np.ndarray, "g r"]
Points = Float64[np.ndarray, " g"]
Input = Literal["logit", "probability", "decision"]
Need = Literal["positives", "negatives", "films called positive", "films called negative"]


class Metric(NamedTuple):
    """A metric: what computes it, what of the predictions it takes, and what it means."""

    function: Callable[..., Values]
    takes: Input
    needs: tuple[Need, ...]
    better: Literal["higher", "lower"]
    unit: str
    definition: str


class Cells(NamedTuple):
    """The weight of films called positive or negative, truly or falsely."""

    tp: Values
    fp: Values
    fn: Values
    tn: Values


class Descent(NamedTuple):
    """The weight of films at each level, from the highest down; there is one level at least."""

    positive: AtLevels  # weight of the positive films at the level
    true: AtLevels  # of those at or above it
    above: AtLevels  # of the negative films above it
    false: AtLevels  # of those at or above it
    negatives: Values  # of all negative films
    start: int  # the first of these columns of weights


def measure(
    label: Label, inputs: Mapping[Input, np.ndarray], *, weights: Weights, unbiased: bool = False
) -> dict[str, Values]:
    """Return every metric of METRICS; what several are made of is computed once for all of them.

    `inputs` holds what the metrics take: logit, probability and decision, each of shape n. Of
    WITHOUT_INTERVAL there is the value by the first column of weights, in all columns.
    With `unbiased` that of `precision_of_others` is beside them, as WITHOUT_BIAS.
    """
    cells = count_cells(label, inputs["decision"], weights=weights)
    ranked = [*RANKED, *([WITHOUT_BIAS] if unbiased else [])]
    found = rank_films(label, inputs["logit"], weights=weights, names=ranked)
    found |= {name: function(cells) for name, function in DECIDED.items()}
    # One of two columns, not one alone, whose sums would be rounded in another order.
    first = replace(weights, times=weights.columns(0, 2)[:, :1])
    for name in METRICS.keys() - found.keys():
        function, takes, *_ = METRICS[name]
        mine = first if name in WITHOUT_INTERVAL else weights
        value = function(label, inputs[takes], weights=mine)
        found[name] = np.broadcast_to(value, weights.times.shape[1:])
    return {name: found[name] for name in (*METRICS, *ranked)}


def rank_films(
    label: Label, score: Score, *, weights: Weights, names: Iterable[str]
) -> dict[str, Values]:
    """Return the named metrics, for all of which the films are walked through once.

    They are of RANKED, or WITHOUT_BIAS, that of `precision_of_others`.
    """
    chosen = {name: RANKED.get(name) or _of_others(label, score, weights) for name in names}
    parts: dict[str, list[Values]] = {name: [] for name in chosen}
    for descent in _descents(label, score, weights):
        both = (descent.true[-1] > 0) & (descent.negatives > 0)
        for name, function in chosen.items():
            parts[name].append(np.where(both, function(descent), np.nan))
    nothing = [np.full(weights.times.shape[1], np.nan)]
    return {name: np.concatenate(values or nothing) for name, values in parts.items()}


def auc(label: Label, score: Score, *, weights: Weights) -> Values:
    """Return the area under the ROC curve: how often a positive film scores above a negative."""
    return rank_films(label, score, weights=weights, names=["auc"])["auc"]


def precision_of_others(label: Label, score: Score, *, weights: Weights) -> Values:
    """Return the average precision without its bias: a film's patient is not counted beside it.

    A positive film's precision is the share of positives among *other* patients' films that score
    as high, 1 where there are none. Counted beside itself it raises its own precision, much where
    positives are few, and a bootstrap, which repeats it, raises it again. If p and n of the others
    reach the score, independent counts of Poisson, p / (p + n) is without bias: given p + n, p is
    binomial. For intervals; `average_precision` is what others compute.
    """
    return rank_films(label, score, weights=weights, names=[WITHOUT_BIAS])[WITHOUT_BIAS]


def _of_others(label: Label, score: Score, weights: Weights) -> Callable[[Descent], Values]:
    """Return what makes the average precision without its bias of a descent of these films."""
    films, order = np.flatnonzero(label == 1), -score.astype(np.float64)
    place = np.unique(order[films], return_inverse=True)[1]
    mine = weights.owner[films]
    own_true, own_false = (
        _reached(order, weights.owner, np.flatnonzero(label == value), films)[:, None]
        for value in (1, 0)
    )

    def mean_precision(descent: Descent) -> Values:
        end = descent.start + descent.true.shape[1]
        times = weights.times[mine, descent.start : end].astype(np.float64)
        true = descent.true[place] - times * own_true
        called = true + descent.false[place] - times * own_false
        share = np.divide(true, called, out=np.ones_like(called), where=called > ROUNDING)
        return ratio(_dot(times, share), descent.true[-1])

    return mean_precision


def _reached(
    order: Float64[np.ndarray, " n"],
    owner: Int64[np.ndarray, " n"],
    among: Int64[np.ndarray, " m"],
    film: Int64[np.ndarray, " g"],
) -> Float64[np.ndarray, " g"]:
    """Return how many of the films `among`, of the same owner, come no later in the order."""
    _, rank = np.unique(order, return_inverse=True)
    rank, step = rank + 1, len(order) + 1
    theirs = np.sort(owner[among] * step + rank[among])
    last = np.searchsorted(theirs, owner[film] * step + rank[film], side="right")
    return (last - np.searchsorted(theirs, owner[film] * step)).astype(np.float64)


def by_finding(
    name: str, label: Labels, given: Shaped[np.ndarray, "n k"], *, weights: Weights
) -> Float64[np.ndarray, "k r"]:
    """Return a metric of METRICS of every finding; `given` is what it takes."""
    pairs = zip(label.T, given.T, strict=True)
    return np.stack([METRICS[name].function(*pair, weights=weights) for pair in pairs])


def macro_auc(label: Labels, score: Scores) -> float:
    """Return the mean AUC over the findings that have both classes; NaN when none has."""
    return float(mean_over_findings(by_finding("auc", label, score, weights=once(len(label))))[0])


def count_cells(label: Label, decision: Decision, *, weights: Weights) -> Cells:
    """Return the confusion matrix; a film whose label is NaN (not stated) is left out."""
    positive, negative = label == 1, label == 0
    cells = [positive & decision, negative & decision, positive & ~decision, negative & ~decision]
    return Cells(*weights.total(np.stack(cells).astype(np.float64)))


def bce(label: Label, logit: Score, *, weights: Weights) -> Values:
    """Return the mean binary cross-entropy in nats, from logits: log(1 + exp(z)) - y z."""
    wide = logit.astype(np.float64)
    loss = np.logaddexp(0, np.where(label == 1, -wide, wide))
    return mean_over_films(np.where(np.isnan(label), np.nan, loss), weights=weights)


def brier(label: Label, probability: Score, *, weights: Weights) -> Values:
    """Return the mean squared difference of probability and label (Brier 1950, one class)."""
    return mean_over_films((probability.astype(np.float64) - label) ** 2, weights=weights)


def mean_over_films(value: Float64[np.ndarray, " n"], *, weights: Weights) -> Values:
    """Return the weighted mean of a value for each film; films without one (NaN) are left out."""
    stated = ~np.isnan(value)
    total, count = weights.total(np.stack([np.where(stated, value, 0), stated.astype(np.float64)]))
    return ratio(total, count)


def label_ranking_loss(label: Labels, score: Scores, *, weights: Weights) -> Values:
    """Return the share of a film's pairs of present and absent finding that are ordered wrongly.

    A tie is wrong, and a film whose findings are all present, or all absent, has no loss: as
    scikit-learn's `label_ranking_loss`. Tsoumakas, Katakis and Vlahavas, Data Mining and Knowledge
    Discovery Handbook (2010), 667-685.
    """
    present, absent = label == 1, label == 0
    pairs = present.sum(axis=1) * absent.sum(axis=1)
    wrong = np.zeros(len(label))
    # One finding at a time: all pairs at once would hold k numbers a cell.
    for finding in range(label.shape[1]):
        reached = (absent & (score >= score[:, [finding]])).sum(axis=1)
        wrong += present[:, finding] * reached
    loss = np.where(np.isnan(label).all(axis=1), np.nan, wrong / np.maximum(pairs, 1))
    return mean_over_films(loss, weights=weights)


def exact_match(label: Labels, decision: Bool[np.ndarray, "n k"], *, weights: Weights) -> Values:
    """Return the share of films of which every finding is called right.

    As scikit-learn's `accuracy_score` of a table: the subset accuracy of Zhu, Ji, Xu and Gong,
    SIGIR (2005), 274-281.
    """
    right = (np.isnan(label) | (decision == label)).all(axis=1)
    stated = np.where(np.isnan(label).all(axis=1), np.nan, right)
    return mean_over_films(stated, weights=weights)


def not_computable(name: str, *, label: Label, decision: Decision) -> str:
    """Return why the metric `name` has no value here, or nothing when it has one."""
    stated = ~np.isnan(label)
    there = {
        "positives": (label == 1).any(),
        "negatives": (label == 0).any(),
        "films called positive": decision[stated].any(),
        "films called negative": (~decision[stated]).any(),
    }
    lacking = [need for need in METRICS[name].needs if not there[need]]
    if not stated.any():
        lacking = ["films with a label"]
    return f"not computable: 0 {' and 0 '.join(lacking)}" if lacking else ""


def roc_points(label: Label, score: Score) -> tuple[Points, Points]:
    """Return the ROC curve's corners, false positive rate and recall, from (0, 0) to (1, 1).

    Points on a straight line between others are left out. Empty when a class is absent.
    """
    _, true, false = counts_above(label, score)
    true, false = np.append(0.0, true), np.append(0.0, false)
    if not (true[-1] and false[-1]):
        return np.empty(0), np.empty(0)
    bend = (np.diff(true, 2) != 0) | (np.diff(false, 2) != 0)
    kept = np.concatenate([[True], bend, [True]])
    return false[kept] / false[-1], true[kept] / true[-1]


def precision_recall_points(label: Label, score: Score) -> tuple[Points, Points]:
    """Return recall and precision from the highest score down, one point a distinct score.

    Inner points of equal recall are left out. Empty when there are no positives.
    """
    _, true, false = counts_above(label, score)
    if not true.any():
        return np.empty(0), np.empty(0)
    kept = np.diff(true, prepend=-1, append=-1) != 0
    kept = kept[:-1] | kept[1:]
    return true[kept] / true[-1], true[kept] / (true + false)[kept]


def counts_above(label: Label, score: Score) -> tuple[Points, Points, Points]:
    """Return the distinct scores, falling, and the positive and negative films that reach each."""
    stated = ~np.isnan(label)
    level, place = np.unique(-score[stated].astype(np.float64), return_inverse=True)
    positive = label[stated].astype(np.float64)
    counts = [np.bincount(place, weights=y, minlength=len(level)) for y in (positive, 1 - positive)]
    return -level, np.cumsum(counts[0], dtype=float), np.cumsum(counts[1], dtype=float)


def _ranked(name: str, unit: str, definition: str) -> Metric:
    """Return the entry of METRICS of one metric of RANKED."""

    def metric(label: Label, score: Score, *, weights: Weights) -> Values:
        return rank_films(label, score, weights=weights, names=[name])[name]

    return Metric(metric, "logit", _BOTH, "higher", unit, definition)


def _decided(name: str, needs: tuple[Need, ...], unit: str, definition: str) -> Metric:
    """Return the entry of METRICS of one metric of DECIDED."""

    def metric(label: Label, decision: Decision, *, weights: Weights) -> Values:
        return DECIDED[name](count_cells(label, decision, weights=weights))

    return Metric(metric, "decision", needs, "higher", unit, definition)


def _mcc(cells: Cells) -> Values:
    """Return the correlation of label and decision, from -1 to 1: Matthews' coefficient.

    NaN where a class is absent or all films are called alike, for which scikit-learn puts 0.
    Matthews, Biochimica et Biophysica Acta 405 (1975), 442-451.
    """
    tp, fp, fn, tn = cells
    root = np.sqrt((tp + fn) * (tn + fp)) * np.sqrt((tp + fp) * (tn + fn))
    return ratio(tp * tn - fp * fn, root)


def _given(weight: Values, value: Values) -> Values:
    """Return the value where there are films of the class that it is of, else NaN."""
    return np.where(weight > 0, value, np.nan)


def _descents(label: Label, score: Score, weights: Weights) -> Iterator[Descent]:
    """Yield blocks of columns; none without a positive film. Only g, not n, grows with columns."""
    positive, negative = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    level, place = np.unique(-score[positive], return_inverse=True)
    if not len(level):
        return
    lower = -score[negative]
    below = np.searchsorted(level, lower, side="right")  # the first level that is below the film
    tied = (below > 0) & (level[below - 1] == lower)
    shared, tie = np.unique(below[tied] - 1, return_inverse=True)
    levels = len(level)
    counts = weights.histogram(
        np.concatenate([positive, negative, negative[tied]]),
        place=np.concatenate([place, levels + below, 2 * levels + 1 + tie]),
        bins=2 * levels + 1 + len(shared),
    )
    columns = max(LINE, BLOCK // (levels + 1))
    for start in range(0, weights.times.shape[1], columns):
        weight = weights.in_bins(counts, start, start + columns)
        here, above, beside = np.split(weight, [levels, 2 * levels + 1])
        np.cumsum(above, axis=0, out=above)
        false = above[:-1].copy()
        false[shared] += beside
        yield Descent(here, np.cumsum(here, axis=0), above[:-1], false, above[-1], start)


def _area(descent: Descent) -> Values:
    """Return the area under the ROC curve. Hanley and McNeil, Radiology 143 (1982), 29-36."""
    positive, true, above, false, negatives, _ = descent
    pairs = true[-1] * negatives
    lost = _dot(positive, above) + _dot(positive, false)
    return ratio(pairs - lost / 2, pairs)


def _mean_precision(descent: Descent) -> Values:
    """Return the mean over positive films of the precision among films that score as high.

    Without interpolation, as scikit-learn's `average_precision_score`; chance is the prevalence.
    """
    called = descent.true + descent.false
    share = np.divide(descent.true, called, out=called, where=called > 0)
    return ratio(_dot(descent.positive, share), descent.true[-1])


def _partial_area(descent: Descent) -> Values:
    """Return the area under the ROC curve up to a false positive rate of RATE, standardised.

    So that chance is .5 and perfection 1. McClish, Medical Decision Making 9 (1989), 190-195; as
    scikit-learn's `roc_auc_score` with `max_fpr`.
    """
    end = RATE * descent.negatives
    rows = int((descent.above <= end).sum(axis=0).max())
    positive, above, false = descent.positive[:rows], descent.above[:rows], descent.false[:rows]
    passed = _dot(positive, np.minimum(above, end)) + _dot(positive, np.minimum(false, end))
    area = descent.true[rows - 1] * end - passed / 2 if rows else np.zeros_like(end)
    share = ratio(area - _cut_corner(descent, end), descent.true[-1] * descent.negatives)
    least, most = RATE**2 / 2, RATE
    return (1 + (share - least) / (most - least)) / 2


def _cut_corner(descent: Descent, end: Values) -> Values:
    """Return the area above the slope of a level that is tied across the end, missed so far.

    Half the rectangle up to the end was counted, as if the slope rose to its top by then.
    """
    row = np.minimum((descent.false <= end).sum(axis=0), len(descent.false) - 1)
    column = np.arange(len(end))
    above, false = descent.above[row, column], descent.false[row, column]
    width, ran = false - above, np.clip(end - above, 0, None)
    crossing = (above < end) & (end < false)
    steep = np.divide(ran, width, out=np.ones_like(end), where=crossing)
    return descent.positive[row, column] * ran / 2 * (1 - steep)


def _recall_within(descent: Descent) -> Values:
    """Return the largest recall of any threshold whose specificity is SPECIFICITY or more.

    Only thresholds that some films have count, without interpolation between them; 0 where even
    the highest scores hold too many negative films.
    """
    negatives = descent.negatives
    rows = (descent.false <= (1 - SPECIFICITY + ROUNDING) * negatives).sum(axis=0)
    true = descent.true[np.maximum(rows, 1) - 1, np.arange(len(rows))]
    return ratio(np.where(rows > 0, true, 0), descent.true[-1])


def _specificity_within(descent: Descent) -> Values:
    """Return the largest specificity of any threshold, as above, whose recall is RECALL or more."""
    rows = (descent.true <= (RECALL - ROUNDING) * descent.true[-1]).sum(axis=0)
    false = descent.false[np.minimum(rows, len(descent.false) - 1), np.arange(len(rows))]
    return ratio(descent.negatives - false, descent.negatives)


def _dot(one: AtLevels, other: AtLevels) -> Values:
    return np.einsum("gr,gr->r", one, other)


def expected_calibration_error(label: Label, probability: Score, *, weights: Weights) -> Values:
    """Return by how much mean probability misses the share of positives, on average over bins.

    The bins are of `bin_of`; a bin counts by its films. NaN where no film has a label. Naeini,
    Cooper and Hauskrecht, AAAI (2015), with bins of equal mass as Nixon et al., CVPR workshops
    (2019). A calibrated network has an error too: `calibration_floor`.
    """
    stated = ~np.isnan(label)
    wide = probability.astype(np.float64)
    gap = np.where(stated, wide - label, 0)
    place = bin_of(wide, stated=stated)
    # One bin at a time: all at once would hold 15 numbers a film.
    missed = [weights.total(np.where(place == b, gap, 0)[None]) for b in range(BINS)]
    error = np.abs(np.concatenate(missed)).sum(axis=0)
    return ratio(error, weights.total(stated[None].astype(np.float64))[0])


def calibration_floor(label: Label, probability: Score) -> float:
    """Return the expected calibration error of a calibrated network on as many films as these.

    That is the error that chance makes, were each label drawn by its probability, the films of a
    patient as if independent. In a bin the positives are as good as binomial, whose mean deviation
    is De Moivre's (Diaconis and Zabell, Statistical Science 6, 1991, 284-302). NaN for no labels.
    """
    stated = ~np.isnan(label)
    if not stated.any():
        return np.nan
    wide = probability[stated].astype(np.float64)
    place = bin_of(wide, stated=np.ones(len(wide), dtype=bool))
    _, place, films = np.unique(place, return_inverse=True, return_counts=True)
    mean = np.bincount(place, weights=wide) / films
    mean = np.where(mean < NOTHING, 0.0, mean)  # of which binomial probabilities overflow
    above = np.minimum(np.floor(films * mean) + 1, films)  # the fewest positives above the mean
    ways = gammaln(films + 1) - gammaln(above + 1) - gammaln(films - above + 1)
    chance = np.exp(ways + xlogy(above, mean) + xlog1py(films - above, -mean))
    apart = 2 * above * (1 - mean) * chance
    return float(apart.sum() / len(wide))


def bin_of(
    probability: Float64[np.ndarray, " n"], *, stated: Bool[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Return the bin of each probability, which holds those up to its edge, of `bin_edges`."""
    return np.searchsorted(bin_edges(probability[stated]), probability)


def bin_edges(probability: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " e"]:
    """Return the inner edges of BINS bins of as many films each, or of fewer where films are tied.

    Those of scikit-learn's `calibration_curve` with strategy "quantile". None for no films.
    """
    if not len(probability):
        return np.empty(0)
    edges = np.unique(np.percentile(probability, 100 * np.linspace(0, 1, BINS + 1)[1:-1]))
    return edges[edges < probability.max()]


DECIDED: dict[str, Callable[[Cells], Values]] = {
    "f1": lambda c: _given(c.tp + c.fn, ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)),
    "precision": lambda c: _given(c.tp + c.fn, ratio(c.tp, c.tp + c.fp)),
    "recall": lambda c: ratio(c.tp, c.tp + c.fn),
    "specificity": lambda c: ratio(c.tn, c.tn + c.fp),
    "npv": lambda c: _given(c.tn + c.fp, ratio(c.tn, c.tn + c.fn)),
    "mcc": _mcc,
    "accuracy": lambda c: ratio(c.tp + c.tn, c.tp + c.fp + c.fn + c.tn),
    "balanced_accuracy": lambda c: (DECIDED["recall"](c) + DECIDED["specificity"](c)) / 2,
}
RANKED: dict[str, Callable[[Descent], Values]] = {
    "auc": _area,
    "average_precision": _mean_precision,
    "partial_auc": _partial_area,
    "recall_at_specificity": _recall_within,
    "specificity_at_recall": _specificity_within,
}
_BOTH: tuple[Need, ...] = ("positives", "negatives")
METRICS: dict[str, Metric] = {
    "auc": Metric(auc, "logit", _BOTH, "higher", "0 to 1, chance .5",
                  "chance that a positive film scores above a negative one"),
    "average_precision": _ranked("average_precision", "0 to 1, chance is the prevalence",
                                 "mean precision over the positive films, by falling score"),
    "partial_auc": _ranked("partial_auc", "0 to 1, chance .5",
                           "area under the ROC curve up to a false positive rate of .1, "
                           "standardised"),
    "recall_at_specificity": _ranked("recall_at_specificity", "0 to 1, chance .1", "largest recall "
                                     "of a threshold whose specificity is .9 or more"),
    "specificity_at_recall": _ranked("specificity_at_recall", "0 to 1, chance .1", "largest "
                                     "specificity of a threshold whose recall is .9 or more"),
    "f1": _decided("f1", ("positives",), "0 to 1", "harmonic mean of precision and recall"),
    "precision": _decided("precision", ("positives", "films called positive"), "0 to 1",
                          "share of films called positive that are positive"),
    "recall": _decided("recall", ("positives",), "0 to 1",
                       "share of positive films that are called positive"),
    "specificity": _decided("specificity", ("negatives",), "0 to 1",
                            "share of negative films that are called negative"),
    "npv": _decided("npv", ("negatives", "films called negative"), "0 to 1",
                    "share of films called negative that are negative"),
    "mcc": _decided("mcc", (*_BOTH, "films called positive", "films called negative"),
                    "-1 to 1, chance 0", "correlation of label and decision (Matthews)"),
    "accuracy": _decided("accuracy", (), "0 to 1",
                         "share of films called right; calling all negative scores high"),
    "balanced_accuracy": _decided("balanced_accuracy", _BOTH, "0 to 1, chance .5",
                                  "mean of recall and specificity"),
    "bce": Metric(bce, "logit", (), "lower", "nats, from 0",
                  "mean binary cross-entropy of the probabilities"),
    "brier": Metric(brier, "probability", (), "lower", "0 to 1",
                    "mean squared difference of probability and label"),
    "ece": Metric(expected_calibration_error, "probability", (), "lower", "0 to 1",
                  "mean gap of probability and share of positives, over 15 bins of as many films"),
}  # fmt: skip
PER_FILM: dict[str, Metric] = {
    "label_ranking_loss": Metric(label_ranking_loss, "logit", (), "lower", "0 to 1",
                                 "share of a film's pairs of present and absent finding that are "
                                 "ordered wrongly, mean over films"),
    "exact_match": Metric(exact_match, "decision", (), "higher", "0 to 1",
                          "share of films of which every finding is called right"),
}  # fmt: skip

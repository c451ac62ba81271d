"""Which networks differ, and which is best: paired differences, their tests, and a ranking.

Letters in shapes: n films, k findings, k1 the findings and macro, r resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64, Int64
from scipy.special import ndtr

from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import (
    MACRO,
    Weights,
    interval,
    mean_over_findings,
    once,
    resample_patients,
)
from lucency.evaluation.evaluate import TRIVIAL, require_one_part
from lucency.evaluation.metrics import finding_aucs
from lucency.evaluation.significance import (
    LEVEL,
    delong_difference,
    holm,
    not_testable,
    signed_rank,
)
from lucency.evaluation.significance import not_computable as no_error

OVER_FINDINGS = "over findings"
COLUMNS = (
    "network", "other", "finding", "metric", "difference", "low", "high", "p", "p_holm", "test",
    "note",
)  # fmt: skip
Label = Float32[np.ndarray, "n k"]
Score = Float64[np.ndarray, "n k"]
ROUGH = "rough"  # how notes begin where too few patients make p too small
FEW = 10  # patients; with fewer, p below .05 comes twice as often as it should, or more
AS_IF_INDEPENDENT = "takes findings as independent, which they are not: a rough guide"


class Tested(NamedTuple):
    """A difference, the ends of its 95 % interval, its p value, and the name of its test."""

    difference: float
    low: float
    high: float
    p: float
    test: str
    note: str


def compare(several: Sequence[Predictions], *, resamples: int, seed: int) -> pd.DataFrame:
    """Return the paired differences in AUC of each pair of networks, per finding, macro and over.

    The difference is `network` minus `other`; its 95 % interval comes from resampling patients,
    the same patients for both, so what makes a film hard for both cancels out. p is of DeLong's
    test of a finding, patients as clusters; of the spread over resamples for macro; and of the
    signed-rank test for the row over findings, whose difference is their median. `p_holm` is p
    corrected (Holm 1979) for all pairs, of findings for all pairs and findings; intervals are not
    corrected. A p that is not computable is NaN and its note says why; a note also says where p is
    rough, for want of patients (FEW, found by simulation). Raises ValueError when the
    predictions were not made of the same films, labels, findings and split, or a network is there
    twice.
    """
    _check(several)
    first = several[0]
    plainly = once(len(first))
    drawn = resample_patients(first.patient, resamples=resamples, seed=seed)
    scores = {one.network: one.calibrated for one in several}
    areas = {
        name: [macro_areas(first.label, score, weights) for weights in (plainly, drawn)]
        for name, score in scores.items()
    }
    few = [few_patients(label, first.patient) for label in first.label.T]
    names, rows = (*first.findings, MACRO, OVER_FINDINGS), []
    for one, other in combinations(scores, 2):
        plain, sampled = (mine - its for mine, its in zip(areas[one], areas[other], strict=True))
        each = _by_finding(first, (scores[one], scores[other]), sampled, few)
        tests = [*each, macro_test(plain[-1, 0], sampled[-1], few), _over_findings(plain[:-1, 0])]
        for finding, tested in zip(names, tests, strict=True):
            p = (tested.p, np.nan)
            rows.append((one, other, finding, "auc", *tested[:3], *p, *tested[4:]))
    return _corrected(pd.DataFrame(rows, columns=list(COLUMNS)))


def rank(metrics: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """Return the networks by falling macro AUC, with value, interval, rank and tied_with_best.

    The rank is one more than the number of networks whose macro AUC is higher by more than chance
    allows (`p_holm` of the paired difference below .05), so that networks which the films cannot
    distinguish may share one. A network is tied with the best when its difference from it may be
    chance. The trivial baseline is not ranked. `note` says where the tests are rough. Raises
    ValueError when two ranked networks were not compared.
    """
    macro = macro_auc_rows(metrics)
    networks = macro.loc[macro["network"] != TRIVIAL, ["network", "value", "low", "high"]]
    ranking = networks.sort_values(by="value", ascending=False, ignore_index=True)
    names = ranking["network"].tolist()
    p = _p_by_pair(comparison)
    place = [
        1 + sum(_differ(p, better, name) for better in names[:above])
        for above, name in enumerate(names)
    ]
    ranking.insert(0, "rank", np.array(place, dtype=np.int64))
    tied = [name == names[0] or not _differ(p, names[0], name) for name in names]
    notes = macro_auc_rows(comparison)["note"].fillna("").astype(str).tolist()
    rough = next((note for note in notes if note.startswith(ROUGH)), "")
    return ranking.assign(tied_with_best=tied, note=rough)


def conclude(ranking: pd.DataFrame) -> str:
    """Return one sentence: which network is best, or which ones the films cannot tell apart."""
    best = ranking.iloc[0]
    if np.isnan(best["value"]):
        return "No network can be ranked: macro AUC is not computable on these films."
    tied = ranking[ranking["tied_with_best"]]
    values = [f"{n} ({_number(v)})" for n, v in zip(tied["network"], tied["value"], strict=True)]
    reach = f"95 % interval {_number(best['low'])} to {_number(best['high'])}"
    chance = ", which does not exclude .5, chance" if best["low"] <= 0.5 else ""
    if len(ranking) == 1:
        return (
            f"{best['network']} reaches a macro AUC of {_number(best['value'])} ({reach}{chance})."
        )
    pairs = len(ranking) * (len(ranking) - 1) // 2
    rough = f" ({best['note']})" if best["note"] else ""
    corrected = f", Holm-corrected over {pairs} pairs" if pairs > 1 else ""
    if len(tied) > 1:
        names = f"{', '.join(values[:-1])} and {values[-1]}"
        return (
            f"These films cannot tell which of {names} has the best macro AUC: the paired "
            f"differences from the highest may be chance{corrected} ({best['network']}: "
            f"{reach}{chance})."
        )
    return (
        f"{best['network']} is best: macro AUC {_number(best['value'])} ({reach}{chance}), and its "
        f"paired difference from every other network is more than chance{corrected}{rough}."
    )


def check_comparable(first: Predictions, other: Predictions, *, name: str) -> None:
    """Raise ValueError unless both were made of the same films, labels, findings and split.

    `name` is what the error calls the other.
    """
    for field, explain in DIFFERENCES.items():
        if not _same(getattr(first, field), getattr(other, field)):
            raise ValueError(
                f"{first.network} and {name} differ in {field}: {explain(first, other)}; scores of "
                "different films or labels cannot be compared: expected the same films and "
                "labels, from predictions of one split read with one label file"
            )


def macro_areas(label: Label, score: Score, weights: Weights) -> Float64[np.ndarray, "k1 r"]:
    """Return the AUC of every finding, and macro in the last row, for each column of weights."""
    area = finding_aucs(label, score, weights=weights)
    return np.concatenate([area, mean_over_findings(area)[None]])


def macro_auc_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of macro AUC of a table with the columns finding and metric."""
    return table.loc[(table["finding"] == MACRO) & (table["metric"] == "auc")]


def few_patients(label: Float32[np.ndarray, " n"], owner: Int64[np.ndarray, " n"]) -> str:
    """Return why the tests of a finding are rough, or nothing; `owner` are the films' patients."""
    classes = {"positive": 1, "negative": 0}
    counts = {name: len(np.unique(owner[label == value])) for name, value in classes.items()}
    short = [f"{count} patients have {name} films" for name, count in counts.items() if count < FEW]
    return f"{ROUGH}: {' and '.join(short)}; with fewer than {FEW}, p is too small" if short else ""


def macro_test(difference: float, sampled: Float64[np.ndarray, " r"], few: Sequence[str]) -> Tested:
    """Return the test of a macro difference by the normal distribution of its resamples.

    `few` says of every finding why its tests are rough, as `few_patients` does, or nothing.
    """
    low, high = interval(sampled)
    known = sampled[~np.isnan(sampled)]
    # Less the first, so that resamples that are all alike spread by 0 exactly.
    spread = float(np.std(known - known[0], ddof=1)) if len(known) > 1 else np.nan
    if difference == 0 and spread == 0:
        return Tested(0.0, float(low), float(high), 1.0, "bootstrap", "")
    p = float(2 * ndtr(-abs(difference) / spread)) if spread > 0 else np.nan
    why = (
        "the difference is the same in every resample"
        if len(known)
        else "no finding has both classes"
    )
    rough = sum(map(bool, few))
    note = f"{ROUGH}: fewer than {FEW} patients in {rough} of {len(few)} findings" if rough else ""
    note = f"not computable: {why}" if np.isnan(p) else note
    return Tested(float(difference), float(low), float(high), p, "bootstrap", note)


def _check(several: Sequence[Predictions]) -> None:
    names = [predictions.network for predictions in several]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"networks [{', '.join(names)}]: expected one or more, each named once")
    require_one_part(several[0])
    for predictions in several[1:]:
        check_comparable(several[0], predictions, name=predictions.network)


def _by_finding(
    films: Predictions,
    scores: tuple[Score, Score],
    sampled: Float64[np.ndarray, "k1 r"],
    few: Sequence[str],
) -> list[Tested]:
    """Return DeLong's paired test of every finding."""
    tests, owner, (mine, theirs) = [], films.patient, scores
    for k, label in enumerate(films.label.T):
        difference, _, p = delong_difference(label, mine[:, k], theirs[:, k], owner=owner)
        why = no_error(label, owner=owner) or "the same difference for every patient"
        low, high = interval(sampled[k])
        note = why if np.isnan(p) else few[k]
        tests.append(Tested(difference, float(low), float(high), p, "delong", note))
    return tests


def _over_findings(difference: Float64[np.ndarray, " k"]) -> Tested:
    """Return the signed-rank test over findings, of which the median is shown."""
    known = difference[~np.isnan(difference)]
    median = float(np.median(known)) if len(known) else np.nan
    note = not_testable(difference) or AS_IF_INDEPENDENT
    return Tested(median, np.nan, np.nan, signed_rank(difference), "wilcoxon", note)


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with p values corrected among all rows of the same test."""
    p, test = table["p"].to_numpy(dtype=np.float64), table["test"].to_numpy(dtype=str)
    corrected = np.full(len(table), np.nan)
    for name in np.unique(test):
        corrected[test == name] = holm(p[test == name])
    return table.assign(p_holm=corrected)


def _same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) and one.dtype.kind == "f":
        return np.array_equal(one, np.asarray(other), equal_nan=True)
    return np.array_equal(np.asarray(one), np.asarray(other))


def _splits(one: Predictions, other: Predictions) -> str:
    both = len(set(one.image.tolist()) & set(other.image.tolist()))
    return (
        f"they were made under split {one.split} and split {other.split}, so that test films of "
        f"one may have trained the other (in both are {both:,} of {len(one):,} and {len(other):,} "
        "films)"
    )


def _findings(one: Predictions, other: Predictions) -> str:
    strange = sorted(set(one.findings) ^ set(other.findings))
    if not strange:
        return "the same findings stand in another order"
    return f"only one has {', '.join(strange)}"


def _images(one: Predictions, other: Predictions) -> str:
    mine, theirs = set(one.image.tolist()), set(other.image.tolist())
    if mine == theirs:
        return "the same films stand in another order"
    strange = sorted(mine ^ theirs)
    return (
        f"{len(mine & theirs):,} films are in both, {len(strange):,} in one alone, such as "
        f"{strange[0]!r}, as where films were left out or other films lay on disk"
    )


def _rows(one: Predictions, other: Predictions) -> str:
    films = np.flatnonzero((one.patient != other.patient) | (one.part != other.part))
    return f"{len(films):,} of {len(one):,} films, such as {str(one.image[films[0]])!r}"


def _labels(one: Predictions, other: Predictions) -> str:
    mine, theirs = np.nan_to_num(one.label, nan=-1), np.nan_to_num(other.label, nan=-1)
    films = np.flatnonzero((mine != theirs).any(axis=1))
    return (
        f"{len(films):,} of {len(one):,} films, such as {str(one.image[films[0]])!r}, are labelled "
        "otherwise, as by another version of the label file (NIH's of 2017 and 2020 differ on 181)"
    )


def _p_by_pair(comparison: pd.DataFrame) -> dict[frozenset[str], float]:
    macro = macro_auc_rows(comparison)
    pairs = zip(macro["network"], macro["other"], strict=True)
    values = macro["p_holm"].to_numpy(dtype=np.float64)
    return {frozenset(pair): float(p) for pair, p in zip(pairs, values, strict=True)}


def _differ(p: dict[frozenset[str], float], one: str, other: str) -> bool:
    """Return whether two networks' macro AUCs differ by more than chance allows."""
    pair = frozenset((one, other))
    if pair not in p:
        raise ValueError(
            f"no macro AUC difference of {one} and {other} in the comparison; expected one: "
            "compare all networks that are ranked"
        )
    return p[pair] < LEVEL


def _number(value: float) -> str:
    return f"{value:.3f}"


DIFFERENCES = {
    "split": _splits,
    "findings": _findings,
    "image": _images,
    "patient": _rows,
    "part": _rows,
    "label": _labels,
}

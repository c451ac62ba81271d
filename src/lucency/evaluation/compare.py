"""Comparison of networks: paired differences, their tests, the ranking, and the leaderboard.

Letters in shapes: n films, k findings, k1 the findings and macro, r resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64
from scipy.special import ndtr, stdtr, stdtrit

from lucency.config.sections import EvaluationChoices
from lucency.core.predictions import Predictions
from lucency.evaluation.bootstrap import HIGH, MACRO, all_and_resampled, mean_over_findings
from lucency.evaluation.evaluate import TRIVIAL, evaluate, require_one_part, thresholds_of
from lucency.evaluation.intervals import (
    FEWEST,
    NORMAL,
    macro_error,
    patients_of_rarer,
    unpaired_interval,
)
from lucency.evaluation.metrics import by_finding
from lucency.evaluation.significance import LEVEL, delong_difference, holm, signed_rank
from lucency.evaluation.significance import not_computable as no_error
from lucency.evaluation.thresholds import threshold_table

OVER_FINDINGS = "over findings"
COLUMNS = (
    "network", "other", "finding", "metric", "difference", "low", "high", "p", "p_holm", "test",
    "note",
)  # fmt: skip
SCORES = ("auc", "average_precision", "f1", "brier")
LEADERBOARD = (
    "place", "network", "kind",
    *(f"{name}{end}" for name in SCORES for end in ("", "_low", "_high")),
    "difference", "difference_low", "difference_high", "p", "p_holm", "milliseconds", "note",
)  # fmt: skip
SIDES = ("internal", "external")
UNPAIRED = (
    "network", "finding", "metric",
    *(f"{side}{end}" for side in SIDES for end in ("", "_low", "_high")),
    "difference", "low", "high", "note",
)  # fmt: skip
Score = Float64[np.ndarray, "n k"]
FEW = f"not computable: {{}} patients of a class, expected {FEWEST} or more"
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

    The difference is `network` minus `other`, paired: what makes a film hard for both cancels out.
    Of a finding, its 95 % interval and p are by DeLong's error, patients as clusters, and Student's
    t of the patients of the rarer class less one; with fewer than three of them there is neither.
    Of macro they are by `macro_error`, from the same resampled patients for both. The row
    over findings has the p of the signed-rank test, and its difference is the median. `p_holm` is p
    corrected (Holm 1979) for all pairs, of findings for all pairs and findings; intervals are not
    corrected. A p that is not computable is NaN and its note says why. Raises ValueError for
    predictions of other films, labels, findings or splits, and for a network that is there twice.
    """
    names = [predictions.network for predictions in several]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"networks [{', '.join(names)}]: expected one or more, each named once")
    first, *others = several
    require_one_part(first)
    for predictions in others:
        check_comparable(first, predictions, name=predictions.network)
    weights = all_and_resampled(first.patient, resamples=resamples, seed=seed)
    scores = {one.network: one.calibrated for one in several}
    areas = {
        name: by_finding("auc", first.label, score, weights=weights)
        for name, score in scores.items()
    }
    patients = patients_of_rarer(first.label, owner=first.patient)
    columns, rows = (*first.findings, MACRO, OVER_FINDINGS), []
    for one, other in combinations(scores, 2):
        apart = areas[one] - areas[other]
        each = _delong(first, (scores[one], scores[other]), patients)
        tests = [*each, macro_test(apart, patients), _over_findings(apart[:, 0])]
        pair = zip(columns, tests, strict=True)
        rows += [(one, other, finding, "auc", *tested) for finding, tested in pair]
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "p_holm"])
    p = table["p"].astype(float).groupby(table["test"])  # corrected among all rows of a test
    table["p_holm"] = p.transform(lambda mine: holm(mine.to_numpy()))
    return table.reindex(columns=list(COLUMNS))


def compare_unpaired(
    internal: Predictions,
    external: Predictions,
    *,
    threshold: Float64[np.ndarray, " k"],
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    """Return a network's metrics on external films, those on its own, and external less internal.

    Unpaired: no film and no patient is in both sets, so that the 95 % interval of a difference is
    `unpaired_interval` of the two of `evaluate`. That of macro AUC is by the `macro_error` of both,
    as of paired differences, for films of a patient may be much alike. A number without interval on
    either side has none for its difference, and `note` says why. Raises ValueError for other
    findings, and as `evaluate` does.
    """
    if internal.findings != external.findings:
        found, expected = (", ".join(one.findings) for one in (external, internal))
        raise ValueError(f"{external.network} on external films: {found}; expected {expected}")
    draws = {"resamples": resamples, "seed": seed}
    keys = ["network", "finding", "metric"]
    kept = [*keys, "value", "low", "high", "note"]
    one, other = (
        evaluate(side, threshold=threshold, **draws).loc[:, kept] for side in (internal, external)
    )
    both = one.merge(other, on=keys, suffixes=SIDES)
    rows = []
    for row in both.to_dict("records"):
        mine, theirs = (row[f"value{side}"] for side in SIDES)
        ends, other_ends = ((row[f"low{side}"], row[f"high{side}"]) for side in SIDES)
        gap = unpaired_interval(theirs, other_ends, mine, ends)
        if (row["finding"], row["metric"]) == (MACRO, "auc") and not np.isnan(gap).any():
            reach = NORMAL * unpaired_macro_error(internal, external, **draws)
            gap = (theirs - mine - reach, theirs - mine + reach)
        notes = [f"{side}: {row[f'note{side}']}" for side in SIDES if row[f"note{side}"]]
        numbers = (mine, *ends, theirs, *other_ends, theirs - mine, *gap)
        rows.append((*(row[key] for key in keys), *numbers, "; ".join(notes)))
    return pd.DataFrame(rows, columns=list(UNPAIRED))


def unpaired_macro_error(
    internal: Predictions, external: Predictions, *, resamples: int, seed: int
) -> float:
    """Return the standard error of the difference of two macro AUCs of other patients."""
    errors = []
    for place, one in enumerate((internal, external)):
        weights = all_and_resampled(one.patient, resamples=resamples, seed=seed + place)
        area = by_finding("auc", one.label, one.calibrated, weights=weights)
        errors.append(macro_error(area, patients=patients_of_rarer(one.label, owner=one.patient)))
    return float(np.hypot(*errors))


def rank(metrics: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """Return the networks by falling macro AUC, with value, interval, rank and tied_with_best.

    The rank is one more than the number of networks whose macro AUC is higher by more than chance
    allows (`p_holm` of the paired difference below .05), so that networks which the films cannot
    distinguish may share one. A network is tied with the best when its difference from it may be
    chance. The trivial baseline is not ranked. `note` says which findings the mean is over. Raises
    ValueError when two ranked networks were not compared.
    """
    macro = macro_auc_rows(metrics)
    columns = ["network", "value", "low", "high", "note"]
    networks = macro.loc[macro["network"] != TRIVIAL, columns]
    ranking = networks.sort_values(by="value", ascending=False, ignore_index=True)
    names = ranking["network"].tolist()
    compared = macro_auc_rows(comparison)
    pairs = compared[["network", "other", "p_holm"]].itertuples(index=False)
    p = {frozenset(pair): value for *pair, value in pairs}
    above = [[one for one in names[:k] if _differ(p, one, name)] for k, name in enumerate(names)]
    ranking.insert(0, "rank", np.array([1 + len(better) for better in above], dtype=np.int64))
    tied = [name == names[0] or not _differ(p, names[0], name) for name in names]
    note = ranking.pop("note")
    return ranking.assign(tied_with_best=tied, note=note.fillna("").astype(str))


def conclude_comparison(ranking: pd.DataFrame) -> str:
    """Return which network has the highest macro AUC, and which are not significantly lower."""
    best, others = ranking.iloc[0], len(ranking) - 1
    if np.isnan(best["value"]):
        return "Macro AUC: not computable on these films; no network is ranked."
    chance = ", which includes .5, chance" if best["low"] <= 0.5 else ""
    given = best["low"] == best["low"]
    reach = f"95 % interval {best['low']:.3f} to {best['high']:.3f}{chance}"
    notes = best["note"].split("; ")
    reason = next((note for note in notes if note.startswith("no interval")), "no interval")
    reach = "; ".join([reach if given else reason, *(note for note in notes if "without" in note)])
    subject = "Highest macro AUC" if others else "Macro AUC"
    first = f"{subject}: {best['network']} {best['value']:.3f} ({reach})."
    if not others:
        return first
    pairs = others * (others + 1) // 2
    tests = f"paired tests{f', Holm-corrected over {pairs} pairs' if pairs > 1 else ''}"
    tied = ranking[ranking["tied_with_best"]].iloc[1:]
    if len(tied):
        values = zip(tied["network"], tied["value"], strict=True)
        named = ", ".join(f"{name} {value:.3f}" for name, value in values)
        return f"{first} Not significantly lower: {named} ({tests})."
    return f"{first} Significantly higher than every other network ({tests})."


class Entry(NamedTuple):
    """What a predictor is, and what a film costs it and its members, in milliseconds."""

    kind: str
    milliseconds: float


def leaderboard(
    several: Sequence[Predictions],
    *,
    entries: Mapping[str, Entry],
    reference: str,
    choices: EvaluationChoices,
    progress: Callable[[int, int, str], None],
) -> pd.DataFrame:
    """Return a row a predictor, by falling macro AUC on test films, beside one reference.

    Every one of SCORES is the mean over findings, with its 95 % interval over patients, at
    thresholds fitted on validation films. `difference` is the macro AUC less that of `reference`,
    paired: the same resampled patients for both; `p_holm` corrects its p for all rows (Holm 1979).
    Raises ValueError when the predictions are not of the same films, labels, findings and split.
    """
    tests = {one.network: one.of("test") for one in several}
    draws = choices.draws
    rows = []
    for done, one in enumerate(several):
        progress(done, len(several), one.network)
        fitted = threshold_table(one.of("val"), method=choices.threshold, recall=choices.recall)
        scores = evaluate(tests[one.network], threshold=thresholds_of(fitted, one), **draws)
        paired = _against(tests[reference], tests[one.network], draws)
        entry = entries[one.network]._asdict()
        rows.append({"network": one.network, **_macro(scores), **paired, **entry})
    progress(len(several), len(several), "")
    table = pd.DataFrame(rows, columns=list(LEADERBOARD))
    table["p_holm"] = holm(table["p"].to_numpy(dtype=np.float64))
    table = table.sort_values("auc", ascending=False, kind="stable", ignore_index=True)
    return table.assign(place=np.arange(1, len(table) + 1))


def conclude_leaderboard(table: pd.DataFrame, *, reference: str) -> str:
    """Return which macro AUCs are significantly higher than the reference's, and how many lower."""
    sure, others = table["p_holm"] < LEVEL, len(table) - 1
    above, below = (table[sure & (table["difference"] * sign > 0)] for sign in (1, -1))
    pairs = zip(above["network"], above["difference"], strict=True)
    named = ", ".join(f"{name} (+{difference:.3f})" for name, difference in pairs) or "none"
    return (
        f"Macro AUC significantly higher than that of {reference}: {named}. Significantly lower: "
        f"{len(below)} of {others}. Not significantly different: "
        f"{others - len(above) - len(below)} of {others}."
    )


def check_comparable(first: Predictions, other: Predictions, *, name: str) -> None:
    """Raise ValueError, naming the other so, unless films, labels, findings and split are equal."""
    for field, explain in DIFFERENCES.items():
        mine, its = (np.asarray(getattr(one, field)) for one in (first, other))
        if not np.array_equal(mine, its, equal_nan=mine.dtype.kind == "f"):
            raise ValueError(
                f"{first.network} and {name} differ in {field}: {explain(first, other)}; scores of "
                "different films or labels cannot be compared: expected the same films and "
                "labels, from predictions of one split read with one label file"
            )


def macro_auc_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of macro AUC of a table with the columns finding and metric."""
    return table.loc[(table["finding"] == MACRO) & (table["metric"] == "auc")]


def macro_test(difference: Float64[np.ndarray, "k c"], patients: Int64[np.ndarray, " k"]) -> Tested:
    """Return the test of a mean difference over findings, by its `macro_error`.

    A row holds a finding's difference on all films, then in every resample of patients; `patients`
    are those of its rarer class.
    """
    value = float(mean_over_findings(difference)[0])
    error = macro_error(difference, patients=patients)
    if error > 0:
        reach, p = NORMAL * error, float(2 * ndtr(-abs(value) / error))
        return Tested(value, value - reach, value + reach, p, "bootstrap", "")
    if value == 0:
        return Tested(0.0, 0.0, 0.0, 1.0, "bootstrap", "")
    none = "no finding has both classes"
    note = none if np.isnan(value) else "the difference is the same in every resample"
    return Tested(value, np.nan, np.nan, np.nan, "bootstrap", f"not computable: {note}")


def _delong(
    films: Predictions, scores: tuple[Score, Score], patients: Int64[np.ndarray, " k"]
) -> list[Tested]:
    """Return DeLong's paired test of every finding."""
    tests, owner, (mine, theirs) = [], films.patient, scores
    for k, label in enumerate(films.label.T):
        difference, error, p = delong_difference(label, mine[:, k], theirs[:, k], owner=owner)
        note = no_error(label, owner=owner)
        if not note and patients[k] < FEWEST:
            note, error, p = FEW.format(patients[k]), np.nan, np.nan
        elif not note and np.isnan(p):
            note = "the same difference for every patient"
        reach = error
        if error > 0:
            reach = float(stdtrit(patients[k] - 1, HIGH)) * error
            p = float(2 * stdtr(patients[k] - 1, -abs(difference) / error))
        low, high = difference - reach, difference + reach
        tests.append(Tested(difference, low, high, p, "delong", note))
    return tests


def _over_findings(difference: Float64[np.ndarray, " k"]) -> Tested:
    """Return the signed-rank test over findings, of which the median is shown."""
    known = difference[~np.isnan(difference)]
    median = float(np.median(known)) if len(known) else np.nan
    p, why = signed_rank(difference)
    return Tested(median, np.nan, np.nan, p, "wilcoxon", why or AS_IF_INDEPENDENT)


def _macro(scores: pd.DataFrame) -> dict[str, float]:
    rows = scores[scores["finding"] == MACRO].set_index("metric").to_dict("index")
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {name + end: rows[name][of] for name in SCORES for end, of in ends.items()}


def _against(reference: Predictions, one: Predictions, draws: dict[str, int]) -> dict[str, object]:
    """Return the paired difference in macro AUC from the reference, which has none from itself."""
    if one.network == reference.network:
        return {"note": "the reference"}
    row = macro_auc_rows(compare([one, reference], **draws)).iloc[0]
    ends = {f"difference_{name}": float(row[name]) for name in ("low", "high")}
    return {**row[["difference", "p", "note"]].to_dict(), **ends}


def _splits(one: Predictions, other: Predictions) -> str:
    both = len(set(one.image.tolist()) & set(other.image.tolist()))
    return (
        f"they were made under split {one.split} and split {other.split}, so that test films of "
        f"one may have trained the other (in both are {both:,} of {len(one):,} and {len(other):,} "
        "films)"
    )


def _findings(one: Predictions, other: Predictions) -> str:
    strange = ", ".join(sorted({*one.findings} ^ {*other.findings}))
    return f"only one has {strange}" if strange else "the same findings stand in another order"


def _images(one: Predictions, other: Predictions) -> str:
    mine, theirs = set(one.image.tolist()), set(other.image.tolist())
    if not (strange := sorted(mine ^ theirs)):
        return "the same films stand in another order"
    return (
        f"{len(mine & theirs):,} films are in both, {len(strange):,} in one alone, such as "
        f"{strange[0]!r}, as where films were left out or other films lay on disk"
    )


def _rows(one: Predictions, other: Predictions) -> str:
    return _such(one, (one.patient != other.patient) | (one.part != other.part))


def _labels(one: Predictions, other: Predictions) -> str:
    mine, theirs = np.nan_to_num(one.label, nan=-1), np.nan_to_num(other.label, nan=-1)
    return (
        f"{_such(one, (mine != theirs).any(axis=1))}, are labelled otherwise, as by another "
        "version of the label file (NIH's of 2017 and 2020 differ on 181)"
    )


def _such(one: Predictions, differs: Bool[np.ndarray, " n"]) -> str:
    films = one.image[differs]
    return f"{len(films):,} of {len(one):,} films, such as {str(films[0])!r}"


def _differ(p: Mapping[frozenset[str], float], one: str, other: str) -> bool:
    """Return whether two networks' macro AUCs differ by more than chance allows."""
    pair = frozenset((one, other))
    if pair not in p:
        raise ValueError(
            f"no macro AUC difference of {one} and {other} in the comparison; expected one: "
            "compare all networks that are ranked"
        )
    return p[pair] < LEVEL


DIFFERENCES = {
    "split": _splits, "findings": _findings, "image": _images, "patient": _rows, "part": _rows,
    "label": _labels,
}  # fmt: skip

"""External validation: a network's scores on films of another source, beside its own test films.

A finding is compared where both sets state it and have ENOUGH patients of either class. All scores
are of films that nothing was fitted to: a share of the external patients is set apart, and
recalibrates the network for its new place. On external validation: Riley et al., Evaluation of
clinical prediction models (part 2), BMJ 2024;384:e074820.

Letters in shapes: n films, m training films, d feature dimensions, k findings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Float64
from scipy.special import expit

from lucency.core.manifest import counted, listed
from lucency.core.predictions import Predictions
from lucency.core.tables import load_tables
from lucency.evaluation import bootstrap, feature_distance, intervals
from lucency.evaluation.bootstrap import MACRO, mean_over_findings
from lucency.evaluation.calibration import platt, recalibrate
from lucency.evaluation.compare import UNPAIRED, compare_unpaired, macro_auc_rows
from lucency.evaluation.evaluate import thresholds_of
from lucency.evaluation.metrics import by_finding, calibration_floor
from lucency.evaluation.subgroups import FACTS, groups_of

ENOUGH = intervals.ENOUGH  # patients of either class, in both sets
RECALIBRATED_ON = 0.2  # of the external films, by patient: set apart and never evaluated
METRICS_SHOWN = ("auc", "recall", "specificity", "f1")
OWN_FILMS = "own test films"
NOT_ESTIMATED = "slope not estimated"
LARGEST_ERROR = 1.0  # of a calibration slope: a larger one tells 1 neither from 0 nor from 2
STATES = (OWN_FILMS, "as it is", "recalibrated")
MIXED = ("view", "sex", "age")  # facts whose mix is compared
CALIBRATION = (
    "network", "finding", "state", "films", "brier", "brier_low", "brier_high", "ece",
    "ece_by_chance", "gap", "slope", "note",
)  # fmt: skip
FINDINGS = (
    "finding", "shared", "reason",
    *(f"{side}_{what}" for side in ("internal", "external") for what in (
        "films", "positives", "prevalence", "prevalence_low", "prevalence_high")),
    "difference", "low", "high",
)  # fmt: skip
MIX = ("fact", "group", "internal_films", "internal_share", "external_films", "external_share")
TEXT = ("network", "finding", "reason", "metric", "state", "note", "fact", "group")
Numbers = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class ExternalValidation:
    """One external test, as tables, facts on it (`about`) and a conclusion.

    `findings` has a row a finding of the protocol, `scores` are of `compare_unpaired` on shared
    findings, `calibration` has a row a network, shared finding and state of STATES, `mix` a row a
    group of films, `distance` one of feature_distance.FeatureDistance.
    """

    about: dict[str, Any]
    findings: pd.DataFrame
    scores: pd.DataFrame
    calibration: pd.DataFrame
    mix: pd.DataFrame
    distance: pd.DataFrame
    conclusion: str

    def __repr__(self) -> str:
        return f"<ExternalValidation {self.about['name']}: {self.conclusion}>"

    def _repr_html_(self) -> str:
        return macro_auc_rows(self.scores).to_html(index=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedFilms:
    """Two sets of films with the networks' predictions of them, in the same order of networks.

    `facts` have a row a film of either set, in the order of its predictions. `apart` are the
    external films that recalibrate; `training` the features of training films by the network that
    is concluded on.
    """

    internal: Sequence[Predictions]
    external: Sequence[Predictions]
    internal_facts: pd.DataFrame
    external_facts: pd.DataFrame
    apart: Bool[np.ndarray, " n"]
    training: Float32[np.ndarray, "m d"]


def validate(
    films: ComparedFilms,
    *,
    thresholds: pd.DataFrame,
    network: str,
    method: str,
    about: Mapping[str, Any],
    resamples: int,
    seed: int,
) -> ExternalValidation:
    """Return what networks are worth on external films, beside their own test films.

    `thresholds` are those of the run; `method` recalibrates on the films set apart. `network` is
    the one that is concluded on, chosen on validation films. `about` has the name of the set and
    more to keep. Raises ValueError for predictions that hold several parts.
    """
    draws = {"resamples": resamples, "seed": seed}
    rows = np.flatnonzero(~films.apart)
    tested = [one.take(rows) for one in films.external]
    findings = describe_findings(films.internal[0], tested[0])
    shared = findings.loc[findings["shared"], "finding"].tolist()
    scores, calibration = list[pd.DataFrame](), list[pd.DataFrame]()
    for own, other, whole in zip(films.internal, tested, films.external, strict=True):
        limit = dict(zip(own.findings, thresholds_of(thresholds, own), strict=True))
        pair = [one.of_findings(shared) for one in (own, other)]
        if shared:
            fixed = np.array([limit[one] for one in shared], dtype=np.float64)
            scores.append(compare_unpaired(pair[0], pair[1], threshold=fixed, **draws))
            fitted = whole.take(np.flatnonzero(films.apart)).of_findings(shared)
            calibration.append(_calibrations(pair, fitted, method=method, draws=draws))
    chosen = [one.network for one in films.internal].index(network)
    far = feature_distance.distance_from_training(
        films.training, films.internal[chosen], tested[chosen], **draws
    )
    table = _stack(scores, UNPAIRED)
    held = {
        **about,
        "films": len(rows),
        "patients": len(np.unique(tested[0].patient)),
        "apart_films": int(films.apart.sum()),
        "apart_patients": len(np.unique(films.external[0].patient[films.apart])),
        "seed": seed,
        "recalibration": method,
        "network": network,
        "shared": shared,
        "distance": feature_distance.describe_distance(far),
    }
    return ExternalValidation(
        about=held,
        findings=findings,
        scores=table,
        calibration=_stack(calibration, CALIBRATION),
        mix=compare_mix(films.internal_facts, films.external_facts.iloc[rows]),
        distance=pd.DataFrame([far]),
        conclusion=conclude(table, about=held),
    )


def describe_findings(internal: Predictions, external: Predictions) -> pd.DataFrame:
    """Return a row a finding: whether it is compared, or why not, and its prevalence in both sets.

    The 95 % interval of a prevalence is `share_interval`, that of the difference, external less
    internal, `unpaired_interval`.
    """
    rows = []
    for place, finding in enumerate(internal.findings):
        sides, reasons = [], []
        for side, films in ((OWN_FILMS, internal), ("external films", external)):
            label = films.label[:, place]
            sides.append(_prevalence(label, films.patient))
            reasons.append(_too_few(label, films.patient, side))
        (mine, other), reason = sides, "; ".join(filter(None, reasons))
        gap = intervals.unpaired_interval(other[2], tuple(other[3:]), mine[2], tuple(mine[3:]))
        rows.append((finding, not reason, reason, *mine, *other, other[2] - mine[2], *gap))
    return pd.DataFrame(rows, columns=list(FINDINGS))


def compare_mix(internal: pd.DataFrame, external: pd.DataFrame) -> pd.DataFrame:
    """Return the films and their share in each group of view, sex and age, in both sets.

    A fact that neither set has is left out; where one set lacks it, its films are unknown there.
    """
    rows = []
    for fact in MIXED:
        column, edges, bands = FACTS[fact]
        if column not in internal and column not in external:
            continue
        counts = [
            {name: int(inside.sum()) for name, inside in groups_of(one, edges, bands)}
            for one in (
                pd.Series(side[column]) if column in side else pd.Series(np.full(len(side), np.nan))
                for side in (internal, external)
            )
        ]
        names = [*bands, *sorted({*counts[0], *counts[1]} - {*bands, "unknown"}), "unknown"]
        for name in names:
            found = [each.get(name, 0) for each in counts]
            if any(found):
                shares = [
                    count / max(1, len(side))
                    for count, side in zip(found, (internal, external), strict=True)
                ]
                rows.append((fact, name, found[0], shares[0], found[1], shares[1]))
    return pd.DataFrame(rows, columns=list(MIX))


def conclude(scores: pd.DataFrame, *, about: Mapping[str, Any]) -> str:
    """Return whether a network travels: its macro AUC in both sets and the difference."""
    where, network = about["name"], about["network"]
    if not len(scores):
        return f"{where}: no finding is stated in both sets with enough patients; not compared."
    macro = macro_auc_rows(scores)
    row = macro.loc[macro["network"] == network].iloc[0]
    over = f"{counted(len(about['shared']), 'shared finding')}"
    numbers = (
        f"macro AUC of {network} over {over} {row['internal']:.3f} on own test films, "
        f"{row['external']:.3f} on {where}"
    )
    gap = f"difference {row['difference']:+.3f}"
    if np.isnan(row["low"]):
        return f"{where}: {numbers}, {gap} (no interval). Whether it travels stays open."
    gap = f"{gap} (95 % interval {row['low']:+.3f} to {row['high']:+.3f})"
    if row["high"] < 0:
        verdict = "It does not travel without loss"
    elif row["low"] > 0:
        verdict = "It travels: macro AUC is higher there"
    else:
        verdict = (
            "Whether it loses by travelling stays open, for the interval holds 0; a loss of "
            f"more than {max(0.0, -row['low']):.3f} is excluded"
        )
    return f"{where}: {numbers}, {gap}. {verdict}."


def load_validation(folder: Path) -> ExternalValidation:
    """Read what `save_tables` wrote."""
    return load_tables(ExternalValidation, folder, text=TEXT)


def _prevalence(
    label: Float32[np.ndarray, " n"], patient: np.ndarray
) -> tuple[int, int, float, float, float]:
    """Return films with a label, positives, and the share of these with its interval."""
    stated = ~np.isnan(label)
    films, positives = int(stated.sum()), int((label == 1).sum())
    ends = intervals.share_interval(label == 1, stated, owner=patient)
    return films, positives, positives / films if films else np.nan, *ends


def _too_few(label: Float32[np.ndarray, " n"], patient: np.ndarray, side: str) -> str:
    """Return why a finding is not compared on these films, or nothing."""
    if np.isnan(label).all():
        return f"{side}: not stated"
    for name, value in (("positives", 1), ("negatives", 0)):
        people = len(np.unique(patient[label == value]))
        if people < ENOUGH:
            return f"{side}: patients with {name} {people}, expected {ENOUGH} or more"
    return ""


def _calibrations(
    pair: Sequence[Predictions],
    apart: Predictions,
    *,
    method: str,
    draws: Mapping[str, int],
) -> pd.DataFrame:
    """Return the calibration in each of STATES; the last is fitted to the films set apart."""
    own, other = pair
    line = recalibrate(apart.label, apart.logit.astype(np.float32), method=method)
    again = replace(other, slope=line.slope, offset=line.offset, knot=line.knot)
    notes = [note.replace("in validation", "in the films set apart") for note in line.note]
    none = [""] * len(notes)
    each = zip(STATES, (own, other, again), (none, none, notes), strict=True)
    return _stack([_calibration(one, state, note, draws) for state, one, note in each], CALIBRATION)


def _calibration(
    films: Predictions, state: str, notes: Sequence[str], draws: Mapping[str, int]
) -> pd.DataFrame:
    """Return a row a finding, and macro: the means of Brier score, ECE and gap; slope.

    `gap` is the mean probability less the share of positives; `slope` that of Platt's line on the
    logits, 1 where they are calibrated, below 1 where they are too far from 0; NaN where `_slope`
    cannot estimate it, as `note` says. The slope of macro is the median of the others.
    """
    label, probability = films.label, films.probability
    weights = bootstrap.all_and_resampled(films.patient, **draws)
    score = by_finding("brier", label, probability, weights=weights)
    people = np.array([len(np.unique(films.patient[~np.isnan(one)])) for one in label.T])
    ends = [
        intervals.bootstrap_interval(one, patients=count)
        for one, count in zip(score, people.tolist(), strict=True)
    ]
    ends.append(intervals.macro_interval(score, patients=people))
    once = bootstrap.once(len(films))
    chance = [calibration_floor(*one) for one in zip(label.T, probability.T, strict=True)]
    slope, reasons = _slopes(label, films.calibrated)
    numbers: Numbers = {
        "films": (~np.isnan(label)).sum(axis=0).astype(np.float64),
        "brier": score[:, 0],
        "ece": by_finding("ece", label, probability, weights=once)[:, 0],
        "ece_by_chance": np.array(chance),
        "gap": np.nanmean(np.where(np.isnan(label), np.nan, probability - label), axis=0),
        "slope": slope,
    }
    table = pd.DataFrame({
        name: [*value, float(mean_over_findings(value[:, None])[0])]
        for name, value in numbers.items()
    })  # fmt: skip
    estimated = slope[~np.isnan(slope)]
    table.loc[len(table) - 1, ["films", "slope"]] = (
        len(films),
        np.median(estimated) if len(estimated) else np.nan,
    )
    lacking = f"slope: median of {counted(len(estimated), 'finding', of=len(slope))}"
    beside = ["; ".join(filter(None, pair)) for pair in zip(notes, reasons, strict=True)]
    beside.append(lacking if len(estimated) < len(slope) else "")
    about = {"network": films.network, "finding": [*films.findings, MACRO], "state": state}
    low, high = np.array(ends).T
    table = table.assign(**about, brier_low=low, brier_high=high, note=beside)
    return table.loc[:, list(CALIBRATION)].astype({"films": np.int64})


def _slopes(
    label: Float32[np.ndarray, "n k"], logit: Float[np.ndarray, "n k"]
) -> tuple[Float64[np.ndarray, " k"], list[str]]:
    """Return the slope of each finding, and why it is not estimated."""
    found = [_slope(*one) for one in zip(label.T, logit.T, strict=True)]
    return np.array([slope for slope, _ in found], dtype=np.float64), [why for _, why in found]


def _slope(label: np.ndarray, logit: np.ndarray) -> tuple[float, str]:
    """Return the slope of Platt's line; NaN and the reason where it cannot be estimated.

    That is where a logit separates the films with a finding from those without, so that steeper is
    ever better (Albert and Anderson, Biometrika 71, 1984, 1-10), and where the standard error, by
    the Fisher information at the line, is above LARGEST_ERROR: of few films, or of logits that
    hardly differ.
    """
    stated = ~np.isnan(label)
    truth, given = label[stated].astype(np.float64), logit[stated].astype(np.float64)
    ill, well = given[truth == 1], given[truth == 0]
    if not len(ill) or not len(well):
        return np.nan, f"{NOT_ESTIMATED}: one class alone"
    if well.max() <= ill.min() or ill.max() <= well.min():
        return np.nan, f"{NOT_ESTIMATED}: a logit separates positives from negatives"
    line = platt(truth, given)
    share = expit(line.slope * given + line.offset)
    weight = share * (1 - share)
    spread = weight @ (given - np.average(given, weights=weight)) ** 2
    if spread * LARGEST_ERROR**2 < 1:
        return np.nan, f"{NOT_ESTIMATED}: its standard error is above {LARGEST_ERROR:g}"
    return line.slope, ""


def _stack(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(columns))


def name_findings(found: ExternalValidation) -> str:
    """Return which findings are compared and how many are not."""
    out = found.findings.loc[~found.findings["shared"], "finding"].tolist()
    shared = listed(found.about["shared"]) or "none"
    return f"shared findings: {shared}" + (f"; not compared: {listed(out)}" if out else "")

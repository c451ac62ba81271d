"""Agreement of a label file with radiologists, of these with each other, and label quality.

NIH's labels were mined from reports, with which they agree at F1 .94 (Wang et al., CVPR 2017); here
they are compared with what radiologists saw. The films that were read were chosen to hold many
findings, so that a predictive value is not that of a random film. All intervals are 95 %.

Findings may be merged into groups first: consolidation, pneumonia and infiltration describe one
appearance, and no reader distinguishes them by the picture alone (Oakden-Rayner, Academic Radiology
27 (2020), 106-112). The rule by which labels are rated is ours; it rates them, not the networks.

Letters in shapes: n films, k findings, r resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped

from lucency.balance.imbalance import no_finding
from lucency.core.manifest import FINDINGS, NO_FINDING, Manifest, listed, nearest
from lucency.core.predictions import Predictions
from lucency.core.tables import join_films
from lucency.data.radiologists import Readings
from lucency.evaluation import bootstrap
from lucency.evaluation.bootstrap import Weights
from lucency.evaluation.intervals import (
    BOOTSTRAPPED,
    TOO_FEW,
    Bounds,
    bootstrap_interval,
    no_interval,
    share_interval,
)
from lucency.evaluation.metrics import Cells, count_cells, ratio
from lucency.evaluation.significance import wilson

AGREED = (
    "finding", "measure", "value", "low", "high", "wilson_low", "wilson_high", "labelled",
    "seen", "both", "films", "patients", "note",
)  # fmt: skip
FLOW = (
    "labelled", "seen", "films", "of", "share", "low", "high", "wilson_low", "wilson_high", "note",
)  # fmt: skip
READ = ("finding", "kappa", "low", "high", "films", "readings", "patients", "note")
COUNTS = ("finding", "labelled", "seen", "both", "kappa", "low", "high")
LABEL_QUALITY = (
    "finding", "rating", "ppv", "low", "high", "sensitivity", "labelled", "seen", "both", "kappa",
    "reason",
)  # fmt: skip
RELIABLE, DOUBTFUL, UNCONFIRMED, UNRELIABLE = "reliable", "doubtful", "unconfirmed", "unreliable"
RATINGS = {  # and how a sentence begins that lists their findings
    RELIABLE: "Reliable labels",
    DOUBTFUL: "Doubtful labels",
    UNCONFIRMED: "Labels not confirmed by readers who agree little",
    UNRELIABLE: "Unreliable labels",
}
HALF, MODERATE = 0.5, 0.4  # of PPV; of kappa: Landis and Koch, Biometrics 33 (1977), 159-174
SLIGHT = 0.2  # of kappa, by the same
PUBLISHED = "published_agreement.csv"
ANY, ABNORMAL, NORMAL = "any finding", "abnormal", "normal"
KAPPA = "kappa"
NO_PAIRS = "not computable: no film has two answers"
UNREAD = "PPV not known: experts read no film with the label"
ONE_ANSWER = "not computable: all answers are the same"
ROUNDING = 1e-12  # of a share; below it two are equal
SHARES = {  # and what is absent where one is not computable
    "ppv": "labelled positive",
    "sensitivity": "that experts call positive",
    "specificity": "that experts call negative",
    "npv": "labelled negative",
}
GROUPS: dict[str, tuple[str, ...]] = {
    "Opacity": ("Infiltration", "Consolidation", "Pneumonia", "Atelectasis", "Edema"),
    "Nodule or mass": ("Nodule", "Mass"),
}
FOUR_GROUPS: dict[str, tuple[str, ...]] = {  # as the four-finding release of experts names them
    "Pneumothorax": ("Pneumothorax",),
    "Airspace opacity": ("Consolidation", "Infiltration", "Pneumonia", "Edema"),
    "Nodule or mass": ("Nodule", "Mass"),
}
Groups = Mapping[str, tuple[str, ...]]
Label = Float[np.ndarray, " n"]  # 1, 0 or NaN
Labels = Float[np.ndarray, "n k"]
Films = Bool[np.ndarray, " n"]
Count = Int64[np.ndarray, " n"]
Values = Float64[np.ndarray, " r"]


def agreement(labels: Manifest, experts: Manifest, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return SHARES and KAPPA of every finding, `labels` as the test, `experts` as ground truth.

    A film that either leaves open (NaN) is left out. `labelled`, `seen` and `both` count the
    positives of labels, of experts and of both. Beside the interval over patients stands
    Wilson's, of a share, which takes films as independent. Raises
    ValueError when they have no film or no finding in common.
    """
    ours, theirs = in_common(labels, experts)
    patient = ours.patient
    weights = bootstrap.all_and_resampled(patient, resamples=resamples, seed=seed)
    rows = []
    for finding, mine, seen in zip(ours.findings, ours.label.T, theirs.label.T, strict=True):
        stated = ~np.isnan(mine) & ~np.isnan(seen)
        truth, called = np.where(stated, seen, np.nan), mine == 1
        cells = count_cells(truth, called, weights=weights)
        tp, fp, fn, _ = (int(cell[0]) for cell in cells)
        about = (tp + fp, tp + fn, tp, int(stated.sum()), len(np.unique(patient[stated])))
        measures = _measures(truth, called, patient, cells)
        rows += [(finding, *numbers, *about, note) for *numbers, note in measures]
    return pd.DataFrame(rows, columns=list(AGREED))


def flow(labels: Manifest, experts: Manifest) -> pd.DataFrame:
    """Return what radiologists saw on the films of each label: `films` of `of`, their share.

    Labels are the findings, ANY of them, and NO_FINDING (all are 0); seen are the findings, ANY,
    and where experts rated it ABNORMAL and NORMAL. A film may show several findings, so shares
    do not add up to 1; one of which a finding is not stated does not count there. Raises
    ValueError when they have no film or no finding in common.
    """
    ours, theirs = in_common(labels, experts)
    given = {**_columns(ours), NO_FINDING: no_finding(ours.label, names=ours.findings)}
    seen = _columns(theirs)
    if ABNORMAL in theirs.facts:
        abnormal = theirs.facts[ABNORMAL].to_numpy(dtype=np.float64)
        seen |= {ABNORMAL: abnormal, NORMAL: 1 - abnormal}
    shown = np.stack(list(seen.values()))
    tables = []
    for name, label in given.items():
        both, stated = ((label == 1) & which for which in (shown == 1, ~np.isnan(shown)))
        films, total = both.sum(axis=1), stated.sum(axis=1)
        each = zip(both, stated, strict=True)
        ends = np.array([share_interval(*one, owner=ours.patient) for one in each]).T
        values = (name, list(seen), films, total, ratio(films, total), *ends, *wilson(films, total))
        table = pd.DataFrame(dict(zip(FLOW[:-1], values, strict=True)))
        none = f"not computable: 0 films labelled {name} of which this is stated"
        few = np.where(np.isnan(ends[0]), TOO_FEW, "")
        tables.append(table.assign(note=np.where(total > 0, few, none)))
    return pd.concat(tables, ignore_index=True)


def between_readers(readings: Readings, *, resamples: int, seed: int) -> pd.DataFrame:
    """Return Fleiss' kappa of every finding among the readers of each film.

    Hedged answers are left out, as is a reader's second reading of a film, and a film with fewer
    than two answers; the number of answers may differ between films. Readings of all 14 findings
    have a row of "No Finding" as well: a reader who saw none of them. Fleiss, Psychological
    Bulletin 76 (1971), 378-382.
    """
    whole = {*FINDINGS} <= {*readings.findings}
    answer = dict(zip(readings.findings, readings.label.T, strict=True))
    nothing = no_finding(readings.label, names=readings.findings)
    answer |= {NO_FINDING: nothing} if whole else {}
    again = pd.DataFrame({"image": readings.image, "reader": readings.reader}).duplicated()
    kept = np.flatnonzero(~again.to_numpy())
    _, first, film = np.unique(readings.image[kept], return_index=True, return_inverse=True)
    patient = readings.patient[kept][first]
    weights = bootstrap.all_and_resampled(patient, resamples=resamples, seed=seed)
    rows = []
    for finding, label in answer.items():
        yes, no = (np.bincount(film[label[kept] == one], minlength=len(first)) for one in (1, 0))
        several = yes + no > 1
        sampled = fleiss(yes, no, weights=weights)
        either = ((one > 0) & several for one in (yes, no))
        bounds, few = _kappa_interval(sampled, *either, patient=patient)
        lacking = ONE_ANSWER if several.any() else NO_PAIRS
        counts = (several.sum(), (yes + no)[several].sum(), len(np.unique(patient[several])))
        note = lacking if np.isnan(sampled[0]) else few
        rows.append((finding, sampled[0], *bounds, *map(int, counts), note))
    return pd.DataFrame(rows, columns=list(READ))


def rate_label_quality(counts: pd.DataFrame, *, caveats: Mapping[str, str]) -> pd.DataFrame:
    """Return for each finding whether its labels are reliable, and why not.

    `counts` has the columns COUNTS: how many films of a sample are labelled, how many experts call
    positive, how many are both, Fleiss' kappa among the experts (NaN if unknown), and the PPV's
    interval over patients (NaN if the films' patients are unknown, or too few: then it is Wilson's,
    which takes films as independent). `unreliable`: it ends below a half, so most labels are wrong.
    `unconfirmed`: it does, but the experts agree less than moderately among themselves, so that
    they confirm few labels of any kind. `doubtful`: it does not lie above a half; or experts agree
    less than moderately; or the finding is a key of `caveats`, whose text is the reason. Else
    `reliable`.
    """
    both, labelled, seen = (counts[name].to_numpy(float) for name in ("both", "labelled", "seen"))
    clustered = counts[["low", "high"]].to_numpy(float).T
    low, high = np.where(np.isnan(clustered), wilson(both, labelled), clustered)
    rating, reasons = [], []
    for row, least, most in zip(counts.to_dict("records"), low, high, strict=True):
        reason = [_known_of(row, least=least, most=most)]
        apart = row["kappa"] < MODERATE
        if apart:
            reason.append(_agreeing(row["kappa"], confirmed=not most < HALF))
        if row["finding"] in caveats:
            reason.append(caveats[row["finding"]])
        sure = RELIABLE if least > HALF and len(reason) == 1 else DOUBTFUL
        wrong = UNCONFIRMED if apart else UNRELIABLE
        rating.append(wrong if most < HALF else sure)
        reasons.append("; ".join(reason))
    found = {"ppv": ratio(both, labelled), "low": low, "high": high}
    found |= {"sensitivity": ratio(both, seen)}
    table = counts.assign(rating=rating, **found, reason=reasons)
    return table.loc[:, list(LABEL_QUALITY)]


def counts_of(agreement: pd.DataFrame, readers: pd.DataFrame) -> pd.DataFrame:
    """Return the columns COUNTS of `agreement` and `between_readers`; kappa NaN without readers."""
    first = agreement.loc[agreement["measure"] == "ppv"].set_index("finding")
    kappa = readers.set_index("finding")["kappa"].reindex(first.index)
    return first.assign(kappa=kappa).reset_index().loc[:, list(COUNTS)]


def published_counts(findings: tuple[str, ...] = (*FINDINGS, NO_FINDING)) -> pd.DataFrame:
    """Return the counts of ChestX-ray14's 14 findings and "No Finding", on 810 films.

    NIH's labels (v2020) against the majority of three radiologists, and the kappa of all five, of
    Nabulsi et al., Scientific Reports 11 (2021), 15523; "No Finding" is none of the 14. The PPV's
    interval is `agreement`'s, of 1,000 resamples of their 532 patients. Of a finding that they did
    not read the counts are 0, kappa and interval NaN.
    """
    with (files("lucency.audit") / PUBLISHED).open() as table:
        read = pd.read_csv(table).set_index("finding").reindex(list(findings))
    counted = dict.fromkeys(COUNTS[1:4], 0)
    return read.fillna(counted).astype(dict.fromkeys(counted, int)).reset_index()


def conclude_label_quality(label_quality: pd.DataFrame) -> str:
    """Return the findings by their rating, a sentence each."""
    findings = label_quality.groupby("rating")["finding"].agg(lambda names: listed(names.tolist()))
    rated = [name for name in RATINGS if name in findings]
    return " ".join(f"{RATINGS[name]}: {findings[name]}." for name in rated)


def fleiss(yes: Count, no: Count, *, weights: Weights) -> Values:
    """Return Fleiss' kappa from how many readers of each film answered yes and no.

    NaN where all answers are the same. Films with fewer than two answers are left out.
    """
    several = yes + no > 1
    count = np.where(several, yes + no, 0).astype(np.float64)
    pairs = np.where(several, count * (count - 1), 1)
    alike = np.where(several, 1 - 2 * yes * no / pairs, 0)
    terms = np.stack([alike, several.astype(np.float64), np.where(several, yes, 0), count])
    same, films, positive, answers = weights.total(terms)
    share = ratio(positive, answers)
    return _above_chance(ratio(same, films), share**2 + (1 - share) ** 2)


def cohen(cells: Cells) -> Values:
    """Return the agreement of two beyond chance, (observed - expected) / (1 - expected).

    Cohen, Educational and Psychological Measurement 20 (1960), 37-46. NaN where both give all
    films one and the same label.
    """
    tp, fp, fn, tn = cells
    films = tp + fp + fn + tn
    expected = (tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)
    return _above_chance(ratio(tp + tn, films), ratio(expected, films**2))


def merge_labels(labels: Manifest, groups: Groups) -> Manifest:
    """Return the labels of groups: 1 where a member is, 0 where all are 0, else NaN (not stated).

    Boxes are left out. Raises ValueError for a group with an unknown member.
    """
    members = _members(labels.findings, groups)
    label = np.stack([merged(labels.label[:, row]) for row in members], axis=1)
    return replace(labels, findings=tuple(groups), label=label, boxes=labels.boxes.iloc[:0])


def merge_predictions(predictions: Predictions, groups: Groups) -> Predictions:
    """Return the predictions of groups: the probability of any, as if they were independent.

    So the probability of a group is never below any member's. Raises ValueError for a group with
    an unknown member.
    """
    members = _members(predictions.findings, groups)
    logit = predictions.calibrated
    return replace(
        predictions.uncalibrated(),
        findings=tuple(groups),
        label=np.stack([merged(predictions.label[:, row]) for row in members], axis=1),
        logit=np.stack([_any_of(logit[:, row]) for row in members], axis=1),
    )


def with_no_finding(labels: Manifest) -> Manifest:
    """Return the labels with "No Finding" as one more: none of the others is present.

    It is known where all others are, or one is present. Labels that have it are left as they are.
    """
    if NO_FINDING in labels.findings:
        return labels
    column = no_finding(labels.label, names=labels.findings)
    findings = (*labels.findings, NO_FINDING)
    return replace(labels, findings=findings, label=np.column_stack([labels.label, column]))


def merged(label: Labels) -> Float32[np.ndarray, " n"]:
    """Return 1 where any label is, 0 where all are 0, NaN where neither is known."""
    there = (label == 1).any(axis=1)
    absent = (label == 0).all(axis=1)
    return np.where(there, 1, np.where(absent, 0, np.nan)).astype(np.float32)


def in_common(one: Manifest, other: Manifest) -> tuple[Manifest, Manifest]:
    """Return both labellings of the films and findings that both have, in the order of `one`.

    Raises ValueError when they have no film or no finding in common.
    """
    findings = tuple(name for name in one.findings if name in other.findings)
    if not findings:
        raise ValueError(
            f"findings {', '.join(one.findings)} and {', '.join(other.findings)} have none in "
            "common; expected some: merge them with lucency.audit.agreement.merge_labels"
        )
    row = rows_of(other, one.image)
    known = np.flatnonzero(row >= 0)
    if not len(known):
        raise ValueError(
            f"{one.origin}, and {other.origin}: no film is in both; expected image names alike"
        )
    return _only(one.take(known), findings), _only(other.take(row[known]), findings)


def rows_of(labels: Manifest, image: Shaped[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return the row of each image in `labels`; -1 where it is not there."""
    return join_films(image, labels.image, source=labels.origin)


def align(labels: Manifest, like: Manifest | Predictions) -> Float32[np.ndarray, "n k"]:
    """Return the `labels` of the films and findings of `like`; NaN where there is none."""
    row = rows_of(labels, like.image)
    known = pd.DataFrame(labels.label, columns=list(labels.findings))
    found = known.reindex(index=np.where(row >= 0, row, len(known)), columns=list(like.findings))
    return found.to_numpy(dtype=np.float32)


def _known_of(row: Mapping[str, object], *, least: float, most: float) -> str:
    """Return what is known of a finding's labels: counts, and what its interval leaves open."""
    if not row["labelled"]:
        return UNREAD
    films = "" if row["low"] == row["low"] else ", taken as independent"
    unsure = "" if least > HALF or most < HALF else ", interval holds .5"
    return f"PPV {row['both']} of {row['labelled']} films with the label{films}{unsure}"


def _agreeing(kappa: float, *, confirmed: bool) -> str:
    if confirmed:
        return f"kappa among experts {kappa:.2f}"
    little = "hardly agree" if kappa < SLIGHT else "agree little"
    return f"not confirmed by readers who {little} (kappa {kappa:.2f})"


def _measures(
    truth: Label, called: Films, patient: Int64[np.ndarray, " n"], cells: Cells
) -> Iterator[tuple[str | float, ...]]:
    """Yield of each measure its name, value, interval, Wilson's interval, and the note."""
    positive, negative = truth == 1, truth == 0
    stated = positive | negative
    counted = {
        "ppv": (positive, called & stated),
        "sensitivity": (called, positive),
        "specificity": (~called, negative),
        "npv": (negative, ~called & stated),
    }
    for name, (hit, among) in counted.items():
        part, whole = np.array([(hit & among).sum()]), np.array([among.sum()])
        ends = share_interval(hit, among, owner=patient)
        few = "" if ends[0] == ends[0] else TOO_FEW
        note = few if whole[0] else f"not computable: 0 films {SHARES[name]}"
        yield name, float(ratio(part, whole)[0]), *ends, *wilson(part, whole)[:, 0], note
    kappa = cohen(cells)
    either = (stated & ((truth == one) | (called == one)) for one in (1, 0))
    ends, few = _kappa_interval(kappa, *either, patient=patient)
    alike = "not computable: labels and experts are the same on all films"
    yield KAPPA, float(kappa[0]), *ends, np.nan, np.nan, alike if np.isnan(kappa[0]) else few


def _kappa_interval(
    kappa: Values, positive: Films, negative: Films, *, patient: Int64[np.ndarray, " n"]
) -> tuple[Bounds, str]:
    """Return the ends of a kappa's interval, from its resamples, and why there is none.

    `positive` and `negative` are the films with such an answer.
    """
    people = min(len(np.unique(patient[films])) for films in (positive, negative))
    ends = bootstrap_interval(kappa, patients=people, fewest=BOOTSTRAPPED)
    return ends, no_interval(ends, patients=people, fewest=BOOTSTRAPPED)


def _columns(labels: Manifest) -> dict[str, Label]:
    return {**dict(zip(labels.findings, labels.label.T, strict=True)), ANY: merged(labels.label)}


def _above_chance(observed: Values, expected: Values) -> Values:
    room = 1 - expected
    return ratio(observed - expected, np.where(room > ROUNDING, room, 0))


def _any_of(logit: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, " n"]:
    """Return the logit of 1 - the product of 1 - p, without rounding p to 0 or 1."""
    none = np.logaddexp(0, logit).sum(axis=1)  # minus the log of that product
    return none + np.log(-np.expm1(-np.maximum(none, np.finfo(np.float64).tiny)))


def _only(labels: Manifest, findings: tuple[str, ...]) -> Manifest:
    column = [labels.findings.index(name) for name in findings]
    return replace(labels, findings=findings, label=labels.label[:, column])


def _members(findings: tuple[str, ...], groups: Groups) -> list[list[int]]:
    """Return the places of each group's members among the findings."""
    for group, members in groups.items():
        for name in members:
            if name not in findings:
                known = f"expected some of {', '.join(findings)}{nearest(name, findings)}"
                raise ValueError(f"group {group!r}: finding {name!r} is unknown; {known}")
    return [[findings.index(name) for name in members] for members in groups.values()]

"""Label audits of `lucency audit`: against experts, between versions, and label by label.

Letters in shapes: n films, k findings, k1 the findings and macro, r resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, Int64

from lucency.audit import agreement, label_errors
from lucency.config.sections import DRAWS
from lucency.core.manifest import (
    FINDINGS,
    NO_FINDING,
    Manifest,
    counted,
    load_manifest,
    name_patients,
)
from lucency.core.predictions import Predictions, load_predictions, load_repeats
from lucency.core.tables import Audit, refuse_label_file
from lucency.data.labels import USUAL_COLUMNS, Columns, read_labelled
from lucency.data.radiologists import RELEASES, read_expert_table, read_readings, release_of
from lucency.evaluation.bootstrap import all_and_resampled, mean_over_findings
from lucency.evaluation.compare import macro_test
from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.external import read_predictions_table, refuse_scale
from lucency.evaluation.intervals import (
    BOOTSTRAPPED,
    auc_intervals,
    difference_interval,
    patients_of_rarer,
)
from lucency.evaluation.metrics import by_finding

ALL = "all"
NAMING = ("first", "films", "errors")  # the tables that name films and patients
CHANGES = ("finding", "before", "after", "added", "removed", "films")
CHOSEN = "The films were chosen to hold many findings: shares are not those of random films."
Label = Float32[np.ndarray, " n *k"]


def audit_labels(
    labels: Path,
    *,
    expert: Path,
    table: Path | None,
    scale: str,
    columns: Columns = USUAL_COLUMNS,
) -> Audit:
    """Compare a label file, and a table of external predictions, with radiologists' labels.

    `expert` is a table of labels of either of Google's releases, or the folder of all findings'.
    Raises ValueError when a file is not what it should be, or none of its films is labelled.
    """
    _refuse_table(table, scale, labels=(labels,))
    films, file = read_labelled(labels, **columns), _expert_file(expert)
    experts = read_expert_table(file)
    release = release_of(experts.findings)
    mine = agreement.merge_labels(films, agreement.FOUR_GROUPS) if release == "four" else films
    both = [mine, experts]
    if {*FINDINGS} <= {*mine.findings} & {*experts.findings}:
        both = [agreement.with_no_finding(one) for one in both]
    found = {"agreement": agreement.agreement(*both, **DRAWS)}
    known = {*films.findings} & {*experts.findings}
    groups = {name: names for name, names in agreement.GROUPS.items() if known >= {*names}}
    if groups:
        merged = [agreement.merge_labels(one, groups) for one in (films, experts)]
        found["groups"] = agreement.agreement(*merged, **DRAWS)
    found["flow"] = agreement.flow(mine, experts)
    kappa = pd.DataFrame({"finding": [], "kappa": []})
    if (file.parent / RELEASES[release].readings).is_file():
        kappa = agreement.between_readers(read_readings(file.parent, release=release), **DRAWS)
        if NO_FINDING not in both[0].findings:
            kappa = kappa.loc[kappa["finding"] != NO_FINDING].reset_index(drop=True)
        found["readers"] = kappa
    if table is not None:
        external = read_predictions_table(table, films=films, scale=scale, part="test")
        merged = _merged_for(external, experts)
        pair = {"labels": merged.label, "experts": agreement.align(experts, merged)}
        found["auc"] = effect(merged, pair, **DRAWS)
    counts = agreement.counts_of(found["agreement"], kappa)
    found["label_quality"] = agreement.rate_label_quality(counts, caveats={})
    return Audit(
        tables=found,
        shown=tuple(name for name in found if name != "flow"),
        remarks=(
            f"{films.origin}; {experts.origin}. {CHOSEN}",
            *([_nothing_found(found["flow"])] if {*FINDINGS} <= {*films.findings} else []),
        ),
        conclusion=agreement.conclude_label_quality(found["label_quality"]),
    )


def audit_versions(
    old: Path,
    new: Path,
    *,
    table: Path | None,
    scale: str,
    columns: Columns = USUAL_COLUMNS,
) -> Audit:
    """Compare two label files, and the AUCs of a table of predictions by either.

    Raises ValueError when the files share no film or no finding, for one of them as the table, and
    for a scale without a table.
    """
    _refuse_table(table, scale, labels=(old, new))
    one, other = (read_labelled(file, **columns) for file in (old, new))
    found = {"changes": changes(one, other), "labels": changed_labels(one, other)}
    if table is not None:
        external = read_predictions_table(table, films=other, scale=scale, part="test")
        pair = {"old": agreement.align(one, external), "new": agreement.align(other, external)}
        found["auc"] = effect(external, pair, **DRAWS)
    both = int((agreement.rows_of(other, one.image) >= 0).sum())
    apart = f"in the first alone: {len(one) - both:,}; in the second alone: {len(other) - both:,}"
    count = found["changes"].set_index("finding").to_dict(orient="index")
    every, nothing = count[ALL], count[NO_FINDING]
    return Audit(
        tables=found,
        shown=tuple(name for name in found if name != "labels"),
        remarks=(f"{one.origin}; {other.origin}. Films in both: {both:,}; {apart}.",),
        conclusion=(
            f"Films that differ: {every['films']:,}. Labels added: {every['added']:,}; removed: "
            f"{every['removed']:,}. {NO_FINDING!r} lost: {nothing['removed']:,} films; gained: "
            f"{nothing['added']:,}."
        ),
    )


def audit_label_errors(
    what: Path,
    *,
    labels: Path | None,
    expert: Path | None,
    scale: str,
    top: int,
    columns: Columns = USUAL_COLUMNS,
) -> Audit:
    """Rank the labels that are likely wrong by the predictions in `what`.

    That is a predictions.npz of a run, whose features' neighbours count too, or of `lucency study
    cross-validation`, where its repeats do, or a table of external predictions, which needs
    `labels`. With `expert`, as of `audit_labels`, the ranking is compared with what radiologists
    saw. Raises ValueError for files that are not so, or have no film in common, and for a scale
    beside a predictions.npz.
    """
    predictions, films = _untrained(what, labels=labels, scale=scale, columns=columns)
    folds = load_repeats(what, predictions)
    near = label_errors.nearest_others(predictions.feature, patient=predictions.patient)
    evidence = label_errors.gather_evidence(predictions, folds=folds, near=near)
    joint = label_errors.joint_counts(predictions.label, predictions.probability)
    score = label_errors.error_score(predictions.label, predictions.probability, joint)
    found = {
        "noise": label_errors.noise_counts(predictions, joint),
        "first": label_errors.first_label_errors(predictions, score, top=top),
        "films": label_errors.films_with_label_errors(predictions, score, top=top),
        "errors": label_errors.find_label_errors(predictions, evidence, top=top),
    }
    if films is not None:
        found |= {name: name_patients(found[name], films) for name in NAMING}
    conclusion = _conclude_noise(found["noise"])
    if expert is not None:
        experts = read_expert_table(_expert_file(expert))
        found |= _detected(predictions, experts, evidence=evidence, near=near)
        conclusion += _conclude_detection(found["detection"])
    own = what.suffix == ".npz"
    trained = " that it has not trained on" if own else "; whether it trained on them is unknown"
    return Audit(
        tables=found,
        shown=tuple(name for name in found if name in ("noise", "first", "detection")),
        remarks=(f"{predictions.network}: {len(predictions):,} films{trained}.",),
        conclusion=conclusion,
    )


def changes(old: Manifest, new: Manifest) -> pd.DataFrame:
    """Return how many labels of each finding were added and removed, on how many films.

    `before` and `after` count positives; NO_FINDING (all findings are 0) and ALL findings have rows
    of their own. A label that is no longer 1, even if not stated, is removed. Only films and
    findings of both files count. Raises ValueError when there are none.
    """
    one, other = agreement.in_common(old, new)
    nothing = [(labels.label == 0).all(axis=1).astype(np.float32) for labels in (one, other)]
    columns = [
        *zip(one.findings, one.label.T, other.label.T, strict=True),
        (NO_FINDING, *nothing),
        (ALL, one.label, other.label),
    ]
    rows = []
    for name, before, after in columns:
        was, now = before == 1, after == 1
        films = _differs(before, after).reshape(len(one), -1).any(axis=1)
        counts = (was.sum(), now.sum(), (now & ~was).sum(), (was & ~now).sum(), films.sum())
        rows.append((name, *map(int, counts)))
    return pd.DataFrame(rows, columns=list(CHANGES))


def changed_labels(old: Manifest, new: Manifest) -> pd.DataFrame:
    """Return every label that differs, one row each, film by film: `before` and `after`.

    Raises ValueError when the files have no film or no finding in common.
    """
    one, other = agreement.in_common(old, new)
    film, finding = np.nonzero(_differs(one.label, other.label))
    columns = {
        "image": one.image[film],
        "patient": one.patient_id[film],
        "finding": np.array(one.findings)[finding],
        "before": one.label[film, finding],
        "after": other.label[film, finding],
    }
    return pd.DataFrame(columns)


def effect(
    predictions: Predictions, labels: Mapping[str, Label], *, resamples: int, seed: int
) -> pd.DataFrame:
    """Return the AUC of every finding and macro by either of two `labels`, and second - first.

    `labels` are by name, films x findings as in the predictions (see `align`); films and findings
    count that both state. 95 % intervals are those of evaluation.intervals; that of the difference
    is paired, over the same resampled patients.
    `differing` counts the films labelled otherwise, in the row of macro the cells of film x
    finding. Raises ValueError when no film is in all three.
    """
    names, pair = tuple(labels), tuple(labels.values())
    stated = ~np.isnan(pair[0]) & ~np.isnan(pair[1])
    films = np.flatnonzero(stated.any(axis=1))
    if not len(films):
        raise ValueError(
            f"{predictions.network}: no film and finding is labelled by both; expected some: "
            "compare image names and findings"
        )
    stated, score = stated[films], predictions.calibrated[films]
    patient = predictions.patient[films]
    pair = [np.where(stated, label[films], np.nan) for label in pair]
    weights = all_and_resampled(patient, resamples=resamples, seed=seed)
    areas = [by_finding("auc", label, score, weights=weights) for label in pair]
    known = ~np.isnan(areas).any(axis=0)
    old, new = (
        np.vstack([area, mean_over_findings(np.where(known, area, np.nan))]) for area in areas
    )
    both = np.stack([old, new, new - old])
    value, sampled = both[..., 0], both[..., 1:]
    rarer = np.min([patients_of_rarer(one, owner=patient) for one in pair], axis=0)
    ends = [
        auc_intervals(label, score, area=np.where(known, area[:-1], np.nan), owner=patient)
        for label, area in zip(pair, (old, new), strict=True)
    ]
    apart = [
        difference_interval(one, patients=people, fewest=BOOTSTRAPPED)
        for one, people in zip(both[2], rarer.tolist(), strict=False)
    ]
    mean = macro_test(both[2, :-1], rarer)
    apart.append((mean.low, mean.high))
    low, high = np.stack([*ends, np.array(apart).T], axis=1)
    people = [len(np.unique(patient[known])) for known in stated.T]
    columns: dict[str, object] = {
        "network": predictions.network,
        "finding": [*predictions.findings, MACRO],
        "films": [*stated.sum(axis=0), len(films)],
        "patients": [*people, len(np.unique(patient))],
    }
    counts = {f"positives_{name}": one == 1 for name, one in zip(names, pair, strict=True)}
    for name, cells in {**counts, "differing": _differs(*pair)}.items():
        columns[name] = np.append(cells.sum(axis=0), cells.sum())
    for place, name in enumerate((*names, "difference")):
        columns |= {name: value[place], f"{name}_low": low[place], f"{name}_high": high[place]}
    return pd.DataFrame({**columns, "note": _notes(value, sampled, rarer, names)})


def _conclude_noise(noise: pd.DataFrame) -> str:
    counts = []
    for direction, given in label_errors.DIRECTIONS.items():
        rows = noise.loc[noise["direction"] == direction]
        counted, films = rows["counted"].sum(), rows["films"].sum()
        counts.append(f"{counted:,.0f} of {films:,} labels of {given} as {direction}")
    return (
        f"The confident joint counts {' and '.join(counts)}, if classes do not overlap: where they "
        "do, it counts right labels too. A rate of wrong labels needs reviewed films, of "
        "`lucency audit review`."
    )


def _conclude_detection(found: pd.DataFrame) -> str:
    """Return how well the evidence separates wrong labels from right ones, in a sentence."""
    rows = found.loc[(found["evidence"] == ALL) & (found["finding"] == MACRO)]
    areas = []
    for row in rows.to_dict("records"):
        area = f"{row['auc']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        area += "" if row["low"] > 0.5 else ", not surely above .5"
        if np.isnan(row["low"]):
            area = f"{row['auc']:.3f} (no interval)"
        areas.append(f"{row['direction']} {'not computable' if np.isnan(row['auc']) else area}")
    return f" AUC for labels that radiologists contradict: {'; '.join(areas)}."


def _expert_file(expert: Path) -> Path:
    return expert / RELEASES["all"].labels[0] if expert.is_dir() else expert


def _merged_for(predictions: Predictions, experts: Manifest) -> Predictions:
    """Return predictions of the findings of these experts' release."""
    four = release_of(experts.findings) == "four"
    return agreement.merge_predictions(predictions, agreement.FOUR_GROUPS) if four else predictions


def _nothing_found(table: pd.DataFrame) -> str:
    """Return what experts saw where the label file names no finding."""
    rows = table.loc[table["labelled"] == NO_FINDING].set_index("seen").to_dict(orient="index")
    known = [name for name in (agreement.ABNORMAL, agreement.ANY) if name in rows]
    seen = [f"{name} {rows[name]['films']:,} of {rows[name]['of']:,}" for name in known]
    return f"Films of {NO_FINDING!r} as experts see them: {', '.join(seen)}."


def _untrained(
    what: Path, *, labels: Path | None, scale: str, columns: Columns
) -> tuple[Predictions, Manifest | None]:
    """Return the predictions of films that the network has not trained on, and their manifest.

    That of a predictions.npz is found in its run, or is None.
    """
    if what.is_dir():
        near = sorted(what.glob("predictions/*/predictions.npz"))
        like = f", such as {near[0]}" if near else ""
        raise ValueError(f"{what} is a folder: expected a table or a predictions.npz{like}")
    if what.suffix != ".npz":
        if labels is None:
            raise ValueError(f"{what} holds no labels: expected --labels FILE of its films")
        refuse_label_file([what], labels)
        films = read_labelled(labels, **columns)
        return read_predictions_table(what, films=films, scale=scale, part="test"), films
    refuse_scale([what], scale)
    if labels is not None:
        raise ValueError(f"{what} brings its own labels: expected it alone, without --labels")
    predictions = load_predictions(what)
    rows = np.flatnonzero(predictions.part != "train")
    beside = [place / "manifest" for place in what.resolve().parents[2:4]]
    known = [load_manifest(place) for place in beside if (place / "manifest.json").is_file()]
    return predictions.take(rows), known[0] if known else None


def _refuse_table(table: Path | None, scale: str, *, labels: Sequence[Path]) -> None:
    """Raise ValueError for a label file in place of predictions, or a scale of no table."""
    if table is None:
        refuse_scale([], scale)
        return
    for file in labels:
        refuse_label_file([table], file)


def _detected(
    predictions: Predictions,
    experts: Manifest,
    *,
    evidence: Mapping[str, label_errors.Evidence],
    near: label_errors.Neighbours,
) -> dict[str, pd.DataFrame]:
    """Return how well the evidence, among films that experts read, finds what they contradict.

    Repeats predict findings, not merged ones, for which they are left out.
    """
    merged = _merged_for(predictions, experts)
    if merged is not predictions:
        no_folds = np.empty((0, *merged.label.shape))
        evidence = label_errors.gather_evidence(merged, folds=no_folds, near=near)
    truth = agreement.align(experts, merged)
    read = np.flatnonzero(~np.isnan(truth).all(axis=1))
    if not len(read):
        raise ValueError(f"{predictions.network}: none of its films is among {experts.origin}")
    every = label_errors.mean_rank(merged.label, tuple(evidence.values()))
    each = {**evidence, ALL: every} if len(evidence) > 1 else {ALL: every}
    merged, truth = merged.take(read), truth[read]
    tables = [
        label_errors.detection(one[read], merged, truth, **DRAWS).assign(evidence=name)
        for name, one in each.items()
    ]
    review = label_errors.review_table(every[read], merged, truth)
    return {"detection": pd.concat(tables, ignore_index=True), "review": review}


def _notes(
    value: Float64[np.ndarray, "3 k1"],
    sampled: Float64[np.ndarray, "3 k1 r"],
    rarer: Int64[np.ndarray, " k"],
    names: tuple[str, ...],
) -> list[str]:
    """Return why a finding has no difference or no interval, or in how many resamples neither."""
    lost = np.isnan(sampled[2]).sum(axis=1)
    notes = []
    for place in range(len(lost) - 1):
        lacking = [name for name, one in zip(names, value[:2, place], strict=True) if np.isnan(one)]
        if lacking:
            notes.append(f"not computable: one class only by {' and by '.join(lacking)}")
        elif rarer[place] < BOOTSTRAPPED:
            few = f"{counted(rarer[place], 'patient')} of a class, expected {BOOTSTRAPPED} or more"
            notes.append(f"no interval of the difference: {few}")
        else:
            missing = f"no difference in {lost[place]} of {sampled.shape[2]} resamples, left out"
            notes.append(missing if lost[place] else "")
    known = ~np.isnan(value[2, :-1])
    fewer = int(np.isnan(sampled[2, :-1][known]).any(axis=0).sum())
    mean = f"mean over {known.sum()} of {counted(len(known), 'finding')}"
    return [*notes, f"{mean}; over fewer in {fewer} resamples" if fewer else mean]


def _differs(before: Label, after: Label) -> Bool[np.ndarray, " n *k"]:
    return (before != after) & ~(np.isnan(before) & np.isnan(after))

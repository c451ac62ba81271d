"""The label audits of `lucency audit`: against experts, between versions, and label by label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lucency.audit.agreement import (
    ABNORMAL,
    ANY,
    FOUR_GROUPS,
    GROUPS,
    agreement,
    align,
    between_readers,
    flow,
    merge_labels,
    merge_predictions,
    with_no_finding,
)
from lucency.audit.label_errors import (
    Evidence,
    Neighbours,
    chance_wrong,
    detection,
    expected_noise,
    films_with_label_errors,
    find_label_errors,
    first_label_errors,
    gather_evidence,
    joint_counts,
    mean_rank,
    nearest_others,
    review_table,
)
from lucency.audit.label_quality import conclude_label_quality, counts_of, rate_label_quality
from lucency.audit.versions import ALL, against_experts, changed_labels, changes, effect
from lucency.config.sections import DRAWS
from lucency.core.manifest import FINDINGS, NO_FINDING, Manifest
from lucency.core.predictions import Predictions, load_predictions, load_repeats
from lucency.core.tables import Audit
from lucency.data.labels import read_labelled
from lucency.data.radiologists import RELEASES, read_expert_table, read_readings, release_of
from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.external import predictions_of

CHANCE = 0.5  # of pairs
CHOSEN = "The films were chosen to hold many findings: shares are not those of random films."


def audit_labels(labels: Path, *, expert: Path, table: Path | None, scale: str) -> Audit:
    """Compare a label file, and a table of external predictions, with radiologists' labels.

    `expert` is a table of labels of either of Google's releases, or the folder of all findings'.
    Raises ValueError when a file is not what it should be, or none of its films is labelled.
    """
    films, file = read_labelled(labels), _expert_file(expert)
    experts = read_expert_table(file)
    release = release_of(experts.findings)
    mine = merge_labels(films, FOUR_GROUPS) if release == "four" else films
    both = [mine, experts]
    if {*FINDINGS} <= {*mine.findings} & {*experts.findings}:
        both = [with_no_finding(one) for one in both]
    found = {"agreement": agreement(*both, **DRAWS)}
    if release == "all":
        known = {*films.findings} & {*experts.findings}
        groups = {name: several for name, several in GROUPS.items() if known >= {*several}}
        if groups:
            merged = [merge_labels(one, groups) for one in (films, experts)]
            found["groups"] = agreement(*merged, **DRAWS)
    found["flow"] = flow(mine, experts, **DRAWS)
    kappa = pd.DataFrame({"finding": [], "kappa": []})
    if (file.parent / RELEASES[release].readings).is_file():
        kappa = between_readers(read_readings(file.parent, release=release), **DRAWS)
        if NO_FINDING not in both[0].findings:
            kappa = kappa.loc[kappa["finding"] != NO_FINDING].reset_index(drop=True)
        found["readers"] = kappa
    if table is not None:
        external = predictions_of(table, films=films, scale=scale, part="test")
        found["auc"] = against_experts(_merged_for(external, experts), experts, **DRAWS)
    found["label_quality"] = rate_label_quality(counts_of(found["agreement"], kappa), doubts={})
    return Audit(
        tables=found,
        shown=tuple(name for name in found if name != "flow"),
        remarks=(
            f"{films.origin}; {experts.origin}. {CHOSEN}",
            *([_nothing_found(found["flow"])] if {*FINDINGS} <= {*films.findings} else []),
        ),
        conclusion=conclude_label_quality(found["label_quality"]),
    )


def audit_versions(old: Path, new: Path, *, table: Path | None, scale: str) -> Audit:
    """Compare two label files, and the AUCs of a table of predictions by either.

    Raises ValueError when the files share no film or no finding.
    """
    one, other = read_labelled(old), read_labelled(new)
    found = {"changes": changes(one, other), "labels": changed_labels(one, other)}
    if table is not None:
        external = predictions_of(table, films=other, scale=scale, part="test")
        found["auc"] = effect(external, one, other, **DRAWS)
    count = found["changes"].set_index("finding").to_dict(orient="index")
    every, nothing = count[ALL], count[NO_FINDING]
    return Audit(
        tables=found,
        shown=tuple(name for name in found if name != "labels"),
        remarks=(f"{one.origin}; {other.origin}. {_in_both(one, other)}",),
        conclusion=(
            f"{every['films']:,} films differ: {every['added']:,} labels added, "
            f"{every['removed']:,} removed; {nothing['removed']:,} films are no longer "
            f"{NO_FINDING!r}, {nothing['added']:,} have become so"
        ),
    )


def audit_label_errors(
    what: Path, *, labels: Path | None, expert: Path | None, scale: str, top: int
) -> Audit:
    """Rank the labels that are likely wrong by the predictions in `what`.

    That is a predictions.npz of a run, whose features' neighbours count too, or of `lucency audit
    folds`, where its repeats do, or a table of external predictions, which needs `labels`. With
    `expert`, as of `audit_labels`, the ranking is compared with what radiologists saw. Raises
    ValueError for files that are not so, or have no film in common.
    """
    predictions = _untrained(what, labels=labels, scale=scale)
    folds = load_repeats(what, predictions)
    near = nearest_others(predictions.feature, patient=predictions.patient)
    evidence = gather_evidence(predictions, folds=folds, near=near)
    joint = joint_counts(predictions.label, predictions.probability)
    chance = chance_wrong(predictions.label, predictions.probability, joint)
    noise = expected_noise(predictions, joint)
    own = what.suffix == ".npz"
    trained = " that it has not trained on" if own else "; whether it trained on them is unknown"
    found = {
        "noise": noise,
        "first": first_label_errors(predictions, chance, top=top),
        "films": films_with_label_errors(predictions, chance, top=top),
        "suspects": find_label_errors(predictions, evidence, top=top),
    }
    conclusion = (
        f"if the network ranks well, {_likely(noise, 'spurious')} labels of 1 are spurious, and "
        f"{_likely(noise, 'missing')} labels of 0 miss a finding; where it is unsure, these are "
        "too many"
    )
    if expert is not None:
        experts = read_expert_table(_expert_file(expert))
        found |= _detected(predictions, experts, evidence=evidence, near=near)
        conclusion += _paired(found["detection"])
    return Audit(
        tables=found,
        shown=tuple(name for name in found if name in ("noise", "first", "detection")),
        remarks=(f"{predictions.network}: {len(predictions):,} films{trained}.",),
        conclusion=conclusion,
    )


def _in_both(one: Manifest, other: Manifest) -> str:
    both = int(np.isin(one.image, other.image).sum())
    apart = f"{len(one) - both:,} are in the first alone, {len(other) - both:,} in the second"
    return f"Compared are the {both:,} films of both; {apart}."


def _likely(noise: pd.DataFrame, direction: str) -> str:
    rows = noise.loc[noise["direction"] == direction]
    return f"{rows['expected'].sum():,.0f} of {rows['films'].sum():,}"


def _paired(found: pd.DataFrame) -> str:
    """Return in words how well the evidence separates wrong labels from right ones."""
    rows = found.loc[(found["evidence"] == ALL) & (found["finding"] == MACRO)]
    words = []
    for row in rows.to_dict("records"):
        bounds = f"{row['auc']:.3f} of pairs, {row['low']:.3f} to {row['high']:.3f}"
        surely = "surely" if row["low"] > CHANCE else "not surely"
        known = row["low"] == row["low"]
        words.append(f"{row['direction']}: {f'{surely} ({bounds})' if known else 'not computable'}")
    return (
        "; labels that radiologists contradict rank above those that they confirm: "
        f"{', '.join(words)}"
    )


def _expert_file(expert: Path) -> Path:
    return expert / RELEASES["all"].labels[0] if expert.is_dir() else expert


def _merged_for(predictions: Predictions, experts: Manifest) -> Predictions:
    """Return predictions of the findings of these experts' release."""
    four = release_of(experts.findings) == "four"
    return merge_predictions(predictions, FOUR_GROUPS) if four else predictions


def _nothing_found(table: pd.DataFrame) -> str:
    """Return what experts saw where the label file names no finding."""
    rows = table.loc[table["labelled"] == NO_FINDING].set_index("seen").to_dict(orient="index")
    seen = [
        f"experts {verb} {rows[name]['films']:,} of {rows[name]['of']:,} films"
        for name, verb in ((ABNORMAL, "call abnormal"), (ANY, "see a finding of these on"))
        if name in rows
    ]
    return f"Of {NO_FINDING!r}, {'; '.join(seen)}."


def _untrained(what: Path, *, labels: Path | None, scale: str) -> Predictions:
    """Return the predictions of films that the network has not trained on."""
    if what.is_dir():
        near = sorted(what.glob("predictions/*/predictions.npz"))
        like = f", such as {near[0]}" if near else ""
        raise ValueError(f"{what} is a folder: expected a table or a predictions.npz{like}")
    if what.suffix != ".npz":
        if labels is None:
            raise ValueError(f"{what} holds no labels: expected --labels FILE of its films")
        return predictions_of(what, films=read_labelled(labels), scale=scale, part="test")
    if labels is not None:
        raise ValueError(f"{what} brings its own labels: expected it alone, without --labels")
    predictions = load_predictions(what)
    return predictions.take(np.flatnonzero(predictions.part != "train"))


def _detected(
    predictions: Predictions,
    experts: Manifest,
    *,
    evidence: Mapping[str, Evidence],
    near: Neighbours,
) -> dict[str, pd.DataFrame]:
    """Return how well the evidence, among films that experts read, finds what they contradict.

    Repeats predict findings, not merged ones, for which they are left out.
    """
    merged = _merged_for(predictions, experts)
    if merged is not predictions:
        no_folds = np.empty((0, *merged.label.shape))
        evidence = gather_evidence(merged, folds=no_folds, near=near)
    truth = align(experts, image=merged.image, findings=merged.findings)
    read = np.flatnonzero(~np.isnan(truth).all(axis=1))
    if not len(read):
        raise ValueError(f"{predictions.network}: none of its films is among {experts.origin}")
    every = mean_rank(merged.label, tuple(evidence.values()))
    each = {**evidence, ALL: every} if len(evidence) > 1 else {ALL: every}
    merged, truth = merged.take(read), truth[read]
    about = {"findings": merged.findings, "patient": merged.patient, **DRAWS}
    tables = [
        detection(one[read], merged.label, truth, **about).assign(evidence=name)
        for name, one in each.items()
    ]
    review = review_table(every[read], merged.label, truth, findings=merged.findings)
    return {"detection": pd.concat(tables, ignore_index=True), "review": review}

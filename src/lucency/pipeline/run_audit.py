"""Audits of a run: its labels by cross-validation, its heat maps, its films, films for reviewers.

Cross-validation: every film is predicted by a network that has not seen its patient. The k folds
are by patient, and take k trainings. A repeat deals patients to folds; several repeats, with seeds
of their own, train independently.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from lucency.audit import review
from lucency.audit.image_quality import inspect, quality_counts, quality_table, switched_off
from lucency.config.protocol import parse_protocol, read_protocol
from lucency.config.sections import DRAWS
from lucency.core.files import BYTES, csv_text, write_array
from lucency.core.manifest import (
    NO_FINDING,
    counted,
    name_patients,
    read_table,
)
from lucency.core.predictions import (
    REPEATS_FILE,
    Predictions,
    concatenate,
    load_predictions,
    save_predictions,
)
from lucency.core.progress import progress, say
from lucency.core.stage import fingerprint_of, produce
from lucency.core.tables import Audit
from lucency.data.film_files import in_reading_order
from lucency.data.images import read_grey
from lucency.evaluation.evaluate import evaluate
from lucency.evaluation.thresholds import FALLBACK
from lucency.explain.heatmap_results import HeatmapResults
from lucency.pipeline import stages
from lucency.pipeline.heatmap_stage import explain_network
from lucency.pipeline.run import (
    Run,
    kept,
    load_films,
    open_run,
    open_run_folder,
    require_finished,
    require_pictures,
    require_prepared,
)
from lucency.report.review_page import write_review


def audit_folds(run: Run, *, folds: int, repeats: int) -> Audit:
    """Cross-validate a run's networks by patient: their AUC on films that they did not train on."""
    found = out_of_fold(run, folds=folds, repeats=repeats)
    predicted = [load_predictions(folder / "predictions.npz") for folder in found.values()]
    half = np.full(len(predicted[0].findings), FALLBACK)
    scores = pd.concat([evaluate(one, threshold=half, **DRAWS) for one in predicted])
    areas = scores.loc[scores["metric"] == "auc"].drop(columns="metric")
    places = [str(folder / "predictions.npz") for folder in found.values()]
    return Audit(
        tables={"auc": areas.rename(columns={"value": "auc"})},
        shown=("auc",),
        remarks=(
            f"Each of {len(predicted[0]):,} films is predicted by networks of other patients.",
        ),
        conclusion="\n".join(f"next: lucency audit errors {place}" for place in places),
    )


@kept
def out_of_fold(run: Run, *, folds: int, repeats: int) -> dict[str, Path]:
    """Return for each network the folder of its out-of-fold predictions.

    There: predictions.npz, all films in the order of the manifest, part test, the mean recalibrated
    logit of the repeats, without features (each fold's network has its own); and REPEATS_FILE, the
    probabilities by repeat. Films are prepared once, for all.
    """
    films = stages.prepared(run).manifest
    members = [
        [_fold_run(run, folds=folds, fold=fold, repeat=repeat) for fold in range(folds)]
        for repeat in range(repeats)
    ]
    predicted: dict[str, list[Predictions]] = {}
    made = {}
    for repeat, several in enumerate(members):
        tests: dict[str, list[Predictions]] = {}
        for fold, member in enumerate(several):
            say(f"Repeat {repeat + 1} of {repeats}, fold {fold + 1} of {folds}")
            for one in stages.predictions(member):
                tests.setdefault(one.network, []).append(one.of("test"))
                place = member.out / "predictions" / one.network
                made[f"{repeat}/{fold}/{one.network}"] = fingerprint_of(place)
        for network, parts in tests.items():
            predicted.setdefault(network, []).append(_joined(parts, films.image))
    inputs, found = {"folds": folds, "repeats": repeats, "predictions": made}, {}
    for network, each in predicted.items():
        place = run.out / "out-of-fold" / f"{folds}x{repeats}" / network
        found[network] = produce(place, inputs=inputs, write=partial(_write_repeats, each))
    return found


def _write_repeats(each: list[Predictions], folder: Path) -> None:
    logit = np.mean([one.calibrated for one in each], axis=0)
    save_predictions(replace(each[0], logit=logit), folder / "predictions.npz")
    write_array(np.stack([one.probability for one in each]), folder / REPEATS_FILE)


def _fold_run(run: Run, *, folds: int, fold: int, repeat: int) -> Run:
    """Return the run that tests one fold, on all films that `run` has prepared."""
    choices = run.protocol.model_dump()
    choices["split"] |= {"method": "patient", "folds": folds, "fold": fold, "apart": 0.0}
    choices["split"]["seed"] += repeat
    choices["external"] = ()
    choices["training"]["seed"] += repeat
    protocol = parse_protocol(choices, name=f"fold {fold} of repeat {repeat}")
    place = run.out / "members" / f"repeat-{repeat}-fold-{fold}"
    member = open_run(protocol, out=place, workers=run.workers)
    return replace(member, source=run.source, cache=run.cache)


def _joined(parts: list[Predictions], image: np.ndarray) -> Predictions:
    """Return the predictions of all folds as one, films in the order of `image`."""
    split = f"{len(parts)} folds by patient: {' '.join(one.split for one in parts)}"
    logits = [
        replace(
            one.uncalibrated(),
            split=split,
            logit=one.calibrated,
            feature=np.empty((len(one), 0), dtype=np.float32),
        )
        for one in parts
    ]
    whole = concatenate(logits)
    order = np.argsort(whole.image)
    row = order[np.searchsorted(whole.image[order], image)]
    assert (whole.image[row] == image).all(), "every film tests in one fold"
    return whole.take(row)


def score_run_heatmaps(folder: Path, *, changes: tuple[str, ...], out: Path) -> HeatmapResults:
    """Return how well a run's network finds the boxes on its test films, kept in `out`.

    `changes` are of `explanation` alone; ValueError for others, and for an unfinished run.
    """
    run = open_run_folder(folder)
    changed = read_protocol(folder / "protocol.toml", changes=changes)
    fixed, wanted = (one.model_dump(exclude={"explanation"}) for one in (run.protocol, changed))
    if fixed != wanted:
        raise ValueError("--set may change explanation.* alone here: the run is what it is")
    require_finished(run)
    return explain_network(stages.trained(run), changed.explanation, out=out)


def draw_review(folder: Path, *, errors: Path | None, films: int, seed: int, out: Path) -> Audit:
    """Draw films of a run for reviewers, and write sheets, page and form to `out`.

    Random ones of every finding, or the first of each list of label errors (`errors`: errors.csv
    of `lucency audit errors`). Raises ValueError for a folder without films, for films that are not
    its, and where `out` holds a review of other films, or one with answers.
    """
    run = open_run_folder(folder)
    require_prepared(run)
    prepared = stages.prepared(run)
    shown = prepared.manifest
    if errors is None:
        sample = review.draw_sample(shown, films=films, seed=seed)
    else:
        text = ("finding", "direction", "image", "reason")
        remedy = f"expected an errors.csv {review.AS_WRITTEN}"
        table = read_table(errors, text=text, remedy=remedy)
        if lacking := {"finding", "direction", "image"} - set(table):
            raise ValueError(f"{errors}: no column {min(lacking)!r}; expected an errors.csv")
        try:
            sample = review.draw_label_errors(shown, table, films=films, seed=seed)
        except ValueError as error:
            raise ValueError(f"{errors}: {error}") from error
    form = out / "form.csv"
    if form.exists() and form.read_text(errors=BYTES) != csv_text(review.empty_form(sample)):
        raise ValueError(
            f"{out} holds a review of other films, or with answers: choose another folder (--out)"
        )
    names = sample["image"].unique().tolist()
    path = dict(zip(shown.image.tolist(), shown.facts["path"].tolist(), strict=True))
    require_pictures(run, [path[name] for name in names])
    pictures = {}
    with progress("Reading films", unit="films") as advance:
        for number, file in in_reading_order([path[name] for name in names]):
            pictures[names[number]] = read_grey(file, bits=prepared.preparation.bits)
            advance(len(pictures), len(names))
    without = [name for name in (*shown.findings, NO_FINDING) if name not in {*sample["finding"]}]
    write_review(sample, films=pictures, manifest=shown, folder=out)
    return Audit(
        tables={"sheets": sample.groupby("sheet", sort=False)["image"].count().reset_index()},
        shown=("sheets",),
        remarks=(
            f"Drawn with seed {seed}; at most one film a patient on a sheet.",
            *([f"No sheet, for want of films: {', '.join(without)}."] if without else []),
        ),
        conclusion=f"open {out / 'review.html'}, or fill {out / 'form.csv'}; then: lucency audit "
        f"score-review {out / 'sample.csv'} FORM.csv",
    )


def score_reviews(sample: Path, files: list[Path]) -> Audit:
    """Return from the reviewers' answers how many labels are right, weighted to all films."""
    drawn = review.read_sample(sample)
    answers = review.read_answers(files, sample=drawn)
    if not len(answers):
        raise ValueError(
            f"{', '.join(map(str, files))}: no film has an answer; expected yes, no or unsure in "
            "the column answer"
        )
    found = {"right": review.label_ppv(drawn, answers)}
    found["reviewers"] = review.reviewers_agree(drawn, answers, **DRAWS)
    reviewed = sum(sum(found["right"][word].tolist()) for word in review.WORDS)
    return Audit(
        tables=found,
        shown=tuple(found),
        remarks=("Answers of several reviewers count by majority; unsure ones are counted apart.",),
        conclusion=f"{reviewed:,} of {len(drawn):,} films drawn are reviewed",
    )


def audit_quality(folder: Path) -> Audit:
    """Look for odd pictures among the prepared films of a run: repeated, turned, blank and such.

    Raises ValueError where there are none.
    """
    run = open_run_folder(folder)
    require_prepared(run)
    films = load_films(run)
    with progress("Inspecting films", unit="films") as advance:
        measured = inspect(films, progress=advance)
    table = quality_table(measured)
    counts = quality_counts(table, films=len(measured), side=films.preparation.size)
    odd, size = len(set(table["image"])), films.preparation.size
    return Audit(
        tables={
            "quality": name_patients(table, films.manifest),
            "counts": counts,
            "measured": name_patients(measured, films.manifest),
        },
        shown=("counts", "quality"),
        remarks=tuple(
            filter(None, (f"{films.manifest.origin}, at {size} pixels.", switched_off(size)))
        ),
        conclusion=(
            f"{counted(odd, 'film', 'is/are', of=len(measured))} odd: look at them; a protocol "
            'with data.exclude = "quality.csv" leaves them out'
            if odd
            else f"none of the {counted(len(measured), 'film')} is odd"
        ),
    )

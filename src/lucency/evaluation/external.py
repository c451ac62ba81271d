"""External predictions: tables and files of any network, joined to labels by film, and named.

A table (.csv) has a column of image names and one a finding; it is joined to ground truth labels by
image name. A predictions.npz and the folder of a finished run carry their labels themselves.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64
from scipy.special import logit

from lucency.core.manifest import Manifest, counted, listed
from lucency.core.predictions import Predictions, load_predictions, why_no_predictions
from lucency.core.progress import say
from lucency.core.tables import join_films
from lucency.data.absent_films import why_unlabelled
from lucency.data.csv_tables import Scores, read_scores
from lucency.evaluation.compare import check_comparable
from lucency.evaluation.evaluate import TRIVIAL
from lucency.evaluation.thresholds import FALLBACK, threshold_table

UNKNOWN_SPLIT = "unknown: predictions of a table"
ALIKE = 0.8  # how similar to a finding's a column's name must be to be meant as it
# The folders and the network that predictions come from, and how many of these are their name.
Located = tuple[tuple[str, ...], int, Predictions]
LEAST, MOST = np.finfo(float).tiny, 1 - np.finfo(float).eps / 2  # their logits are finite


def read_tables(
    test: Path, *, films: Manifest, val: Path | None, scale: str
) -> tuple[Predictions, pd.DataFrame]:
    """Return the predictions of the table `test` and their thresholds, as `threshold_table` does.

    `scale`, a key of SCALES, is what the tables hold. Thresholds are fitted to the table `val` of
    other patients' films; without it they are .5. Raises ValueError when films are not labelled, or
    patients are in both tables.
    """
    tested = read_predictions_table(test, films=films, scale=scale, part="test")
    if val is None:
        say(f"No validation predictions (--val): thresholds are {FALLBACK} for every finding")
        return tested, standard_thresholds(tested)
    known = read_validation(val, tested, films=films, scale=scale)
    return tested, threshold_table(known, method="f1")


def standard_thresholds(predictions: Predictions) -> pd.DataFrame:
    """Return thresholds of .5, as `threshold_table` returns those that were fitted."""
    names = {"network": predictions.network, "split": predictions.split}
    note = f"not fitted: {FALLBACK} for every finding"
    fitted = {"threshold": FALLBACK, "positives": 0, "note": note}
    return pd.DataFrame({**names, "finding": predictions.findings, **fitted})


def refuse_scale(several: Sequence[Path], scale: str) -> None:
    """Raise ValueError for a scale that is stated where no file is a table: others have their own.

    A file that is not there is left to whoever reads it.
    """
    own = [file for file in several if file.is_dir() or (file.suffix == ".npz" and file.is_file())]
    if scale != "probability" and len(own) == len(several):
        found = f"{own[0]} states its own" if own else "none is named"
        raise ValueError(
            f"--scale {scale} is about tables of predictions, and {found}: leave it out"
        )


def read_test_table(file: Path, films: Manifest | None, *, scale: str) -> Predictions:
    """Return the predictions of a table of test films; ValueError without labels."""
    if films is None:
        raise ValueError(f"{file} holds no labels: expected --labels FILE, the films' label file")
    return read_predictions_table(file, films=films, scale=scale, part="test")


def read_predictions_table(file: Path, *, films: Manifest, scale: str, part: str) -> Predictions:
    """Return the predictions of a table, joined by image name to the labels of `films`."""
    scores, about = join_labels(file, films, scale=scale, part=part)
    logit, nothing = SCALES[scale](scores, file), np.empty((len(scores.image), 0), np.float32)
    return Predictions(**about, split=UNKNOWN_SPLIT, logit=logit, feature=nothing)


def read_validation(file: Path, test: Predictions, *, films: Manifest, scale: str) -> Predictions:
    """Return a network's validation table; ValueError for other findings or for test patients."""
    known = read_predictions_table(file, films=films, scale=scale, part="val")
    if both := set(known.patient.tolist()) & set(test.patient.tolist()):
        raise ValueError(
            f"{file}: {len(both):,} patients are in the test table too; expected other patients: "
            "thresholds fitted on test films flatter the test"
        )
    if known.findings != test.findings:
        raise ValueError(
            f"{file} has columns for {', '.join(known.findings)}; expected those of the test table"
        )
    return replace(known, network=test.network)


def join_labels(
    file: Path, films: Manifest, *, scale: str, part: str
) -> tuple[Scores, dict[str, Any]]:
    """Return a table's scores, and its network, findings, image, patient, part and label.

    Raises ValueError for a scale that is no key of SCALES.
    """
    if scale not in SCALES:
        raise ValueError(f"scale {scale!r} is unknown; expected {' or '.join(SCALES)}")
    scores = read_scores(file, findings=films.findings)
    row = join_films(scores.image, films.image, source=str(file))
    if (row < 0).any():
        strange = scores.image[row < 0]
        why = why_unlabelled(strange, films.image) or "leave them out, or name their label file"
        raise ValueError(
            f"{file}: {len(strange):,} of {len(row):,} films are not labelled, such as "
            f"{str(strange[0])!r}: expected all; {why}"
        )
    absent = [name for name in films.findings if name not in scores.findings]
    for name in scores.left_out:
        if meant := get_close_matches(name.rpartition("_")[2], absent, n=1, cutoff=ALIKE):
            raise ValueError(f"{file}: column {name!r} is no finding; {meant[0]!r} is: rename it")
    if absent:
        say(f"{file}: no column for {listed(absent)}")
    if scores.left_out:
        say(f"{file}: left out, no finding of the labels: {listed(scores.left_out)}")
    column = [films.findings.index(name) for name in scores.findings]
    label = films.label[row][:, column]
    _say_hard(file, scores, label, scale=scale)
    name = file.name.removesuffix(".gz").removesuffix(".csv")
    return scores, {
        "network": f"{name} (table)" if name == TRIVIAL else name,  # never the baseline's
        "findings": scores.findings,
        "image": films.image[row],
        "patient": films.patient[row],
        "part": np.full(len(row), part),
        "label": label,
    }


def _say_hard(file: Path, scores: Scores, label: Float32[np.ndarray, "n k"], *, scale: str) -> None:
    """Report findings whose every score is 0 or 1, and those of which it is the label."""
    if scale == "logit":
        return
    share = share_of_percent(scores) if scale == "percent" else scores.score
    hard = np.isin(share, (0, 1)).all(axis=0)
    stated = ~np.isnan(label)
    same = hard & stated.any(axis=0) & ((share == label) | ~stated).all(axis=0)
    if hard.any():
        names, equal = (listed(np.array(scores.findings)[which].tolist()) for which in (hard, same))
        say(
            f"{file}: all scores of {names} are 0 or 1, hard labels and no probabilities: AUC is "
            f"that of one threshold{f'; those of {equal} are the labels' if equal else ''}"
        )


def named_as(films: Manifest | None, predictions: Predictions) -> Predictions:
    """Return predictions under the names that the label file has for their films, by film.

    As they are without a label file. Raises ValueError where it lacks a film or finding of them, or
    has other labels.
    """
    if films is None:
        return predictions
    if absent := [name for name in predictions.findings if name not in films.findings]:
        raise _not_in_labels(films, f"finding {absent[0]!r} is not there", predictions)
    row = join_films(predictions.image, films.image, source=predictions.network)
    _refuse_films(films, predictions, row < 0, verb="is/are", what="not there")
    known = [films.findings.index(name) for name in predictions.findings]
    one, other = films.label[row][:, known], predictions.label
    differs = ~((one == other) | (np.isnan(one) & np.isnan(other))).all(axis=1)
    _refuse_films(films, predictions, differs, verb="has/have", what="other labels there")
    named = replace(predictions, image=films.image[row])
    return named.take(np.argsort(named.image, kind="stable"))


def _refuse_films(
    films: Manifest,
    predictions: Predictions,
    wrong: Bool[np.ndarray, " n"],
    *,
    verb: str,
    what: str,
) -> None:
    """Raise ValueError with the number of wrong films, if any, and the first."""
    if wrong.any():
        number = counted(wrong.sum(), "film", verb, of=len(wrong))
        first = str(predictions.image[wrong][0])
        raise _not_in_labels(films, f"{number} {what}, such as {first!r}", predictions)


def _not_in_labels(films: Manifest, found: str, predictions: Predictions) -> ValueError:
    return ValueError(
        f"--labels ({films.origin}): {found}, of {predictions.network}; expected the same label "
        "file, with these films and findings"
    )


def read_networks(
    several: Sequence[Path], *, table: Callable[[Path], Predictions]
) -> list[Predictions]:
    """Return the predictions in several files and folders, films by name, under distinct names.

    Each is a predictions.npz, a run's folder, whose networks all take part, or a table, which
    `table` reads. Raises ValueError for fewer than two networks and for a file named twice.
    """
    entries = [one for file in several for one in _read(file, table)]
    if len(entries) < 2:
        raise ValueError(
            f"found {len(entries)} network; expected two or more: name another table, "
            "predictions.npz or run"
        )
    return _named(entries)


def assume_one_split(several: list[Predictions]) -> list[Predictions]:
    """Return the predictions with the unknown split of tables taken as the others'.

    Raises ValueError unless films, labels and findings are the others' too.
    """
    known = {one.split for one in several if one.split != UNKNOWN_SPLIT}
    unknown = [one.network for one in several if one.split == UNKNOWN_SPLIT]
    if len(known) != 1 or not unknown:
        return several
    taken = [replace(one, split=min(known)) for one in several]
    for one in taken[1:]:
        check_comparable(taken[0], one, name=one.network)
    say(f"Unknown split of {', '.join(unknown)}: taken as the others'")
    return taken


def _from_probability(scores: Scores, file: Path) -> Float64[np.ndarray, "n k"]:
    low, high = scores.score.min(initial=0), scores.score.max(initial=0)
    if low < 0 or high > 1:
        remedy = "give --scale percent if these are percent" if high <= 100 else "rescale them"
        if low < 0:
            remedy = "give --scale logit if these are logits"
        raise ValueError(
            f"{file}: scores go from {low:g} to {high:g}, expected probabilities from 0 to 1: "
            f"{remedy}"
        )
    return logit(np.clip(scores.score, LEAST, MOST))


def share_of_percent(scores: Scores) -> Float64[np.ndarray, "n k"]:
    """Return scores in percent as shares; those with a percent sign have been made shares."""
    return np.where(scores.signed, scores.score, scores.score / 100)


def _from_percent(scores: Scores, file: Path) -> Float64[np.ndarray, "n k"]:
    share = share_of_percent(scores)
    low, high = 100 * share.min(initial=0), 100 * share.max(initial=0)
    if low < 0 or high > 100:
        raise ValueError(f"{file}: scores go from {low:g} to {high:g}, expected percent, 0 to 100")
    if high <= 1 and not scores.signed.any():
        raise ValueError(
            f"{file}: all scores lie between 0 and 1, expected percent: give --scale probability"
        )
    return logit(np.clip(share, LEAST, MOST))


def _from_logit(scores: Scores, file: Path) -> Float64[np.ndarray, "n k"]:
    if scores.score.min(initial=0) >= 0 and scores.score.max(initial=0) <= 1:
        raise ValueError(
            f"{file}: all scores lie between 0 and 1, expected logits: give --scale probability"
        )
    return scores.score


def _read(file: Path, table: Callable[[Path], Predictions]) -> Iterator[Located]:
    """Yield the predictions that a table, a file or a run's folder holds."""
    *folders, last = file.resolve().parts
    if file.is_dir():
        found = sorted(file.glob("predictions/*/predictions.npz"))
        if not found:
            raise ValueError(f"{file} holds no predictions: expected the folder of a finished run")
        for one in map(load_predictions, found):
            yield (*folders, last, one.network), 2, one
    elif not file.is_file():
        raise ValueError(why_no_predictions(file))
    elif file.suffix != ".npz":
        one = table(file)
        yield (*folders, one.network), 1, one
    else:
        one = load_predictions(file)
        own = () if file.stem == "predictions" else (file.stem,)
        yield (*folders, *own, one.network), 1, one


def _named(entries: Sequence[Located]) -> list[Predictions]:
    """Return the predictions, by film, under the shortest names that are distinct."""
    places, depth, several = (list(column) for column in zip(*entries, strict=True))
    while True:
        names = ["/".join(place[-d:]) for place, d in zip(places, depth, strict=True)]
        shared = {name for name, times in Counter(names).items() if times > 1}
        if not shared:
            return [
                replace(one.take(np.argsort(one.image, kind="stable")), network=name)
                for one, name in zip(several, names, strict=True)
            ]
        if twice := [place for place, times in Counter(places).items() if times > 1]:
            raise ValueError(f"{Path(*twice[0])} is there twice; expected each file and run once")
        depth = [d + (name in shared) for d, name in zip(depth, names, strict=True)]


SCALES = {"probability": _from_probability, "percent": _from_percent, "logit": _from_logit}

"""Several networks' predictions of the same films compared: anybody's tables, files, whole runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lucency.choices import DRAWS
from lucency.data.labels import read_labelled
from lucency.foreign import UNKNOWN_SPLIT, predictions_of, standard_thresholds
from lucency.hearing import write_hearing
from lucency.judge.compare import OVER_FINDINGS, check_comparable, compare
from lucency.judge.evaluate import MACRO, evaluate
from lucency.judge.ranking import conclude, rank
from lucency.predictions import Predictions, load_predictions
from lucency.progress import say
from lucency.values import Manifest


class Entry(NamedTuple):
    """Predictions, the folders and the network they come from, and how many of these name them."""

    place: tuple[str, ...]
    depth: int
    said: Predictions


def contest(
    several: Sequence[Path], *, labels: Path | None, scale: str, out: Path | None
) -> dict[str, object]:
    """Return the networks' ranking, every pair's difference, and the conclusion.

    Each of `several` is a table of predictions (.csv, which needs `labels`), a predictions.npz, or
    a run's folder, whose networks all take part; test films count. The tables go to `out`, and
    with `labels` the page too. Raises ValueError for fewer than two networks, and for networks
    that were not judged on the same films, labels, findings and split.
    """
    films = None if labels is None else read_labelled(labels)
    entries = [one for file in several for one in _read(file, films, scale)]
    if len(entries) < 2:
        raise ValueError(
            f"found {len(entries)} network to compare; expected two or more: name another table, "
            "predictions.npz or run"
        )
    said = _of_one_split(_named(entries))
    if films is not None:
        _check_labels(said[0], films)
    comparison = compare(said, **DRAWS)
    half = np.full(len(said[0].findings), 0.5)
    metrics = pd.concat([evaluate(one, threshold=half, **DRAWS) for one in said], ignore_index=True)
    ranking = rank(metrics, comparison)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        comparison.to_csv(out / "comparison.csv", index=False)
        ranking.to_csv(out / "ranking.csv", index=False)
    answer: dict[str, object] = {
        "ranking": _ranked(ranking),
        "pairs": _pairs(comparison),
        "conclusion": conclude(ranking),
    }
    if out is None:
        return answer
    answer["tables"] = str(out)
    if films is None:
        return answer
    thresholds = pd.concat([standard_thresholds(one) for one in said], ignore_index=True)
    tables = {"metrics": metrics, "comparison": comparison, "thresholds": thresholds}
    write_hearing(said, **tables, films=films, out=out)
    return {**answer, "report": str(out / "report.html")}


def _check_labels(said: Predictions, films: Manifest) -> None:
    """Raise ValueError unless the predictions were judged by the labels of `films`."""
    row = pd.Index(films.image).get_indexer(pd.Index(said.image))
    known = [films.findings.index(f) if f in films.findings else -1 for f in said.findings]
    same = (row >= 0).all() and min(known) >= 0
    if not (same and np.array_equal(films.label[row][:, known], said.label, equal_nan=True)):
        raise ValueError(
            f"--labels: {films.origin} does not hold the labels that {said.network} was judged by; "
            "expected the same label file, with these films and findings"
        )


def _read(file: Path, films: Manifest | None, scale: str) -> Iterator[Entry]:
    """Yield the predictions of test films that a table, a file or a run's folder holds."""
    place = file.resolve().parts
    if file.is_dir():
        found = sorted(file.glob("predictions/*/predictions.npz"))
        if not found:
            raise ValueError(f"{file} holds no predictions: expected the folder of a finished run")
        for one in map(load_predictions, found):
            yield Entry((*place, one.network), 2, one.of("test"))
    elif not file.is_file():
        raise ValueError(f"{file}: no such file; expected a table, a predictions.npz or a run")
    elif file.suffix == ".npz":
        one = load_predictions(file)
        own = () if file.stem == "predictions" else (file.stem,)
        yield Entry((*place[:-1], *own, one.network), 1, one.of("test"))
    elif films is None:
        raise ValueError(f"{file} holds no labels: expected --labels FILE, the films' label file")
    else:
        one = predictions_of(file, films=films, scale=scale, part="test")
        yield Entry((*place[:-1], one.network), 1, one)


def _named(entries: Sequence[Entry]) -> list[Predictions]:
    """Return the predictions, by film, under names as short as tells them apart."""
    depth = [one.depth for one in entries]
    while True:
        names = ["/".join(one.place[-d:]) for one, d in zip(entries, depth, strict=True)]
        shared = {name for name, times in Counter(names).items() if times > 1}
        if not shared:
            return [_by_film(one.said, name) for one, name in zip(entries, names, strict=True)]
        if twice := [one for one, times in Counter(e.place for e in entries).items() if times > 1]:
            raise ValueError(
                f"{'/'.join(twice[0])} is there twice; expected each file and run once"
            )
        depth = [d + (name in shared) for d, name in zip(depth, names, strict=True)]


def _by_film(said: Predictions, network: str) -> Predictions:
    """Return the predictions in the order of the films' names, as another network's."""
    order = np.argsort(said.image, kind="stable")
    return replace(said.take(order), network=network)


def _of_one_split(said: list[Predictions]) -> list[Predictions]:
    """Return the predictions with the split of a table, which is unknown, taken as the others'.

    Raises ValueError unless films, labels and findings are the others' too.
    """
    known = {one.split for one in said if one.split != UNKNOWN_SPLIT}
    unknown = [one.network for one in said if one.split == UNKNOWN_SPLIT]
    if len(known) != 1 or not unknown:
        return said
    taken = [replace(one, split=min(known)) for one in said]
    for one in taken[1:]:
        check_comparable(taken[0], one, name=one.network)
    say(f"Nobody knows under which split {', '.join(unknown)} trained: taken as the others'")
    return taken


def _ranked(ranking: pd.DataFrame) -> dict[str, object]:
    """Return each network's rank, macro AUC and interval, and whether it is tied with the best."""
    columns = zip(*(ranking[name].tolist() for name in RANKED), strict=True)
    rows = [dict(zip(RANKED.values(), map(_plain, row), strict=True)) for row in columns]
    return dict(zip(ranking["network"].tolist(), rows, strict=True))


def _pairs(comparison: pd.DataFrame) -> dict[str, object]:
    """Return each pair's macro difference, its interval and its two corrected p values."""
    named = comparison.assign(pair=comparison["network"] + " - " + comparison["other"])
    pairs: dict[str, object] = {}
    for pair, rows in named.groupby("pair", sort=False):
        found = {row["finding"]: row for row in rows.to_dict(orient="records")}
        numbers = {name: _plain(found[MACRO][name]) for name in PAIRED}
        numbers["p_holm_signed_rank"] = _plain(found[OVER_FINDINGS]["p_holm"])
        pairs[str(pair)] = numbers
    return pairs


def _plain(value: float | int) -> float | int | None:
    """Return a number that JSON knows: None where there is none."""
    return None if np.isnan(value) else value


PAIRED = ("difference", "low", "high", "p_holm")
RANKED = {
    "rank": "rank", "value": "macro_auc", "low": "low", "high": "high",
    "tied_with_best": "tied_with_best",
}  # fmt: skip

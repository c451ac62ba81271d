"""Films drawn for people to look at: random ones of every label, or those most suspect.

A sheet is the films of one label, and holds nothing of patients: no number, age or sex. NIH's names
of films begin with its patient number; `id` does not tell it. Letters in shapes: n films, m drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from lucency.audit.ontology import rows_of
from lucency.audit.suspects import DIRECTIONS
from lucency.values import NO_FINDING, Manifest, nearest, read_table

FILMS = 36  # a sheet: six rows of six
DIGITS = 10  # of a film's id: two of 112,120 films share one in 0.6 % of data sets
SAMPLE = ("sheet", "finding", "place", "id", "image", "label", "weight")
FORM = ("sheet", "place", "id", "image", "reviewer", "verdict", "also")
TEXT = ("sheet", "finding", "id", "image")
Rows = Int64[np.ndarray, " m"]
Weight = Float64[np.ndarray, " m"]


def draw_sample(manifest: Manifest, *, seed: int, films: int = FILMS) -> pd.DataFrame:
    """Return a sheet of random films for every finding, and for NO_FINDING (all labels are 0).

    At most `films` of those labelled so, one a patient, drawn and weighed as `draw_films` does; in
    random order, so that the first of a sheet are a random sample too. A finding that no film is
    labelled with has no sheet. Columns SAMPLE.
    """
    given = dict(zip(manifest.findings, manifest.label.T == 1, strict=True))
    given[NO_FINDING] = (manifest.label == 0).all(axis=1)
    tables = []
    for number, (finding, mask) in enumerate(given.items()):
        pool = np.flatnonzero(mask)
        drawn, weight = draw_films(manifest.patient[pool], films=films, seed=(seed, number))
        image = manifest.image[pool[drawn]]
        tables.append(_sheet(finding, finding, image.tolist(), label=1, weight=weight))
    return pd.concat(tables, ignore_index=True)


def draw_suspects(
    manifest: Manifest, suspects: pd.DataFrame, *, seed: int, films: int = FILMS
) -> pd.DataFrame:
    """Return a sheet of the first `films` suspects of every finding and direction, one a patient.

    `suspects` as `find_suspects` returns them: image, finding, direction, the most suspect first.
    Places are shuffled, so that nobody knows the rank. Every film weighs 1: it stands for itself,
    not for others. Raises ValueError for a film, finding or direction that is not known.
    """
    _require_known(suspects["direction"].tolist(), DIRECTIONS, "direction")
    _require_known(suspects["finding"].tolist(), manifest.findings, "finding")
    row = rows_of(manifest, suspects["image"].to_numpy(dtype=str))
    if (row < 0).any():
        name = suspects["image"].tolist()[int(np.argmin(row))]
        raise ValueError(f"suspect {name!r} is not in {manifest.origin}; expected its films only")
    table = suspects.assign(patient=manifest.patient[row])
    random = np.random.default_rng(seed)
    tables = [_sheet("", "", [], label=1, weight=np.empty(0))]
    for name, mine in table.groupby(table["finding"] + ", " + table["direction"], sort=False):
        image = mine.drop_duplicates("patient")["image"].head(films).tolist()
        shown = [image[place] for place in random.permutation(len(image))]
        about = {"label": DIRECTIONS[mine["direction"].iloc[0]], "weight": np.ones(len(shown))}
        tables.append(_sheet(str(name), mine["finding"].iloc[0], shown, **about))
    return pd.concat(tables, ignore_index=True)


def draw_films(
    patient: Int64[np.ndarray, " n"], *, films: int, seed: int | Sequence[int]
) -> tuple[Rows, Weight]:
    """Return at most `films` rows, one a patient, and the number of films that each stands for.

    Every film has the chance 1 / weight of being drawn, so that weighted sums are unbiased
    (Horvitz and Thompson, Journal of the American Statistical Association 47 (1952), 663-685).
    With n films in a line, those of a patient together and patients in random order, every n/films
    th is taken from a random start: the weight is n/films (Madow, Annals of Mathematical Statistics
    20 (1949), 333-354). A patient of more films than that would be met twice: of such, one random
    film is taken for sure, which stands for all of theirs, and the line is drawn without them.
    Raises ValueError for films below 1.
    """
    if films < 1:
        raise ValueError(f"films: found {films}; expected at least 1 of a sheet")
    random = np.random.default_rng(seed)
    _, owner, count = np.unique(patient, return_inverse=True, return_counts=True)
    sure = _surely(count, films)
    shuffled = random.permutation(len(patient))
    turn = random.permutation(len(count))
    line = shuffled[np.argsort(turn[owner[shuffled]], kind="stable")]
    theirs, rest = line[sure[owner[line]]], line[~sure[owner[line]]]
    first = theirs[np.unique(owner[theirs], return_index=True)[1]]
    more = films - len(first) if len(rest) else 0
    step = len(rest) / max(1, more)
    at = ((np.arange(more) + random.random()) * step).astype(np.int64)
    drawn = np.append(first, rest[np.minimum(at, len(rest) - 1)])
    weight = np.append(count[owner[first]], np.full(more, step))
    order = random.permutation(len(drawn))
    return drawn[order], weight[order].astype(np.float64)


def film_id(image: str) -> str:
    """Return a name of a film that tells nothing of its patient: digits of its name's SHA-256."""
    return hashlib.sha256(image.encode()).hexdigest()[:DIGITS]


def empty_form(sample: pd.DataFrame) -> pd.DataFrame:
    """Return a form for a spreadsheet: a row a film, reviewer, verdict and also to be filled in."""
    return sample.assign(reviewer="", verdict="", also="").loc[:, list(FORM)]


def read_sample(file: Path) -> pd.DataFrame:
    """Read a sample as `DataFrame.to_csv` writes it; raises ValueError where a column lacks."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file; expected the sample.csv that a review wrote")
    table = read_table(file, text=TEXT)
    if lacking := [name for name in SAMPLE if name not in table]:
        raise ValueError(
            f"{file}: no column {lacking[0]!r}; expected a sample.csv as a review writes it"
        )
    return table.loc[:, list(SAMPLE)].astype({"weight": float})


def _surely(count: Int64[np.ndarray, " p"], films: int) -> Bool[np.ndarray, " p"]:
    """Return the patients with so many films that every draw along a line of all meets them."""
    sure = np.zeros(len(count), dtype=bool)
    more = count > 0
    while more.any():
        more = ~sure & (count * (films - sure.sum()) >= count[~sure].sum())
        sure |= more
    return sure


def _sheet(
    sheet: str, finding: str, image: list[str], *, label: int, weight: Weight
) -> pd.DataFrame:
    about = {"sheet": sheet, "finding": finding, "place": np.arange(1, len(image) + 1)}
    names = {"id": [film_id(name) for name in image], "image": pd.Series(image, dtype=str)}
    return pd.DataFrame({**about, **names, "label": label, "weight": weight}).loc[:, list(SAMPLE)]


def _require_known(found: Sequence[str], known: Sequence[str] | dict[str, int], what: str) -> None:
    for name in dict.fromkeys(found):
        if name not in known:
            near = nearest(name, known)
            raise ValueError(f"{what} {name!r} is unknown; expected {', '.join(known)}{near}")

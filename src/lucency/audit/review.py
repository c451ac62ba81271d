"""Films drawn for people to look at: random ones of every label, or those most suspect.

A sheet is the films of one label, and holds nothing of patients: no number, age or sex. NIH's names
of films begin with its patient number; `id` does not tell it. Letters in shapes: n films, m drawn.

What people saw on the films drawn for them, and so how many labels are right.

`yes` says that what the sheet names is true of the film: its finding is seen, or for NO_FINDING
nothing is. Letters in shapes: n films, v reviewers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from lucency.audit.agreement import NO_PAIRS, cohen, fleiss, rows_of
from lucency.audit.label_errors import DIRECTIONS
from lucency.core.manifest import NO_FINDING, Manifest, nearest, read_table
from lucency.evaluation.bootstrap import Weights, interval, once, ratio, resample_patients
from lucency.evaluation.metrics import count_cells
from lucency.evaluation.significance import wilson

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


def draw_label_errors(
    manifest: Manifest, suspects: pd.DataFrame, *, seed: int, films: int = FILMS
) -> pd.DataFrame:
    """Return a sheet of the first `films` suspects of every finding and direction, one a patient.

    `suspects` as `find_label_errors` returns them: image, finding, direction, the most suspect
    first. Places are shuffled, so that nobody knows the rank. Every film weighs 1: it stands for
    itself, not for others. Raises ValueError for a film, finding or direction that is not known.
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


YES, NO, UNSURE = WORDS = ("yes", "no", "unsure")
VERDICTS = ("sheet", "image", "reviewer", "verdict", "also")
RIGHT = (
    "sheet", "label", "right", "low", "high", "films", "drawn", "yes", "no", "unsure", "left",
    "reviewers", "note",
)  # fmt: skip
AGREED = ("sheet", "measure", "kappa", "low", "high", "films", "reviewers", "note")
ALONE = "not computable: fewer than two reviewers"
Said = Float64[np.ndarray, "n v"]  # 1 yes, 0 no, NaN unsure or not looked at


def read_verdicts(files: Sequence[Path], *, sample: pd.DataFrame) -> pd.DataFrame:
    """Read filled forms, or what review.html saved: columns VERDICTS, a row a film and reviewer.

    A reviewer may give a file each or share one. Rows without a verdict (not looked at) are left
    out. `also`, other findings seen and joined with |, may be absent. Raises ValueError, with file
    and line, for an unknown word, no reviewer, a film that the sheet of `sample` does not hold, and
    a verdict on a film that the same reviewer has given before.
    """
    table = pd.concat([_read(file) for file in files], ignore_index=True)
    drawn = set(zip(sample["sheet"], sample["image"], strict=True))
    seen = dict[tuple[str, str, str], str]()
    for row in table.to_dict("records"):
        key = (row["sheet"], row["image"], row["reviewer"])
        if row["verdict"] not in WORDS:
            near = nearest(row["verdict"], WORDS)
            told = f"verdict {row['verdict']!r} is unknown; expected {', '.join(WORDS)}{near}"
        elif not row["reviewer"]:
            told = "a verdict without a reviewer; expected a name or initials"
        elif key[:2] not in drawn:
            told = f"film {key[1]!r} was not drawn for {key[0]!r}; expected films of its sample.csv"
        elif key in seen:
            told = f"{key[2]!r} has judged {key[1]!r} before, {seen[key]}; remove one of the two"
        else:
            seen[key] = row["where"]
            continue
        raise ValueError(f"{row['where']}: {told}")
    return table.loc[:, list(VERDICTS)]


def ppv_from_verdicts(sample: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Return for each sheet the share of labels that are right, over all films labelled so.

    Of a finding that is the positive predictive value, of NO_FINDING the share truly without; of
    a sheet of missing findings (label 0) the share where none is missed. Films count by their
    weight, which sum to `films`, of which `drawn` were drawn. A film's verdict is the word that
    more than half of its reviewers say, else `unsure`; those and films nobody has judged (`left`)
    do not count. Wilson's 95 % interval, of as many equal films as the weights are worth (Kish,
    Survey Sampling (1965)), does not hold the doubt about the unsure. Columns RIGHT.
    """
    rows = []
    for sheet, mine in sample.groupby("sheet", sort=False):
        said = verdicts.loc[verdicts["sheet"] == sheet]
        votes = _votes(said, image=mine["image"].tolist())
        most = 2 * votes > votes.sum(axis=1, keepdims=True)
        yes, no = most[:, 0], most[:, 1]
        left = votes.sum(axis=1) == 0
        label, weight = int(mine["label"].iloc[0]), mine["weight"].to_numpy(dtype=np.float64)
        value, low, high = _share(weight, right=yes if label else no, decided=yes | no)
        count = [int(each.sum()) for each in (yes, no, ~(yes | no | left), left)]
        about = (round(weight.sum()), len(mine), *count, said["reviewer"].nunique())
        note = _note(weight, unsure=count[2], left=count[3])
        rows.append((sheet, label, value, low, high, *about, note))
    return pd.DataFrame(rows, columns=list(RIGHT))


def reviewers_agree(
    sample: pd.DataFrame, verdicts: pd.DataFrame, *, resamples: int, seed: int
) -> pd.DataFrame:
    """Return for each sheet the kappa among its reviewers: Cohen's of two, Fleiss' of more.

    Films of which fewer than two are sure are left out, as is who is unsure of a film. The 95 %
    interval resamples films, which are one a patient. Columns AGREED.
    """
    rows = []
    for sheet in sample["sheet"].unique():
        mine = verdicts.loc[verdicts["sheet"] == sheet]
        said = mine.assign(value=mine["verdict"].map({YES: 1.0, NO: 0.0}))
        table = said.pivot(index="image", columns="reviewer", values="value")
        answers = table.to_numpy(dtype=np.float64)
        several = (~np.isnan(answers)).sum(axis=1) > 1
        films, people = int(several.sum()), table.shape[1]
        measure = "cohen" if people == 2 else "fleiss"
        value, low, high, note = np.nan, np.nan, np.nan, ALONE if people < 2 else NO_PAIRS
        if films:
            drawn = resample_patients(np.arange(films), resamples=resamples, seed=seed)
            value = float(MEASURES[measure](answers[several], once(films))[0])
            low, high = interval(MEASURES[measure](answers[several], drawn))
            note = "not computable: all answers are the same" if np.isnan(value) else ""
        rows.append((sheet, measure, value, low, high, films, people, note))
    return pd.DataFrame(rows, columns=list(AGREED))


def _read(file: Path) -> pd.DataFrame:
    """Return a file's rows that have a verdict, with the place of each; spreadsheets add a mark."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file; expected a filled form.csv, or a verdicts.csv")
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(
            f"{file} is no table ({error}); expected a filled form.csv, or a verdicts.csv"
        ) from error
    if lacking := [name for name in VERDICTS[:-1] if name not in table]:
        raise ValueError(
            f"{file}: found the columns {', '.join(map(str, table))}, no {lacking[0]!r}; expected "
            "a form.csv, or what review.html saves, with commas between its cells"
        )
    where = [f"{file.name}, line {line}" for line in range(2, len(table) + 2)]
    cells = table.assign(also=table.get("also", ""), where=where)
    cells["verdict"] = cells["verdict"].str.strip().str.lower()
    cells["reviewer"] = cells["reviewer"].str.strip()
    return cells.loc[cells["verdict"] != "", [*VERDICTS, "where"]]


def _votes(said: pd.DataFrame, *, image: list[str]) -> Int64[np.ndarray, "n 3"]:
    """Return how many reviewers say each of WORDS of each film of a sheet."""
    film = pd.Index(image).get_indexer(pd.Index(said["image"]))
    if (film < 0).any():
        name = said["image"].tolist()[int(np.argmin(film))]
        raise ValueError(f"film {name!r} was not drawn; expected verdicts read with this sample")
    votes = np.zeros((len(image), len(WORDS)), dtype=np.int64)
    np.add.at(votes, (film, pd.Index(WORDS).get_indexer(pd.Index(said["verdict"]))), 1)
    return votes


def _share(
    weight: Float64[np.ndarray, " n"],
    *,
    right: Bool[np.ndarray, " n"],
    decided: Bool[np.ndarray, " n"],
) -> tuple[float, float, float]:
    """Return the weighted share and the ends of its interval; NaN where no film is decided."""
    of, square = weight[decided].sum(), (weight[decided] ** 2).sum()
    share, worth = ratio(np.array([weight[right].sum(), of**2]), np.array([of, square]))
    if not decided.any():
        return np.nan, np.nan, np.nan
    low, high = wilson(np.array(share * worth), np.array(worth))
    return float(share), float(low), float(high)


def _note(weight: Float64[np.ndarray, " n"], *, unsure: int, left: int) -> str:
    drawn = len(weight)
    if unsure + left == drawn:
        return f"not computable: of {drawn} films {unsure} are unsure, {left} have no verdict"
    told = [f"{unsure} of {drawn} films are unsure and do not count"] if unsure else []
    told += [f"{left} of {drawn} films have no verdict yet"] if left else []
    told += ["each film stands for itself alone"] if (weight == 1).all() else []
    return "; ".join(told)


def _cohen(said: Said, weights: Weights) -> Float64[np.ndarray, " r"]:
    return cohen(count_cells(said[:, 0], said[:, 1] == 1, weights=weights))


def _fleiss(said: Said, weights: Weights) -> Float64[np.ndarray, " r"]:
    return fleiss((said == 1).sum(axis=1), (said == 0).sum(axis=1), weights=weights)


MEASURES = {"cohen": _cohen, "fleiss": _fleiss}

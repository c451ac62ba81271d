"""Review of labels by people: films drawn for reviewers, and how many labels their answers confirm.

A sheet is the films of one label, random ones or the likeliest label errors. It holds nothing of
patients: no number, age or sex; NIH's names of films begin with the patient's number, so that a
film has an `id` without it. The answer `yes` means that what the sheet names is true of the film:
its finding is seen, or for NO_FINDING nothing is.

Letters in shapes: n films, m drawn, v reviewers, p patients, r resamples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from lucency.audit.agreement import NO_PAIRS, ONE_ANSWER, cohen, fleiss, rows_of
from lucency.audit.label_errors import DIRECTIONS
from lucency.core.manifest import NO_FINDING, Manifest, nearest, read_table
from lucency.core.saved_files import naming_damage
from lucency.data.csv_tables import read_csv
from lucency.evaluation.bootstrap import Weights, all_and_resampled
from lucency.evaluation.intervals import BOOTSTRAPPED, bootstrap_interval, no_interval
from lucency.evaluation.metrics import count_cells
from lucency.evaluation.significance import wilson

FILMS = 36  # a sheet: six rows of six
DIGITS = 10  # of a film's id: two of 112,120 films share one in 0.6 % of data sets
SAMPLE = ("sheet", "finding", "place", "id", "image", "label", "weight")
FORM = ("sheet", "place", "id", "image", "reviewer", "answer", "also")
TEXT = ("sheet", "finding", "id", "image")
AS_WRITTEN = "as it was written, each line with its end: save it so"  # what people open and save
YES, NO, UNSURE = WORDS = ("yes", "no", "unsure")
ANSWERS = ("sheet", "image", "reviewer", "answer", "also")
RIGHT = (
    "sheet", "label", "right", "low", "high", "films", "drawn", "yes", "no", "unsure", "left",
    "reviewers", "note",
)  # fmt: skip
AGREED = ("sheet", "measure", "kappa", "low", "high", "films", "reviewers", "note")
ALONE = "not computable: fewer than two reviewers"
Rows = Int64[np.ndarray, " m"]
Weight = Float64[np.ndarray, " m"]
Films = Bool[np.ndarray, " m"]
Answers = Float64[np.ndarray, "n v"]  # 1 yes, 0 no, NaN unsure or not reviewed


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
    manifest: Manifest, errors: pd.DataFrame, *, seed: int, films: int = FILMS
) -> pd.DataFrame:
    """Return a sheet of the first `films` errors of every finding and direction, one a patient.

    `errors` as `find_label_errors` returns them: image, finding, direction, the likeliest first.
    Places are shuffled, so that they do not give the rank away. Every film weighs 1: it stands for
    itself, not for others. Raises ValueError for a film, finding or direction that is not known.
    """
    _require_known(errors["direction"].tolist(), DIRECTIONS, "direction")
    _require_known(errors["finding"].tolist(), manifest.findings, "finding")
    row = rows_of(manifest, errors["image"].to_numpy(dtype=str))
    if (row < 0).any():
        name = errors["image"].tolist()[int(np.argmin(row))]
        raise ValueError(f"film {name!r} is not in {manifest.origin}; expected its films only")
    table = errors.assign(patient=manifest.patient[row])
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
    20 (1949), 333-354). A patient of more films than that would be drawn twice: of such, one random
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
    """Return a name of a film without its patient's number: digits of its name's SHA-256."""
    return hashlib.sha256(image.encode()).hexdigest()[:DIGITS]


def empty_form(sample: pd.DataFrame) -> pd.DataFrame:
    """Return a form for a spreadsheet: a row a film, reviewer, answer and also to be filled in."""
    return sample.assign(reviewer="", answer="", also="").loc[:, list(FORM)]


def read_sample(file: Path) -> pd.DataFrame:
    """Read a sample as `DataFrame.to_csv` writes it; raises ValueError where a column lacks."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file; expected the sample.csv that a review wrote")
    remedy = f"expected a sample.csv {AS_WRITTEN}"
    table = read_table(file, text=TEXT, remedy=remedy)
    if lacking := [name for name in SAMPLE if name not in table]:
        raise ValueError(
            f"{file}: no column {lacking[0]!r}; expected a sample.csv as a review writes it"
        )
    with naming_damage(file, remedy=remedy):
        return table.loc[:, list(SAMPLE)].astype({"weight": float})


def read_answers(files: Sequence[Path], *, sample: pd.DataFrame) -> pd.DataFrame:
    """Read filled forms, or what review.html saved: columns ANSWERS, a row a film and reviewer.

    A reviewer may give a file each or share one. Rows without an answer (not reviewed) are left
    out. `also`, other findings seen and joined with |, may be absent. Raises ValueError, with file
    and line, for an unknown word, no reviewer, a film that the sheet of `sample` does not hold, and
    a second answer of one reviewer for one film.
    """
    table = pd.concat([_read(file) for file in files], ignore_index=True)
    drawn = set(zip(sample["sheet"], sample["image"], strict=True))
    seen = dict[tuple[str, str, str], str]()
    for row in table.to_dict("records"):
        sheet, image, reviewer = key = (row["sheet"], row["image"], row["reviewer"])
        if row["answer"] not in WORDS:
            near = nearest(row["answer"], WORDS)
            fault = f"answer {row['answer']!r} is unknown; expected {', '.join(WORDS)}{near}"
        elif not reviewer:
            fault = "an answer without a reviewer; expected a name or initials"
        elif (sheet, image) not in drawn:
            fault = f"film {image!r} was not drawn for {sheet!r}; expected films of its sample.csv"
        elif key in seen:
            fault = (
                f"{reviewer!r} has reviewed {image!r} before, {seen[key]}; remove one of the two"
            )
        else:
            seen[key] = row["where"]
            continue
        raise ValueError(f"{row['where']}: {fault}")
    return table.loc[:, list(ANSWERS)]


def label_ppv(sample: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Return for each sheet the share of labels that are right, over all films labelled so.

    Of a finding that is the positive predictive value, of NO_FINDING the share truly without; of
    a sheet of missing findings (label 0) the share where none is missed. Films count by their
    weight, which sum to `films`, of which `drawn` were drawn. A film's answer is that of more than
    half of its reviewers, else `unsure`; those and films without an answer (`left`) do not count.
    Wilson's 95 % interval, of as many equal films as the weights are worth (Kish, Survey Sampling
    (1965)), does not include the uncertainty about the unsure. Columns RIGHT.
    """
    rows = []
    for sheet, mine in sample.groupby("sheet", sort=False):
        given = answers.loc[answers["sheet"] == sheet]
        votes = _votes(given, image=mine["image"].tolist())
        most = 2 * votes > votes.sum(axis=1, keepdims=True)
        yes, no = most[:, 0], most[:, 1]
        left = votes.sum(axis=1) == 0
        label, weight = int(mine["label"].iloc[0]), mine["weight"].to_numpy(dtype=np.float64)
        share = _share(weight, right=yes if label else no, decided=yes | no)
        count = [int(each.sum()) for each in (yes, no, ~(yes | no | left), left)]
        about = (round(weight.sum()), len(mine), *count, given["reviewer"].nunique())
        note = _note(weight, unsure=count[2], left=count[3])
        rows.append((sheet, label, *share, *about, note))
    return pd.DataFrame(rows, columns=list(RIGHT))


def reviewers_agree(
    sample: pd.DataFrame, answers: pd.DataFrame, *, resamples: int, seed: int
) -> pd.DataFrame:
    """Return for each sheet the kappa among its reviewers: Cohen's of two, Fleiss' of more.

    Films of which fewer than two are sure are left out, as is who is unsure of a film. The 95 %
    interval resamples films, which are one a patient. Columns AGREED.
    """
    rows = []
    for sheet in sample["sheet"].unique():
        mine = answers.loc[answers["sheet"] == sheet]
        mine = mine.assign(value=mine["answer"].map({YES: 1.0, NO: 0.0}))
        table = mine.pivot(index="image", columns="reviewer", values="value")
        given = table.to_numpy(dtype=np.float64)
        given = given[(~np.isnan(given)).sum(axis=1) > 1]
        films, people = len(given), table.shape[1]
        value, low, high, note = np.nan, np.nan, np.nan, ALONE if people < 2 else NO_PAIRS
        if films:
            weights = all_and_resampled(np.arange(films), resamples=resamples, seed=seed)
            sampled = _kappa(given, weights)
            rarer = int(min((given == one).any(axis=1).sum() for one in (0, 1)))
            value, few = float(sampled[0]), {"patients": rarer, "fewest": BOOTSTRAPPED}
            low, high = ends = bootstrap_interval(sampled, **few)
            note = ONE_ANSWER if np.isnan(value) else no_interval(ends, **few)
        measure = "cohen" if people == 2 else "fleiss"
        rows.append((sheet, measure, value, low, high, films, people, note))
    return pd.DataFrame(rows, columns=list(AGREED))


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


def _read(file: Path) -> pd.DataFrame:
    """Return a file's rows that have an answer, with the place of each."""
    table = read_csv(file, expected="a filled form.csv, or an answers.csv")
    if lacking := [name for name in ANSWERS[:-1] if name not in table.columns]:
        raise ValueError(
            f"{file}: found the columns {', '.join(table.columns)}, no {lacking[0]!r}; expected "
            "a form.csv, or what review.html saves"
        )
    where = [f"{file.name}, line {line}" for line in table.line]
    cells = pd.DataFrame({"also": "", **table.columns, "where": where})
    cells["answer"] = cells["answer"].str.lower()
    return cells.loc[cells["answer"] != "", [*ANSWERS, "where"]]


def _votes(answers: pd.DataFrame, *, image: list[str]) -> Int64[np.ndarray, "n 3"]:
    """Return how many reviewers gave each of WORDS for each film of a sheet."""
    film = pd.Index(image).get_indexer(pd.Index(answers["image"]))
    if (film < 0).any():
        name = answers["image"].tolist()[int(np.argmin(film))]
        raise ValueError(f"film {name!r} was not drawn; expected answers read with this sample")
    votes = np.zeros((len(image), len(WORDS)), dtype=np.int64)
    np.add.at(votes, (film, pd.Index(WORDS).get_indexer(pd.Index(answers["answer"]))), 1)
    return votes


def _share(weight: Weight, *, right: Films, decided: Films) -> tuple[float, float, float]:
    """Return the weighted share and the ends of its interval; NaN where no film is decided."""
    if not decided.any():
        return np.nan, np.nan, np.nan
    of, square = weight[decided].sum(), (weight[decided] ** 2).sum()
    share, equal = weight[right].sum() / of, of**2 / square  # films of equal weight
    low, high = wilson(np.array(share * equal), np.array(equal))
    return float(share), float(low), float(high)


def _note(weight: Weight, *, unsure: int, left: int) -> str:
    drawn = len(weight)
    if unsure + left == drawn:
        return f"not computable: of {drawn} films {unsure} are unsure, {left} have no answer"
    remarks = [f"{unsure} of {drawn} films are unsure and do not count"] if unsure else []
    remarks += [f"{left} of {drawn} films have no answer yet"] if left else []
    remarks += ["each film stands for itself alone"] if (weight == 1).all() else []
    return "; ".join(remarks)


def _kappa(answers: Answers, weights: Weights) -> Float64[np.ndarray, " r"]:
    """Return Cohen's kappa of two reviewers, Fleiss' of more."""
    if answers.shape[1] == 2:
        return cohen(count_cells(answers[:, 0], answers[:, 1] == 1, weights=weights))
    return fleiss((answers == 1).sum(axis=1), (answers == 0).sum(axis=1), weights=weights)

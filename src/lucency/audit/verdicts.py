"""What people saw on the films drawn for them, and so how many labels are right.

`yes` says that what the sheet names is true of the film: its finding is seen, or for NO_FINDING
nothing is. Letters in shapes: n films, v reviewers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from lucency.audit.agreement import NO_PAIRS, cohen, fleiss
from lucency.judge.decided import count_cells
from lucency.judge.intervals import Weights, interval, once, ratio, resample_patients
from lucency.judge.statistics import wilson
from lucency.values import nearest

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

"""Label files of public collections: found below a root, their counts compared.

Letters in shapes: n films.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32

from lucency.core.manifest import (
    OLDEST,
    READING_COLUMNS,
    UNKNOWN_PATIENT,
    Manifest,
    counted,
    listed,
)
from lucency.core.progress import say

FRAGMENTS = (".azDownload-*", "*.part", "*.crdownload", "*.filepart")  # of unfinished downloads
NO_ROW = "no row in "  # and a table's name: a step of reading
CONTRADICTION = "contradiction: beside other findings"  # a step of reading, of No Finding
SHOWN = 3  # counts that differ, files that lie in a root: what an error or a line names


def table_patterns(*names: str) -> tuple[str, ...]:
    """Return the patterns of label files in a root and in its folders, plain or .gz.

    >>> table_patterns("train.csv")
    ('train.csv', 'train.csv.gz', '*/train.csv', '*/train.csv.gz')
    """
    return tuple(f"{f}{name}{gz}" for name in names for f in ("", "*/") for gz in ("", ".gz"))


def find_table(root: Path, labels: str, *, title: str, usual: Sequence[str]) -> Path:
    """Return the label file `labels` below `root`, else the first that fits a `usual` pattern.

    Raises ValueError where there is none, with what lies there instead, and where several fit the
    same pattern; of a file and its .gz the former is taken.
    """
    if labels:
        if (root / labels).is_file():
            return root / labels
        raise ValueError(f"{root / labels}: no such file; expected a label file of {title}")
    for pattern in usual:
        files = [file for file in sorted(root.glob(pattern)) if file.is_file()]
        once = {str(file).removesuffix(".gz"): file for file in reversed(files)}
        names = sorted(file.relative_to(root).as_posix() for file in once.values())
        if len(names) > 1:
            raise ValueError(
                f"{root}: found {listed(names, most=SHOWN)}, label files of {title}; expected one: "
                f'name it, data.labels = "{names[0]}", or leave the other out of data.root'
            )
        if files:
            return files[0]
    if parts := [part.name for one in FRAGMENTS for part in sorted(root.glob(one))]:
        raise ValueError(
            f"no label file of {title} in {root}: expected {usual[0]}, found {parts[0]} of a "
            "download that is not finished: fetch the file again"
        )
    there = sorted(place.name for place in root.iterdir()) if root.is_dir() else []
    raise ValueError(
        f"no label file of {title} in {root}: expected {usual[0]}, found "
        f"{listed(there, most=2 * SHOWN) or 'nothing'}"
    )


def first_file(root: Path, *patterns: str) -> Path | None:
    """Return the first file below `root` that fits one of the patterns, if any does."""
    found = (file for pattern in patterns for file in sorted(root.glob(pattern)) if file.is_file())
    return next(found, None)


def say_short(table: str, rows: int, *, published: int, noun: str = "rows") -> None:
    """Report a table that has fewer rows than the published one."""
    if rows < published:
        say(
            f"{table}: found {rows:,} of {published:,} published {noun}: fetch it again, unless it "
            "is shortened on purpose"
        )


def step_of_absent(file: Path, is_there: Bool[np.ndarray, " n"]) -> tuple[str, str, int]:
    """Return a step of `reading_of`: the films that a table which is joined to them lacks."""
    return f"{NO_ROW}{file.name}", "", int((~is_there).sum())


def say_absent(films: Manifest, *, title: str) -> None:
    """Report what `step_of_absent` has counted of films as they are read."""
    steps = films.reading[films.reading["step"].str.startswith(NO_ROW)]
    for step, count in zip(steps["step"].tolist(), steps["films"].tolist(), strict=True):
        file = step.removeprefix(NO_ROW)
        have = counted(count, "film", "has/have", of=len(films))
        say(f"{title}: {have} no row in {file}: what it states is not known of them")


def known_ages(years: np.ndarray) -> tuple[np.ndarray, int]:
    """Return ages with NaN for those that are impossible, and how many these are."""
    absurd = (years < 0) | (years > OLDEST)
    return np.where(absurd, np.nan, years), int(absurd.sum())


def reading_of(*steps: tuple[str, str, int]) -> pd.DataFrame:
    """Return steps, their finding and films as `Manifest.reading` has them, without empty ones."""
    return pd.DataFrame([step for step in steps if step[2]], columns=list(READING_COLUMNS))


def step_of_contradiction(
    films: Manifest, *, normal: str, beside: Sequence[str] = ()
) -> tuple[str, str, int]:
    """Return a step of `reading_of`: films of which a label file states `normal` and a finding.

    What is listed in `beside` may stand there. Labels stay as they are stated.
    """
    is_normal = np.array([name == normal for name in films.findings], dtype=np.bool_)
    is_other = ~is_normal & ~np.isin(films.findings, list(beside))
    one = films.label == 1
    both = one[:, is_normal].any(axis=1) & one[:, is_other].any(axis=1)
    return (CONTRADICTION, normal, int(both.sum()))


def as_published(films: Manifest, published: Mapping[str, int]) -> str:
    """Return "as published", or which of the published counts differ.

    Counted are films, patients, studies, films of the official parts, and positives by finding.
    """
    found = {
        "films": len(films),
        "patients": len(np.unique(films.patient)),
        "studies": films.facts["study"].nunique() if "study" in films.facts else 0,
        **(films_of_splits(films) if "split" in films.facts else {}),
        **dict(zip(films.findings, positives(films.label), strict=True)),
    }
    others = [
        f"{name} {found.get(name, 0):,}, not {count:,}"
        for name, count in published.items()
        if found.get(name, 0) != count
    ]
    if not others:
        return "as published"
    more = f" and {len(others) - SHOWN} more counts" if len(others) > SHOWN else ""
    return f"not as published ({'; '.join(others[:SHOWN])}{more})"


def joined(parts: Sequence[Manifest]) -> Manifest:
    """Return the films of several label files as one manifest."""
    if len(parts) == 1:
        return parts[0]
    facts = pd.concat([one.facts for one in parts], ignore_index=True)
    if "sex" in facts:
        facts["sex"] = facts["sex"].fillna("")
    return replace(
        parts[0],
        image=np.concatenate([one.image for one in parts]),
        patient=np.concatenate([one.patient for one in parts]),
        label=np.concatenate([one.label for one in parts]),
        facts=facts,
        uncertain=pd.concat([one.uncertain for one in parts], ignore_index=True),
    )


def films_of_splits(films: Manifest) -> dict[str, int]:
    """Return how many films each official part has."""
    return films.facts["split"].value_counts().to_dict()


def positives(label: Float32[np.ndarray, "n k"]) -> list[int]:
    """Return how many labels of each finding are 1."""
    return (label == 1).sum(axis=0).tolist()


def origin_of(films: Manifest, *, file: Path, title: str, published: Mapping[str, int]) -> str:
    """Return where films come from: file, collection, version if that is known, films, patients."""
    known = len(np.unique(films.patient[films.patient != UNKNOWN_PATIENT]))
    patients = counted(known, "patient") if known else "unknown patients"
    version = f", {as_published(films, published)}" if published else ""
    return f"{file.name}: {title}{version}, {counted(len(films), 'film')} of {patients}"

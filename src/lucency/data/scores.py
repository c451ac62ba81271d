"""Anybody's predictions: a table of image and one column a finding, joined to labels by name.

Letters in shapes: n films, k findings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Shaped

from lucency.data.table import Columns, parse_column, parse_number, read_columns
from lucency.values import nearest

IMAGE_COLUMNS = ("image", "Image Index", "film", "Image", "filename", "path")
PREFIXES = ("", "prob_", "logit_")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What somebody's network said: one score for each film and finding; other columns by name."""

    findings: tuple[str, ...]
    image: Shaped[np.ndarray, " n"]
    score: Float64[np.ndarray, "n k"]
    left_out: tuple[str, ...]


def read_scores(file: Path, *, findings: tuple[str, ...]) -> Scores:
    """Read a table (.csv or .csv.gz): a column of image names, and one a finding.

    A finding's column is called by its name, alone or after prob_ or logit_; of `findings` those
    that have one are read. Folders before an image's name are cut off. Raises ValueError for a
    table without an image column or a finding's, for a cell that is no number, and for a film that
    is listed twice.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file; expected a table of predictions (.csv or .csv.gz)")
    columns = read_columns(file, required=())
    key = next((name for name in IMAGE_COLUMNS if name in columns), "")
    if not key:
        raise ValueError(f"{file}: found {', '.join(columns)}; expected a column 'image' of names")
    where = _finding_columns(columns, findings)
    if not where:
        hint = next((nearest(name, findings) for name in columns if nearest(name, findings)), "")
        raise ValueError(f"{file}: no column is named by a finding{hint}: expected some of them")
    image = np.array([name.replace("\\", "/").rpartition("/")[2] for name in columns[key].tolist()])
    _refuse_repeated(file, image)
    score = [parse_column(columns, name, _parse_score, file) for name in where.values()]
    return Scores(
        findings=tuple(where),
        image=image,
        score=np.stack(score, axis=1).astype(np.float64),
        left_out=tuple(name for name in columns if name not in {key, *where.values()}),
    )


def _finding_columns(columns: Columns, findings: tuple[str, ...]) -> dict[str, str]:
    """Return finding -> column, in the order of `findings`."""
    found = {}
    for finding in findings:
        named = [name for name in (prefix + finding for prefix in PREFIXES) if name in columns]
        if len(named) > 1:
            raise ValueError(
                f"columns {' and '.join(named)} are one finding's: expected one of them"
            )
        if named:
            found[finding] = named[0]
    return found


def _parse_score(text: str) -> float:
    value = parse_number(text)
    if not np.isfinite(value):
        raise ValueError(f"found {text!r}, expected a finite number")
    return value


def _refuse_repeated(file: Path, image: Shaped[np.ndarray, " n"]) -> None:
    name, count = np.unique(image, return_counts=True)
    if (count > 1).any():
        raise ValueError(
            f"{file}: film {str(name[count > 1][0])!r} is listed {count.max()} times; expected "
            "each once: average or remove the repeated rows"
        )

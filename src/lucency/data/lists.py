"""Lists of films: a file of names, one a line, or a table with a column of names.

Letters in shapes: n names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from lucency.data.scores import IMAGE_COLUMNS
from lucency.data.table import read_columns


def read_names(file: Path) -> Shaped[np.ndarray, " n"]:
    """Return the image names of a list, in its order, repeated ones too; folders are cut off.

    Of a line only the first word counts, so that lists with labels behind the name are read. A
    table (.csv, .csv.gz) has a column of names, called as `lucency evaluate` knows it. Raises
    ValueError for a file that cannot be read or holds no name.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file; expected a list of image names, one a line")
    lines = _column(file) if ".csv" in file.suffixes[-2:] else _lines(file)
    names = [line.replace("\\", "/").rpartition("/")[2] for line in lines]
    if not names:
        raise ValueError(f"{file}: found no name; expected one image name a line")
    return np.array(names)


def _column(file: Path) -> list[str]:
    columns = read_columns(file, required=())
    for name in IMAGE_COLUMNS:
        if name in columns:
            return columns[name].tolist()
    if len(columns) == 1:  # a list without a heading
        (heading,) = columns
        return [heading, *columns[heading].tolist()]
    found = ", ".join(columns)
    raise ValueError(f"{file}: found the columns {found}; expected a column 'image' of names")


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is no text; expected image names, one a line") from error
    return [line.split()[0] for line in text.splitlines() if line.strip()]

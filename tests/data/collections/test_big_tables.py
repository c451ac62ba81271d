"""Big tables: blanks around cells, headings that are there twice."""

import gzip
from pathlib import Path

import pytest

from lucency.data.collections.big_tables import read_columns


def read(file: Path, text: str) -> dict[str, list[str]]:
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    table = read_columns(file, "id", title="a set", optional=("view", "note"))
    return {name: cells.tolist() for name, cells in table.columns.items()}


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_blanks_around_cells_do_not_count(tmp_path: Path, name: str):
    read_cells = read(tmp_path / name, 'id , view\na , PA \n"b "," AP\t"\r\nc d, \n')
    assert read_cells == {"id": ["a", "b", "c d"], "view": ["PA", "AP", ""]}


@pytest.mark.parametrize("heading", ["id,view,view", "id,view, view ", "view,id,id"])
def test_a_heading_that_is_there_twice_is_refused(tmp_path: Path, heading: str):
    twice = heading.split(",")[1]
    with pytest.raises(ValueError, match=f"column '{twice}' is there twice"):
        read(tmp_path / "t.csv", f"{heading}\na,b,c\n")
    assert read(tmp_path / "t.csv", "id,x,x\na,b,c\n") == {"id": ["a"]}  # nothing that is read

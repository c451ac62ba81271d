"""Big tables: blanks around cells, headings that are there twice."""

import gzip
import zipfile
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


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (8, 1, "found no whole table .*encrypted, password required"),
        (10, 9, "found no whole table .*compression method is not supported"),
        (27, 9, "found 5 bytes that inflate to more than 64 MiB and 100 times as many"),
    ],
    ids=["encrypted", "deflate64", "a bomb"],
)
def test_a_zip_that_cannot_be_read_is_refused(tmp_path: Path, field: int, value: int, message: str):
    """The fields are those of a zip's central directory (APPNOTE 4.3.12)."""
    file = tmp_path / "t.csv.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("t.csv", "id\na\n")
    content = bytearray(file.read_bytes())
    for place in (content.index(b"PK\1\2") + field, *([field - 2] if field < 11 else ())):
        content[place] = value
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"t\.csv\.zip: {message}"):
        read_columns(file, "id", title="a set")


def test_a_table_that_inflates_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for module in ("film_size", "csv_tables"):
        monkeypatch.setattr(f"lucency.data.{module}.FREE_BYTES", 1 << 20)
    file = tmp_path / "t.csv.gz"
    file.write_bytes(gzip.compress(b"id\n" + b"a\n" * (3 << 19)))
    with pytest.raises(ValueError, match="inflate to more than 1 MiB and 100 times as many"):
        read_columns(file, "id", title="a set")


def test_memory_that_runs_out_is_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("lucency.data.collections.big_tables.pd.read_csv", fails)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        read(tmp_path / "t.csv", "id\na\n")

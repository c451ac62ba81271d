"""Tables as spreadsheets and other programs write them: read right, or refused in one line."""

import csv
import gzip
import io
import re
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucency.data.csv_tables import (
    CsvTable,
    clean_text,
    parse_number,
    parse_whole,
    read_csv,
    read_names,
    read_scores,
)

TABLE = "image,patient,Mass\na.png,Zoë,0\nb.png,Bert,1\n"
ROWS = {"image": ["a.png", "b.png"], "patient": ["Zoë", "Bert"], "Mass": ["0", "1"]}
EXCEL = "\ufeff" + TABLE.replace("\n", ",,\r\n") + ",,,,\r\n" * 3


def read(folder: Path, content: bytes) -> CsvTable:
    (folder / "t.csv").write_bytes(content)
    return read_csv(folder / "t.csv")


def columns(table: CsvTable) -> dict[str, list[str]]:
    return {name: cells.tolist() for name, cells in table.columns.items()}


AS_WRITTEN = {
    "utf-8": (TABLE.encode(), ""),
    "a mark": (TABLE.encode("utf-8-sig"), ""),
    "Excel, empty rows and columns at the end": (EXCEL.encode(), ""),
    "headings without cells below": (TABLE.replace("Mass", "Mass,,").encode(), ""),
    "Excel's Unicode text": (TABLE.replace(",", "\t").encode("utf-16"), "UTF-16; cells are sep"),
    "UTF-16 without a mark": (TABLE.encode("utf-16-le"), "UTF-16 without a mark"),
    "UTF-16, most significant first": (TABLE.encode("utf-16-be"), "UTF-16 without a mark"),
    "Windows": (TABLE.encode("cp1252"), "not UTF-8, read as Windows-1252"),
    "an old Mac": (TABLE.replace("\n", "\r").encode(), ""),
    "semicolons": (TABLE.replace(",", ";").encode(), "semicolons"),
    "tabs": (TABLE.replace(",", "\t").encode(), "tabs"),
    "bars": (TABLE.replace(",", "|").encode(), "vertical bars"),
    "a first line for Excel": (b"sep=;\r\n" + TABLE.replace(",", ";").encode(), "semicolons"),
    "text for Excel": (re.sub("[^,\n]+", '="\\g<0>"', TABLE).encode(), ""),
    "text for Excel, in quotes": (re.sub("[^,\n]+", '"=""\\g<0>"""', TABLE).encode(), ""),
    "blanks": (TABLE.replace(",", " , ").encode(), ""),
    "packed": (gzip.compress(TABLE.encode("utf-8-sig")), ""),
    "the end of a DOS file": (TABLE.encode() + b"\x1a", ""),
}


@pytest.mark.parametrize("what", AS_WRITTEN)
def test_a_table_is_read_whatever_program_wrote_it(tmp_path: Path, capsys, what: str):
    content, reported = AS_WRITTEN[what]
    assert columns(read(tmp_path, content)) == ROWS
    line = capsys.readouterr().err
    assert (reported in line) if reported else not line


def packed(*names: str) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return file.getvalue()


def lying(version: int = 20, mark: bytes = b"PK\1\2") -> bytes:
    """Return a workbook whose listing has another mark, or wants another version to be read."""
    content = bytearray(packed("xl/workbook.xml"))
    entry = content.index(b"PK\1\2")
    content[entry : entry + 4], content[entry + 6] = mark, version
    return bytes(content)


REFUSED = {
    "xlsx": (packed("xl/workbook.xml"), "found an Excel workbook.*save it as .CSV UTF-8"),
    "a damaged xlsx": (lying(mark=b"XX\1\2"), "found a damaged zip archive or workbook"),
    "a zip of version 9.9": (lying(version=99), "found a damaged zip archive or workbook"),
    "xls": (b"\xd0\xcf\x11\xe0" + bytes(99), "found an Excel workbook"),
    "ods": (packed("content.xml"), "found an OpenDocument spreadsheet.*CSV UTF-8"),
    "zip": (packed("labels.csv"), "found a zip archive.*unpack"),
    "a web page called .xls": (b"\n<table><tr>", "found a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "found a pointer of Git LFS"),
    "cut short": (TABLE.encode()[:-9], "line 3: found 1 cell, expected 3 as in line 1: .*short"),
    "a comma too many": (TABLE.replace("Zoë", "Z,A").encode(), "line 2: found 4 cells.*quotes"),
    "an early quote": (b'image,"Mass\na,1\n' + b"x" * 200_000, "line 1: found no CSV table"),
    "a bomb": (gzip.compress(bytes(72 << 20)), "bytes that inflate to more than 64 MiB and 100"),
    "a name twice of many": (",".join([*map(str, range(9999)), "7"]).encode(), "'7' is there tw"),
    "a title": (b"All films\n" + TABLE.encode(), "line 2: .*the first line names the columns"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, what: str):
    content, message = REFUSED[what]
    with pytest.raises(ValueError, match=message) as refusal:
        read(tmp_path, content)
    assert str(refusal.value).startswith(str(tmp_path / "t.csv"))
    assert "\n" not in str(refusal.value)


def test_many_columns_and_many_blanks_are_read_in_one_pass(tmp_path: Path):
    """Where each is compared with all others, the tests end late."""
    names = [f"c{number}" for number in range(50_000)]
    table = read(tmp_path, f"{','.join(names)}\n{','.join(names)}\n".encode())
    assert len(table.columns) == 50_000
    assert clean_text(f"\u200b a{' ' * 300_000}b\xa0") == f"a{' ' * 300_000}b"


def test_lines_are_counted_in_the_file(tmp_path: Path):
    table = read(tmp_path, b'image,note,age\n\na,"two\r\nlines",1\n,,\nb,"",old\n')
    assert table.line.tolist() == [3, 6]
    with pytest.raises(ValueError, match="line 6, age: found 'old'"):
        table.parse("age", parse_number)


def test_decimal_commas_are_read_where_they_cannot_be_thousands(tmp_path: Path):
    table = read(tmp_path, b"image;score\na;0,25\nb;-1,234\nc;1.5\nd;NA\n")
    assert table.parse_numbers("score", parse_number)[:3].tolist() == [0.25, -1.234, 1.5]
    table = read(tmp_path, b'image,score\na,"0,25"\nb,"-1,2345"\n')
    assert table.parse_numbers("score", parse_number).tolist() == [0.25, -1.2345]
    table = read(tmp_path, b"image\tscore\na\t0,25\n")
    assert table.parse_numbers("score", parse_number).tolist() == [0.25]
    for content in (
        b'image,score\na,"1,234"\n',
        b"image\tscore\na\t1,234\n",
        b"image|score\na|1,234\n",
    ):
        table = read(tmp_path, content)
        with pytest.raises(ValueError, match="line 2, score: found '1,234', a decimal comma or th"):
            table.parse_numbers("score", parse_number)


def test_decimal_commas_of_small_numbers_are_read_and_errors_quote_the_file(tmp_path: Path):
    table = read(tmp_path, b"image;Mass\na;1,23E-05\nb;43,800 %\nc;5,0e-1\nd;2,5%\n")
    scores = read_scores(table.file, findings=("Mass",)).score[:, 0]
    assert scores.tolist() == pytest.approx([1.23e-5, 0.438, 0.5, 0.025])
    table = read(tmp_path, b"image;Mass\na;1,5\n")
    with pytest.raises(ValueError, match="line 2, Mass: found '1,5', expected a whole number"):
        table.parse_numbers("Mass", parse_whole)


CELL = st.text("aé 1.\N{NO-BREAK SPACE}\N{LINE SEPARATOR}\x0b-", max_size=4)


@given(
    rows=st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=6), more=st.data()
)
@settings(max_examples=300, deadline=None)
def test_a_plain_table_s_cells_are_those_of_python_s_reader(tmp_path_factory, rows, more):
    ends = [more.draw(st.sampled_from(["\n", "\r\n", "\n\n", "\n , ,\n"])) for _ in rows]
    heading = "image,x,y" + more.draw(st.sampled_from(["", ",", ", ,"]))
    text = f"{heading}\n" + "".join(",".join(r) + end for r, end in zip(rows, ends, strict=True))
    expected = [
        [cell.strip() for cell in row][:3] for row in csv.reader(io.StringIO(text, newline=""))
    ]
    expected = [row for row in expected[1:] if any(row)]
    file = tmp_path_factory.mktemp("plain") / "t.csv"
    file.write_bytes(text.encode())
    if not expected:
        with pytest.raises(ValueError, match="found no rows"):
            read_csv(file)
        return
    table = read_csv(file)
    assert [list(row) for row in zip(*table.columns.values(), strict=True)] == expected
    lines = text.replace("\r\n", "\n").split("\n")
    assert [lines[k - 1].split(",")[0].strip() for k in table.line] == [row[0] for row in expected]


def test_scores_are_what_python_makes_of_each_cell(tmp_path: Path):
    cells = [
        "0.1",
        "1e-3",
        "+.5",
        "0.30000000000000004",
        "12%",
        "\N{ARABIC-INDIC DIGIT ONE}",
    ]
    for column in (cells, cells[:4]):
        rows = "".join(f"{k}.png,{cell}\n" for k, cell in enumerate(column))
        (tmp_path / "t.csv").write_text(f"image,Mass\n{rows}", encoding="utf-8")
        found = read_scores(tmp_path / "t.csv", findings=("Mass",)).score[:, 0].tolist()
        shares = [float(cell.rstrip("%")) / (100 if "%" in cell else 1) for cell in column]
        assert found == shares


def test_digits_with_underscores_are_no_numbers(tmp_path: Path):
    table = read(tmp_path, b"image,Mass\na,0_1\nb,0.5\n")
    with pytest.raises(ValueError, match="line 2, Mass: found '0_1', expected a number"):
        read_scores(table.file, findings=("Mass",))


def test_a_cell_that_would_fill_the_memory_is_refused(tmp_path: Path):
    """An array of text is as wide as its longest cell, in every row: here 3.9 GiB."""
    file = tmp_path / "labels.csv"
    rows = "".join(f"{row},1\n" for row in range(7_500))
    file.write_text(f"image,Mass\n{rows}{'a' * 130_000},1\n")
    with pytest.raises(
        ValueError, match=r"a cell of 130,000 signs in column 'image' of 7,501 rows"
    ):
        read_csv(file)
    file.write_text(f"image,Mass\n{rows}{'a' * 1_000},1\n")
    assert len(read_csv(file).columns["image"]) == 7_501


def test_a_list_of_one_long_line_is_read_at_once(tmp_path: Path):
    file = tmp_path / "names.txt"
    line = "a.png " * 200_000  # if each sign began a search, the tests would end late
    file.write_text(f"{line}x\n1.png 0 1\n")
    assert read_names(file).tolist() == [f"{line}x", "1.png"]

"""CSV tables: their columns as text, parsed cell by cell; external scores; lists of image names.

Letters in shapes: n films or names, k findings.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import re
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64, Shaped

from lucency.core.files import why_no_file
from lucency.core.manifest import counted, listed, nearest
from lucency.core.memory import says_out_of_memory
from lucency.core.progress import say, shortened
from lucency.core.tables import AROUND, PICTURE
from lucency.data.film_size import FREE_BYTES, MOST_RATIO, inflates_too_far

BLOCK = 1 << 20  # bytes that are inflated at once
MOST_CELLS = 1 << 28  # bytes of a column
LONGEST_CELL = 80  # signs of a cell in a message
LONGEST = 40  # digits of a whole number, leading zeros counted
NAMELESS = "Unnamed: "  # and its place: a column without a heading
MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"}  # in small letters
DAMAGED_ZIP = (  # what zipfile raises of files that are damaged, encrypted or packed by new methods
    EOFError, NotImplementedError, RuntimeError, lzma.LZMAError, struct.error, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
USUAL = {  # what columns are called, in small letters without blanks, by what they hold
    "image": (
        "image", "imageindex", "imageid", "imagename", "film", "filename", "imagepath", "imagefile",
        "filepath", "path", "file", "dicomid",
    ),
    "patient": ("patient", "patientid", "patientnumber", "subject", "subjectid", "pid", "mrn"),
    "age": ("age", "patientage", "ageyears"),
    "sex": ("sex", "patientsex", "gender", "patientgender"),
    "view": ("view", "viewposition"),
}  # fmt: skip
PREFIXES = ("", "prob_", "logit_")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
OURS = ("film", "Image Index")  # names of images in tables of ours and of NIH's
REASON = "reason"  # the column that says why a film could not be read
COMMENT = re.compile(r"^\s*#.*|\s#\s.*")
LABELLED = re.compile(  # numbers behind a film's suffix
    rf"(.+{PICTURE})(?:[\s,;]+[-+]?[0-9.]+)+[\s,;]*$", re.IGNORECASE
)
SAMPLE = 20  # rows that show how cells are separated
AS_CSV = 'save it as "CSV UTF-8 (comma delimited)"'
MARKS = {  # bytes at a file's head -> its encoding
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(?:E[+-]?\d+)?\s*%?", re.IGNORECASE)
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")  # or a decimal comma
EXCEL_SEPARATOR = re.compile(r"\ufeff?\"?sep=([,;\t|])\"?(?:\r\n|\r|\n)")
PAGES = (b"<!doctype", b"<html", b"<table", b"<?xml")
ENCODINGS = {  # that are reported
    "utf-16": "the encoding is UTF-16",
    "utf-16-le": "the encoding is UTF-16 without a mark",
    "utf-16-be": "the encoding is UTF-16 without a mark",
    "utf-32": "the encoding is UTF-32",
    "cp1252": "the text is not UTF-8, read as Windows-1252",
}
APOSTROPHE = re.compile(r"^'(?=[0-9])")
EXCEL_TEXT = re.compile(r'^="(.*)"$', re.DOTALL)  # as Excel keeps leading zeros in a CSV table
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")


@dataclass(frozen=True, kw_only=True, eq=False)
class CsvTable:
    """The columns of a CSV table as text without blanks around it, empty where a cell is.

    `line` is the line of the file where a row begins. With `decimal_comma` 0,5 is a half and 1,250
    little more than one; without, the latter may be a thousand, and is refused.
    """

    file: Path
    columns: Mapping[str, Shaped[np.ndarray, " n"]]
    line: Int64[np.ndarray, " n"]
    decimal_comma: bool

    def require(self, *names: str) -> None:
        """Raise ValueError unless the table has all these columns."""
        for name in names:
            if name not in self.columns:
                found = f"found {', '.join(self.columns)}{nearest(name, self.columns)}"
                raise ValueError(f"{self.file}: no column {name!r}: {found}")

    def parse(self, name: str, parse: Callable[[str], Any]) -> Shaped[np.ndarray, " n *k"]:
        """Return `parse(text)` for each row of a column; every distinct text is parsed once.

        Raises the parser's ValueError with the file, the line of the first such row, the column and
        the cell.
        """
        row, texts = pd.factorize(self.columns[name].astype(object))
        parsed = []
        for number, text in enumerate(texts):
            try:
                parsed.append(parse(text))
            except ValueError as error:
                line = self.line[np.argmax(row == number)]
                cell = repr(shortened(str(text), most=LONGEST_CELL))
                held = "" if cell in str(error) or not text else f" (the cell: {cell})"
                raise ValueError(f"{self.file}, line {line}, {name}: {error}{held}") from error
        return np.array(parsed)[row]

    def parse_numbers(self, name: str, parse: Callable[[str], Any]) -> Shaped[np.ndarray, " n *k"]:
        """Return what `parse` does of cells with numbers, decimal commas made points."""

        def parse_point(text: str) -> Any:
            point = self._with_point(text)
            try:
                return parse(point)
            except ValueError as error:
                raise ValueError(str(error).replace(repr(point), repr(text))) from error

        return self.parse(name, parse_point)

    def _with_point(self, text: str) -> str:
        if not DECIMAL_COMMA.fullmatch(text):
            return text
        if THOUSANDS.fullmatch(text) and not self.decimal_comma:
            raise ValueError(f"found {text!r}, a decimal comma or thousands: write 1234 or 1.234")
        return text.replace(",", ".")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """External predictions: one score a film and finding; the names of the columns left out.

    `signed` are the scores that are written with a percent sign; they are shares.
    """

    findings: tuple[str, ...]
    image: Shaped[np.ndarray, " n"]
    score: Float64[np.ndarray, "n k"]
    signed: Bool[np.ndarray, "n k"]
    left_out: tuple[str, ...]


class BoundedGzip(gzip.GzipFile):
    """The content of a .gz; raises ValueError where it inflates to more than any table of text."""

    def __init__(self, file: Path):
        super().__init__(file, "rb")
        self.file, self.packed = file, file.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes."""
        block = super().read(size)
        refuse_bomb(self.file, self.tell(), packed=self.packed)
        return block

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes into a buffer, as `io.BufferedReader` does; return how many."""
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


def refuse_bomb(file: Path, size: int, *, packed: int) -> None:
    """Raise ValueError for more bytes than so many packed ones are of any table of text."""
    if inflates_too_far(size, packed=packed):
        raise ValueError(
            f"{file}: found {packed:,} bytes that inflate to more than {FREE_BYTES >> 20} MiB and "
            f"{MOST_RATIO} times as many, expected a table of text: unpack it where it is one"
        )


def read_csv(file: Path, *, expected: str = "a CSV table") -> CsvTable:
    """Return the cells of a CSV table as text.

    Encoding and separator (comma, semicolon, tab, vertical bar) are recognised, and reported where
    they are not UTF-8 and commas. Rows without any content and empty columns without a heading are
    left out. Raises ValueError when there is no such file (`expected` is what it should be), for
    spreadsheets and other files that are no text, when a row has more or fewer cells than the
    header, when two columns have one name, or when there are no rows.
    """
    text, encoding = read_text(file, expected=expected)
    separator = _separator(text)
    columns, lines = _columns(file, text, separator)
    if not columns:
        raise ValueError(f"{file}: found no CSV table (the file is empty), expected one")
    notes = [encoding] if encoding else []
    notes += [f"cells are separated by {SEPARATORS[separator]}"] if separator != "," else []
    if notes:
        say(f"{file}: {'; '.join(notes)}")
    names = [clean_text(n) or f"{NAMELESS}{place}" for place, (n, *_) in enumerate(columns)]
    if again := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"{file}: column {again[0]!r} is there twice; expected each name once")
    if len(lines) == 1:
        raise ValueError(f"{file}: found no rows, expected one for each film")
    _refuse_long_cells(file, text, columns)
    cells = {name: np.array(rows[1:]) for name, rows in zip(names, columns, strict=True)}
    kept = {k: v for k, v in cells.items() if not k.startswith(NAMELESS) or (v != "").any()}
    return CsvTable(
        file=file,
        columns=kept,
        line=np.array(lines[1:]),
        decimal_comma=separator == ";",
    )


def _refuse_long_cells(file: Path, text: str, columns: Sequence[Sequence[str]]) -> None:
    """Raise ValueError where a cell is so long that its column, as an array, fills the memory."""
    for name, *cells in columns:
        longest = max(map(len, cells), default=0)
        if 4 * longest * len(cells) > max(MOST_CELLS, MOST_RATIO * len(text)):
            column = shortened(name, most=LONGEST_CELL)
            raise ValueError(
                f"{file}: found a cell of {longest:,} signs in column {column!r} of "
                f"{len(cells):,} rows; expected short cells: is a quotation mark missing?"
            )


def plain_name(name: str) -> str:
    """Return a column's name in small letters, without blanks and punctuation.

    >>> plain_name("Pleural_Thickening") == plain_name("pleural thickening ")
    True
    """
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def find_columns(table: CsvTable, *names: str, optional: Sequence[str] = ()) -> dict[str, str]:
    """Return the column of each name, and of the optional ones that are there.

    That is the column called so; else the one whose name differs in capital letters, blanks or
    punctuation alone; else, for the keys of USUAL, one with a usual name. Those that are not called
    so are reported. Raises ValueError where there is none, or two that differ in what they hold.
    """
    option = {name: _option(name) for name in names if name in ("image", "patient")}
    found = {name: _near_column(table, name, option.get(name, "")) for name in (*names, *optional)}
    for name in names:
        if not found[name] and name in option:
            raise ValueError(
                f"{table.file}: no column {name!r}: found {', '.join(table.columns)}"
                f"{nearest(name, table.columns)}; {option[name]} names another"
            )
    table.require(*(name for name in names if not found[name]))
    guessed = [f"{c!r} as {name}" for name, c in found.items() if c not in ("", name, *OURS)]
    if guessed:
        say(f"{table.file}: read are the columns {', '.join(guessed)}")
    return {name: column for name, column in found.items() if column}


def columns_meant(table: CsvTable, name: str) -> list[str]:
    """Return the columns that may be meant by a name; one of several that hold the same."""
    usual = USUAL.get(name, ())
    for meant in ((plain_name(name),), usual):
        near = [column for one in meant for column in table.columns if plain_name(column) == one]
        own = [column for column in near if name == "image" and column in OURS]
        if near := own or near:
            held = {tuple(table.columns[column]): column for column in reversed(near)}
            return [column for column in near if column in held.values()]
    return []


def _option(name: str) -> str:
    return f"--{name}-column, or data.{name}_column of a protocol,"


def _near_column(table: CsvTable, name: str, option: str) -> str:
    """Return the column that is meant by a name, or nothing."""
    if name in table.columns:
        return name
    near = columns_meant(table, name)
    if len(near) > 1:
        remedy = f"{option} names it" if option else "rename one"
        raise ValueError(
            f"{table.file}: columns {near[0]!r} and {near[1]!r} may both be {name!r}; expected "
            f"one of that name: {remedy}"
        )
    return near[0] if near else ""


def read_text(file: Path, *, expected: str) -> tuple[str, str]:
    """Return a file's text, unpacked if it is a .gz, and its encoding where that is not UTF-8.

    UTF-8, UTF-16 and UTF-32 are recognised; other text is read as Windows-1252. Raises ValueError
    for no file, for a damaged one, and for one that is no text, such as a spreadsheet.
    """
    if not file.is_file():
        raise ValueError(f"{file}: {why_no_file(file)}; expected {expected}")
    content = file.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        try:
            with BoundedGzip(file) as stream:
                content = b"".join(iter(partial(stream.read, BLOCK), b""))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{file}: found a damaged file ({error}): fetch it again") from error
    for what, remedy in _no_text(content):
        raise ValueError(f"{file}: found {what}, expected {expected}: {remedy}")
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "")
    encoding = encoding or _encoding_without_mark(content)
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding or error.reason == "unexpected end of data":
            raise ValueError(f"{file}: found a damaged file ({error}): fetch it again") from error
        text, encoding = content.decode("cp1252", errors="replace"), "cp1252"
    if CONTROL.search(text.rstrip("\x1a")) or "\N{REPLACEMENT CHARACTER}" in text:
        raise ValueError(f"{file}: is no text; expected {expected}, in UTF-8")
    return text.rstrip("\x1a"), ENCODINGS.get(encoding, "")


def clean_text(text: str) -> str:
    """Return text in Unicode NFC, without blanks and invisible characters around it.

    >>> clean_text(" p001\\u200b\\xa0")
    'p001'
    """
    return unicodedata.normalize("NFC", text).strip(AROUND)


def clean_id(text: str) -> str:
    """Return a patient's id as `clean_text` does, without the signs that mark text in Excel.

    >>> clean_id("'003"), clean_id('="003"'), clean_id("'t Hart")
    ('003', '003', "'t Hart")
    """
    text = clean_text(text)
    if marked := EXCEL_TEXT.fullmatch(text):
        text = clean_text(marked[1])
    return APOSTROPHE.sub("", text)


def parse_number(text: str) -> float:
    """Return a number, NaN for an empty cell."""
    try:
        if "_" in text:  # which Python takes for nothing between digits
            raise ValueError(text)
        return float("nan" if text.casefold() in MISSING else text)
    except ValueError:
        raise ValueError(f"found {text!r}, expected a number") from None


def parse_whole(text: str) -> int:
    """Return a whole number, leading zeros allowed."""
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST and int(text) < 2**63):
        raise ValueError(f"found {text!r}, expected a whole number")
    return int(text)


def read_scores(file: Path, *, findings: tuple[str, ...]) -> Scores:
    """Read a table (.csv or .csv.gz): a column of image names, and one a finding.

    A finding's column is called by its name, alone or after prob_ or logit_; of `findings` those
    that have one are read. Scores in percent, such as 62.0%, are made shares. Rows without any
    score and with a `reason`, as `lucency predict` writes them for films that it cannot read, are
    left out and counted aloud. Raises ValueError for a table without an image column or a
    finding's, for a cell that is no number, and for a film that is listed twice.
    """
    table = read_csv(file, expected="a table of predictions (.csv or .csv.gz)")
    columns = table.columns
    key = find_columns(table, optional=("image",)).get("image", "")
    if not key:
        raise ValueError(f"{file}: found {', '.join(columns)}; expected a column 'image' of names")
    where = _finding_columns(table, findings)
    if not where:
        hint = next((nearest(name, findings) for name in columns if nearest(name, findings)), "")
        wanted = f"expected some of {', '.join(findings)}, the findings of the labels"
        raise ValueError(f"{file}: no column is named by a finding{hint}: {wanted}")
    if renamed := [f"{c!r} as {f}" for f, c in where.items() if not c.endswith(f)]:
        say(f"{file}: read are the columns {', '.join(renamed)}")
    table = _without_unread(table, tuple(where.values()))
    image = table.columns[key]
    _refuse_twice(table, key)
    score = [_scores_of(table, name) for name in where.values()]
    _say_shares(file, dict(zip(where.values(), score, strict=True)))
    return Scores(
        findings=tuple(where),
        image=image,
        score=np.stack(score, axis=1).astype(np.float64),
        signed=np.stack([_signed(table.columns[name]) for name in where.values()], axis=1),
        left_out=tuple(name for name in columns if name not in {key, *where.values()}),
    )


def read_names(file: Path) -> Shaped[np.ndarray, " n"]:
    """Return the image names of a list, in its order, repeated ones too.

    A line is a name, blanks within it too; numbers behind a film's suffix, its labels in some
    lists, are cut off, and so are comments: lines that begin with #, and what follows a # between
    blanks. A table (.csv, .tsv, .csv.gz) has a column of names, called as `lucency evaluate` knows
    it. Encodings are as for tables. Raises ValueError for a file that cannot be read or holds no
    name.
    """
    expected = "a list of image names, one a line"
    table = {".csv", ".tsv"} & {suffix.lower() for suffix in file.suffixes[-2:]}
    lines = _column(file, expected) if table else _lines(file, expected)
    if not lines:
        raise ValueError(f"{file}: found no name; expected one image name a line")
    return np.array(lines)


def _no_text(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield what a file is that is no text, and what to do."""
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        yield "an Excel workbook", AS_CSV
    elif content.startswith(b"PK\x03\x04"):
        yield _kind_of_zip(content)
    elif content.startswith((b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"%PDF")):
        yield "a picture or PDF", "name the table or list"
    elif content.startswith(b"version https://git-lfs"):
        yield "a pointer of Git LFS, not the file itself", "fetch it with git lfs pull"
    elif content[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGES):
        yield "a web page or XML", f"open it in a spreadsheet program and {AS_CSV}"


def _kind_of_zip(content: bytes) -> tuple[str, str]:
    """Return what a zip is by the names in it, and what to do."""
    try:
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except (*DAMAGED_ZIP, ValueError) as error:
        if says_out_of_memory(error):
            raise
        return "a damaged zip archive or workbook", "fetch it again"
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook", AS_CSV
    if "content.xml" in names:
        return "an OpenDocument spreadsheet", AS_CSV
    return "a zip archive", "unpack it"


def _encoding_without_mark(content: bytes) -> str:
    """Return UTF-16 for text of which every second byte is 0, else nothing."""
    head = np.frombuffer(content[:4096], dtype=np.uint8)
    zero = [float((head[start::2] == 0).mean()) if len(head) > 1 else 0.0 for start in (0, 1)]
    if max(zero) < 0.5 or min(zero) > 0.1:
        return ""
    return "utf-16-be" if zero[0] > zero[1] else "utf-16-le"


def _separator(text: str) -> str:
    """Return what separates the cells: as Excel's line sep= states, or as the first rows have it.

    That is what gives the first rows equally many cells, and of several the one that gives most.
    """
    if stated := EXCEL_SEPARATOR.match(text):
        return stated[1]

    def cells(separator: str) -> tuple[bool, int]:
        rows = islice(csv.reader(io.StringIO(text, newline=""), delimiter=separator), SAMPLE)
        try:
            width = [len(row) for row in rows if any(map(str.strip, row))] or [1]
        except csv.Error:  # a quote without its end, which reading will name
            return False, 1
        return width[0] > 1 and len(set(width)) == 1, width[0]

    return max(SEPARATORS, key=cells)


def _columns(
    file: Path, text: str, separator: str
) -> tuple[Sequence[Sequence[str]], Sequence[int]]:
    """Return the columns, each with its heading, of rows that have content, and the rows' lines.

    Most tables have no quotes and equally many cells in every line: they are cut at once.
    """
    plain = text.replace("\r\n", "\n").rstrip("\n")
    if not plain or any(mark in plain for mark in '"\r') or EXCEL_SEPARATOR.match(text):
        return _quoted_columns(file, text, separator)
    first, *rest = lines = plain.split("\n")
    headings = [heading.strip() for heading in first.split(separator)]
    commas = rest[0].count(separator) if rest else len(headings) - 1
    wide = commas + 1
    if len(headings) < wide or any(headings[wide:]) or not any(headings):
        return _quoted_columns(file, text, separator)
    if not all(
        line.count(separator) == commas and line.replace(separator, "").strip() for line in rest
    ):
        return _quoted_columns(file, text, separator)
    cells = [cell.strip() for cell in separator.join(rest).split(separator)] if rest else []
    columns = [[headings[place], *cells[place::wide]] for place in range(wide)]
    return columns, range(1, len(lines) + 1)


def _quoted_columns(
    file: Path, text: str, separator: str
) -> tuple[Sequence[Sequence[str]], Sequence[int]]:
    """Return the same of any CSV table."""
    rows, lines = _rows(file, text, separator)
    return list(zip(*_rectangle(file, rows, lines), strict=True)) if rows else [], lines


def _rows(file: Path, text: str, separator: str) -> tuple[list[list[str]], list[int]]:
    """Return the rows that have content, and the lines where they begin."""
    lines = EXCEL_SEPARATOR.sub("\n", text, count=1)
    reader = csv.reader(io.StringIO(lines, newline=""), delimiter=separator, strict=True)
    rows, begin, line, marked = [], [], 1, '="' in lines
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if marked:
                cells = [EXCEL_TEXT.sub(r"\1", cell).strip() for cell in cells]
            if any(cells):
                rows.append(cells)
                begin.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{file}, line {line}: found no CSV table ({error})") from error
    return rows, begin


def _rectangle(file: Path, rows: Sequence[list[str]], lines: Sequence[int]) -> list[list[str]]:
    """Return the rows, all as long as the first; beyond it, and its headings, cells are empty."""
    wide = len(rows[0])
    least = max(place for place, name in enumerate(rows[0], start=1) if name)
    for row, line in zip(rows, lines, strict=True):
        if len(row) < least or any(row[wide:]):
            why = "a cell that holds a separator needs quotes"
            if len(row) < wide:
                why = "the file is cut short, or a quote or separator is missing"
            elif wide == 1:
                why = "the first line names the columns"
            raise ValueError(
                f"{file}, line {line}: found {counted(len(row), 'cell')}, expected {wide} as in "
                f"line {lines[0]}: {why}"
            )
    return [[*row, *[""] * (wide - len(row))][:wide] for row in rows]


def _refuse_twice(table: CsvTable, key: str) -> None:
    """Raise ValueError where a film has several rows, with the line of its second."""
    names = pd.Series(table.columns[key])
    for row in np.flatnonzero(names.duplicated())[:1].tolist():
        raise ValueError(
            f"{table.file}, line {table.line[row]}: film {names[row]!r} is listed "
            f"{(names == names[row]).sum()} times; expected each once: average or remove the "
            "repeated rows"
        )


def _finding_columns(table: CsvTable, findings: tuple[str, ...]) -> dict[str, str]:
    """Return finding -> column, in the order of `findings`."""
    plain = {name: plain_name(name) for name in table.columns}
    found = {}
    for finding in findings:
        named = [prefix + finding for prefix in PREFIXES if prefix + finding in plain]
        near = [plain_name(prefix + finding) for prefix in PREFIXES]
        named = named or [name for name, key in plain.items() if key in near]
        if len(named) > 1:
            raise ValueError(
                f"{table.file}: columns {' and '.join(named)} are one finding's: expected one of "
                "them: rename or remove the others"
            )
        if named:
            found[finding] = named[0]
    return found


def _without_unread(table: CsvTable, scored: tuple[str, ...]) -> CsvTable:
    """Return the table without the rows of films that could not be read."""
    empty = np.all([table.columns[name] == "" for name in scored], axis=0)
    unread = empty & (table.columns.get(REASON, np.full(len(empty), "")) != "")
    if unread.all():
        raise ValueError(f"{table.file}: no film could be read, by the column {REASON}")
    if unread.any():
        films = counted(unread.sum(), "film", "is/are", of=len(unread))
        say(f"{table.file}: {films} left out as unreadable (column {REASON})")
    kept = {name: cells[~unread] for name, cells in table.columns.items()}
    return replace(table, columns=kept, line=table.line[~unread])


def _signed(cells: Shaped[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    return np.char.endswith(cells.astype(str), "%")


def _scores_of(table: CsvTable, name: str) -> Float64[np.ndarray, " n"]:
    """Return a column's scores; those that are plain numbers at once."""
    cells, plain = table.columns[name], np.full(1, np.nan)
    with suppress(ValueError):
        if not any("_" in cell for cell in cells.tolist()):
            plain = cells.astype(np.float64)
    if np.isfinite(plain).all():
        return plain
    return table.parse_numbers(name, _parse_score).astype(np.float64)


def _say_shares(file: Path, score: Mapping[str, Float64[np.ndarray, " n"]]) -> None:
    """Report columns that are called logits and hold what are rather probabilities."""
    named = {name: one for name, one in score.items() if name.casefold().startswith(PREFIXES[-1])}
    if shares := [name for name, one in named.items() if ((one >= 0) & (one <= 1)).all()]:
        say(
            f"{file}: all scores in {listed(shares)} lie between 0 and 1: probabilities rather "
            "than logits, it seems"
        )


def _parse_score(text: str) -> float:
    share = text.endswith("%")
    value = parse_number(text.removesuffix("%").rstrip()) / (100 if share else 1)
    if not np.isfinite(value):
        raise ValueError(f"found {text!r}, expected a finite number")
    return value


def _column(file: Path, expected: str) -> list[str]:
    table = read_csv(file, expected=expected)
    if name := find_columns(table, optional=("image",)).get("image"):
        return table.columns[name].tolist()
    if len(table.columns) == 1:  # a list without a heading
        ((heading, cells),) = table.columns.items()
        return [heading, *cells.tolist()]
    found = ", ".join(table.columns)
    raise ValueError(f"{file}: found the columns {found}; expected a column 'image' of names")


def _lines(file: Path, expected: str) -> list[str]:
    text, encoding = read_text(file, expected=expected)
    if encoding:
        say(f"{file}: {encoding}")
    lines = [COMMENT.sub("", line).strip().strip('"') for line in text.splitlines()]
    found = [LABELLED.match(line) or line for line in lines if line]
    names = [one if isinstance(one, str) else one[1] for one in found]
    return names[1:] if names and plain_name(names[0]) in USUAL["image"] else names

"""A sample of `try_parsers`: nothing but the program's own errors, whatever the files hold."""

import warnings
from collections import Counter
from pathlib import Path

import pytest

from lucency.core.saved_files import naming_damage, read_json, why_damaged
from torture.hostile_files import FILES, LAYOUTS, WORDS, finished_run, tables_below, write_layouts
from torture.hostile_files import Parser as AnyParser
from torture.parser_tries import (
    READ,
    REFUSED,
    WRONG,
    forms_of,
    outcome,
    outcome_of,
    try_files,
    try_words,
)

FEW = 10
SLOW = ("prepared films", "heat maps")


@pytest.mark.parametrize("what", WORDS)
def test_words_are_read_or_refused(what: str):
    found, examples = try_words(*WORDS[what], times=50)
    assert examples == {}
    assert found.total() >= 40


@pytest.mark.slow
def test_files_of_a_run_are_read_or_refused(tmp_path: Path):
    """About 30 s: a run is trained."""
    home = finished_run(tmp_path / "home")
    for parser in FILES.values():
        found, examples = try_files(parser, home, times=FEW)
        assert examples == {}
        assert found.total() >= FEW


@pytest.mark.slow
def test_label_files_of_collections_are_read_or_refused(tmp_path: Path):
    place = write_layouts(tmp_path / "layouts")
    for what, (_, read) in LAYOUTS.items():
        parser = AnyParser(tables_below(place / what), read)
        _, examples = try_files(parser, place / what, times=FEW)
        assert examples == {}


def test_what_is_wrong_is_seen():
    assert outcome(lambda: 1) == READ
    assert outcome(lambda: int("x")) == REFUSED
    assert outcome_of(KeyError("findings")) == f"{WRONG} KeyError"
    assert outcome_of(ValueError("a\nb\nc\nd")) == f"{WRONG} message of 4 lines"
    assert outcome(lambda: warnings.warn("w", stacklevel=1)) == f"{WRONG} UserWarning"


def test_a_message_without_the_name_is_seen(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "table.csv").write_bytes(b"1")

    def read(message: str) -> tuple[Counter[str], dict[str, str]]:
        def refuse(_: Path) -> None:
            if (tmp_path / "folder" / "table.csv").read_bytes() != b"1":
                raise ValueError(message)

        return try_files(AnyParser(("folder/table.csv",), refuse), tmp_path, times=10)

    wrong = f"{WRONG} message without table.csv"
    assert set(read("a/folder: damaged")[0]) - {READ} == {wrong}
    assert set(read("a/table.csv: damaged")[0]) - {READ} == {REFUSED}
    assert read("a/folder: damaged")[1][wrong].endswith(": a/folder: damaged")


@pytest.mark.parametrize(
    ("word", "message", "right"),
    [
        ("local:1", "--engine local:1: expected local", True),
        ("lo\ncal", "--engine lo\\ncal: expected local", True),
        ("lo\ncal", "--engine: expected local", False),
        ("a.b=3", "a: unknown key", True),
        ("a.b=3", "b: unknown key", False),
        ("seeds=[1,x", 'seeds: found "[1,x", expected a list', True),
        ("x" * 90, f"found {'x' * 60}...", True),
    ],
)
def test_a_message_names_a_word_as_it_is_shown(word: str, message: str, right: bool):
    found = outcome_of(ValueError(message), names=forms_of(word), what="the word")
    assert found == (REFUSED if right else f"{WRONG} message without the word")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_damaged_json_file_is_refused_by_name(content: bytes, tmp_path: Path):
    file = tmp_path / "manifest.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"manifest\.json cannot be read \(.+\); expected it"):
        read_json(file)


def test_errors_that_name_the_file_pass(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"^within x$"), naming_damage(Path("x")):
        raise ValueError("within x")
    assert len(why_damaged(ValueError("a\n" * 1_000))) < 250

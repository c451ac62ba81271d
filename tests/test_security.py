"""The table of threats names tests for every door, and those exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "SECURITY.md").read_text()
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def lost(text: str) -> list[str]:
    """Return the tests that a text names and that are not there."""
    return [f"{file}::{name}" for file, name in NAMED.findall(text) if not is_there(file, name)]


def is_there(file: str, name: str) -> bool:
    place = ROOT / file
    if not place.is_file():
        return False
    body = ast.parse(place.read_text()).body
    return not name or name in {one.name for one in body if isinstance(one, ast.FunctionDef)}


def test_every_door_has_a_row_with_tests():
    rows = {door: tests for door, *_, tests in ROW.findall(TEXT) if door not in ("door", "---")}
    assert len(rows) >= 15
    assert [door for door, tests in rows.items() if not NAMED.search(tests)] == []


def test_every_test_that_is_named_exists():
    assert lost(TEXT) == []


def test_a_test_that_is_gone_is_found():
    assert lost("`tests/test_security.py::test_gone` `tests/gone.py`") == [
        "tests/test_security.py::test_gone",
        "tests/gone.py::",
    ]

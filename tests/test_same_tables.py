"""The tables of today are those that were recorded, to the last digit."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

DEV = Path(__file__).resolve().parents[1] / "dev"


@pytest.fixture(scope="module")
def same_tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("same_tables", DEV / "same_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_changed_digit_is_noticed_and_a_changed_word_is_not(
    same_tables: ModuleType, tmp_path: Path
):
    file = tmp_path / "table.csv"
    file.write_text("network,value,seconds\na,0.25,3\n")
    first = same_tables.of_csv(file)
    file.write_text("name,score,seconds\nb,0.25,4\n")
    assert same_tables.of_csv(file) == first
    file.write_text("network,value,seconds\na,0.250,3\n")
    assert same_tables.of_csv(file) != first


@pytest.mark.slow
def test_the_commands_answer_as_recorded(same_tables: ModuleType, shared: Path, tmp_path: Path):
    known = json.loads((DEV / "recorded-tables.json").read_text())
    found = same_tables.answers(shared, tmp_path)
    assert {name: found.get(name) for name in known} == known

"""Values of tables on disk: loaded as they were saved; what is absent keeps its default."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from lucency.core.tables import load_tables, save_tables


@dataclass(frozen=True, kw_only=True)
class Several:
    scores: pd.DataFrame
    none: pd.DataFrame = field(default_factory=pd.DataFrame)
    conclusion: str = ""
    about: dict[str, int] = field(default_factory=dict)


def test_a_value_of_tables_is_loaded_as_it_was_saved(tmp_path: Path):
    scores = pd.DataFrame({"name": ["NA", "012", ""], "value": [0.1, float("nan"), 3.0]})
    value = Several(scores=scores, conclusion="Macro AUC: 0.812.", about={"films": 3})
    save_tables(value, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "scores.csv", "conclusion.txt", "about.json",
    }  # fmt: skip
    again = load_tables(Several, tmp_path, text=("name",))
    pd.testing.assert_frame_equal(again.scores, scores)
    assert (again.conclusion, again.about, len(again.none)) == (value.conclusion, {"films": 3}, 0)


def test_an_empty_table_keeps_its_columns_and_an_absent_one_is_missed(tmp_path: Path):
    save_tables(Several(scores=pd.DataFrame(columns=["name", "value"])), tmp_path)
    assert list(load_tables(Several, tmp_path, text=("name",)).scores) == ["name", "value"]
    with pytest.raises(TypeError, match="scores"):
        load_tables(Several, tmp_path / "nowhere", text=())

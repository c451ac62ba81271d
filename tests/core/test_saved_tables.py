"""Values of tables on disk: loaded as they were saved; what is absent keeps its default."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lucency.audit.checks.issue import issues_of
from lucency.audit.checks.run_checks import load_issues, save_issues
from lucency.core.files import write_table
from lucency.core.manifest import load_part, load_prepared, save_part, save_prepared_tables
from lucency.core.plan import load_plan, save_plan
from lucency.core.tables import load_tables, refuse_same_files, save_tables
from lucency.pipeline.run import read_history
from toys import toy_films, toy_plan


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
    with pytest.raises(ValueError, match=r"nowhere: its table scores\.csv is absent; expected it"):
        load_tables(Several, tmp_path / "nowhere", text=())
    for name, damage in (("about.json", b"{"), ("conclusion.txt", b"\xff")):
        (tmp_path / name).write_bytes(damage)
        with pytest.raises(ValueError, match=rf"{name} cannot be read \("):
            load_tables(Several, tmp_path, text=("name",))
        (tmp_path / name).unlink()


LOADED = {
    "manifest.csv": load_prepared,
    "rejected.csv": load_prepared,
    "part.csv": lambda folder: load_part(folder / "part.csv", toy_films(8).manifest.image),
    "plan.csv": lambda folder: load_plan(folder, toy_films(8).manifest.image),
    "issues.csv": load_issues,
    "history.csv": read_history,
}
DAMAGED = {
    "empty": lambda whole: b"",
    "cut within a line": lambda whole: whole[:-3],
    "cut between lines": lambda whole: b"".join(whole.splitlines(keepends=True)[:3]),
    "without its first line": lambda whole: whole.partition(b"\n")[2],
    "of something else": lambda whole: b"a,b\n1,2\n",
    "bytes": lambda whole: b"\x89\xff\x00",
}


@pytest.mark.parametrize("name", LOADED)
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_table_of_a_run_is_one_line_that_names_it(tmp_path: Path, name: str, damage: str):
    films = toy_films(8)
    plan, image = toy_plan(films), films.manifest.image
    save_prepared_tables(films, tmp_path)
    np.save(tmp_path / "pixels.npy", films.pixels)
    save_plan(plan, image, tmp_path)
    save_part(image, plan.part, tmp_path / "part.csv")
    epochs = [{"epoch": n, "val_auc": 0.5, "films_per_second": 9.0, "seconds": n} for n in (1, 2)]
    write_table(pd.DataFrame(epochs), tmp_path / "history.csv")
    save_issues([*issues_of("a_check", ["a"], "found", remedy="mend")], tmp_path)
    whole = (tmp_path / name).read_bytes()
    LOADED[name](tmp_path)
    damaged = DAMAGED[damage](whole)
    if damaged == whole or (damage, name) == ("without its first line", "rejected.csv"):
        damaged = b""
    (tmp_path / name).write_bytes(damaged)
    with pytest.raises(ValueError, match=name) as refusal:
        LOADED[name](tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_named_twice_is_refused_whatever_its_links(tmp_path: Path):
    one, two, loop = (tmp_path / name for name in ("one.csv", "two.csv", "loop.csv"))
    one.touch()
    two.symlink_to(one)
    loop.symlink_to(loop)
    refuse_same_files([one, loop])
    with pytest.raises(ValueError, match=r"two\.csv is named twice"):
        refuse_same_files([one, two])
    with pytest.raises(ValueError, match=r"loop\.csv is named twice"):
        refuse_same_files([loop, loop])

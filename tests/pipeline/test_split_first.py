"""A split that cannot be is refused before any film is prepared; corrected, the folder serves."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from lucency.config.protocol import read_protocol
from lucency.pipeline import stages
from lucency.pipeline.run import Run, open_run

PROTOCOL = """
name = "split"
findings = ["Mass"]
[data]
source = "csv"
root = "films"
labels = "labels.csv"
columns = ["fold", "date"]
[preparation]
size = 32
[[network]]
name = "test_resnet"
"""
LISTS = 'split={{method="lists",lists={{train="{}",test="{}"}}}}'
COLUMN = 'split={method="column",column="fold"}'
WRONG = {
    LISTS.format("train.txt", "nofile.txt"): r"split\.lists\.test: .*nofile\.txt: no such file",
    LISTS.format("train.txt", "all.txt"): "9 films are also on train.txt",
    LISTS.format("train.txt", "empty.txt"): "empty.txt",
    'split={method="column",column="part"}': "have no fact 'part'",
    COLUMN: "found fest",
    'split={method="time",column="day"}': "have no fact 'day'",
    'split={method="time"}': "3 of 12 films have no date",
    'split={method="official"}': "states no official split",
    "split={method='patient',folds=20}": "12 patients cannot fill 20 parts",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stages, "check_networks", lambda run: None)
    films = tmp_path / "films"
    films.mkdir()
    names = [f"f{film}.png" for film in range(12)]
    for film, name in enumerate(names):
        cv2.imwrite(str(films / name), np.full((40, 40), 20 * film, np.uint8))
    table = pd.DataFrame({"image": names, "patient": range(12), "Mass": [0, 1] * 6})
    table["fold"] = ["train"] * 9 + ["fest"] * 3
    table["date"] = ["2020-01-31"] * 9 + [""] * 3
    table.to_csv(films / "labels.csv", index=False)
    lists = {"train": names[:9], "test": names[9:], "all": names, "empty": []}
    for name, films_listed in lists.items():
        (films / f"{name}.txt").write_text("".join(f"{film}\n" for film in films_listed))
    (tmp_path / "p.toml").write_text(PROTOCOL)
    return tmp_path


def run_of(home: Path, *changes: str) -> Run:
    return open_run(read_protocol(home / "p.toml", changes=changes), out=home / "run", workers=1)


def files_below(folder: Path) -> set[str]:
    return {file.relative_to(folder).parts[0] for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(("change", "message"), WRONG.items())
def test_a_split_that_cannot_be_is_refused_before_films_are_read(
    home: Path, monkeypatch: pytest.MonkeyPatch, change: str, message: str
):
    with monkeypatch.context() as patch:
        patch.setattr(stages, "prepare", lambda *args, **named: pytest.fail("films are prepared"))
        with pytest.raises(ValueError, match=message):
            stages.parts(run_of(home, change))
    assert files_below(home / "run") == {"protocol.toml"}
    assert set(stages.parts(run_of(home))) == {"train", "val", "test"}


def test_what_was_wrong_in_the_data_is_corrected_too(home: Path):
    with pytest.raises(ValueError, match="have no fact 'fold'"):
        stages.parts(run_of(home, "data.columns=[]", COLUMN))
    table = home / "films" / "labels.csv"
    table.write_text(table.read_text().replace("fest", "test"))
    assert (stages.parts(run_of(home, COLUMN)) == "test").sum() == 3


def test_phantoms_and_films_of_external_tests_do_not_bind_a_folder(home: Path):
    (home / "p.toml").write_text(
        'name = "phantoms"\nfindings = ["Mass"]\n[data]\nfilms = 60\nsize = 32\n[preparation]\n'
        'size = 32\n[[network]]\nname = "test_resnet"\n[[external]]\nname = "other"\n'
        f'source = "csv"\nroot = "{home / "films"}"\nlabels = "labels.csv"\n'
    )
    with pytest.raises(ValueError, match="have no fact 'part'"):
        stages.parts(run_of(home, 'split={method="column",column="part"}'))
    assert files_below(home / "run") == {"protocol.toml", "phantom", "external"}
    assert len(stages.parts(run_of(home))) == 60
    with pytest.raises(ValueError, match=r"run of another protocol \(split.seed"):
        run_of(home, "split.seed=3")


def test_another_source_is_the_difference_that_is_named_first(home: Path):
    stages.parts(run_of(home))
    changes = ("data.source=phantom", "data.columns=[]", "data.films=40", "data.seed=3")
    with pytest.raises(ValueError, match=r"another protocol \(data.source: was csv, now phantom"):
        run_of(home, *changes)


def test_lists_are_told_of_once(home: Path, capsys: pytest.CaptureFixture[str]):
    (home / "films" / "few.txt").write_text("f9.png\nlost.png\n")
    stages.parts(run_of(home, LISTS.format("train.txt", "few.txt")))
    told = capsys.readouterr().err
    assert told.count("few.txt: 1 of 2 names is no film of the run (lost.png, …)") == 1
    assert told.count("2 of 12 films are on no list of split.lists") == 1
    assert told.index("on no list") < told.index("Preparing films")


def test_a_protocol_that_balances_before_its_split_is_read(home: Path):
    early = ('split={method="image"}', 'balance={method="cap-and-copy",before_split=true}')
    assert len(stages.parts(run_of(home, *early))) == 12

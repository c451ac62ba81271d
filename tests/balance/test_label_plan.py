"""A plan from labels alone: the study's totals from NIH's file, no picture touched, none needed."""

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from lucency.balance.imbalance import describe_change
from lucency.balance.methods import plan_of_labels
from lucency.cli.app import app
from lucency.cli.output import in_table
from lucency.config.protocol import parse_protocol, read_protocol
from lucency.core.manifest import Manifest
from lucency.core.tables import Answer
from lucency.data.sources import list_films, read_films
from lucency.phantom.dataset import list_phantom, write_phantom

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = str(ROOT / "protocols" / "reference.toml")
STUDY = """
name = "tiny"
[data]
source = "nih"
root = "films"
[preparation]
size = 32
[balance]
method = "cap-and-copy"
cap = [{ finding = "No Finding", films = 20 }]
copy_plan = [{ finding = "Effusion", copies = 2 }]
[[network]]
name = "test_resnet"
"""
FLAWED = ("--set", "balance.before_split=true", "--set", "split.method=image")
LISTS = ("Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt")
LISTED = {"films": 60, "seed": 0, "label_noise": 0.0}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a protocol and a label table whose films are nowhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").mkdir()
    list_phantom(tmp_path / "films", **LISTED)
    (tmp_path / "tiny.toml").write_text(STUDY)
    return tmp_path


def answered(*words: str | Path) -> Answer:
    return json.loads(said(*words, "--json"))


def said(*words: str | Path) -> str:
    return printed("data", "balance", *words)


def printed(*words: str | Path) -> str:
    done = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*words: str | Path) -> str:
    with pytest.raises(ValueError, match=r".") as told:
        CliRunner().invoke(app, ["data", "balance", *map(str, words)], catch_exceptions=False)
    assert "\n" not in str(told.value)
    return str(told.value)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def study(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """What the command answers to the reference study's protocol and the published labels."""
    place = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        found = answered(REFERENCE, "--labels", shared / "nih" / "Data_Entry_2017_v2020.csv")
    assert files(place) == set()
    return found


def test_the_study_s_totals_come_from_the_published_label_file(study: Any):
    """The first two are forced by the counts, and so is the No Finding before."""
    found = study
    totals = [row["total"] for row in found["steps"]]
    assert totals[:3] == [112_120, 56_759, 41_865]
    assert totals[-1] == found["entries"] == sum(found["parts"].values())
    assert totals[3] == pytest.approx(36_569, abs=150)
    assert totals[4] == pytest.approx(33_638, abs=250)
    assert totals[-1] == pytest.approx(51_382, rel=0.01)
    first = found["steps"][1]
    assert (first["before"], first["after"], first["dropped"]) == (60_361, 5_000, 55_361)
    assert found["population"] == "all films"
    assert found["no_finding"]["before"]["films"] == 60_361
    assert found["no_finding"]["before"]["share"] == pytest.approx(0.538, abs=5e-4)
    assert found["measures"]["mean_ir"]["before"] == pytest.approx(32.783114, abs=1e-6)
    assert found["measures"]["mean_ir"]["after"] == pytest.approx(1.21, abs=0.02)
    assert found["per_label"]["Hernia"]["before"] == 227


def test_people_read_it_as_a_table(study: Answer):
    told = in_table(study)
    lines = [line.split() for line in told.splitlines()]
    assert ["cap", "No", "Finding", "60,361", "5,000", "\N{MINUS SIGN}55,361", "56,759"] in lines
    assert ["No", "Finding", "60,361", "5,000", "1.000", "1.211"] in lines
    assert "share of No Finding  (53.8 %)  (9.7 %)" in told
    assert "MeanIR: 32.783 before, 1.203 after" in told
    assert "counts are of all films: 112,120 films, 51,309 entries after balancing" in told


def test_no_folder_is_searched_for_films(place: Path, monkeypatch: pytest.MonkeyPatch):
    searched: list[Path] = []

    def locate(films: Manifest, root: Path) -> Manifest:
        searched.append(root)
        return replace(films, facts=films.facts.assign(path=str(root / "found")))

    monkeypatch.setattr("lucency.data.sources.locate_films", locate)
    (place / "films" / "found").touch()
    before = files(place)
    answered("tiny.toml")
    source = read_protocol(place / "tiny.toml").data
    films, _ = list_films(source, findings=("Mass",), split=lambda films, _: films.image)
    assert (len(films), searched) == (60, [])
    assert files(place) == before
    read_films(source, findings=("Mass",), out=place / "manifest")
    assert searched == [place / "films"]  # what it would be if the folder were searched


def run_as_planned(place: Path, changes: tuple[str, ...]) -> tuple[str, ...]:
    """Compare the plan with that of a run whose films are there; return the run's command."""
    alone = answered("tiny.toml", *changes)
    shutil.rmtree("films")
    knobs = {**LISTED, "size": 64, "shortcut": 0.0, "workers": 1}
    write_phantom(place / "films", **knobs, progress=lambda *_: None)
    until = ("run", "tiny.toml", "--out", "out", "--until", "balance", *changes)
    kept = json.loads(printed(*until, "--json"))
    assert kept.pop("folder") == "out/plan"
    origin = alone.pop("origin")
    assert str(origin).startswith("Data_Entry_2017_v2020.csv")
    assert kept == alone
    totals = pd.read_csv(place / "out" / "plan" / "steps.csv")["total"].tolist()
    assert totals == [row["total"] for row in kept["steps"]]
    return until


def test_the_plan_is_that_of_a_run_whose_films_are_there(place: Path):
    run_as_planned(place, ("--set", "split.method=official"))


def test_so_is_one_made_before_the_split_and_without_its_steps_it_is_made_again(place: Path):
    until, file = run_as_planned(place, FLAWED), place / "out" / "plan" / "steps.csv"
    table = file.read_text()
    file.unlink()
    with pytest.raises(ValueError, match="made by an earlier version; remove that folder"):
        printed(*until)
    shutil.rmtree(file.parent)
    assert "counts are of" in printed(*until)  # the steps as a table
    assert file.read_text() == table


def test_both_sides_are_of_all_films_or_of_the_training_part(place: Path):
    honest, flawed = (
        plan_of_labels(read_protocol(place / "tiny.toml", changes=FLAWED[1::2][:many]), labels=None)
        for many in (0, 2)
    )
    train = honest.plan.part == "train"
    assert honest.change.population == "the training part"
    assert honest.change.totals["entries"].tolist()[1] == int(train.sum())
    assert honest.change.totals["entries"].tolist()[0] < 60
    assert len(honest.plan) > train.sum()
    assert flawed.change.population == "all films"
    assert flawed.change.totals["entries"].tolist() == [60, len(flawed.plan)]
    assert set(flawed.plan.part) == {"train", "val", "test"}
    counted = (flawed.plan.label == 1).sum(axis=0).tolist()
    assert flawed.change.counts["after"].tolist() == counted


def test_a_table_of_0_and_1_is_read_by_the_protocol_s_columns(place: Path):
    rows = ["film,who,Mass,Hernia"]
    rows += [
        f"{n}.png,{n % 20},{int(n % 3 == 0)},{'' if n == 1 else int(n == 6)}" for n in range(60)
    ]
    text = "\n".join(rows) + "\n"
    (place / "own.csv").write_text(text)
    (place / "own.csv.gz").write_bytes(gzip.compress(text.encode()))
    words = ("--set", 'findings=["Mass", "Hernia"]', "--set", "data.image_column=film")
    words = ("tiny.toml", *words, "--set", "data.patient_column=who", *FLAWED)
    words = (*words, "--set", "balance.copy_plan=[{finding='Hernia', copies=4}]")
    found = answered(*words, "--labels", "own.csv")
    assert [row["total"] for row in found["steps"]] == [60, 20 + 20, 44]
    assert found["no_finding"]["before"] == {"films": 39, "share": 39 / 60, "not_stated": 1}
    assert answered(*words, "--labels", "own.csv.gz") == {
        **found, "origin": str(found["origin"]).replace("own.csv", "own.csv.gz"),
    }  # fmt: skip
    assert "not known to have No Finding, for a label is not stated: 1 films" in said(
        *words, "--labels", "own.csv"
    )


def test_phantoms_need_not_be_drawn(place: Path):
    found = answered("tiny.toml", "--set", "data.source=phantom", "--set", "data.root=")
    assert str(found["origin"]).startswith("Phantoms: 2,000 invented films of ")
    assert files(place) == {"tiny.toml", "films", *(f"films/{name}" for name in LISTS)}


@pytest.mark.parametrize("method", ["none", "positive-weights", "lp-rus", "ml-ros", "remedial"])
def test_other_methods_are_one_step(place: Path, method: str):
    changes = [f"balance.method={method}", "balance.cap=[]", "balance.copy_plan=[]"]
    words = [word for change in changes for word in ("--set", change)]
    found = answered("tiny.toml", *words)
    assert [row["action"] for row in found["steps"]] == ["before", method]
    assert found["steps"][1]["before"] is None
    assert found["steps"][0]["total"] == found["films"]
    assert found["steps"][1]["total"] == found["entries"]
    assert found["weighted"] is (method == "positive-weights")


def test_steps_are_drawn_and_written(place: Path):
    said("tiny.toml", "--figure", "drawn.svg", "--table", "steps.csv")
    drawn, table = (place / "drawn.svg").read_text(), pd.read_csv(place / "steps.csv")
    assert drawn.startswith("<svg ")
    assert "cap No Finding" in drawn
    assert list(table.columns)[:3] == ["step", "action", "finding"]
    assert (place / "steps.csv").read_text().splitlines()[1].startswith("0,before,,,,0,0,")
    assert f"{table['total'].iloc[-1]} (" in drawn


def test_what_cannot_be_is_refused_in_a_line(place: Path):
    alike = ("--set", "balance.method=mlsmote", "--set", "balance.cap=[]")
    message = refused("tiny.toml", *alike, "--set", "balance.copy_plan=[]")
    assert message.startswith("balance.method mlsmote compares films by features")
    assert "lucency run --until balance" in message
    variant = ("--set", "variant=[{name='more', balance={method='ml-ros'}}]")
    assert "has a plan for each: add --set 'variant=[]' --set 'seeds=[]'" in refused(
        "tiny.toml", *variant
    )
    assert "ends in .svg" in refused("tiny.toml", "--figure", "a.png")
    assert "has no folder to lie in" in refused("tiny.toml", "--table", "no/a.csv")
    assert "no such file; expected a label file" in refused("tiny.toml", "--labels", "gone.csv")
    gone = refused("tiny.toml", "--set", "data.root=gone")
    assert "data.root is 'gone', which is no folder" in gone
    assert "--labels FILE" in gone


def test_the_source_says_where_no_table_is(place: Path):
    csv = {"source": "csv", "root": "films", "labels": "gone.csv"}
    least = {"name": "own", "network": [{"name": "test_resnet"}], "findings": ["Mass"]}
    protocol = parse_protocol({**least, "data": csv}, name="own")
    with pytest.raises(ValueError, match=r"no label file in films: expected gone.csv"):
        list_films(protocol.data, findings=("Mass",), split=lambda films, _: films.image)
    with pytest.raises(ValueError, match="no label file in"):
        plan_of_labels(
            parse_protocol({**least, "data": {"source": "nih", "root": str(place)}}, name="own"),
            labels=None,
        )


def test_counting_another_population_would_be_seen(place: Path):
    """The training part of a plan that was made before the split holds fewer than the plan."""
    made = plan_of_labels(read_protocol(place / "tiny.toml", changes=FLAWED[1::2]), labels=None)
    train = made.plan.take(made.plan.part == "train")
    about = {"findings": made.films.findings, "steps": made.change.steps}
    with pytest.raises(ValueError, match="totals of the first and last step"):
        describe_change(made.films.label, plan=train, **about, population="all films")

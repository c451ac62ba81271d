"""Several sources as one: labels, names, patients, places, errors and splits."""

import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from lucency.audit.shortcuts import UNKNOWN, known_facts
from lucency.balance.methods import plan_of_labels
from lucency.config.protocol import PLACES, Protocol, parse_protocol, read_protocol
from lucency.config.sections import Source, Split
from lucency.core.manifest import SOURCE, Manifest
from lucency.core.predictions import Predictions
from lucency.core.stage import RECEIPT
from lucency.core.tables import match_films
from lucency.data.film_archives import ARCHIVES
from lucency.data.several_sources import (
    draw_sources,
    films_of_sources,
    inputs_of_sources,
    list_sources,
    name_sources,
    places_absent,
    read_sources,
)
from lucency.data.sources import list_films, read_films
from lucency.data.split import split
from lucency.evaluation.subgroups import subgroups
from lucency.pipeline import stages
from lucency.pipeline.run import Run, how_to_move, open_run

FINDINGS = ("Effusion", "Mass", "Fracture")
DRAWN = {"films": 30, "size": 32}


def write_table(folder: Path, rows: list[tuple[Any, ...]], columns: str) -> Path:
    """Write a table of films and their pictures."""
    folder.mkdir(parents=True)
    pd.DataFrame(rows, columns=columns.split()).to_csv(folder / "labels.csv", index=False)
    for place, (image, *_) in enumerate(rows):
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / image), np.full((40, 40), 10 * place, np.uint8))
    return folder


def csv_source(folder: Path, **choices: Any) -> dict[str, Any]:
    return {"source": "csv", "root": str(folder), "labels": "labels.csv", **choices}


def several(first: dict[str, Any], *others: dict[str, Any]) -> Source:
    return Source.model_validate({**first, "also": others})


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of a finding that phantoms have, one that they lack, and none of Mass."""
    rows = [(f"f{k}.png", f"P{k // 2}", k % 2, k % 3 == 0, "PA") for k in range(12)]
    rows = [(image, who, a, int(b), view) for image, who, a, b, view in rows]
    folder = tmp_path_factory.mktemp("several") / "table"
    return write_table(folder, rows, "image patient Effusion Fracture view")


@pytest.fixture(scope="module")
def place(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Phantoms of both hospitals and the table, drawn."""
    chosen = several(DRAWN, {**DRAWN, "hospital": 2}, csv_source(table))
    out = tmp_path_factory.mktemp("drawn") / "phantom"
    return draw_sources(chosen, findings=FINDINGS, out=out, workers=1)


@pytest.fixture(scope="module")
def films(place: Source, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_sources(place, findings=FINDINGS, out=tmp_path_factory.mktemp("read") / "manifest")


def listed(place: Source, findings: tuple[str, ...] = ("Mass",)) -> Manifest:
    return list_sources(place, findings=findings, split=lambda films, _: films.image)[0]


def test_sources_are_named_by_reader_and_number(place: Source):
    assert list(name_sources(place)) == ["phantom", "phantom-2", "csv"]
    assert list(name_sources(several({}, csv_source(Path("a")), {"hospital": 2}))) == [
        "phantom", "csv", "phantom-2",
    ]  # fmt: skip


def test_phantoms_of_others_are_drawn_into_folders_of_their_own(place: Source):
    roots = [Path(one.root) for one in place.every]
    assert [root.name for root in roots] == ["phantom", "phantom-2", "table"]
    assert all((root / RECEIPT).is_file() for root in roots[:2])
    assert len(list((roots[1] / "images").glob("5*.png"))) == 30


def test_all_films_stand_in_one_manifest(films: Manifest, place: Source):
    assert films.facts[SOURCE].value_counts().to_dict() == {
        "phantom": 30, "phantom-2": 30, "csv": 12,
    }  # fmt: skip
    assert films.findings == FINDINGS
    assert all(Path(file).is_file() for file in films.facts["path"])
    assert films.origin.count("; ") == 2
    assert films.origin.startswith("Phantoms: 30 invented films of ")
    assert films.origin.endswith("labels.csv: 12 films")
    ends = [films.facts["path"].iloc[row] for row in (0, 30, 60)]
    assert all(path.startswith(one.root) for one, path in zip(place.every, ends, strict=True))


def test_each_source_has_its_own_labels_and_no_more(films: Manifest, place: Source, tmp_path: Path):
    one, two, three = place.every
    for name, source, findings in (
        ("phantom", one, ("Effusion", "Mass")),
        ("phantom-2", two, ("Effusion", "Mass")),
        ("csv", three, ("Effusion", "Fracture")),
    ):
        alone = read_films(source, findings=findings, out=tmp_path / name)
        mine = films.take(np.flatnonzero(films.facts[SOURCE] == name))
        assert mine.image.tolist() == alone.image.tolist()
        assert mine.patient_id.tolist() == [str(who) for who in alone.patient_id]
        for finding in FINDINGS:
            label = mine.label[:, FINDINGS.index(finding)]
            if finding in findings:
                np.testing.assert_array_equal(label, alone.label[:, findings.index(finding)])
            else:
                assert np.isnan(label).all()
        assert len(mine.boxes) == len(alone.boxes)


def test_reading_names_the_source_and_what_it_does_not_state(films: Manifest):
    rows = [tuple(row) for row in films.reading.fillna("").itertuples(index=False)]
    assert [row for row in rows if "no finding of the protocol" not in row[0]] == [
        ("phantom: in the label files", "", 30),
        ("phantom: not stated", "Fracture", 30),
        ("phantom-2: in the label files", "", 30),
        ("phantom-2: not stated", "Fracture", 30),
        ("csv: in the label files", "", 12),
        ("csv: not stated", "Mass", 12),
    ]


def test_views_are_known_or_empty_but_not_nan(films: Manifest):
    assert set(films.facts["view"]) == {"PA", "AP"}
    assert set(films.facts["sex"]) == {"M", "F", ""}


def test_patients_are_disjoint(films: Manifest):
    owners = pd.DataFrame({"source": films.facts[SOURCE], "patient": films.patient})
    assert (owners.groupby("patient")["source"].nunique() == 1).all()
    assert "P3" in films.patient_id.tolist()
    assert "50000001" in films.patient_id.tolist()


def test_two_people_of_one_number_are_numbered_anew(tmp_path: Path):
    rows = [(f"f{k}.png", k, 1, "PA") for k in range(1, 5)]
    folder = write_table(tmp_path / "table", rows, "image patient Mass view")
    films = listed(several(DRAWN, csv_source(folder)))
    own = films.facts[SOURCE] == "csv"
    assert not set(films.patient[own]) & set(films.patient[~own])
    assert films.patient_id[own].tolist() == [f"csv:{k}" for k in range(1, 5)]
    assert films.patient_id[~own][0] == "phantom:1"
    alone = list_films(Source(**DRAWN), findings=("Mass",), split=lambda films, _: films.image)[0]
    for number in np.unique(alone.patient):  # whose films are whose is as before
        mine = films.patient[~own][alone.patient == number]
        assert len(set(mine)) == 1
        assert (films.patient == mine[0]).sum() == len(mine)


def test_one_name_in_two_tables_is_one_patient(tmp_path: Path):
    for name, who in (("one", ["A", "B", "7"]), ("two", ["B", "C", "007"])):
        rows = [(f"{name}-{k}.png", one, 1) for k, one in enumerate(who)]
        write_table(tmp_path / name, rows, "image patient Mass")
    films = listed(several(csv_source(tmp_path / "one"), csv_source(tmp_path / "two")))
    assert len(np.unique(films.patient)) == 4
    assert films.patient[1] == films.patient[3]
    assert films.patient[2] == films.patient[5]


def test_names_that_stand_in_two_sources_begin_with_theirs(tmp_path: Path):
    for name in ("one", "two"):
        rows = [(f"a/f{k}.png", f"{name}-{k}", 1) for k in range(3)]
        write_table(tmp_path / name, rows, "image patient Mass")
    (tmp_path / "two" / "a" / "f2.png").unlink()
    place = several(
        csv_source(tmp_path / "one"), csv_source(tmp_path / "two", allow_missing=True), DRAWN
    )
    place = draw_sources(place, findings=("Mass",), out=tmp_path / "phantom", workers=1)
    out = tmp_path / "manifest"
    films = read_sources(place, findings=("Mass",), out=out)
    assert films.image[:5].tolist() == [
        "csv/a/f0.png", "csv/a/f1.png", "csv/a/f2.png", "csv-2/a/f0.png", "csv-2/a/f1.png",
    ]  # fmt: skip
    assert films.image[5] == "00000001_000.png"
    assert films.boxes["image"].isin(films.image).all()
    assert (out / "missing.csv").read_text() == "image,source\ncsv-2/a/f2.png,csv-2\n"
    row = match_films(np.array(["csv-2/a/f1.png", "00000001_000"]), films.image, source="list")
    assert row.tolist() == [4, 5]


def test_films_that_moved_below_a_root_are_found(tmp_path: Path):
    for name in ("one", "two"):
        rows = [(f"f{k}.png", f"{name}-{k}", 1) for k in range(3)]
        write_table(tmp_path / name, rows, "image patient Mass")
    place = several(csv_source(tmp_path / "one"), csv_source(tmp_path / "two"))
    read_sources(place, findings=("Mass",), out=tmp_path / "manifest")
    (tmp_path / "two" / "deeper").mkdir()
    for file in (tmp_path / "two").glob("*.png"):
        file.rename(file.parent / "deeper" / file.name)
    films = read_sources(place, findings=("Mass",), out=tmp_path / "manifest")
    assert all(Path(file).is_file() for file in films.facts["path"])
    assert "deeper" in films.facts["path"][3]


def test_a_root_that_moved_is_where_it_is_now(place: Source, films: Manifest, tmp_path: Path):
    out = tmp_path / "manifest"
    read_sources(place, findings=FINDINGS, out=out)
    first, *others = place.every
    others[1] = others[1].model_copy(update={"root": "/elsewhere"})
    moved = first.model_copy(update={"also": tuple(others)})
    path = films_of_sources(moved, out).facts["path"]
    assert path.iloc[-1] == "/elsewhere/f11.png"
    assert path.iloc[0] == films.facts["path"].iloc[0]


def test_no_others_change_nothing(table: Path, tmp_path: Path):
    one = Source.model_validate(csv_source(table))
    findings = ("Effusion",)
    assert inputs_of_sources(one, findings=findings)["data"] == {
        key: value for key, value in one.model_dump().items() if key not in PLACES
    }
    films = read_sources(one, findings=findings, out=tmp_path / "manifest")
    assert SOURCE not in films.facts
    assert films.reading["step"].tolist() == ["in the label files"]
    assert (
        films.patient.tolist()
        == read_films(one, findings=findings, out=tmp_path / "again").patient.tolist()
    )


def test_a_table_of_one_source_must_have_every_column(table: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="Mass"):
        read_sources(
            Source.model_validate(csv_source(table)), findings=FINDINGS, out=tmp_path / "manifest"
        )


@pytest.mark.parametrize(
    ("first", "other", "text"),
    [
        (
            {"source": "nih"}, {"source": "rsna"},
            "data and data.also.0 share films or patients: 'nih' and 'rsna' are both films of "
            "ChestX-ray14; expected each film in one source: leave one of them out",
        ),
        ({"source": "chexpert"}, {"source": "chexpert-plus"}, "both films of CheXpert"),
        ({"source": "mimic-cxr"}, {"source": "cxr-lt"}, "both films of MIMIC-CXR"),
        (DRAWN, {"films": 40}, "both are phantoms of hospital 1 from seed 0"),
    ],
)  # fmt: skip
def test_sources_that_share_films_are_refused(first: Any, other: Any, text: str, tmp_path: Path):
    place = several(first, other)
    for call in (
        lambda: draw_sources(place, findings=("Mass",), out=tmp_path / "none", workers=1),
        lambda: inputs_of_sources(place, findings=("Mass",)),
        lambda: listed(place),
    ):
        with pytest.raises(ValueError, match=re.escape(text)):
            call()
    assert not (tmp_path / "none").exists()


def test_names_of_chestxray14_are_one_film(tmp_path: Path):
    folder = write_table(tmp_path / "table", [("x/00000001_000.png", 1, 1)], "image patient Mass")
    place = several(DRAWN, csv_source(folder))
    with pytest.raises(ValueError, match=r"1 film by name, such as '00000001_000': .*one source"):
        listed(place)


def pictures(folder: Path, names: list[str], *, seed: int = 0) -> Path:
    """Write a table of films of patients of their own, and films that are all different."""
    write_table(folder, [(name, f"P{k}", k % 2) for k, name in enumerate(names)],
                "image patient Mass")  # fmt: skip
    noise = np.random.default_rng(seed).integers(0, 256, (len(names), 40, 40), dtype=np.uint8)
    for name, grey in zip(names, noise, strict=True):
        cv2.imwrite(str(folder / name), grey)
    return folder


def other_people(folder: Path, name: str = "other.csv") -> str:
    """Write a table of the same films beside the first, of other patients."""
    table = pd.read_csv(folder / "labels.csv")
    table.assign(patient="Q" + table["patient"]).to_csv(folder / name, index=False)
    return name


@pytest.mark.parametrize("way", ["table", "copied table", "link", "linked films", "zip", "tar.gz"])
def test_one_file_in_two_sources_is_refused(tmp_path: Path, way: str):
    names = [f"a{k}.png" for k in range(4)]
    one = pictures(tmp_path / "one", names)
    two, labels, where = one, other_people(one), str(one / "a0.png")
    if way == "copied table":
        shutil.copy(one / "labels.csv", one / labels)
    elif way == "link":
        two = tmp_path / "two"
        two.symlink_to(one, target_is_directory=True)
        where = str(two.resolve() / "a0.png")
    elif way == "linked films":
        two = tmp_path / "two"
        two.mkdir()
        shutil.move(one / labels, two / labels)
        for name in names[:3]:
            (two / name).symlink_to(one / name)
        pictures(tmp_path / "more", names, seed=1)
        shutil.move(tmp_path / "more" / names[3], two / names[3])
        where = str(two / "a0.png")
    elif way in ("zip", "tar.gz"):
        kind = {"zip": "zip", "tar.gz": "gztar"}[way]
        shutil.make_archive(str(one / "films"), kind, root_dir=one)
        for name in names:
            (one / name).unlink()
        where = f"{one / 'films'}.{way}::/"
    place = several(csv_source(one), csv_source(two) | {"labels": labels})
    of = "3 of 4" if way == "linked films" else "4 of 4"
    text = f"data.also.0: {of} films are read by data too ({where}"
    with pytest.raises(ValueError, match=re.escape(text)):
        read_sources(place, findings=("Mass",), out=tmp_path / "run" / "manifest")
    assert not (tmp_path / "run" / "manifest").exists()


def test_one_picture_in_two_sources_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stages, "check_networks", lambda run: None)
    names = [f"a{k}.png" for k in range(6)]
    pictures(tmp_path / "one", names)
    two = pictures(tmp_path / "two", names, seed=1)
    three = tmp_path / "three"
    three.mkdir()
    for k in range(2):
        shutil.copy(tmp_path / "one" / f"a{k}.png", two / f"a{k + 3}.png")
        shutil.copy(tmp_path / "two" / f"a{k}.png", three / f"c{k}.png")
        for folder in (tmp_path / "one", two):  # films of one grey are no film's in particular
            cv2.imwrite(str(folder / "a5.png"), np.full((40, 40), 7, np.uint8))
    (three / "labels.csv").write_text("image,patient,Mass\nc0.png,R,1\nc1.png,S,0\n")
    tables = "".join(
        f'[[data.also]]\nsource = "csv"\nroot = "{name}"\nlabels = "labels.csv"\n'
        f'exclude = "{name}.csv"\n'
        for name in ("two", "three")
    )
    (tmp_path / "p.toml").write_text(
        'name = "twice"\nfindings = ["Mass"]\n[data]\nsource = "csv"\nroot = "one"\n'
        f'labels = "labels.csv"\n{tables}[preparation]\nsize = 32\n[[network]]\n'
        'name = "test_resnet"\n'
    )
    for name in ("two", "three"):
        (tmp_path / f"{name}.csv").write_text("image\n")
    first = open_run(read_protocol(tmp_path / "p.toml"), out=tmp_path / "run", workers=1)
    text = (
        "4 of 14 films show what a film of another source does, to the pixel (csv-2/a3.png of "
        "data.also.0 = csv/a0.png of data, …): expected each film in one source"
    )
    for _ in range(2):  # prepared films do not let it pass
        with pytest.raises(ValueError, match=re.escape(text)):
            stages.plan(first)
    for number, name in enumerate(("two", "three"), start=2):
        shutil.copy(tmp_path / "run" / f"twice-csv-{number}.csv", tmp_path / f"{name}.csv")
    table = pd.read_csv(tmp_path / "two.csv")
    assert table["image"].tolist() == ["a3.png", "a4.png"]
    assert table["other"].tolist() == ["csv/a0.png", "csv/a1.png"]
    (three / "labels.csv").write_text("image,patient,Mass\nc0.png,R,1\nc1.png,S,0\nc2.png,T,0\n")
    cv2.imwrite(str(three / "c2.png"), np.eye(40, dtype=np.uint8) * 200)
    again = open_run(read_protocol(tmp_path / "p.toml"), out=tmp_path / "again", workers=1)
    assert len(stages.parts(again)) == 6 + 4 + 1


def test_errors_name_the_keys_of_their_own_section(table: Path, tmp_path: Path):
    place = several(csv_source(table), csv_source(tmp_path / "none", exclude="no.txt"))
    absent = places_absent(place)
    assert set(absent) == {"also.0.root", "also.0.exclude"}
    assert absent["also.0.root"].startswith("data.also.0.root is ")
    with pytest.raises(ValueError, match=r"data\.also\.0\.root is "):
        inputs_of_sources(place, findings=("Effusion",))
    (table.parent / "lost.csv").write_text("image,patient,Effusion\nf99.png,1,1\nf1.png,2,0\n")
    lost = several(DRAWN | {"hospital": 2}, csv_source(table) | {"labels": "../lost.csv"})
    lost = draw_sources(lost, findings=("Effusion",), out=tmp_path / "phantom", workers=1)
    with pytest.raises(ValueError, match=r"data\.also\.0\.allow_missing = true"):
        read_sources(lost, findings=("Effusion",), out=tmp_path / "manifest")
    with pytest.raises(ValueError, match=r"data\.also\.0\.source: phantom states none of Fracture"):
        listed(several(csv_source(table), DRAWN), ("Fracture",))


def test_a_column_called_source_is_refused(films: Manifest):
    from lucency.data.several_sources import SourceFilms, join_sources

    one = SourceFilms(source=Source(), films=films, missing=films.image[:0])
    with pytest.raises(ValueError, match="'source' is what names the source of a film"):
        join_sources({"csv": one}, findings=FINDINGS)


def test_official_lists_of_several_are_refused():
    choices = {"data": {"also": [{"hospital": 2}]}, "split": {"method": "official"}}
    with pytest.raises(ValueError, match='"official" deals by the lists of one source'):
        parse_protocol({"name": "a", "network": [{"name": "x"}], **choices}, name="p")


def test_every_part_gets_its_share_of_each_source(films: Manifest):
    part = split(films, choices=Split(), root=Path())
    for name in ("phantom", "phantom-2", "csv"):
        own = part[films.facts[SOURCE] == name]
        assert np.mean(own == "train") == pytest.approx(0.7, abs=0.15)
    owners = pd.DataFrame({"part": part, "patient": films.patient})
    assert (owners.groupby("patient")["part"].nunique() == 1).all()


def test_listed_is_what_is_read(films: Manifest, table: Path):
    place = several(DRAWN, {**DRAWN, "hospital": 2}, csv_source(table))
    same = listed(place, FINDINGS)
    assert same.image.tolist() == films.image.tolist()
    assert same.patient.tolist() == films.patient.tolist()
    np.testing.assert_array_equal(same.label, films.label)


def test_source_is_a_subgroup_and_may_be_a_shortcut(films: Manifest):
    levels = known_facts(films.facts.assign(drain=[0.0, 1.0] * 30 + [np.nan] * 12))
    assert set(levels["source"]) == {"phantom", "phantom-2", "csv"}
    assert set(levels["drain"]) == {"0", "1", UNKNOWN}  # tables do not state it
    scores = Predictions(
        network="toy",
        findings=films.findings,
        image=films.image,
        patient=films.patient,
        part=np.full(len(films), "test"),
        label=films.label,
        logit=np.random.default_rng(0).normal(size=films.label.shape).astype(np.float32),
        split="toy",
        feature=np.empty((len(films), 0), dtype=np.float32),
    )
    rows = subgroups(scores, facts=films.facts.assign(image=films.image), resamples=5, seed=0)
    groups = rows.loc[rows["fact"] == "source", "group"].unique().tolist()
    assert groups == ["csv", "phantom", "phantom-2"]
    alone = films.facts.drop(columns=SOURCE).assign(image=films.image)
    assert "source" not in set(subgroups(scores, facts=alone, resamples=5, seed=0)["fact"])


PROTOCOL = """
name = "several"
findings = ["Effusion", "Mass"]
[data]
films = 20
size = 32
[[data.also]]
hospital = 2
films = 20
size = 32
[[data.also]]
source = "csv"
root = "table"
labels = "labels.csv"
[preparation]
size = 32
[balance]
method = "ml-ros"
[[network]]
name = "test_resnet"
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(stages, "check_networks", lambda run: None)
    rows = [(f"f{k}.png", f"P{k}", k % 2) for k in range(8)]
    write_table(tmp_path / "table", rows, "image patient Effusion")
    (tmp_path / "p.toml").write_text(PROTOCOL)
    return open_run(read_protocol(tmp_path / "p.toml"), out=tmp_path / "run", workers=1)


def again(run: Run, *changes: str) -> Run:
    file = run.out.parent / "p.toml"
    return open_run(read_protocol(file, changes=changes), out=run.out, workers=1)


def test_a_run_prepares_splits_and_balances_all(run: Run, tmp_path: Path):
    made = stages.prepared(run)
    assert len(made.manifest) == 48
    assert made.manifest.facts[SOURCE].nunique() == 3
    plan = stages.plan(run)
    owner = made.manifest.patient[plan.row]
    assert not set(owner[plan.part == "train"]) & set(owner[plan.part == "test"])
    assert set(made.manifest.facts[SOURCE].to_numpy()[plan.row[plan.part == "train"]]) == {
        "phantom", "phantom-2", "csv",
    }  # fmt: skip
    labels: Protocol = run.protocol
    of_labels = plan_of_labels(labels, labels=None)
    assert (
        of_labels.plan.names(of_labels.films.image).tolist()
        == plan.names(made.manifest.image).tolist()
    )


def test_a_place_of_another_source_moves(run: Run, tmp_path: Path, capsys: Any):
    stages.plan(run)
    assert run.protocol.data.also[1].root == str(tmp_path / "table")
    before = {file: file.stat().st_mtime_ns for file in run.out.rglob("*.csv")}
    (tmp_path / "table").rename(tmp_path / "moved")
    lost = again(run)
    films = stages.manifest(lost)
    text = capsys.readouterr().err
    assert "--set data.also.1.root=NEW" in text
    assert len(films) == 48
    assert "data.also.1.root=NEW" in how_to_move(lost, "also.1.root")
    moved = again(run, f"data.also.1.root='{tmp_path / 'moved'}'")
    path = stages.prepared(moved).manifest.facts["path"]
    assert path.iloc[-1] == str(tmp_path / "moved" / "f7.png")
    stages.plan(moved)
    assert {file: file.stat().st_mtime_ns for file in run.out.rglob("*.csv")} == before
    kept = again(run)  # the protocol still names the first place: the last one serves
    assert kept.protocol.data.also[1].root == str(tmp_path / "moved")
    assert "data.also.1.root:" in capsys.readouterr().err


def test_other_films_in_a_finished_run_are_refused(run: Run):
    stages.manifest(run)
    with pytest.raises(ValueError, match=r"data\.also\.0\.films: was 20, now 40"):
        again(run, "data.also.0.films=40")


def test_films_of_an_archive_stand_beside_others(tmp_path: Path):
    rows = [(f"f{k}.png", f"P{k}", 1) for k in range(3)]
    folder = write_table(tmp_path / "one", rows, "image patient Mass")
    other = write_table(
        tmp_path / "two", [(f"g{k}.png", f"Q{k}", 1) for k in range(3)], "image patient Mass"
    )
    with tarfile.open(folder / "films.tar.gz", "w:gz") as archive:
        for file in sorted(folder.glob("*.png")):
            archive.add(file, arcname=file.name)
            file.unlink()
    place = several(csv_source(other), csv_source(folder))
    out = tmp_path / "manifest"
    films = read_sources(place, findings=("Mass",), out=out)
    assert [str(path).rpartition("/")[2] for path in films.facts["path"]] == [
        "g0.png", "g1.png", "g2.png", "f0.png", "f1.png", "f2.png",
    ]  # fmt: skip
    assert (out / "csv-2" / ARCHIVES).is_file()
    assert not (out / "csv").exists()
    again = read_sources(place, findings=("Mass",), out=out)
    assert again.facts["path"].tolist() == films.facts["path"].tolist()
    for damaged in ("[1]", '{"films.tar.gz": {}}', '{"films.tar.gz": {"stat": 3}}', ""):
        (out / "csv-2" / ARCHIVES).write_text(damaged)
        with pytest.raises(ValueError, match=r"archives\.json cannot be read .*its command makes"):
            read_sources(place, findings=("Mass",), out=out)

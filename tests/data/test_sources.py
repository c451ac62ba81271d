"""Sources as a stage: what is missing is said, what changed noticed, nothing drawn in vain."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lucency.config.sections import Source
from lucency.core.manifest import FINDINGS as MANIFEST_FINDINGS
from lucency.core.manifest import Manifest
from lucency.data.film_names import below_folder, places_below
from lucency.data.sources import (
    absent_places,
    draw_source,
    film_inputs,
    list_films,
    read_films,
    with_both_labels,
)

FINDINGS = ("Mass",)
TABLE = "image,patient,Mass\na,1,0\nb,1,1\nc,2,\n"


def place(root: Path, **changes: object) -> Source:
    """Return a CSV table of three films, two of which lie in `root`."""
    root.mkdir(exist_ok=True)
    (root / "labels.csv").write_text(TABLE)
    for name in "ab":
        cv2.imwrite(str(root / f"{name}.png"), np.zeros((40, 40), np.uint8))
    choices = {"source": "csv", "labels": "labels.csv", "root": str(root), "allow_missing": True}
    return Source.model_validate(choices | changes)


def read(source: Source, out: Path) -> Manifest:
    return read_films(source, findings=FINDINGS, out=out / "manifest")


def test_missing_films_are_left_out_counted_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    films = read(place(tmp_path / "films"), tmp_path)
    assert films.image.tolist() == ["a", "b"]
    assert (tmp_path / "manifest" / "missing.csv").read_text() == "image\nc\n"
    assert capsys.readouterr().err == "Films: labels.csv: 3 films; 1 of them not on disk\n"


def test_missing_films_stop_a_protocol_that_does_not_allow_them(tmp_path: Path):
    with pytest.raises(ValueError, match=r"1 of 3 films is not below .*\(c, …\): expected all"):
        read(place(tmp_path / "films", allow_missing=False), tmp_path)
    assert not (tmp_path / "manifest").exists()
    assert len(read(place(tmp_path / "films"), tmp_path)) == 2


@pytest.mark.parametrize("missing", [False, True])
def test_films_that_are_all_missing_are_refused(tmp_path: Path, missing: bool):
    source = place(tmp_path / "films", allow_missing=missing)
    for name in "ab":
        (tmp_path / "films" / f"{name}.png").unlink()
    with pytest.raises(ValueError, match="none of the 3 films lies below"):
        read(source, tmp_path)


def test_labels_from_which_nothing_can_be_learned_are_refused(tmp_path: Path):
    films = read(place(tmp_path / "films"), tmp_path)
    assert with_both_labels(films) is films
    for value, message in ((0, "0 labels of 1 and 2 of 0"), (1, "2 labels of 1 and 0 of 0")):
        alike = replace(films, label=np.full_like(films.label, value))
        with pytest.raises(ValueError, match=rf"labels\.csv.*: of Mass none .*{message}.*nothing"):
            with_both_labels(alike)


def test_findings_with_one_label_only_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    films = read(place(tmp_path / "films"), tmp_path)
    label = np.hstack([films.label, np.ones_like(films.label), np.zeros_like(films.label)])
    with_both_labels(replace(films, findings=("Mass", "Edema", "Hernia"), label=label))
    lines = capsys.readouterr().err.splitlines()[-2:]
    assert lines == [
        "Every stated label is 0: Hernia; cannot be evaluated",
        "Every stated label is 1: Edema; cannot be evaluated",
    ]


def test_a_name_that_looks_like_a_copy_s_is_refused(tmp_path: Path):
    source = place(tmp_path / "films")
    labels = tmp_path / "films" / "labels.csv"
    labels.write_text(labels.read_text().replace("\na,", "\na#1,"))
    with pytest.raises(ValueError, match=r"labels\.csv, row 1 .* film 'a#1': '#' marks the cop"):
        read(source, tmp_path)


def test_a_table_without_the_default_findings_asks_for_the_key(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no column 'Atelectasis'.*: findings = \["):
        read_films(place(tmp_path / "films"), findings=MANIFEST_FINDINGS, out=tmp_path / "out")


@pytest.mark.parametrize("heading", ["image,patient,oddity\n", "Image Index;why\r\n\r\n"])
def test_a_list_of_a_heading_alone_excludes_nothing(tmp_path: Path, capsys, heading: str):
    (tmp_path / "quality.csv").write_text(heading)
    source = place(tmp_path / "films", exclude=str(tmp_path / "quality.csv"))
    assert len(read(source, tmp_path)) == 2
    assert "quality.csv: no film, for the table has no rows" in capsys.readouterr().err
    (tmp_path / "quality.csv").write_text("why\n")
    with pytest.raises(ValueError, match=r"quality\.csv"):
        read(source, tmp_path / "other")


@pytest.mark.parametrize("root", ["", "absent"])
def test_a_root_that_is_no_folder_is_refused(tmp_path: Path, root: str):
    with pytest.raises(ValueError, match=f"data.root is '{root}', which is no folder"):
        read(Source(source="nih", root=root), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("labels", ["labels.csv", "tables/labels.tsv", "absolute"])
def test_a_changed_table_is_noticed_wherever_it_lies(tmp_path: Path, labels: str):
    source = place(tmp_path / "films")
    table = tmp_path / "films" / labels if labels != "absolute" else tmp_path / "elsewhere.csv"
    table.parent.mkdir(exist_ok=True)
    table.write_text(TABLE)
    source = source.model_copy(update={"labels": str(table) if labels == "absolute" else labels})
    read(source, tmp_path)
    assert len(read(source, tmp_path)) == 2
    table.write_text(TABLE.replace("b,1,1", "b,1,0"))
    with pytest.raises(ValueError, match="made from other inputs"):
        read(source, tmp_path)


def test_phantoms_are_drawn_and_other_films_are_where_they_are(tmp_path: Path):
    choices = Source(films=20, size=64, seed=2)
    drawn = draw_source(choices, findings=FINDINGS, out=tmp_path / "phantom", workers=1)
    assert drawn == choices.model_copy(update={"root": str(tmp_path / "phantom")})
    assert len(list((tmp_path / "phantom" / "images").glob("*.png"))) == 20
    assert len(read(drawn, tmp_path)) == 20
    table = place(tmp_path / "films")
    assert draw_source(table, findings=FINDINGS, out=tmp_path / "none", workers=1) is table
    assert not (tmp_path / "none").exists()


def test_a_finding_that_phantoms_lack_is_refused_before_any_is_drawn(tmp_path: Path):
    with pytest.raises(ValueError, match=r"finding 'Massa' is unknown: .*nearest is 'Mass'"):
        draw_source(Source(), findings=("Edema", "Massa"), out=tmp_path / "phantom", workers=1)
    assert list(tmp_path.iterdir()) == []


def test_phantoms_are_not_made_of_tables_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "Data_Entry_2017.csv").write_text(TABLE)
    monkeypatch.chdir(tmp_path)
    assert film_inputs(Source(source="phantom"), findings=FINDINGS)["tables"] == {}


@pytest.mark.parametrize("source", ["csv", "nih"])
def test_an_absent_label_file_is_worded_once(tmp_path: Path, source: str):
    chosen = place(tmp_path / "films", source=source, labels="lables.csv")
    (absent,) = absent_places(chosen).values()
    with pytest.raises(ValueError, match=r"no label file in .*: expected lables.csv") as refusal:
        list_films(chosen, findings=FINDINGS, split=lambda films, root: films.patient)
    assert str(refusal.value) == absent
    (absent,) = absent_places(chosen.model_copy(update={"labels": ""})).values()
    assert absent.startswith("no label file in ")


@pytest.mark.parametrize("folder", ["films", "/films", "films/images", ".", "/", "films:a"])
def test_places_below_a_folder_are_those_of_paths(folder: str):
    names = ["1.png", "a b/1.png", "a.tar.gz::/b/1.png", "/elsewhere/1.png", "../1.png", "é#.png"]
    places = places_below(Path(folder), names)
    assert places == [str(Path(folder) / name) for name in names]
    for place, name in zip(places[:3], names, strict=False):
        assert below_folder(place, Path(folder)) == name
    for place in ("films2/1.png", "/1.png" if folder != "/" else "1.png"):
        if folder != "." or place.startswith("/"):
            with pytest.raises(ValueError, match="is not in the subpath"):
                below_folder(place, Path(folder))

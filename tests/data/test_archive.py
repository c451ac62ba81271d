"""Archives of DICOM films: what describe counts, how a table labels films, and their pseudonyms."""

import json
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from archives import MARK, archive_film, write_archive
from lucency.cli.app import app
from lucency.config.sections import Source, Split
from lucency.core.engines import choose_engine
from lucency.core.manifest import PARTS, Manifest
from lucency.data import dicom_archive
from lucency.data.dicom_archive import describe_archive
from lucency.data.pseudonyms import PseudonymKey, fleeting_key, key_file, make_key, read_key
from lucency.data.several_sources import read_sources
from lucency.data.sources import films_found, list_films, read_films
from lucency.data.split import split

FILMS = 12


@pytest.fixture(autouse=True)
def own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test makes a key in the user's configuration."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve films of four patients, three of them labelled by film; and what is none."""
    folder = tmp_path / "archive"
    write_archive(folder, FILMS)
    return folder


def table(root: Path, **columns: list[Any]) -> Source:
    """Write a label table and return the source of it."""
    pd.DataFrame(columns).to_csv(root.parent / "labels.csv", index=False)
    labels = str(root.parent / "labels.csv")
    return Source.model_validate({"source": "dicom", "root": str(root), "labels": labels})


def by_film(root: Path, films: int = FILMS, **changes: Any) -> Source:
    names = [f"1.2.{number}.1" for number in range(films)]
    made = table(root, SOPInstanceUID=names, Mass=[number % 2 for number in range(films)])
    return made.model_copy(update=changes)


def read(source: Source, out: Path) -> Manifest:
    return read_films(source, findings=("Mass",), out=out / "run" / "manifest")


# --- describe -------------------------------------------------------------------------------


def test_an_archive_is_described_by_its_headers(root: Path):
    views = ("PA", "AP", "LL", None)
    for number in range(8):
        named = {"ViewPosition": views[number % 4], "Manufacturer": "Agfa", "PatientAge": "045Y"}
        (root / f"more{number}").write_bytes(archive_film(100 + number, **named))
    for name, elements in {
        "copy": {"SOPInstanceUID": "1.2.3.1"},
        "raw": {"PresentationIntentType": "FOR PROCESSING"},
        "red": {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3},
        "knee": {"BodyPartExamined": f"KNEE OF {MARK}"},
        "anonymous": {"PatientID": "", "StudyInstanceUID": None, "BodyPartExamined": None},
    }.items():
        number = 200 if name == "copy" else 300 + len(name)
        (root / name).write_bytes(archive_film(number, **elements))
    (root / "cut").write_bytes(archive_film(400)[:-100])
    (root / ".azDownload-0-film.dcm").write_bytes(bytes(1000))
    (root / "labels.csv").write_text("a,b\n")
    (root / "film.png").write_bytes(b"\x89PNG")
    found = describe_archive(root)
    assert (found["files"], found["dicom"], found["films"]) == (29, 26, 21)
    assert (found["duplicates"], found["without_patient_id"]) == (1, 1)
    assert found["patients"] == 4 + 4  # P33 to P35 of the further films, and that of the copy
    assert {reason.split(":")[0]: files for reason, files in found["left_out"].items()} == {
        "raw data of a detector": 1, "in colour": 1, "not of the chest": 1, "truncated": 1,
        "a part of a download": 1,
    }  # fmt: skip
    assert found["other_files"] == {"PNG or JPEG": 1, "table": 1}
    assert found["view"] == {"not stated": 20, "AP": 2, "LL": 2, "PA": 2}
    assert found["manufacturer"] == {"other": 18, "Agfa": 8}
    assert found["body_part"] == {"CHEST": 24, "KNEE": 1, "not stated": 1}
    assert found["photometric"] == {"MONOCHROME2": 25, "RGB": 1}
    assert found["age"] == {"40-49": 8, "50-59": 18}
    assert MARK not in json.dumps({key: str(value) for key, value in found.items()})


def test_a_copy_that_is_left_out_hides_no_film(root: Path):
    (root / "a-knee").write_bytes(archive_film(3, BodyPartExamined="KNEE"))
    assert describe_archive(root)["films"] == FILMS


def test_processes_read_what_one_reads(root: Path, monkeypatch: pytest.MonkeyPatch):
    used = []

    def here(work: Any, tasks: Any, *, workers: int) -> Any:
        used.append(workers)
        return map(work, tasks)

    alone = describe_archive(root)
    monkeypatch.setattr(dicom_archive, "in_workers", here)
    monkeypatch.setattr(dicom_archive, "usable_cores", lambda: 2)
    monkeypatch.setattr(dicom_archive, "CHUNK", 5)
    monkeypatch.setattr(dicom_archive, "FEW", FILMS)
    assert describe_archive(root) == alone
    monkeypatch.setattr(dicom_archive, "FEW", FILMS - 1)
    assert describe_archive(root) == alone
    assert used == [1, 2]


def test_headers_are_read_by_this_machine_whatever_the_engine(root: Path, tmp_path: Path):
    """The key of pseudonyms is sent nowhere: jobs of SLURM would keep it in their files."""
    alone, logs = describe_archive(root), tmp_path / "logs"
    choose_engine(f"slurm://?cluster=local&logs={logs}")
    try:
        assert describe_archive(root) == alone
    finally:
        choose_engine("local")
    assert not logs.exists()


def test_the_command_describes_a_folder(root: Path):
    shown = CliRunner().invoke(app, ["data", "describe", str(root), "--json"])
    assert shown.exit_code == 0
    assert json.loads(shown.stdout)["films"] == FILMS
    (root / "knee").write_bytes(archive_film(50, BodyPartExamined="KNEE"))
    shown = CliRunner().invoke(app, ["data", "describe", str(root)])
    assert "left_out: \n  1 not of the chest" in shown.stdout


@pytest.mark.parametrize("name", ["film.png", "labels.csv", ""])
def test_a_folder_without_dicom_says_what_is_expected(tmp_path: Path, name: str):
    (tmp_path / "folder").mkdir()
    if name:
        (tmp_path / "folder" / name).write_text("image,Mass\n")
    found = {"film.png": "1 PNG or JPEG", "labels.csv": "1 table", "": "nothing"}[name]
    with pytest.raises(ValueError, match=f"no DICOM file: found {found}; expected an archive"):
        describe_archive(tmp_path / "folder")


# --- labels ---------------------------------------------------------------------------------


def test_a_table_of_films_labels_them_under_pseudonyms(root: Path, tmp_path: Path):
    films = read(by_film(root), tmp_path)
    key = read_key(key_file(""))
    assert films.image.tolist() == [
        key.pseudonym("film", f"1.2.{number}.1") + ".dcm" for number in range(FILMS)
    ]
    assert films.label[:, 0].tolist() == [number % 2 for number in range(FILMS)]
    owner = [key.pseudonym("patient", "", f"P{number // 3}") for number in range(FILMS)]
    assert films.patient_id.tolist() == [f"p{name}" for name in owner]
    assert len(np.unique(films.patient)) == 4
    assert films.facts["days"].tolist() == [0, 1, 2] * 4
    assert films.facts["study"].tolist()[5] == key.pseudonym("study", "1.2.5")
    content = [Path(path).read_bytes() for path in films.facts["path"].tolist()]
    assert content == [archive_film_at(root, number) for number in range(FILMS)]


def archive_film_at(root: Path, number: int) -> bytes:
    return (root / f"patient{number // 3}" / f"IM{number}").read_bytes()


@pytest.mark.parametrize("column", ["image", "path", "film"])
@pytest.mark.parametrize("name", ["patient{}/IM{}", "IM{1}"])
def test_a_table_may_name_paths(root: Path, tmp_path: Path, column: str, name: str):
    names = [name.format(number // 3, number) for number in range(FILMS)]
    source = table(root, **{column: names, "Mass": [1] + [0] * (FILMS - 1)})
    films = read(source, tmp_path)
    named = read(by_film(root), tmp_path / "other")
    assert films.image.tolist() == named.image.tolist()
    assert films.label[0, 0] == 1


def test_a_label_of_a_study_is_that_of_its_films(root: Path, tmp_path: Path):
    (root / "more").write_bytes(
        archive_film(50, StudyInstanceUID="1.2.4", PatientID="P1")
    )  # the study of film 4
    studies = [f"1.2.{number}" for number in range(FILMS)]
    source = table(root, StudyInstanceUID=studies, Mass=[int(n == 4) for n in range(FILMS)])
    films = read(source, tmp_path)
    assert len(films) == FILMS + 1
    assert films.label[:, 0].sum() == 2
    with pytest.raises(ValueError, match=r"a study is listed several times \(lines 2, 3\)"):
        read(table(root, StudyInstanceUID=["1.2.4"] * 2, Mass=[0, 1]), tmp_path / "other")


def test_a_column_is_named_by_the_protocol(root: Path, tmp_path: Path):
    names = [f"1.2.{number}.1" for number in range(FILMS)]
    source = table(root, uid=names, SOPInstanceUID=names[::-1], Mass=[1] + [0] * (FILMS - 1))
    films = read(source.model_copy(update={"image_column": "uid"}), tmp_path)
    assert films.image[0].startswith(read_key(key_file("")).pseudonym("film", "1.2.0.1"))


def test_what_is_left_out_is_counted(root: Path, tmp_path: Path, capsys):
    (root / "copy").write_bytes(archive_film(3))
    (root / "knee").write_bytes(archive_film(50, BodyPartExamined="KNEE", PatientAge="999Y"))
    (root / "old").write_bytes(archive_film(51, PatientAge="130Y"))
    (root / "unlabelled").write_bytes(archive_film(52))
    (root / "notes.txt").write_text("")
    names = ["1.2.3.1", "1.2.50.1", "1.2.51.1", "none"]
    source = table(root, SOPInstanceUID=names, Mass=[0, 1, 1, 1])
    films = read(source.model_copy(update={"allow_missing": True}), tmp_path)
    steps = dict(zip(films.reading["step"], films.reading["films"], strict=True))
    assert {
        step.partition(":")[0]: count for step, count in steps.items() if "left" not in step
    } == {
        "files below the root": FILMS + 5,
        "no DICOM file": 1,
        "rows of the label table without a film": 1,
        "without a row in the label table": FILMS,
        "age impossible": 1,
        "in the label files": 2,
    }
    assert {step: count for step, count in steps.items() if "left" in step} == {
        "left out: not of the chest: BodyPartExamined (0018,0015) is another part": 1,
        "left out: the same SOPInstanceUID (0008,0018) again": 1,
        "labelled, and left out: not of the chest: BodyPartExamined (0018,0015) is another part": 1,
    }
    assert (tmp_path / "run" / "manifest" / "reading.csv").read_text().count(".0") == 0
    assert len(films) == 2
    assert "2 labelled films" in capsys.readouterr().err


def test_a_broken_copy_hides_no_labelled_film(root: Path, tmp_path: Path):
    (root / "a-cut").write_bytes(archive_film(3)[:-100])
    films = read(by_film(root), tmp_path)
    assert len(films) == FILMS
    assert Path(films.facts["path"].iloc[3]).read_bytes() == archive_film_at(root, 3)


def test_rows_without_films_stop_a_protocol_that_does_not_allow_them(root: Path, tmp_path: Path):
    source = table(root, SOPInstanceUID=["1.2.3.1", MARK], Mass=[0, 1])
    with pytest.raises(ValueError, match=r"1 of 2 rows fits no film below .* \(line 3\)") as error:
        read(source, tmp_path)
    assert MARK not in str(error.value)
    source = table(root, SOPInstanceUID=["1.2.3.1", "patient1/IM3"], Mass=[0, 1])
    with pytest.raises(ValueError, match=r"several rows label one film \(lines 2, 3\)"):
        read(source, tmp_path)


@pytest.mark.parametrize("grouped", [False, True])
def test_films_without_a_patient_are_refused_or_grouped_by_study(
    root: Path, tmp_path: Path, grouped: bool
):
    for number in (50, 51):
        named = {"PatientID": "", "StudyInstanceUID": "1.2.50"}
        (root / f"more{number}").write_bytes(archive_film(number, **named))
    names = ["1.2.0.1", "1.2.50.1", "1.2.51.1"]
    source = table(root, SOPInstanceUID=names, Mass=[0, 1, 0])
    source = source.model_copy(update={"group_by_study": grouped})
    if grouped:
        films = read(source, tmp_path)
        assert films.patient[1] == films.patient[2] != films.patient[0]
        return
    with pytest.raises(ValueError, match=r"2 of 3 .*no PatientID \(0010,0020\).*group_by_study"):
        read(source, tmp_path)


def test_a_film_without_a_patient_is_of_its_study_s(root: Path, tmp_path: Path):
    (root / "more").write_bytes(archive_film(50, PatientID="", StudyInstanceUID="1.2.4"))
    names = ["1.2.3.1", "1.2.50.1", "1.2.0.1"]  # film 4 of patient 1 states whose the study is
    source = table(root, SOPInstanceUID=names, Mass=[0, 1, 0])
    films = read(source.model_copy(update={"group_by_study": True}), tmp_path)
    assert films.patient[0] == films.patient[1] != films.patient[2]


def test_patients_that_may_be_one_are_counted(root: Path, tmp_path: Path, capsys):
    alike = (
        {"PatientID": "p01"},
        {"IssuerOfPatientID": "A", "PatientID": "P1"},
        {"PatientID": "P10"},
    )
    for number, elements in enumerate(alike, start=50):
        (root / f"more{number}").write_bytes(archive_film(number, **elements))
    step = "of a PatientID that is another's but for its issuer, leading zeros or capitals"
    films = read(by_film(root), tmp_path)
    steps = dict(zip(films.reading["step"], films.reading["films"], strict=True))
    assert steps[step] == 3 + 2  # films 3 to 5 are of P1
    assert f"{step}: 5" in capsys.readouterr().err


def test_ages_above_the_cap_become_it(root: Path, tmp_path: Path):
    (root / "old").write_bytes(archive_film(50, PatientAge="097Y"))
    source = table(root, SOPInstanceUID=["1.2.0.1", "1.2.50.1"], Mass=[0, 1])
    assert read(source, tmp_path).facts["age"].tolist() == [50, 97]
    capped = source.model_copy(update={"cap_age": 89})
    assert read(capped, tmp_path / "other").facts["age"].tolist() == [50, 89]


@pytest.mark.parametrize("name", ["1.2.{1}.1", "patient{0}/IM{1}", "{2}"])
def test_lists_name_films_as_the_table_may(root: Path, tmp_path: Path, name: str, capsys):
    def write(file: str, numbers: list[int], *more: str) -> str:
        named = [name.format(n // 3, n, pseudonyms[n]) for n in numbers]
        (tmp_path / file).write_text("\n".join([*named, *more]))
        return str(tmp_path / file)

    source = by_film(root)
    pseudonyms = read(source, tmp_path / "all").image.tolist()
    source = source.model_copy(update={"exclude": write("exclude.txt", [0, 1, 2])})
    films = read(source, tmp_path)
    assert films.image.tolist() == pseudonyms[3:]
    parts = {part: [3 + 3 * k, 4 + 3 * k, 5 + 3 * k] for k, part in enumerate(PARTS)}
    lists = {part: write(part, numbers) for part, numbers in parts.items()}
    lists["test"] = write("test", parts["test"], MARK)
    choices = Split.model_validate({"method": "lists", "lists": lists})
    part = split(films, choices=choices, root=root, place=source)
    assert part.tolist() == [one for one in PARTS for _ in range(3)]
    assert "1 of 4 names is no film of the run (name 4 of the list, …)" in capsys.readouterr().err


def test_a_list_s_names_are_in_no_message(root: Path, tmp_path: Path):
    (tmp_path / "exclude.txt").write_text(f"1.2.0.1\n{MARK}\n")
    with pytest.raises(ValueError, match=r"1 of 2 names .*such as 'name 2 of the list'") as error:
        read(by_film(root, exclude=str(tmp_path / "exclude.txt")), tmp_path)
    assert MARK not in str(error.value)


# --- the key and the links ------------------------------------------------------------------


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path):
    file = tmp_path / "somewhere" / "key"
    key = make_key(file)
    assert (file.stat().st_mode & 0o777, file.stat().st_size) == (0o600, 32)
    assert make_key(file) == key != fleeting_key()
    assert repr(key) == "PseudonymKey()"
    file.chmod(0o644)
    with pytest.raises(ValueError, match=r"found mode 0644, expected a key .* chmod 600"):
        read_key(file)
    file.write_bytes(b"short")
    file.chmod(0o600)
    with pytest.raises(ValueError, match="found 5 bytes, expected a key"):
        read_key(file)
    with pytest.raises(ValueError, match="no such file; expected a key"):
        read_key(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be read \(Not a directory\); expected a key"):
        make_key(tmp_path / "file" / "key")


def test_a_user_without_a_home_gets_the_advice_to_set_data_key(tmp_path: Path, monkeypatch):
    def unknown(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(
        ValueError, match=r"no home folder of this user .*: set data\.key to a file"
    ):
        key_file("")
    assert key_file(str(tmp_path / "key")) == tmp_path / "key"


def test_a_key_is_whole_as_soon_as_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file, draw = tmp_path / "keys" / "key", secrets.token_bytes

    def another_first(count: int) -> bytes:
        assert not file.exists()
        monkeypatch.setattr(secrets, "token_bytes", draw)
        first.append(make_key(file))
        return draw(count)

    first = list[PseudonymKey]()
    monkeypatch.setattr(secrets, "token_bytes", another_first)
    assert make_key(file) == first[0]
    assert [one.name for one in file.parent.iterdir()] == ["key"]


def test_a_key_is_flushed_before_and_after_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is lost with a key is all that was prepared with it."""
    order, flush, link = list[str](), os.fsync, os.link

    def flushed(number: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "key")
        flush(number)

    def linked(was: str, now: Path) -> None:
        order.append("name")
        link(was, now)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "link", linked)
    make_key(tmp_path / "key")
    assert order == ["key", "name", "folder"]


def test_a_run_refuses_another_key_and_an_absent_one(root: Path, tmp_path: Path):
    source = by_film(root)
    films = read(source, tmp_path)
    secret = key_file("").read_bytes()
    assert not any(secret in file.read_bytes() for file in written(tmp_path / "run"))
    key_file("").rename(tmp_path / "kept")
    with pytest.raises(ValueError, match=r"pseudonym\.key: no such file; .* bring it back"):
        read(source, tmp_path)
    make_key(key_file(""))
    with pytest.raises(ValueError, match=r"made from other inputs \(key of pseudonyms: was "):
        read(source, tmp_path)
    there = source.model_copy(update={"key": str(tmp_path / "kept")})
    assert read(there, tmp_path).image.tolist() == films.image.tolist()


def test_a_key_within_the_run_is_refused(root: Path, tmp_path: Path):
    inside = by_film(root, key=str(tmp_path / "run" / "key"))
    with pytest.raises(ValueError, match="lies within the run: expected a file outside"):
        read(inside, tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "protocol.toml").write_text("")
    with pytest.raises(ValueError, match="lies within the run: expected a file outside"):
        read(inside, tmp_path / "run" / "external")  # of an external test: run/external/run
    read(by_film(root), tmp_path)
    with pytest.raises(ValueError, match="lies within the run: expected a file outside"):
        list_films(inside, findings=("Mass",), split=lambda films, _: films.patient)
    assert not (tmp_path / "run" / "key").exists()


def test_a_key_or_links_below_a_root_are_refused(root: Path, tmp_path: Path):
    below = by_film(root, key=str(root / "keys" / "key"))
    (tmp_path / "other" / "key.links").mkdir(parents=True)
    linked = by_film(tmp_path / "other" / "key.links", key=str(tmp_path / "other" / "key"))
    csv = {"source": "csv", "labels": "labels.csv", "root": str(tmp_path / "other")}
    beside = by_film(root, key=str(tmp_path / "other" / "key"))
    for source in (below, linked, Source.model_validate(csv | {"also": [beside]})):
        with pytest.raises(ValueError, match=r"lies below data\.root, .*: expected a file outside"):
            read_sources(source, findings=("Mass",), out=tmp_path / "run" / "manifest")
    with pytest.raises(ValueError, match=r"lies below data\.root"):
        list_films(below, findings=("Mass",), split=lambda films, _: films.patient)
    assert not (root / "keys").exists()


def test_a_folder_that_is_there_keeps_its_rights(tmp_path: Path):
    root, keys = tmp_path / "films", tmp_path
    write_archive(root, FILMS)
    for folder in (root, keys):
        folder.chmod(0o755)
    films = read(by_film(root, key=str(keys / "key")), tmp_path)
    assert {folder.stat().st_mode & 0o777 for folder in (root, keys)} == {0o755}
    links = Path(films.facts["path"].iloc[0]).parent
    assert links.parent == keys / "key.links"
    assert {folder.stat().st_mode & 0o777 for folder in (links, links.parent)} == {0o700}


def test_a_run_without_root_and_key_keeps_its_films(root: Path, tmp_path: Path):
    source = by_film(root)
    films = read(source, tmp_path)
    root.rename(tmp_path / "away")
    key_file("").unlink()
    again = films_found(source, tmp_path / "run" / "manifest")
    assert again.image.tolist() == again.facts["path"].tolist() == films.image.tolist()


def test_a_run_holds_no_path_of_a_film(root: Path, tmp_path: Path):
    films = read(by_film(root), tmp_path)
    for file in written(tmp_path / "run"):
        assert b"patient0" not in file.read_bytes()
    links = Path(films.facts["path"].iloc[0]).parent
    assert links.is_relative_to(key_file("").parent)
    assert links.parent.stat().st_mode & 0o777 == 0o700


def test_films_that_have_moved_are_found_by_their_headers(root: Path, tmp_path: Path):
    source = by_film(root)
    films = read(source, tmp_path)
    (root / "patient0").rename(root / "elsewhere")
    assert not Path(films.facts["path"].iloc[0]).is_file()
    assert read(source, tmp_path).facts["path"].tolist() == films.facts["path"].tolist()
    assert Path(films.facts["path"].iloc[0]).is_file()
    root.rename(tmp_path / "moved")
    moved = read(source.model_copy(update={"root": str(tmp_path / "moved")}), tmp_path)
    assert all(Path(path).is_file() for path in moved.facts["path"].tolist())
    assert moved.image.tolist() == films.image.tolist()


def test_a_disk_without_links_is_said(root: Path, tmp_path: Path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    with pytest.raises(ValueError, match="no links to films can be made there"):
        read(by_film(root), tmp_path)


def test_two_runs_may_link_the_same_films_at_once(root: Path, tmp_path: Path, monkeypatch):
    source, replace, runs = by_film(root), os.replace, ["two", "one"]

    def another_first(was: str | Path, now: str | Path) -> None:
        if Path(was).is_symlink() and len(runs) == 1:
            read(source, tmp_path / runs.pop())
        replace(was, now)

    monkeypatch.setattr(os, "replace", another_first)
    films = read(source, tmp_path / runs.pop())
    assert not runs
    links = [Path(path) for path in films.facts["path"].tolist()]
    assert sorted(links[0].parent.iterdir()) == sorted(links)


def test_an_archive_stands_beside_another_source(root: Path, tmp_path: Path):
    (tmp_path / "other").mkdir()
    for name in "ab":
        cv2.imwrite(str(tmp_path / "other" / f"{name}.png"), np.zeros((40, 40), np.uint8))
    (tmp_path / "other" / "labels.csv").write_text("image,patient,Mass\na,1,0\nb,2,1\n")
    place = {"source": "csv", "labels": "labels.csv", "root": str(tmp_path / "other")}
    both = Source.model_validate(place | {"also": [by_film(root)]})
    out = tmp_path / "run" / "manifest"
    films = read_sources(both, findings=("Mass",), out=out)
    assert len(films) == FILMS + 2
    assert all(Path(path).is_file() for path in films.facts["path"].tolist())
    assert not any(b"patient0" in file.read_bytes() for file in written(tmp_path / "run"))
    shutil.rmtree(key_file("").parent / "pseudonym.key.links")
    again = read_sources(both, findings=("Mass",), out=out)
    assert all(Path(path).is_file() for path in again.facts["path"].tolist())


def written(folder: Path) -> list[Path]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    return files

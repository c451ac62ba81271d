"""Where films lie is no part of a run: they move, it moves, and nothing is computed again."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from lucency.config.protocol import parse_protocol, protocol_text, read_protocol
from lucency.core.manifest import load_prepared
from lucency.data.sources import list_films
from lucency.pipeline import stages
from lucency.pipeline.run import Run, command_of, open_run, open_run_folder
from lucency.pipeline.run_audit import draw_review

PROTOCOL = """
name = "moved"
findings = ["Mass"]
[data]
source = "csv"
root = "films"
labels = "labels.csv"
exclude = "exclude.txt"
[preparation]
size = 32
[[network]]
name = "test_resnet"
"""
ROWS = "".join(f"a/f{film}.png,{film},{film % 2}\n" for film in range(6))
TABLE = f"image,patient,Mass\n{ROWS}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a protocol, whose films are prepared in runs/one; the working folder."""
    monkeypatch.setattr(stages, "check_networks", lambda run: None)
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    (home / "films" / "a").mkdir(parents=True)
    for film in range(6):
        cv2.imwrite(str(home / f"films/a/f{film}.png"), np.full((40, 40), 30 * film, np.uint8))
    (home / "films" / "labels.csv").write_text(TABLE)
    (home / "exclude.txt").write_text("f5\n")
    (home / "p.toml").write_text(PROTOCOL)
    stages.prepared(run_of(home))
    return home


def run_of(home: Path, *changes: str, out: str = "runs/one") -> Run:
    return open_run(read_protocol(home / "p.toml", changes=changes), out=out, workers=1)


def pixels(out: str = "runs/one") -> bytes:
    return np.asarray(load_prepared(Path(out) / "prepared").pixels).tobytes()


def test_places_of_a_protocol_begin_in_its_folder_and_a_run_keeps_them_absolute(place: Path):
    kept = open_run_folder(Path("runs/one")).protocol.data
    assert kept.root == str(place / "films")
    assert kept.exclude == str(place / "exclude.txt")
    assert stages.prepared(open_run_folder(Path("runs/one"))).manifest.image.tolist() == [
        f"a/f{film}.png" for film in range(5)
    ]


def test_moved_films_leave_a_run_as_it_is_and_are_named_once(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    before = pixels()
    (place / "films").rename("elsewhere")
    (place / "exclude.txt").rename("excluded.txt")
    for run in (run_of(place), open_run_folder(Path("runs/one"))):
        assert len(stages.prepared(run).manifest) == 5
    said = capsys.readouterr().err
    assert f"data.root is '{place / 'films'}', which is no folder: films and labels stay" in said
    assert (
        "lucency run runs/one/protocol.toml --out runs/one --until prepare --set data.root=" in said
    )
    with pytest.raises(ValueError, match="which is no folder"):
        run_of(place, "data.root=nowhere")

    run_of(place, "data.root=elsewhere", "data.exclude=excluded.txt")
    capsys.readouterr()
    for run in (open_run_folder(Path("runs/one")), run_of(place)):
        path = stages.prepared(run).manifest.facts["path"].tolist()
        assert [Path(file) for file in path] == [
            Path.cwd() / f"elsewhere/a/f{n}.png" for n in range(5)
        ]
    said = capsys.readouterr().err
    assert said.count("is not there, taken is the last one") == 2
    assert "no folder" not in said
    assert pixels() == before


def test_labels_with_a_place_of_their_own_need_no_films(place: Path):
    shutil.copy(place / "films" / "labels.csv", "elsewhere.csv")
    (place / "films").rename("films-of-another-day")
    table = str(Path("elsewhere.csv").absolute())
    protocol = read_protocol(place / "p.toml", changes=[f"data.labels={table}"])
    films, _ = list_films(protocol.data, findings=("Mass",), split=lambda films, _: films.image)
    assert len(films) == 5


def test_films_that_are_needed_and_gone_are_an_error_that_says_how(place: Path):
    (place / "films").rename("elsewhere")
    with pytest.raises(ValueError, match=r"films are not there .*--set data.root=NEW"):
        draw_review(Path("runs/one"), errors=None, films=2, seed=0, out=Path("review"))
    shutil.rmtree("runs/one/prepared")
    with pytest.raises(ValueError, match=r"films', which is no folder; .*--set data.root=NEW"):
        stages.prepared(open_run_folder(Path("runs/one")))
    stages.prepared(run_of(place, "data.root=elsewhere"))
    draw_review(Path("runs/one"), errors=None, films=2, seed=0, out=Path("review"))
    assert Path("review/form.csv").is_file()


def test_a_changed_table_elsewhere_is_refused_and_the_place_not_kept(place: Path):
    shutil.copytree(place / "films", "copy")
    kept = Path("runs/one/protocol.toml").read_bytes()
    for file, text in (("copy/labels.csv", TABLE.replace("f0.png,0,0", "f0.png,0,1")),):
        Path(file).write_text(text)
    with pytest.raises(ValueError, match=r"manifest was made from other inputs \(labels: was"):
        run_of(place, "data.root=copy")
    Path("other.txt").write_text("f4\n")
    with pytest.raises(ValueError, match=r"made from other inputs \(exclude: was"):
        run_of(place, "data.exclude=other.txt")
    assert Path("runs/one/protocol.toml").read_bytes() == kept


def test_a_label_file_of_another_name_and_films_in_other_folders_are_the_same(place: Path):
    before = pixels()
    (place / "films" / "labels.csv").rename(place / "films" / "renamed.csv")
    (place / "films" / "a").rename(place / "films" / "b")
    (place / "films" / "sub").mkdir()
    (place / "films" / "b").rename(place / "films" / "sub" / "a")
    made = stages.prepared(run_of(place, "data.labels=renamed.csv"))
    assert all(Path(file).is_file() for file in made.manifest.facts["path"])
    assert pixels() == before


@pytest.mark.parametrize("source", ["csv", "nih"])
def test_a_folder_that_is_not_mounted_is_no_other_folder(
    place: Path, source: str, capsys: pytest.CaptureFixture[str]
):
    nih = "".join(f"f{film}.png,{('Mass', 'No Finding')[film % 2]},0,{film}\n" for film in range(6))
    table = place / "films" / "Data_Entry_2017.csv"
    table.write_text(f"Image Index,Finding Labels,Follow-up #,Patient ID\n{nih}")
    changes = (f"data.source={source}", *(["data.labels="] if source == "nih" else []))
    stages.prepared(run_of(place, *changes, out="runs/two"))
    shutil.rmtree(place / "films")
    (place / "films").mkdir()
    capsys.readouterr()
    assert len(stages.prepared(open_run_folder(Path("runs/two"))).manifest) == 5
    assert f"no label file in {place / 'films'}: expected" in capsys.readouterr().err


def test_a_place_that_is_not_utf8_is_refused_before_a_run_is_written(place: Path):
    """A protocol with such a place could not be read back."""
    moved = place.with_name(os.fsdecode(b"home-\xff"))
    try:
        place.rename(moved)
    except OSError:
        pytest.skip("the file system takes names of UTF-8 alone: nothing to do")
    with pytest.raises(ValueError, match=r"home-\\udcff.*: found a name that is not UTF-8"):
        run_of(moved, out="runs/two")
    assert not Path("runs/two").exists()


def test_deleted_films_stay_as_prepared(place: Path, capsys: pytest.CaptureFixture[str]):
    (place / "films/a/f1.png").unlink()
    assert len(stages.prepared(run_of(place)).manifest) == 5
    assert "1 of 5 films is no longer below" in capsys.readouterr().err


def test_a_run_moves_and_is_read_from_any_folder(place: Path, monkeypatch: pytest.MonkeyPatch):
    before = pixels()
    Path("runs/one").rename("moved")
    monkeypatch.chdir(place / "films")
    run = open_run_folder(Path("../../moved"))
    assert Path(stages.prepared(run).manifest.facts["path"][0]).is_file()
    assert pixels("../../moved") == before
    again = open_run(read_protocol("../p.toml"), out="../../moved", workers=1)
    assert len(stages.prepared(again).manifest) == 5


def test_lists_of_a_split_are_its_inputs_and_may_go_with_the_films(place: Path):
    lists = place / "films" / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("f0\nf1\nf2\n")
    (lists / "test.txt").write_text("f4\n")
    named = 'split.lists={ train = "lists/train.txt", test = "lists/test.txt" }'
    changes = (named, "split.method=lists")
    made = stages.parts(run_of(place, *changes, out="runs/two"))
    assert sorted(made.tolist()) == ["apart", "test", "train", "train", "val"]
    (lists / "test.txt").write_text("f3\n")
    with pytest.raises(ValueError, match=r"made from other inputs.*lists"):
        stages.parts(run_of(place, *changes, out="runs/two"))
    (place / "films").rename("elsewhere")
    assert stages.parts(open_run_folder(Path("runs/two"))).tolist() == made.tolist()


@pytest.mark.parametrize("root", ["films", "nowhere"])
def test_other_labels_of_a_collection_are_no_other_place(place: Path, root: str):
    (place / "films" / "mimic-cxr-2.1.0-metadata.csv").write_text("dicom_id\n")
    choices = ("data.source=mimic-cxr", "data.exclude=", "data.labels=chexpert")
    run = run_of(place, *choices, out="runs/two")
    (run.out / "work").touch()
    before = (run.out / "protocol.toml").read_text()
    changes = (*choices[:2], "data.labels=negbio", f"data.root={root}")
    with pytest.raises(ValueError, match=r"data\.labels: was chexpert, now negbio"):
        run_of(place, *changes, out="runs/two")
    assert (run.out / "protocol.toml").read_text() == before


def test_a_run_of_before_trackers_opens_and_its_tracker_may_change(place: Path):
    stages.parts(run_of(place))
    file = Path("runs/one/protocol.toml")
    file.write_text(file.read_text().replace('tracker = "none"', "tensorboard = false"))
    assert open_run_folder(Path("runs/one")).protocol.training.tracker == "none"
    assert run_of(place, "training.tracker=mlflow").protocol.training.tracker == "mlflow"
    own = "network.0.training={tracker='wandb'}"
    assert run_of(place, own).protocol.training_of("test_resnet").tracker == "wandb"
    with pytest.raises(ValueError, match=r"training.epochs: was 10, now 3"):
        run_of(place, own, "training.epochs=3")


def test_the_command_that_goes_on_is_as_a_shell_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    study, one = tmp_path / "my study", {"name": "mine", "network": [{"name": "alexnet"}]}
    seed = study / "variants" / "base" / "seed-0"
    seed.mkdir(parents=True)
    other = {"name": "other", "training": {"epochs": 7}}
    for folder, choices in ((seed, one), (study, one | {"variant": [other]})):
        text = protocol_text(parse_protocol(choices, name="mine"))
        (folder / "protocol.toml").write_text(text)
    expected = f"lucency study ablation '{study}/protocol.toml' --out '{study}'"
    assert command_of(seed) == expected
    monkeypatch.chdir(seed)
    assert command_of(Path()) == expected
    monkeypatch.chdir(tmp_path)
    assert command_of(Path("my study")) == expected.replace(f"{tmp_path}/", "")
    assert command_of(seed.relative_to(tmp_path)) == expected.replace(f"{tmp_path}/", "")


def test_a_kept_protocol_of_another_version_is_named_with_what_helps(tmp_path: Path):
    (tmp_path / "protocol.toml").write_text("spin = 3")
    with pytest.raises(ValueError, match=r"use that version$"):
        open_run_folder(tmp_path)
    protocol = parse_protocol({"name": "mine", "network": [{"name": "alexnet"}]}, name="mine")
    with pytest.raises(ValueError, match=r"use that version, or choose another --out$"):
        open_run(protocol, out=tmp_path)

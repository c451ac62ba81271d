"""The balanced data set on disk: what another program reads there is what the plan says."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from lucency.config.protocol import parse_protocol
from lucency.core.manifest import NO_FINDING
from lucency.core.plan import clones, joined, originals
from lucency.data.labels import read_nih, read_official_lists
from lucency.data.sources import read_films
from lucency.pipeline import stages
from lucency.pipeline.export import file_names, write_balanced
from lucency.pipeline.run import Run, open_run

FINDINGS = ("Mass", "Nodule", "Edema", "Hernia")
FILMS = 60
BALANCES: dict[str, dict[str, Any]] = {
    "none": {},
    "ml-ros": {},
    "remedial": {"copies": "exact"},
    "partial": {"ratio": 2.0},
    "mlsmote": {},
}


def write_films(root: Path, *, image: list[str], label: np.ndarray, patient: list[str]) -> None:
    """Write noise films and their table below `root`/source, away from what is made of them."""
    root = root / "source"
    noise = np.random.default_rng(3).integers(0, 256, (len(image), 48, 40), dtype=np.uint8)
    for name, film in zip(image, noise, strict=True):
        (root / "films" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "films" / f"{name}.png"), film)
    about = pd.DataFrame({"image": image, "patient": patient})
    table = pd.DataFrame(label, columns=list(FINDINGS[: label.shape[1]]))
    pd.concat([about, table], axis=1).to_csv(root / "labels.csv", index=False)


def labels() -> np.ndarray:
    """Return labels of which Hernia is rare, and on a film with both others."""
    drawn = np.random.default_rng(1).random((FILMS, 4)) < (0.6, 0.4, 0.3, 0.08)
    drawn[:3] = [[1, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]]
    return drawn.astype(np.float32)


def run_of(root: Path, *, method: str, findings: tuple[str, ...] = FINDINGS, **choices: Any) -> Run:
    choices = {
        "name": "toys",
        "findings": findings,
        "data": {"source": "csv", "root": str(root / "source"), "labels": "labels.csv"},
        "preparation": {"size": 32},
        "balance": {"method": method, **choices},
        "network": [{"name": "test_convnext"}],
    }
    protocol = parse_protocol(choices, name="toys")
    return open_run(protocol, out=root / f"run-{method}", workers=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    image = [f"f{film:03d}" for film in range(FILMS)]
    patient = [str(film // 2) for film in range(FILMS)]
    write_films(folder, image=image, label=labels(), patient=patient)
    return folder


@pytest.fixture(scope="module")
def balanced(root: Path) -> Callable[[str], tuple[Run, Path]]:
    """Return a function of a method that gives its run and the folder written of it."""
    made: dict[str, tuple[Run, Path]] = {}

    def write(method: str) -> tuple[Run, Path]:
        if method not in made:
            run = run_of(root, method=method, **BALANCES[method])
            made[method] = run, write_balanced(run, out=root / f"films-of-{method}")
        return made[method]

    return write


Balanced = Callable[[str], tuple[Run, Path]]


def pictures(folder: Path, names: np.ndarray) -> np.ndarray:
    paths = [str(folder / "images" / name) for name in names]
    return np.stack([cv2.imread(path, cv2.IMREAD_UNCHANGED) for path in paths])


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "Data_Entry_2017_v2020.csv", keep_default_na=False)


def times(folder: Path) -> dict[str, int]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


def test_file_names_are_apart_whatever_films_are_called():
    image = np.array(["a/b.png", "a-b.png", "a-b~0.png"])
    names = file_names(originals(np.zeros((3, 1), np.float32)), image).tolist()
    assert names == ["a-b~0.png", "a-b~1.png", "a-b~0~2.png"]


@pytest.mark.parametrize("method", BALANCES)
def test_the_reader_of_nih_gives_back_the_plan(balanced: Balanced, method: str):
    run, folder = balanced(method)
    plan, films = stages.plan(run), stages.prepared(run).manifest
    read = read_nih(folder, findings=FINDINGS)
    np.testing.assert_array_equal(read.label, plan.label)
    np.testing.assert_array_equal(read.patient, films.patient[plan.row])
    assert read.image.tolist() == file_names(plan, films.image).tolist()
    assert (read.facts["path"] != "").all()
    assert len(list((folder / "images").iterdir())) == len(plan)
    if method != "partial":
        assert (len(plan) > FILMS) == (method != "none")


def test_remedial_parts_the_labels_of_a_film_in_two(root: Path, balanced: Balanced):
    """Hernia, the rare one, stands alone in the copy; both halves are the labels of the film."""
    _, folder = balanced("remedial")
    read = read_nih(folder, findings=FINDINGS)
    told = dict(zip(read.image.tolist(), read.label, strict=True))
    own = pd.read_csv(root / "source" / "labels.csv").set_index("image")[list(FINDINGS)]
    parted = [name.removesuffix("-1.png") for name in told if name.endswith("-1.png")]
    assert parted
    for film in parted:
        common, rare = told[f"{film}.png"], told[f"{film}-1.png"]
        np.testing.assert_array_equal(common + rare, own.loc[film])
        assert [common[3], *rare[:3]] == [0, 0, 0, 0]
    assert any(told[f"{film}-1.png"][3] for film in parted)


@pytest.mark.parametrize("method", BALANCES)
def test_films_as_they_were_are_the_cache_s_pixels(balanced: Balanced, method: str):
    run, folder = balanced(method)
    plan, cache = stages.plan(run), stages.prepared(run)
    kept = plan.take(plan.copy == 0)
    shown = pictures(folder, file_names(kept, cache.manifest.image))
    np.testing.assert_array_equal(shown, cache.pixels[kept.row])
    assert not np.array_equal(shown[0], shown[1])


def test_an_exact_copy_is_its_film_and_a_gentle_one_is_not(balanced: Balanced):
    for method, exact in (("remedial", True), ("ml-ros", False)):
        run, folder = balanced(method)
        plan, cache = stages.plan(run), stages.prepared(run)
        copied = plan.take(plan.copy > 0)
        shown = pictures(folder, file_names(copied, cache.manifest.image))
        same = [np.array_equal(*pair) for pair in zip(shown, cache.pixels[copied.row], strict=True)]
        assert len(same) > 0
        assert set(same) == {exact}


@pytest.mark.parametrize(("method", "recipe"), [("ml-ros", "gentle@1"), ("remedial", "none@1")])
def test_lineage_names_the_film_behind_a_copy(balanced: Balanced, method: str, recipe: str):
    run, folder = balanced(method)
    plan = stages.plan(run)
    table = table_of(folder)
    source = stages.prepared(run).manifest.image[plan.row]
    expected = [
        f"{film} {recipe}#{copy}" if copy else ""
        for film, copy in zip(source, plan.copy, strict=True)
    ]
    assert table["Lineage"].tolist() == expected
    assert (table["Lineage"] != "").any()


def test_lineage_of_a_mixed_film_says_how_to_mix_it_again(balanced: Balanced):
    run, folder = balanced("mlsmote")
    cache, table = stages.prepared(run), table_of(folder)
    row = {name: place for place, name in enumerate(cache.manifest.image)}
    mixed = table.loc[table["Lineage"] != ""]
    assert len(mixed) > 0
    for name, line in zip(mixed["Image Index"], mixed["Lineage"], strict=True):
        share, film, _, other, mate, _ = line.split()
        assert float(share) + float(other) == pytest.approx(1)
        assert name.startswith(f"{film}-")
        pixels = cache.pixels[[row[film], row[mate]]].astype(np.float64)
        expected = float(share) * pixels[0] + float(other) * pixels[1]
        shown = pictures(folder, np.array([name]))[0]
        assert np.abs(shown - expected).max() < 0.5 + 255 * 1e-4  # shares have four decimals


@pytest.mark.parametrize("method", ["ml-ros", "mlsmote"])
def test_parts_and_lists_say_the_same_and_hold_every_film_once(balanced: Balanced, method: str):
    run, folder = balanced(method)
    plan = stages.plan(run)
    part = pd.read_csv(folder / "part.csv")
    assert part["part"].tolist() == plan.part.tolist()
    assert part["image"].tolist() == table_of(folder)["Image Index"].tolist()
    train_val, test = read_official_lists(folder)
    assert [*train_val, *test] != []
    assert set(test) == set(part.loc[part["part"] == "test", "image"])
    assert set(train_val) == set(part.loc[part["part"] != "test", "image"])
    assert len(train_val) + len(test) == len(part)


def test_weights_are_the_plan_s(balanced: Balanced):
    run, folder = balanced("partial")
    weight = pd.read_csv(folder / "weights.csv")
    assert weight["image"].tolist() == table_of(folder)["Image Index"].tolist()
    np.testing.assert_allclose(weight[list(FINDINGS)], stages.plan(run).weight, rtol=1e-6)
    assert weight[list(FINDINGS)].nunique().max() > 1


def test_a_second_call_does_nothing_and_another_plan_is_refused(root: Path, balanced: Balanced):
    _, folder = balanced("ml-ros")
    before = times(folder)
    again = run_of(root, method="ml-ros")
    assert write_balanced(again, out=folder) == folder
    assert times(folder) == before
    other, _ = balanced("none")
    with pytest.raises(ValueError, match="was made from other inputs"):
        write_balanced(other, out=folder)
    assert times(folder) == before


def test_an_emptied_film_is_named(tmp_path: Path, root: Path, balanced: Balanced):
    _, folder = balanced("ml-ros")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    film = min((copy / "images").iterdir())
    film.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{film.name} was changed after it was written"):
        write_balanced(run_of(root, method="ml-ros"), out=copy)


def test_a_written_data_set_is_a_source_of_films_again(root: Path, balanced: Balanced):
    _, folder = balanced("ml-ros")
    choices = {"source": "nih", "root": str(folder)}
    protocol = parse_protocol(
        {"name": "again", "data": choices, "network": [{"name": "test_convnext"}]}, name="again"
    )
    found = read_films(protocol.data, findings=FINDINGS, out=root / "manifest-again")
    assert found.image.tolist() == table_of(folder)["Image Index"].tolist()


def test_labels_that_are_not_stated_are_refused_before_anything_is_written(tmp_path: Path):
    label = labels()
    label[5, 1] = label[7, 2] = np.nan
    image = [f"f{film:03d}" for film in range(FILMS)]
    write_films(tmp_path, image=image, label=label, patient=[str(n) for n in range(FILMS)])
    with pytest.raises(ValueError, match="2 labels are not stated") as refusal:
        write_balanced(run_of(tmp_path, method="none"), out=tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.glob("out*"))


def test_every_entry_has_a_file_name_of_its_film_and_its_number():
    label = np.zeros((2, 1), dtype=np.float32)
    plan = joined(originals(label), clones(label, np.array([1, 0, 1])))
    names = file_names(plan, np.array(["a.png", "deep/b.jpeg"]))
    assert names.tolist() == ["a.png", "deep-b.png", "deep-b-1.png", "a-1.png", "deep-b-2.png"]


# --- what is not as it should be yet


SHARED_NAMES = {
    "a number after a point": ["1.2.840.1", "1.2.840.2"],
    "a folder or a dash": ["a/1.png", "a-1.png"],
    "a copy or a film": ["1.png", "1-1.png"],
    "two kinds of file": ["a.png", "a.jpg"],
}


@pytest.mark.parametrize("case", SHARED_NAMES)
def test_no_two_entries_share_a_file_name(case: str):
    label = np.zeros((2, 1), dtype=np.float32)
    plan = joined(originals(label), clones(label, np.array([0])))
    assert len(set(file_names(plan, np.array(SHARED_NAMES[case])).tolist())) == len(plan)


def test_patients_with_names_are_read_back(tmp_path: Path):
    image = [f"f{film:03d}" for film in range(FILMS)]
    write_films(tmp_path, image=image, label=labels(), patient=[f"P{n // 2}" for n in range(FILMS)])
    run = run_of(tmp_path, method="none")
    read = read_nih(write_balanced(run, out=tmp_path / "out"), findings=FINDINGS)
    patient = stages.prepared(run).manifest.patient[stages.plan(run).row]
    np.testing.assert_array_equal(read.patient, patient)


def test_an_entry_told_nothing_is_not_told_no_finding(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A plan may tell training neither finding nor No Finding of an entry, as REMEDIAL does."""
    findings = ("Mass", NO_FINDING)
    table = pd.read_csv(root / "source" / "labels.csv")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "films").symlink_to(root / "source" / "films")
    table = table.assign(**{NO_FINDING: 1 - table["Mass"]})
    table.to_csv(tmp_path / "source" / "labels.csv", index=False)
    run = run_of(tmp_path, method="none", findings=findings)
    plan = stages.plan(run)
    told = replace(plan, label=np.zeros_like(plan.label))
    monkeypatch.setattr("lucency.pipeline.export.plan", lambda run: told)
    with pytest.raises(ValueError, match="neither a finding nor No Finding"):
        write_balanced(run, out=tmp_path / "out")

"""`lucency check`: mistakes are found on protocols, lists and tables; honest ones stand."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lucency.audit.checks import run_checks, split_checks
from lucency.audit.checks.issue import count_serious, no_scores
from lucency.audit.checks.run_checks import (
    NUMBER_OF_CHECKS,
    check_lists,
    check_protocol,
    check_run,
    split_table_of,
)
from lucency.config.protocol import read_protocol
from lucency.config.sections import Source
from lucency.core.plan import clones, joined, originals
from lucency.core.predictions import Predictions
from lucency.data import sources
from lucency.data.labels import read_nih
from lucency.data.sources import list_films, read_films
from lucency.phantom.dataset import list_phantom, write_phantom
from toys import toy_films

PROTOCOLS = Path(__file__).resolve().parents[2] / "protocols"
REAL = (
    "chestxray14",
    "chestxray8",
    "sample",
    "sample-boxes",
    "ablation-sample",
    "preparation-sample",
    "clahe-sample",
    "synthensemble",
    "mobilelungnetv2",
    "thakur",
    "lungnet22",
    "study",
    "study-sample",
)  # all 112,120 rows are read
FLAWED = ("reference", "reference-alexnet", "reference-rows", "reference-sample")
SLOW = {True: [pytest.mark.slow], False: []}
HONEST = (
    *REAL, "demo", "quick", "seeing", "noise", "shortcut", "ablation-balance", "leak", "external",
    "preparation-phantom", "sweep", "abstain",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _label_files_are_read_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_checks, "read_labelled", cache(run_checks.read_labelled))
        patch.setattr(sources, "read_nih_tables", cache(sources.read_nih_tables))
        yield


def _check(name, shared, *changes):
    root = (f"data.root={shared / 'nih'}",) if name in (*REAL, *FLAWED) else ()
    file = PROTOCOLS / f"{name}.toml"
    return check_protocol(read_protocol(file, changes=(*root, *changes)))


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW[n in REAL]) for n in HONEST])
def test_the_honest_protocols_raise_no_alarm(name, shared):
    assert [one for one in _check(name, shared) if one.severity == "serious"] == []


def test_the_honest_protocols_are_all_there():
    assert {file.stem for file in PROTOCOLS.glob("*.toml")} == {*HONEST, *FLAWED}


@pytest.mark.slow  # reads all 112,120 rows
@pytest.mark.parametrize("name", FLAWED)
def test_the_published_scheme_is_found_out(name, shared):
    found = {one.check for one in _check(name, shared) if one.severity == "serious"}
    assert found == {"patients_on_two_sides", "copies_on_two_sides", "resampled_test"}


@pytest.mark.slow  # reads all 112,120 rows
def test_a_split_by_image_leaks_as_published(shared):
    """Facts, evaluation.md: 81.7 % of test images leak."""
    found = _check("chestxray14", shared, "split.method=image")
    assert [one.check for one in found] == ["patients_on_two_sides"] * 3
    assert found[1].count / 16_818 == pytest.approx(0.817, abs=0.005)


@pytest.mark.slow  # reads all 112,120 rows
def test_the_official_lists_are_clean(shared):
    nih = shared / "nih"
    lists = {"train": nih / "train_val_list.txt", "test": nih / "test_list.txt"}
    assert check_lists(lists, labels=nih / "Data_Entry_2017_v2020.csv") == []


@pytest.mark.slow  # reads all 112,120 rows
def test_the_community_lists_are_recognised(shared):
    """Facts, chestxray14.md: 17,920 official test images and 606 box images in their training."""
    nih = shared / "nih"
    lists = {part: nih / "community" / f"{part}.txt" for part in ("train", "val", "test")}
    found = check_lists(lists, labels=nih / "Data_Entry_2017_v2020.csv")
    assert [one.check for one in found] == ["community_lists", "box_images_in_training"]
    assert "17,920 train films are on NIH's test list" in found[0].message
    assert found[1].message.startswith("606 of 880 films with boxes")


@pytest.mark.slow  # reads all 112,120 rows
def test_zech_s_test_films_against_the_official_lists(shared):
    nih = shared / "nih"
    lists = {"train": nih / "train_val_list.txt", "test": nih / "zech" / "preds.csv"}
    found = check_lists(lists, labels=nih / "Data_Entry_2017_v2020.csv")
    counts = {one.check: one.count for one in found if one.severity == "serious"}
    assert counts == {"patients_on_two_sides": 17_220, "pictures_on_two_sides": 17_220}


def test_films_without_a_label_have_their_patient_from_the_name(tmp_path):
    (tmp_path / "labels.csv").write_text("image,patient,Mass\n00000007_000.png,7,1\nz.png,9,0\n")
    (tmp_path / "train.txt").write_text("00000007_000.png\n")
    (tmp_path / "test.txt").write_text("00000007_003.png\nz.png\nstranger.png\n")
    lists = {part: tmp_path / f"{part}.txt" for part in ("train", "test")}
    counts = {one.check: one.count for one in check_lists(lists, labels=tmp_path / "labels.csv")}
    assert counts == {"patients_on_two_sides": 1, "unlabelled_rows": 2}


def test_a_mixed_film_stands_with_both_its_parents():
    films = toy_films(4)
    plan = joined(originals(films.manifest.label), clones(films.manifest.label, np.array([0])))
    mix, mate, part = plan.mix.copy(), plan.mate.copy(), plan.part.copy()
    mix[4], mate[4], part[3] = 0.5, 3, "test"
    mixed = replace(plan, mix=mix, mate=mate, part=part)
    protocol = read_protocol(PROTOCOLS / "demo.toml")
    image = films.manifest.image
    table = split_table_of(mixed, films=films.manifest, listed=image, protocol=protocol)
    assert table.image.tolist() == [*image, f"{image[0]}#1", f"{image[3]}#mate-of-4"]
    found = [one.check for one in split_checks.check_split(table)]
    assert "copies_on_two_sides" in found


def test_phantoms_are_listed_as_they_would_be_drawn(tmp_path):
    knobs = {"films": 30, "seed": 5, "label_noise": 0.2}
    (tmp_path / "drawn").mkdir()
    (tmp_path / "listed").mkdir()
    write_phantom(tmp_path / "drawn", size=32, shortcut=0.4, **knobs)
    list_phantom(tmp_path / "listed", **knobs)
    drawn, listed = (read_nih(tmp_path / name) for name in ("drawn", "listed"))
    np.testing.assert_array_equal(drawn.image, listed.image)
    np.testing.assert_array_equal(drawn.patient, listed.patient)
    np.testing.assert_array_equal(drawn.label, listed.label)
    for name in ("train_val_list.txt", "test_list.txt"):
        texts = [(tmp_path / place / name).read_text() for place in ("drawn", "listed")]
        assert texts[0] == texts[1]


def test_excluded_films_are_gone_from_the_list_and_from_disk(tmp_path):
    write_phantom(tmp_path, films=24, size=32)
    whole = read_nih(tmp_path)
    (tmp_path / "out.txt").write_text("\n".join(whole.image[:5]))
    place = Source(source="nih", root=str(tmp_path), exclude=str(tmp_path / "out.txt"))
    films, _ = list_films(place, findings=whole.findings, split=lambda f, _: f.image)
    read = read_films(place, findings=whole.findings, out=tmp_path / "manifest")
    for found in (films, read):
        np.testing.assert_array_equal(found.image, whole.image[5:])
        assert found.origin.endswith("5 excluded by a list")
    (tmp_path / "out.txt").write_text("stranger.png")
    with pytest.raises(ValueError, match=r"1 of 1 names in .* are no film"):
        list_films(place, findings=whole.findings, split=lambda f, _: f.image)


def test_one_picture_under_two_names_is_found_in_a_run():
    films = toy_films(40)
    pixels = np.array(films.pixels)
    pixels[39] = pixels[0]
    part = np.repeat(["train", "val", "test"], [20, 10, 10])
    plan = replace(originals(films.manifest.label), part=part)
    found = check_run(
        read_protocol(PROTOCOLS / "demo.toml"),
        prepared=replace(films, pixels=pixels),
        plan=plan,
        missing=[],
        predictions=[_predictions(films, part)],
        thresholds=pd.DataFrame({"network": [], "split": []}),
        scores=no_scores(),
    )
    same = [one for one in found if one.check == "near_identical_pictures"]
    image = films.manifest.image
    assert [one.examples for one in same] == [(f"{image[39]} = {image[0]}",)]


def _predictions(films, part):
    manifest = films.manifest
    logit = np.random.default_rng(0).normal(size=manifest.label.shape) + 3 * manifest.label
    return Predictions(
        network="net",
        split="0123",
        findings=manifest.findings,
        image=manifest.image,
        patient=manifest.patient,
        part=part,
        label=manifest.label,
        logit=logit,
        feature=np.empty((len(manifest), 0), dtype=np.float32),
    )


def test_serious_complaints_are_counted():
    table = pd.DataFrame({"severity": ["serious", "note", "serious"]})
    assert count_serious(table) == 2


def test_documents_count_the_checks():
    root = Path(__file__).resolve().parents[2]
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert f"looks for {NUMBER_OF_CHECKS} mistakes" in readme
    assert f"| checks for leakage and wrong predictions | {NUMBER_OF_CHECKS} |" in readme
    for file in (root / "README.md", *(root / "docs").rglob("*.md")):
        counts = re.findall(r"\b(\d+) (?:checks|mistakes)\b", file.read_text(encoding="utf-8"))
        assert set(counts) <= {str(NUMBER_OF_CHECKS)}, file

"""Copies at the native size: the study's own order of steps, done by the libraries it used."""

from dataclasses import replace
from pathlib import Path

import albumentations
import cv2
import numpy as np
import pytest
from PIL import Image

from lucency.core.manifest import Preparation, Prepared
from lucency.core.plan import Plan, clones, followed_by, joined, originals
from lucency.core.stage import produce
from lucency.data.film_cache import prepare
from lucency.data.labels import read_nih
from lucency.models.augmentation import load_copies, make_copies, seed_of
from lucency.models.film_loader import Films
from lucency.phantom.dataset import write_phantom

FILMS, SIZE, SIDE, SEED = 6, 128, 48, 4
STUDY = Preparation(size=SIDE, brightness=5, interpolation="bicubic", clahe_tiles=4)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("films")
    write_phantom(folder, films=FILMS, size=SIZE, seed=1, label_noise=0.0, shortcut=0.0, workers=1)
    return prepare(read_nih(folder), preparation=STUDY, out=folder / "prepared", workers=1)


@pytest.fixture(scope="module")
def plan(prepared: Prepared) -> Plan:
    """Every film, two copies of the first three, and a copy of a copy."""
    label = prepared.manifest.label
    twice = np.repeat(np.arange(3, dtype=np.int64), 2)
    first = joined(originals(label), clones(label, twice, copies="reference@1"))
    again = clones(first.label, np.array([FILMS], dtype=np.int64), copies="reference@1")
    return followed_by(first, joined(originals(first.label), again))


def make(prepared: Prepared, plan: Plan, folder: Path, *, workers: int = 1) -> Prepared:
    folder.mkdir(exist_ok=True)
    about = {"seed": SEED, "folder": folder, "workers": workers, "progress": lambda *_: None}
    make_copies(prepared, plan=plan, **about)
    copies = plan.take(plan.copy > 0)
    return replace(prepared, copies=load_copies(folder, copies=copies, prepared=prepared))


def by_hand(path: str, image: str, links: list[str]) -> np.ndarray:
    """The study's notebooks: CLAHE, brightness, augmentation, and the size last."""
    grey = cv2.createCLAHE(3.0, (4, 4)).apply(cv2.imread(path, cv2.IMREAD_GRAYSCALE))
    grey = cv2.add(grey, np.array([5.0]))
    for link in links:
        steps = albumentations.Compose([
            albumentations.HorizontalFlip(p=0.5), albumentations.RandomRotate90(p=0.5),
            albumentations.VerticalFlip(p=0.5), albumentations.Sharpen(p=1.0),
        ])  # fmt: skip
        steps.set_random_seed(seed_of(SEED, image, link.rpartition("#")[2]))
        grey = steps(image=grey)["image"]
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def test_copies_are_the_study_s(prepared: Prepared, plan: Plan, tmp_path: Path) -> None:
    made = make(prepared, plan, tmp_path / "copies")
    films = Films(prepared=made, plan=plan, copies=SEED)
    path = prepared.manifest.facts["path"].tolist()
    lengths = set()
    for entry in range(len(plan)):
        row, transform = int(plan.row[entry]), str(plan.transform[entry])
        if not plan.copy[entry]:
            np.testing.assert_array_equal(films.picture(entry), prepared.pixels[row])
            continue
        links = transform.split(">")
        lengths.add(len(links))
        expected = by_hand(path[row], str(prepared.manifest.image[row]), links)
        np.testing.assert_array_equal(films.picture(entry), expected)
    assert lengths == {1, 2}
    late = Films(prepared=prepared, plan=plan, copies=SEED)
    copied = np.flatnonzero(plan.copy > 0).tolist()
    assert any((late.picture(one) != films.picture(one)).any() for one in copied)


def test_a_killed_call_is_continued(
    prepared: Prepared, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(prepared, plan, tmp_path / "whole")
    monkeypatch.setattr("lucency.data.film_cache.films_a_shard", lambda films, side: 2)

    def dies(done: int, total: int) -> None:
        if 0 < done < total:
            raise KeyboardInterrupt

    (tmp_path / "cut").mkdir()
    with pytest.raises(KeyboardInterrupt):
        make_copies(
            prepared, plan=plan, seed=SEED, folder=tmp_path / "cut", workers=1, progress=dies
        )
    assert len(list((tmp_path / "cut" / "shards").glob("*.json"))) == 1
    again = make(prepared, plan, tmp_path / "cut")
    np.testing.assert_array_equal(again.copies.pixels, whole.copies.pixels)


def test_a_film_that_is_gone_is_named(prepared: Prepared, plan: Plan, tmp_path: Path) -> None:
    films = prepared.manifest
    gone = films.facts.assign(path=str(tmp_path / "gone.png"))
    lost = replace(prepared, manifest=replace(films, facts=gone))
    with pytest.raises(ValueError, match=r"gone\.png: cannot be read.*mend it"):
        make(lost, plan, tmp_path / "copies")


def test_copies_are_a_stage_that_is_made_once(
    prepared: Prepared, plan: Plan, tmp_path: Path
) -> None:
    def write(folder: Path) -> None:
        make_copies(
            prepared, plan=plan, seed=SEED, folder=folder, workers=1, progress=lambda *_: None
        )

    copies, made = plan.take(plan.copy > 0), tmp_path / "copies"
    for _ in range(2):
        produce(made, inputs={"plan": "one"}, write=write)
        found = load_copies(made, copies=copies, prepared=prepared).pixels
    alone = make(prepared, plan, tmp_path / "alone").copies.pixels
    np.testing.assert_array_equal(found, alone)
    (made / "shards" / "00000.npy").unlink()
    with pytest.raises(ValueError, match=r"#1 in .*00000\.npy is not there: delete .*copies, and"):
        load_copies(made, copies=copies, prepared=prepared).pixels[0]

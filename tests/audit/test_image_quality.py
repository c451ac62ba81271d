"""Odd pictures: planted ones are found among real films, untouched ones left alone, measures exact.

What is planted is done to the film as it lies on disk, before CLAHE and resizing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from skimage import data

from lucency.audit.image_quality import (
    LISTED,
    PROBLEMS,
    inspect,
    look_at,
    problems_of,
    quality_table,
    switched_off,
)
from lucency.core.manifest import Manifest, Preparation, Prepared, empty_boxes
from lucency.data.images import read_grey
from lucency.data.preprocess import prepare_film

PREPARATION = Preparation(size=224)
PLANTED, FALSE_ALARMS = 0.05, 0.01
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Real:
    """Real films as they lie on disk, and prepared."""

    grey: list[np.ndarray]
    prepared: Prepared


def gather(shared: Path, *, step: int) -> Real:
    """Return every so many of the 1,297 films of 320 x 320 pixels."""
    files = sorted((shared / "nih" / "images-320").glob("*.png"))[::step]
    grey = [read_grey(file) for file in files]
    names = [file.name for file in files]
    manifest = Manifest(
        findings=(),
        image=np.array(names),
        patient=np.array([int(name[:8]) for name in names]),
        label=np.zeros((len(names), 0), np.float32),
        facts=pd.DataFrame({"path": names}),
        boxes=empty_boxes(),
        origin="real films",
    )
    pixels = np.stack([prepare_film(film, preparation=PREPARATION) for film in grey])
    nothing = pd.DataFrame({"image": [], "reason": []})
    kept = Prepared(manifest=manifest, preparation=PREPARATION, pixels=pixels, rejected=nothing)
    return Real(grey, kept)


@pytest.fixture(scope="module")
def some(shared: Path) -> Real:
    return gather(shared, step=4)


@pytest.fixture(scope="module")
def all_films(shared: Path) -> Real:
    return gather(shared, step=1)


def saved_again(film: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(generator.integers(50, 96))]
    smaller = cv2.resize(film, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    exposed = (film * generator.uniform(0.7, 1) + generator.uniform(0, 40)).clip(0, 255)
    ways = [
        film.copy(),
        np.asarray(cv2.imdecode(cv2.imencode(".jpg", film, quality)[1], 0)),
        cv2.resize(smaller, film.shape[::-1]),
        exposed.astype(np.uint8),
    ]
    return ways[generator.integers(len(ways))]


def without_picture(film: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    empty = np.full(film.shape, generator.integers(256), np.float64)
    noise = generator.normal(0, 3, film.shape)
    return [empty, empty + noise][generator.integers(2)].clip(0, 255).astype(np.uint8)


def in_a_frame(film: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    side = round(len(film) * np.sqrt(1 - generator.uniform(0.25, 0.5)))
    frame = np.full_like(film, generator.choice([0, 0, 20, 255]))
    top, left = generator.integers(0, len(film) - side + 1, 2)
    small = cv2.resize(film, (side, side), interpolation=cv2.INTER_AREA)
    frame[top : top + side, left : left + side] = small
    return frame


def no_chest(film: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return a part of a photograph or texture, or a tenth of the film."""
    if generator.random() < 0.5:
        top, left = generator.integers(0, 200, 2)
        return np.ascontiguousarray(film[top : top + 100, left : left + 100])
    picture = getattr(data, generator.choice(["camera", "coins", "moon", "page", "text", "brick",
        "grass", "gravel", "astronaut", "coffee", "cat", "rocket"]))()  # fmt: skip
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if picture.ndim == 3 else picture
    high, wide = (round(length * 0.8) for length in grey.shape)
    top, left = (int(generator.integers(length // 5)) for length in grey.shape)
    return np.ascontiguousarray(grey[top : top + high, left : left + wide])


def with_writing(film: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the film with a name in white, or in black on a white label."""
    text = "".join(generator.choice(list("ABCDEFGHKLMNPRSTUVX 0123456789"), 10))
    marked, size = film.copy(), generator.uniform(0.5, 1)
    (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    left = int(generator.integers(5, max(6, 310 - wide)))
    low = int(generator.integers(high + 10, 310))
    black = generator.random() < 0.5
    if black:
        marked[low - high - 5 : low + 5, left - 5 : left + wide + 5] = 255
    grey, thick = (0, 1) if black else (255, max(1, round(2 * size)))
    return cv2.putText(marked, text, (left, low), cv2.FONT_HERSHEY_SIMPLEX, size, grey, thick)


PLANTS: dict[str, Change] = {
    "duplicate": saved_again,
    "shared": saved_again,
    "blank": without_picture,
    "border": in_a_frame,
    "inverted": lambda film, _: 255 - film,
    "turned": lambda film, generator: np.rot90(film, generator.integers(1, 4)).copy(),
    "mirrored": lambda film, _: film[:, ::-1].copy(),
    "strange": no_chest,
    "writing": with_writing,
}
TOGETHER = (  # planted in one collection, each in other films
    ("duplicate", "blank", "inverted"),
    ("shared", "border", "turned"),
    ("mirrored", "strange", "writing"),
)
RECALL = {**dict.fromkeys(PLANTS, 0.95), "mirrored": 0.1, "strange": 0.85, "writing": 0.85}


def plant(
    real: Real, problems: tuple[str, ...], *, seed: int
) -> tuple[Prepared, dict[str, np.ndarray], np.ndarray]:
    """Return the films with each problem planted in 5 %, which should be found, and the untouched.

    A repeated film takes the picture of another one: as a further film of its patient or another's.
    """
    generator = np.random.default_rng(seed)
    films = real.prepared
    count = round(PLANTED * len(real.grey))
    order = generator.permutation(len(real.grey))
    pixels, patient = films.pixels.copy(), films.manifest.patient.copy()
    guilty, start = {}, 0
    for problem in problems:
        repeats = problem in ("duplicate", "shared")
        drawn = order[start : start + (2 * count if repeats else count)]
        start += len(drawn)
        chosen, source = drawn[:count], drawn[-count:]
        for row, film in zip(chosen.tolist(), source.tolist(), strict=True):
            changed = PLANTS[problem](real.grey[film], generator)
            pixels[row] = prepare_film(changed, preparation=PREPARATION)
            patient[row] = patient[film] if problem == "duplicate" else patient[row]
        later = {"duplicate": np.maximum(chosen, source), "shared": drawn}
        guilty[problem] = later.get(problem, chosen)
    manifest = replace(films.manifest, patient=patient)
    return replace(films, manifest=manifest, pixels=pixels), guilty, np.sort(order[start:])


def silent(done: int, films: int) -> None:
    assert 0 < done <= films


def found(
    real: Real, problems: tuple[str, ...], *, seed: int
) -> dict[str, tuple[float, float, pd.DataFrame]]:
    """Return recall, false alarms among the untouched, and the listed films, by problem."""
    films, guilty, rest = plant(real, problems, seed=seed)
    table = quality_table(inspect(films, progress=silent))
    image, found = films.manifest.image, {}
    for problem in problems:
        mine = table.loc[table["problem"] == problem]
        hit, false = (
            np.isin(image[rows], mine["image"]).mean() for rows in (guilty[problem], rest)
        )
        found[problem] = (float(hit), float(false), mine)
    return found


def test_every_problem_is_planted():
    assert set(PLANTS) == set(PROBLEMS)
    assert sorted(name for group in TOGETHER for name in group) == sorted(PROBLEMS)


@pytest.mark.parametrize("problems", TOGETHER, ids="-".join)
def test_planted_problems_are_found_and_named(some: Real, problems: tuple[str, ...]):
    for problem, (recall, false, mine) in found(some, problems, seed=0).items():
        assert recall >= RECALL[problem], problem
        assert false <= FALSE_ALARMS, problem
        assert tuple(mine.columns) == LISTED
        assert mine["value"].notna().all()
        assert (mine["reason"].str.len() > 10).all()


@pytest.mark.slow
@pytest.mark.parametrize("problems", TOGETHER, ids="-".join)
def test_planted_problems_are_found_among_all_real_films(
    all_films: Real, problems: tuple[str, ...]
):
    runs = [found(all_films, problems, seed=seed) for seed in range(3)]
    for problem in problems:
        recall, false = np.mean([run[problem][:2] for run in runs], axis=0)
        assert recall >= RECALL[problem], problem
        assert false <= FALSE_ALARMS, problem


def test_writing_is_not_looked_for_where_it_does_not_hold(some: Real):
    small = np.stack([film[::5, ::5] for film in some.prepared.pixels[:20]])
    edge, surface = look_at(small)
    assert np.isnan(surface[:, 3]).all()
    assert "holds from 160 on" in switched_off(64)
    assert (switched_off(160), switched_off(224)) == ("", "")
    assert not any("writing" in one for one in problems_of(edge, surface, known=None)[0])


def test_a_few_films_are_compared_with_those_of_the_run(some: Real):
    films = some.prepared.pixels[:6].copy()
    films[0], films[1] = 255 - films[0], np.rot90(films[1])
    films[2], films[3] = 90, with_writing(films[3], np.random.default_rng(0))
    known = replace(
        some.prepared,
        manifest=some.prepared.manifest.take(np.arange(6, len(some.grey))),
        pixels=some.prepared.pixels[6:],
    )
    problems, note = problems_of(*look_at(films), known=known)
    assert problems[0].startswith("inverted")
    assert problems[1].startswith("turned")
    assert problems[2] == "blank|border"[: len(problems[2])]
    assert problems[4:] == ["", ""]
    assert note == ""
    alone, note = problems_of(*look_at(films), known=None)
    assert (alone[0], alone[4]) == ("", "")
    assert "pose not estimated: 5 films of 5 patients, expected 100 of 5" in note

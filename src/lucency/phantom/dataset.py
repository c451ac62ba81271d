"""Phantoms: invented chest films with known ground truth, written in ChestX-ray14's file layout.

The patients are in `cohort`, the normal chest in `anatomy`, the findings in `findings`, the physics
in `imaging`, and `render` makes one film of them; `hospitals` has what two hospitals do otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lucency.core.files import write_part, write_table, write_whole
from lucency.core.manifest import NO_FINDING
from lucency.core.parallel import in_workers
from lucency.core.progress import silent
from lucency.phantom.cohort import Film, Patient, draw_population, equip, misstate, split_patients
from lucency.phantom.hospitals import HOSPITALS
from lucency.phantom.render import PhantomFilm, phantom_film

PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
PNG += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]  # a third of the time
SMALLEST, LARGEST = 32, 4096  # pixels, as a protocol's data.size
RANGES = {
    "films": (1, np.inf), "size": (SMALLEST, LARGEST), "seed": (0, np.inf),
    "workers": (1, np.inf), "label_noise": (0, 1), "shortcut": (0, 1),
    "hospital": (1, len(HOSPITALS)),
}  # fmt: skip
BATCH = 16  # films a worker draws between reports
ENTRIES = "Data_Entry_2017_v2020.csv"
BOX_NAMES = {"Infiltration": "Infiltrate"}  # NIH's spelling in the table of boxes
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
ENTRY_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
)


@dataclass(frozen=True, kw_only=True)
class Order:
    """One film to be drawn and written: all that a worker needs."""

    patient: Patient
    film: Film
    size: int
    path: Path  # its name is NIH's of the film


def write_phantom(  # noqa: PLR0913 - the knobs of one command
    folder: Path,
    *,
    films: int,
    size: int = 512,
    seed: int = 0,
    label_noise: float = 0.0,
    shortcut: float = 0.0,
    hospital: int = 1,
    workers: int = 1,
    progress: Callable[[int, int], None] = silent,
) -> None:
    """Write `films` invented chest films and their tables into `folder`, laid out like NIH's.

    `images/*.png` are 8-bit grey of `size` × `size` pixels; `Data_Entry_2017_v2020.csv`,
    `BBox_List_2017.csv` and the two lists are in NIH's format; `truth.csv` holds each film's
    ground truth. `label_noise` is the share of true labels missing from the label file (as many
    spurious ones are added); `shortcut` is the share of pneumothoraces with a drain and of AP films
    with a marker. `hospital` is one of HOSPITALS: films, frequencies, patients and names of files
    of the second are others. The same seed gives the same bytes whatever the number of `workers`.
    Raises ValueError on an impossible value.
    """
    shares = {"label_noise": label_noise, "shortcut": shortcut}
    _check(films=films, size=size, seed=seed, workers=workers, hospital=hospital, **shares)
    orders, train = _order(folder, films=films, size=size, seed=seed, hospital=hospital, **shares)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    batches = (orders[start : start + BATCH] for start in range(0, films, BATCH))
    drawn = []
    for batch in in_workers(_draw_batch, batches, workers=min(workers, -(-films // BATCH))):
        drawn += batch
        progress(len(drawn), films)
    _write_tables(folder, orders, drawn)
    _write_lists(folder, orders, train)


def list_phantom(
    folder: Path, *, films: int, seed: int, label_noise: float, hospital: int = 1
) -> None:
    """Write the label file and the two lists that `write_phantom` would, without a film drawn.

    Sizes and pixel spacings are only known of a film that was drawn; here they are 0.
    """
    orders, train = _order(
        folder,
        films=films,
        size=SMALLEST,
        seed=seed,
        label_noise=label_noise,
        shortcut=0.0,
        hospital=hospital,
    )
    entries = [_entry(order, (0, 0, "0")) for order in orders]
    write_whole(folder / ENTRIES, "".join([ENTRY_HEADER, *entries]))
    _write_lists(folder, orders, train)


def _order(
    folder: Path,
    *,
    films: int,
    size: int,
    seed: int,
    label_noise: float,
    shortcut: float,
    hospital: int,
) -> tuple[list[Order], set[int]]:
    """Return what is to be drawn, and the numbers of the patients on the train_val list."""
    drawn = {"seed": seed, "hospital": hospital}
    people = draw_population(films=films, **drawn)
    flat = [film for _, theirs in people for film in theirs]
    flat = misstate(flat, label_noise=label_noise, **drawn)
    flat = equip(flat, shortcut=shortcut, **drawn)
    owner = [patient for patient, theirs in people for _ in theirs]
    images = folder / "images"
    orders = [
        Order(patient=p, film=f, size=size, path=images / f"{p.number:08d}_{f.number:03d}.png")
        for p, f in zip(owner, flat, strict=True)
    ]
    trains = split_patients([len(f) for _, f in people], **drawn)
    return orders, {p.number for (p, _), on in zip(people, trains, strict=True) if on}


def _check(**knobs: float | int) -> None:
    for name, value in knobs.items():
        low, high = RANGES[name]
        if not low <= value <= high:
            expected = f"{low} to {high}" if high < np.inf else f"at least {low}"
            raise ValueError(f"phantom: {name} is {value}, expected {expected}: change it")


def _draw_batch(orders: list[Order]) -> list[PhantomFilm]:
    """Write the films; return them without their pixels."""
    drawn, threads = [], cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for order in orders:
            picture = phantom_film(order.patient, order.film, size=order.size)
            done, png = cv2.imencode(".png", picture.pixels, PNG)
            assert done
            write_part(order.path, png.tobytes())
            drawn.append(replace(picture, pixels=np.zeros((0, 0), np.uint8)))
    finally:
        cv2.setNumThreads(threads)
    return drawn


def _write_tables(folder: Path, orders: list[Order], pictures: list[PhantomFilm]) -> None:
    entries, boxes, truth = [ENTRY_HEADER], [BOX_HEADER], []
    for order, picture in zip(orders, pictures, strict=True):
        film = order.film
        entries.append(_entry(order, picture.original))
        boxes += [
            f"{order.path.name},{BOX_NAMES.get(box.finding, box.finding)},"
            f"{box.x:.3f},{box.y:.3f},{box.width:.3f},{box.height:.3f}\n"
            for box in picture.boxes
        ]
        truth.append(
            {
                "Image Index": order.path.name,
                "True Labels": _labels(film.findings),
                "Difficulty": max(picture.difficulty.values(), default=np.nan),
                "Drain": int(film.drain),
                "Marker": int(film.marker),
            }
        )
    write_whole(folder / ENTRIES, "".join(entries))
    write_whole(folder / "BBox_List_2017.csv", "".join(boxes))
    table = pd.DataFrame(truth).round({"Difficulty": 3})
    write_table(table, folder / "truth.csv")


def _entry(order: Order, original: tuple[int, int, str]) -> str:
    """Return a film's line of the label file; `original` is columns, rows and pixel spacing."""
    patient, film = order.patient, order.film
    columns, rows, spacing = original
    return (
        f"{order.path.name},{_labels(film.stated)},{film.number},{patient.number},{film.age},"
        f"{patient.sex},{film.view},{columns},{rows},{spacing},{spacing}\n"
    )


def _labels(findings: tuple[str, ...]) -> str:
    return "|".join(sorted(findings)) or NO_FINDING


def _write_lists(folder: Path, orders: list[Order], train: set[int]) -> None:
    for name, wanted in (("train_val_list.txt", True), ("test_list.txt", False)):
        images = [o.path.name for o in orders if (o.patient.number in train) is wanted]
        write_whole(folder / name, "\n".join(images))

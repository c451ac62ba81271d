"""Heat maps on the grid of their method, and the boxes that were drawn on the same films.

Everything is in shares of the film: 0 is its left or top edge, 1 its right or bottom edge.
Letters in shapes: n films, k findings, gh and gw cells of the grid, b boxes, m pairs of a film and
a finding with a box, h and w pixels of a frame, c terms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Float64, Int64, Shaped

from lucency.core.manifest import BOX_COLUMNS, require
from lucency.core.tables import film_names, within

FRAME = 1024  # pixels of a side of the published films, in which boxes were drawn
FARTHEST = 1.5  # a box beyond this share of a film is not in shares
Corners = Float64[np.ndarray, "_ 4"]  # left, top, right, bottom


class Centres(NamedTuple):
    """The centres of the rows and the columns of a grid, in shares of the film."""

    down: Float64[np.ndarray, " gh"]
    across: Float64[np.ndarray, " gw"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Heatmaps:
    """One map a film and finding by one method, raw, and the centres of its cells."""

    method: str
    findings: tuple[str, ...]
    image: Shaped[np.ndarray, " n"]
    patient: Int64[np.ndarray, " n"]
    grid: Float32[np.ndarray, "n k gh gw"]
    centres: Centres

    def __post_init__(self) -> None:
        films, findings = self.grid.shape[:2]
        require(len(self.findings) == findings, "maps' findings", self.findings)
        require(tuple(map(len, self.centres)) == self.grid.shape[2:], "maps' centres", films)
        require(self.image.shape == self.patient.shape == (films,), "maps' films", films)
        require(len(np.unique(self.image)) == films, "maps", "two of one film")
        require(bool(np.isfinite(self.grid).all()), "maps", "NaN or infinity")

    def __repr__(self) -> str:
        films, findings, down, across = self.grid.shape
        size = f"{films:,} films, {findings} findings, {down} x {across} cells"
        return f"<Heatmaps {self.method}: {size}>"

    def take(self, rows: Int64[np.ndarray, " m"]) -> Heatmaps:
        """Return the maps of these films, in this order."""
        films = {name: getattr(self, name)[rows] for name in ("image", "patient", "grid")}
        return replace(self, **films)


class Boxes(NamedTuple):
    """Boxes beside their maps: the row of the film, the column of the finding, the corners."""

    row: Int64[np.ndarray, " b"]
    column: Int64[np.ndarray, " b"]
    corners: Corners


class Pairs(NamedTuple):
    """The films with a box of a finding, once a finding; `corners` has the boxes of each."""

    row: Int64[np.ndarray, " m"]
    column: Int64[np.ndarray, " m"]
    corners: list[Corners]


def save_heatmaps(maps: Heatmaps, file: Path) -> None:
    """Write one compressed .npz that holds no Python objects."""
    arrays = {name: np.asarray(getattr(maps, name)) for name in _SAVED}
    np.savez_compressed(file, allow_pickle=False, **arrays, **maps.centres._asdict())


def load_heatmaps(file: Path) -> Heatmaps:
    """Read what `save_heatmaps` wrote; pickled content is refused."""
    with np.load(file, allow_pickle=False) as arrays:
        held = {name: arrays[name] for name in _SAVED}
        centres = Centres(*(arrays[name] for name in Centres._fields))
    names = tuple(str(name) for name in held.pop("findings"))
    return Heatmaps(method=str(held.pop("method")), findings=names, centres=centres, **held)


def place_boxes(maps: Heatmaps, boxes: pd.DataFrame) -> Boxes:
    """Return each box of a manifest beside its map.

    Raises ValueError for a box without a map, in pixels, or without an area.
    """
    require(tuple(boxes.columns) == BOX_COLUMNS, "box columns", list(boxes.columns))
    row = pd.Index(maps.image.astype(str)).get_indexer(pd.Index(boxes["image"].astype(str)))
    column = pd.Index(maps.findings).get_indexer(pd.Index(boxes["finding"].astype(str)))
    if (lost := (row < 0) | (column < 0)).any():
        first = boxes.loc[lost].iloc[0]
        raise ValueError(
            f"{lost.sum():,} of {len(boxes):,} boxes have no map, such as {first['finding']} on "
            f"{first['image']}: explain all films and findings with boxes, or leave out those boxes"
        )
    side = boxes[["x", "y", "w", "h"]].to_numpy(dtype=np.float64)
    corners = np.concatenate([side[:, :2], side[:, :2] + side[:, 2:]], axis=1)
    odd = ~((side[:, 2:] > 0).all(axis=1) & (np.abs(corners) < FARTHEST).all(axis=1))
    if odd.any():
        raise ValueError(
            f"{odd.sum():,} of {len(boxes):,} boxes are no boxes in shares of the film, such as "
            f"x, y, w, h = {side[odd][0].tolist()}; expected 0 to 1: divide pixels by the film's "
            "width and height"
        )
    return Boxes(row.astype(np.int64), column.astype(np.int64), corners)


def pair_up(boxes: Boxes) -> Pairs:
    """Return the films of each finding with a box of it, in the order of films."""
    keys = np.stack([boxes.row, boxes.column], axis=1)
    pairs, owner = np.unique(keys.reshape(-1, 2), axis=0, return_inverse=True)
    corners = [boxes.corners[owner.ravel() == pair] for pair in range(len(pairs))]
    return Pairs(pairs[:, 0], pairs[:, 1], corners)


def scale(cells: Float32[np.ndarray, "gh gw"], *, top: float) -> Float32[np.ndarray, "gh gw"]:
    """Return one map stretched from 0 to `top`, as Wang et al. (CVPR 2017) do before thresholds.

    It hides how strong the map was. A map that is the same everywhere becomes 0.
    """
    low, high = float(cells.min()), float(cells.max())
    spread = high - low
    return (cells - np.float32(low)) * np.float32(top / spread if spread > 0 else 0)


def even_centres(cells: tuple[int, int]) -> Centres:
    """Return the centres of rows and columns of cells that divide the whole film evenly."""
    return Centres(*((np.arange(count) + 0.5) / count for count in cells))


def enlarge(
    cells: Float32[np.ndarray, "gh gw"], centres: Centres, *, frame: int = FRAME
) -> Float32[np.ndarray, "h w"]:
    """Return one map on frame x frame pixels, bilinear between the centres of cells.

    Beyond the outermost centres the value is theirs; where cells divide the film evenly, this is
    OpenCV's INTER_LINEAR.
    """
    down, across = (blend(centre, frame=frame) for centre in centres)
    return down @ cells @ across.T


def blend(centre: Float64[np.ndarray, " gh"], *, frame: int) -> Float32[np.ndarray, "h gh"]:
    """Return how much of each cell each of the frame's pixels holds along one axis."""
    cells = np.arange(len(centre))
    place = np.interp((np.arange(frame) + 0.5) / frame, centre, cells)
    return np.maximum(1 - np.abs(place[:, None] - cells), 0).astype(np.float32)


def paint(corners: Corners, *, frame: int = FRAME) -> Bool[np.ndarray, "h w"]:
    """Return which pixels have their centre in any of the boxes."""
    centre = (np.arange(frame) + 0.5) / frame
    left, top, right, bottom = corners.T[:, :, None]
    across, down = (left <= centre) & (centre < right), (top <= centre) & (centre < bottom)
    return (down[:, :, None] & across[:, None, :]).any(axis=0)


def cover(corners: Corners, *, cells: tuple[int, int]) -> Float64[np.ndarray, "b gh gw"]:
    """Return the share of each cell of a grid (rows, columns) that each box covers."""
    across, down = _overlap(corners[:, ::2], cells[1]), _overlap(corners[:, 1::2], cells[0])
    return down[:, :, None] * across[:, None, :]


def by_finding(maps: Heatmaps, pairs: Pairs) -> Iterator[tuple[int, Int64[np.ndarray, " m"]]]:
    """Yield each finding's column and the places of its pairs, none where it has no box."""
    for column in range(len(maps.findings)):
        yield column, np.flatnonzero(pairs.column == column)


def boxed_in_train(boxed: Shaped[np.ndarray, " b"], *, trained: Shaped[np.ndarray, " n"]) -> str:
    """Return the issue where a film with boxes trained the network, else an empty text."""
    names = np.unique(film_names(boxed).astype(str)).astype(object)
    found = names[within(names, film_names(trained))]
    if not len(found):
        return ""
    return (
        f"{len(found):,} of {len(names):,} films with boxes are in train, such as {found[0]}: "
        "the network has learnt their labels, so that hits of these boxes prove no localisation; "
        "score the boxes of other films alone, or take NIH's own lists: all box films are in its "
        "test"
    )


def _overlap(ends: Float64[np.ndarray, "b 2"], cells: int) -> Float64[np.ndarray, "b g"]:
    edge = np.arange(cells + 1) / cells
    inside = np.minimum(ends[:, 1:], edge[1:]) - np.maximum(ends[:, :1], edge[:-1])
    return np.maximum(inside, 0) * cells


_SAVED = ("method", "findings", "image", "patient", "grid")

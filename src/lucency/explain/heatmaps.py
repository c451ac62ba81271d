"""Heat maps on the grid of their method.

Places are in shares of the film: 0 is its left or top edge, 1 its right or bottom edge.
Letters in shapes: n films, k findings, gh and gw cells of the grid, b boxes, m chosen films, h and
w pixels of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped

from lucency.core.files import write_arrays
from lucency.core.manifest import counted, require
from lucency.core.saved_files import NUMBER, TEXT, WHOLE, naming_damage, read_arrays
from lucency.core.tables import film_names, within
from lucency.core.written import refuse_changed_file

FRAME = 1024  # pixels of a side of the published films, in which boxes were drawn
Corners = Float64[np.ndarray, "_ 4"]  # left, top, right, bottom


class MethodError(ValueError):
    """A method that is not defined for a network, and which to use in its place."""


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
        count = f"{counted(films, 'film')}, {counted(findings, 'finding')}"
        size = f"{count}, {down} x {across} cells"
        return f"<Heatmaps {self.method}: {size}>"

    @property
    def cells(self) -> int:
        """The number of cells of each map."""
        return self.grid.shape[2] * self.grid.shape[3]

    def take(self, rows: Int64[np.ndarray, " m"]) -> Heatmaps:
        """Return the maps of these films, in this order."""
        films = {name: getattr(self, name)[rows] for name in ("image", "patient", "grid")}
        return replace(self, **films)


def save_heatmaps(maps: Heatmaps, file: Path) -> None:
    """Write one compressed .npz that holds no Python objects."""
    held = {**vars(maps), **maps.centres._asdict()}
    write_arrays({name: np.asarray(held[name]) for name in _SAVED}, file)


def load_heatmaps(file: Path) -> Heatmaps:
    """Read what `save_heatmaps` wrote; pickled content is refused.

    Raises ValueError for a damaged file, and OSError for one that the system does not read.
    """
    refuse_changed_file(file)
    held = read_arrays(file, _SAVED)
    centres = Centres(*(held.pop(name) for name in Centres._fields))
    names, method = tuple(str(name) for name in held.pop("findings")), str(held.pop("method"))
    with naming_damage(file):
        return Heatmaps(method=method, findings=names, centres=centres, **held)


def even_centres(cells: tuple[int, int]) -> Centres:
    """Return the centres of rows and columns of cells that divide the whole film evenly."""
    return Centres(*((np.arange(count) + 0.5) / count for count in cells))


def one_cell_remarks(several: Sequence[Heatmaps]) -> list[str]:
    """Return a remark for each method whose maps have one cell, and so distinguish no places."""
    return [
        f"{maps.method}: its grid is 1 x 1, which tells no place from another: choose "
        "integrated-gradients, which has up to 56 x 56, another network, or larger films"
        for maps in several
        if maps.cells == 1
    ]


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


def cover(corners: Corners, *, cells: tuple[int, int]) -> Float64[np.ndarray, "b gh gw"]:
    """Return the share of each cell of a grid (rows, columns) that each box covers."""
    across, down = _overlap(corners[:, ::2], cells[1]), _overlap(corners[:, 1::2], cells[0])
    return down[:, :, None] * across[:, None, :]


def boxed_in_train(boxed: Shaped[np.ndarray, " b"], *, trained: Shaped[np.ndarray, " n"]) -> str:
    """Return the issue where a film with boxes trained the network, else an empty text."""
    names = np.unique(film_names(boxed).astype(str)).astype(object)
    found = names[within(names, film_names(trained))]
    if not len(found):
        return ""
    return (
        f"{counted(len(found), 'film', of=len(names))} with boxes "
        f"{'is' if len(found) == 1 else 'are'} in train, such as {found[0]}: "
        "the network has learnt their labels, so that hits of these boxes prove no localisation; "
        "score the boxes of other films alone, or take NIH's own lists: all box films are in its "
        "test"
    )


def _overlap(ends: Float64[np.ndarray, "b 2"], cells: int) -> Float64[np.ndarray, "b g"]:
    edge = np.arange(cells + 1) / cells
    inside = np.minimum(ends[:, 1:], edge[1:]) - np.maximum(ends[:, :1], edge[:-1])
    return np.maximum(inside, 0) * cells


_SAVED = {  # arrays: their kinds, and their most dimensions
    "method": (TEXT, 0), "findings": (TEXT, 1), "image": (TEXT, 1), "patient": (WHOLE, 1),
    "grid": (NUMBER, 4), "down": (NUMBER, 1), "across": (NUMBER, 1),
}  # fmt: skip

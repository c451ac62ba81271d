"""Films in shards: array files of a fixed share of the films each, read as if they were one array.

A shard is complete or absent, and its bytes depend on its films alone, so that any worker may write
any shard, twice too. The checksum of every film (CRC-32) stands in an index beside the shards and
is compared whenever the film is read: damaged bytes reach no network.

Letters in shapes: n films, m films of a shard, s pixels of a side.
"""

from __future__ import annotations

import hashlib
import json
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from lucency.core.files import write_array, write_whole

SHARDS = "shards"  # the folder
INDEX, SUMS = "index.npy", "SHA256SUMS"  # there: where each film is; what `sha256sum -c` checks
FEWEST, MOST = 16, 4096  # films of a shard
ABOUT = 256  # shards of a collection between these
AGAIN = "delete the folder above it, and a run makes it anew"
ENTRY = np.dtype([("shard", np.int32), ("place", np.int32), ("crc", np.uint32)])

Rows = Int64[np.ndarray, "_"]
Index = Shaped[np.ndarray, " n"]  # of ENTRY
Receipt = dict[str, Any]  # "sha256" of the shard's file; column -> a value a film


def films_a_shard(films: int) -> int:
    """Return how many films a shard of so many holds: a power of two, by their number alone.

    >>> films_a_shard(240), films_a_shard(112_120), films_a_shard(10_000_000)
    (16, 256, 4096)
    """
    return min(MOST, max(FEWEST, 1 << (max(1, films // ABOUT).bit_length() - 1)))


def shard_name(number: int) -> str:
    """Return the name of a shard's file.

    >>> shard_name(7)
    '00007.npy'
    """
    return f"{number:05d}.npy"


@dataclass(frozen=True, eq=False)
class FilmShards:
    """Films in shards as one read-only array uint8[n s s]; `image` names them in errors.

    Shards are mapped when a film of them is first read. A film, a slice, an array of rows or a mask
    of the films can be had by brackets. Raises ValueError, naming film and file, for a film whose
    bytes are not those that were written.
    """

    folder: Path
    index: Index
    image: Shaped[np.ndarray, " n"]
    side: int
    _mapped: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __len__(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> tuple[int, int, int]:
        """As that of an array."""
        return len(self.index), self.side, self.side

    @overload
    def __getitem__(self, key: slice | np.ndarray) -> UInt8[np.ndarray, "m s s"]: ...
    @overload
    def __getitem__(self, key: SupportsIndex) -> UInt8[np.ndarray, "s s"]: ...
    def __getitem__(self, key: Any) -> np.ndarray:
        if not isinstance(key, slice) and np.ndim(key) == 0:  # not by a list of all films
            return self._film(range(len(self))[key])
        rows = np.arange(len(self))[key]
        films = np.empty((len(rows), self.side, self.side), dtype=np.uint8)
        for place, row in enumerate(rows.tolist()):
            films[place] = self._film(row)
        return films

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "s s"]]:
        return (self._film(row) for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("films in shards are no array without a copy of them")
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_mapped": {}}  # a process maps shards for itself

    def _film(self, row: int) -> UInt8[np.ndarray, "s s"]:
        shard, place, crc = self.index[row].tolist()
        films = self._shard(shard)
        if films is None or not 0 <= place < len(films) or zlib.crc32(films[place].data) != crc:
            file = self.folder / shard_name(shard)
            found = "is not there" if not file.exists() else "is damaged, by its checksum"
            raise ValueError(
                f"film {self.image[row]} in {file} {found}: remove that file, and "
                "the same `lucency run` as before makes it anew"
            )
        return films[place]

    def _shard(self, number: int) -> UInt8[np.ndarray, "m s s"] | None:
        """Return the films of a shard, None where its file holds none of this size."""
        if number not in self._mapped:
            try:
                films = np.load(self.folder / shard_name(number), mmap_mode="r")
            except Exception:  # noqa: BLE001 - a damaged header makes numpy raise of many kinds
                return None  # which the film's reader says
            if films.dtype != self.dtype or films.shape[1:] != self.shape[1:]:
                return None
            self._mapped[number] = films
        return self._mapped[number]


def open_shards(folder: Path, *, image: Shaped[np.ndarray, " n"], side: int) -> FilmShards:
    """Return the films whose shards are finished; ValueError where their index is not theirs."""
    file = folder / INDEX
    try:
        index = np.load(file)
    except Exception as error:  # a damaged header makes numpy raise of many kinds
        raise ValueError(f"{file}: found no index of films ({error}); {AGAIN}") from error
    if index.dtype != ENTRY or index.shape != (len(image),):
        found = f"{index.dtype} of {index.shape}"
        raise ValueError(f"{file}: found {found}, expected that of {len(image):,} films; {AGAIN}")
    return FilmShards(folder, index, image, side)


def write_shard(
    folder: Path,
    number: int,
    pixels: UInt8[np.ndarray, "m s s"],
    *,
    films: Mapping[str, Sequence[object]],
    kept: Sequence[bool],
) -> None:
    """Write a shard and then its receipt: `films` (column -> a value a film), and their checksums.

    Of the films those that are `kept` are in `pixels`, in this order. Several may write the same.
    """
    sums, places = iter(map(zlib.crc32, pixels)), iter(range(len(pixels)))
    name = shard_name(number)
    beside = folder / f"{name}.{uuid.uuid4().hex}"
    write_array(pixels, beside)
    with beside.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    beside.replace(folder / name)
    receipt = {
        **{column: list(values) for column, values in films.items()},
        "place": [next(places) if one else -1 for one in kept],
        "crc": [next(sums) if one else 0 for one in kept],
        "sha256 of shard": digest,
    }
    beside = folder / f"{name}.{uuid.uuid4().hex}"
    write_whole(beside, json.dumps(receipt))
    beside.replace(_receipt(folder, number))


def read_receipt(folder: Path, number: int) -> Receipt | None:
    """Return the receipt of a shard, None where that is not complete."""
    file = _receipt(folder, number)
    if not file.is_file() or not (folder / shard_name(number)).is_file():
        return None
    return json.loads(file.read_text(encoding="utf-8"))


def finish_shards(folder: Path, index: Index, receipts: Sequence[Receipt]) -> None:
    """Write the index and the checksums of complete shards; receipts and leftovers go last."""
    write_array(index, folder / INDEX)
    names = [shard_name(number) for number in range(len(receipts))]
    pairs = zip(names, receipts, strict=True)
    lines = [f"{receipt['sha256 of shard']}  {name}\n" for name, receipt in pairs]
    write_whole(folder / SUMS, "".join(lines))
    remove_receipts(folder)


def remove_receipts(folder: Path) -> None:
    """Remove what shards that are finished need no more, and what killed workers left."""
    for file in folder.iterdir():
        if file.name != SUMS and file.suffix != ".npy":
            file.unlink()


def absent_shards(folder: Path, index: Index) -> dict[int, Rows]:
    """Return the films, by row, of finished shards whose files are not there."""
    there = {file.name for file in folder.glob("*.npy")}
    numbers = np.unique(index["shard"]).tolist()
    lost = [number for number in numbers if shard_name(number) not in there]
    return {number: _in_places(index, number) for number in lost}


def _in_places(index: Index, number: int) -> Rows:
    rows = np.flatnonzero(index["shard"] == number)
    return rows[np.argsort(index["place"][rows])]


def _receipt(folder: Path, number: int) -> Path:
    return (folder / shard_name(number)).with_suffix(".json")

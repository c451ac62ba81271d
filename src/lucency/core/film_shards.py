"""Films in shards: array files of a fixed share of the films each, read as if they were one array.

A shard is complete or absent, and its bytes depend on its films alone, so that any worker may write
any shard, twice too. The checksum of every film (CRC-32) stands in an index beside the shards and
is compared whenever the film is read: damaged bytes reach no network.

Letters in shapes: n films, m films of a shard, s pixels of a side.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from lucency.core.files import npy_content, replace_file, write_array, write_whole

SHARDS = "shards"  # the folder
INDEX, SUMS = "index.npy", "SHA256SUMS"  # there: where each film is; what `sha256sum -c` checks
FEWEST, FEW, MOST = 16, 32, 4096  # films of a shard: of large ones, of few, of many
BYTES = 1 << 26  # of a shard, unless FEWEST are more
ABOUT = 256  # shards of a collection between these
MAPPED = 512  # shards that one process holds open
VISIBLE = 10  # seconds until another machine's file is seen
REMEDY = "the same `lucency run` as before makes it anew from its films"
ENTRY = np.dtype([("shard", np.int32), ("place", np.int32), ("crc", np.uint32)])

Rows = Int64[np.ndarray, "_"]
Index = Shaped[np.ndarray, " n"]  # of ENTRY
Receipt = dict[str, Any]  # CONTENT, of the shard's file; column -> a value a film
CONTENT = "sha256 of shard"
STATED = {"row", "place", "crc", CONTENT}


def films_a_shard(films: int, *, side: int) -> int:
    """Return how many films a shard holds: a power of two, by their number and size alone.

    >>> films_a_shard(240, side=224), films_a_shard(112_120, side=224)
    (32, 256)
    >>> films_a_shard(10**7, side=224), films_a_shard(10**7, side=1024)
    (1024, 64)
    """
    wanted = max(FEWEST, min(MOST, max(FEW, films // ABOUT), BYTES // side**2))
    return 1 << (wanted.bit_length() - 1)


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
    bytes are not those that were written, with the `remedy`; OSError where a file cannot be read.
    """

    folder: Path
    index: Index
    image: Shaped[np.ndarray, " n"]
    side: int
    remedy: str
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
            found = "is damaged, by its checksum: remove that file; then"
            found = found if file.exists() else "is not there:"
            raise ValueError(f"film {self.image[row]} in {file} {found} {self.remedy}")
        return films[place]

    def _shard(self, number: int) -> UInt8[np.ndarray, "m s s"] | None:
        """Return the films of a shard, None where its file is none of them."""
        if number not in self._mapped:
            films = _map_array(self.folder / shard_name(number), self.dtype, self.shape[1:])
            if films is None:
                return None
            while len(self._mapped) >= MAPPED:
                self._mapped.pop(next(iter(self._mapped)))
            self._mapped[number] = films
        return self._mapped[number]


def _map_array(file: Path, kind: np.dtype[Any], inner: tuple[int, ...]) -> np.ndarray | None:
    """Return an array as it lies in a file, None where that is not what `write_array` writes.

    Numpy's own reader raises errors of many kinds where a header is damaged. This one expects the
    header of an array of as many entries as the file's size gives.
    """
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return None
    start = len(_header(kind, (0, *inner)))
    entries, rest = divmod(size - start, kind.itemsize * math.prod(inner))
    header = _header(kind, (max(0, entries), *inner))
    if rest or entries < 0 or len(header) != start:
        return None
    with file.open("rb") as content:
        if content.read(start) != header:
            return None
    if not entries:
        return np.empty((0, *inner), dtype=kind)
    return np.memmap(file, mode="r", dtype=kind, offset=start, shape=(entries, *inner))


def _is_sound(folder: Path) -> bool:
    """Return whether an index is the one that was written, by SUMS."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    return f"{_digest(folder / INDEX)}  {INDEX}" in lines


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _header(kind: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    stream = BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, about)
    return stream.getvalue()


def open_shards(
    folder: Path, *, image: Shaped[np.ndarray, " n"], side: int, remedy: str = REMEDY
) -> FilmShards:
    """Return the films whose shards are finished; ValueError where their index is not theirs."""
    index = _map_array(folder / INDEX, ENTRY, ())
    if index is None or len(index) != len(image) or not _is_sound(folder):
        found = "no sound index" if index is None else f"that of {len(index):,} films, or damaged"
        raise ValueError(
            f"{folder / INDEX}: found {found}, expected an index of {len(image):,} films; delete "
            f"{folder.parent}, and a run makes it anew"
        )
    return FilmShards(folder, np.array(index), image, side, remedy)


def write_shard(
    folder: Path,
    number: int,
    pixels: UInt8[np.ndarray, "m s s"],
    *,
    films: Mapping[str, Sequence[object]],
    kept: Sequence[bool],
) -> None:
    """Write a shard and then its receipt: `films` (column -> a value a film), and their checksums.

    One column is `row`, the numbers of the films. Of the films those that are `kept` are in
    `pixels`, in this order. Several may write the same.
    """
    sums, places = iter(map(zlib.crc32, pixels)), iter(range(len(pixels)))
    content = npy_content(pixels)
    receipt = {
        **{column: list(values) for column, values in films.items()},
        "place": [next(places) if one else -1 for one in kept],
        "crc": [next(sums) if one else 0 for one in kept],
        CONTENT: hashlib.sha256(content).hexdigest(),
    }
    put_shard(folder, number, content, json.dumps(receipt))


def put_shard(folder: Path, number: int, content: bytes, receipt: str) -> None:
    """Write the content of a shard's file, and then its receipt, as text."""
    name = shard_name(number)
    beside = folder / f"{name}.{uuid.uuid4().hex}"
    write_whole(beside, content)
    _receipt(folder, number).unlink(missing_ok=True)  # of a shard that was made before
    replace_file(beside, folder / name)
    beside = folder / f"{name}.{uuid.uuid4().hex}"
    write_whole(beside, receipt)
    replace_file(beside, _receipt(folder, number))


def read_receipt(folder: Path, number: int) -> Receipt | None:
    """Return the receipt of a shard, None where that is not complete or cannot be read."""
    try:
        receipt = json.loads(_receipt(folder, number).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return receipt if _is_whole(receipt) and (folder / shard_name(number)).is_file() else None


def _is_whole(receipt: Any) -> bool:
    """Return whether a receipt has what all have, with a value a film in each column."""
    if not isinstance(receipt, dict) or not receipt.keys() >= STATED:
        return False
    columns = [held for name, held in receipt.items() if name != CONTENT]
    return all(isinstance(one, list) and len(one) == len(columns[0]) for one in columns)


def read_receipts(folder: Path, shards: int) -> list[Receipt]:
    """Return the receipts of so many shards; ValueError for one that does not appear in seconds.

    What another machine has written may be seen a little later.
    """
    found, ends = list[Receipt](), time.monotonic() + VISIBLE
    for number in range(shards):
        while (receipt := read_receipt(folder, number)) is None:
            if time.monotonic() > ends:
                raise ValueError(
                    f"{folder / shard_name(number)} is not complete here, though it was made: all "
                    "machines must see the same folder; run the same command again"
                )
            time.sleep(0.2)
        found.append(receipt)
    return found


def index_of(receipts: Sequence[Receipt], *, films: int) -> Index:
    """Return the index of so many films, all of which are in shards; places of lost ones are -1."""
    index = np.full(films, np.array((-1, -1, 0), dtype=ENTRY))
    for number, receipt in enumerate(receipts):
        rows = receipt["row"]
        index["shard"][rows] = number
        index["place"][rows] = receipt["place"]
        index["crc"][rows] = receipt["crc"]
    if (index["shard"] < 0).any():
        raise ValueError(f"{(index['shard'] < 0).sum():,} films are in no shard: run again")
    return index


def finish_shards(folder: Path, index: Index, receipts: Sequence[Receipt]) -> None:
    """Write the index and the checksums of complete shards; remove what is none of them.

    Receipts stay, until `remove_receipts`.
    """
    write_array(index, folder / INDEX)
    names = [shard_name(number) for number in range(len(receipts))]
    pairs = zip(names, receipts, strict=True)
    lines = [f"{receipt[CONTENT]}  {name}\n" for name, receipt in pairs]
    lines.append(f"{_digest(folder / INDEX)}  {INDEX}\n")
    write_whole(folder / SUMS, "".join(lines))
    for file in folder.glob("*.npy*"):
        if file.name not in {INDEX, *names}:
            file.unlink(missing_ok=True)


def remove_receipts(folder: Path) -> None:
    """Remove the receipts of shards that are finished, and what killed workers left."""
    for pattern in ("*.json", "*.npy.*"):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)


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

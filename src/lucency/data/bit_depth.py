"""Bit depth: how many bits the films of a data set have, found once for all of them.

Scanners of 10, 12 or 14 bits write pictures of 16. What a film's brightest pixel is does not tell:
one marker burnt in at 65535 makes a film of 12 bits look like one of 16.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lucency.core.manifest import Preparation, counted
from lucency.core.progress import say
from lucency.data.film_files import film_content, film_starts, in_reading_order
from lucency.data.images import PNG_SIGNATURE, bits_that_hold, decode

SAMPLE = 32  # films that are decoded, evenly spread
EIGHT, SIXTEEN = 8, 16
UNSTATED = 0
SIDE = 512  # pixels of a decoded film that are counted, along its shorter side


class BitDepth(NamedTuple):
    """The bits of a data set's films, EIGHT where none has more; how many have more, of all."""

    bits: int
    deep: int
    films: int


def find_bits(files: Sequence[str | Path]) -> BitDepth:
    """Return the bit depth of films: what their headers state (PNG sBIT), else what holds them.

    It holds all but a hundredth of the pixels of SAMPLE films of more than eight bits
    (`lucency.data.images.bits_that_hold`), and is 16 where a header states fewer bits but the
    pixels are scaled to 16, as the PNG specification has it. Files that cannot be read are left
    out.
    """
    starts = zip(files, film_starts(files), strict=True)
    stated = {file: bits for file, one in starts if (bits := _stated_bits(one)) is not None}
    if not stated:
        return BitDepth(EIGHT, 0, len(files))
    deep = list(stated)
    spread = np.linspace(0, len(deep) - 1, min(SAMPLE, len(deep))).astype(np.int64)
    greys = []
    for _, file in in_reading_order([deep[place] for place in spread.tolist()]):
        try:
            grey = decode(film_content(file))
        except ValueError:
            continue
        step = max(1, min(grey.shape) // SIDE)
        greys.append(grey[::step, ::step].copy())
    bits = bits_that_hold(greys, least=max(stated.values())) if greys else SIXTEEN
    return BitDepth(bits, len(deep), len(files))


def with_bits(preparation: Preparation, files: Sequence[str | Path]) -> Preparation:
    """Return the preparation with the bit depth of these films, and say it, where it states none.

    One that states a depth is returned as it is.
    """
    if preparation.bits:
        return preparation
    found = find_bits(files)
    if found.deep:
        say(f"Bit depth: {_deep(found)}, read as {found.bits} (preparation.bits)")
    return preparation.model_copy(update={"bits": found.bits})


def bits_for_network(preparation: Preparation, files: Sequence[str | Path]) -> Preparation:
    """Return how films are read for a network of this preparation, and say where theirs differ.

    They are read by the depth of the films it was trained on, whatever lies beside them; films of
    eight bits are taken as they are. Where training films had eight bits, each film of more is read
    by its own depth.
    """
    found, known = find_bits(files), preparation.bits or EIGHT
    trained = f"the network's training films had {known}"
    if found.deep and known == EIGHT:
        if found.bits > EIGHT:
            say(f"Bit depth: {_deep(found)}, each read by its own depth; {trained}")
        return preparation.model_copy(update={"bits": UNSTATED})
    if found.deep and found.bits > known:
        say(
            f"Bit depth: {_deep(found)} and seem to have {found.bits}: read as {known}, brighter "
            f"pixels white; {trained}"
        )
    if known > EIGHT and found.deep < found.films:
        say(f"Bit depth: {counted(found.films - found.deep, 'film', 'has/have')} eight; {trained}")
    return preparation


def _deep(found: BitDepth) -> str:
    return f"{counted(found.deep, 'film', 'has/have', of=found.films)} more than eight bits"


def _stated_bits(start: bytes) -> int | None:
    """Return the bits that a PNG of 16, by its first bytes, states, UNSTATED for none.

    None for another file.
    """
    if not start.startswith(PNG_SIGNATURE) or len(start) < 26 or start[24] != SIXTEEN:
        return None
    place = len(PNG_SIGNATURE)
    while place + 9 <= len(start):
        length, kind = struct.unpack_from(">I4s", start, place)
        if kind == b"sBIT":
            return min(max(start[place + 8], EIGHT), SIXTEEN)
        if kind == b"IDAT":
            break
        place += 12 + length
    return UNSTATED

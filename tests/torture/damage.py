"""Bytes of files damaged by rule and by seed: cut at every 64th, bits flipped, blocks zeroed."""

from collections.abc import Iterator

import numpy as np

CUTS = 64


def cut(content: bytes) -> Iterator[bytes]:
    """Yield a file cut at every 64th of its length, the whole left out."""
    for part in range(CUTS):
        yield content[: len(content) * part // CUTS]


def flipped(content: bytes, *, times: int, seed: int, first: int = 0) -> Iterator[bytes]:
    """Yield a file with 1 to 16 of its bits flipped, none before byte `first`."""
    generator = np.random.default_rng(seed)
    for _ in range(times):
        held = np.frombuffer(content, dtype=np.uint8).copy()
        place = generator.integers(first, len(held), generator.integers(1, 17))
        held[place] ^= (1 << generator.integers(0, 8, len(place))).astype(np.uint8)
        yield held.tobytes()


def zeroed(content: bytes, *, times: int, seed: int, first: int = 0) -> Iterator[bytes]:
    """Yield a file with a block of up to a quarter of it zeroed, none before byte `first`."""
    generator = np.random.default_rng(seed)
    for _ in range(times):
        start = int(generator.integers(first, len(content)))
        size = int(generator.integers(1, max(2, len(content) // 4)))
        yield content[:start] + bytes(min(size, len(content) - start)) + content[start + size :]


def replaced(content: bytes, *, times: int, seed: int) -> Iterator[bytes]:
    """Yield a file with a piece of up to 32 bytes gone, doubled, or random in its place."""
    generator = np.random.default_rng(seed)
    for _ in range(times):
        start = int(generator.integers(0, max(1, len(content))))
        piece = content[start : start + int(generator.integers(1, 33))]
        new = (b"", piece * 2, generator.bytes(len(piece)))[int(generator.integers(0, 3))]
        yield content[:start] + new + content[start + len(piece) :]

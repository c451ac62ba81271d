"""A place that runs share, in an object store or a folder: it keeps shards of prepared films.

A run has all its shards in its own folder, whole. What it needs it fetches from the shared place;
what is not there, or is damaged by its checksum, it makes, and puts there: the shard, and then its
receipt. The receipt begins with its own checksum.
"""

from __future__ import annotations

import hashlib
import json
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Shaped

from lucency.core.film_shards import SHARDS, Receipt, put_shard, read_receipt, shard_name
from lucency.core.manifest import Preparation, counted
from lucency.core.progress import say
from lucency.core.stage import fingerprint
from lucency.core.stores import (
    absolute_place,
    named_place,
    read_object,
    remove_unfinished,
    require_package,
    url_of,
    write_object,
)

NOTE = "README.txt"
ABOUT = b"Prepared films of `lucency run --cache`. What is deleted here is made anew.\n"
_CHOSEN: ContextVar[str] = ContextVar("cache", default="")


class SharedShard(NamedTuple):
    """A shard as it lies in the shared place; `state` says why it has no receipt, "" where it has.

    That is "absent" or "damaged".
    """

    receipt: Receipt
    content: bytes
    state: str = ""


def choose_cache(place: str) -> str:
    """Let films that are prepared be shared at this place, a folder or a URL; "" at none.

    Raises ValueError for a URL that `named_place` refuses, a file, or a package that is absent.
    """
    chosen = absolute_place(named_place(place)) if place else ""
    if url_of(chosen):
        require_package(chosen)
    elif chosen and Path(chosen).exists() and not Path(chosen).is_dir():
        raise ValueError(f"--cache {place} is a file: expected a folder, or a URL such as s3://…")
    _CHOSEN.set(chosen)
    return chosen


def shared_place(preparation: Preparation, image: Shaped[np.ndarray, " n"]) -> str:
    """Return where the shards of these films are shared, by what their bytes depend on; "" at none.

    Whether a film's file is the same, its receipt says.
    """
    if not (cache := _CHOSEN.get()):
        return ""
    depends = {
        "preparation": preparation.model_dump(),
        "films": hashlib.sha256(json.dumps(image.tolist()).encode()).hexdigest(),
        "versions": [version("lucency"), cv2.__version__],
    }
    return f"{cache}/{SHARDS}/{fingerprint(depends)}"


def open_shared(place: str) -> None:
    """Write a note into the place; ValueError in one line where nothing can be written there.

    From a folder, files that killed runs left half-written over a day ago are removed.
    """
    cache = place.rpartition(f"/{SHARDS}/")[0]
    try:
        write_object(f"{cache}/{NOTE}", ABOUT)
    except ValueError as error:
        raise ValueError(f"--cache {error}") from None
    if not url_of(cache):
        folder = Path(cache)
        removed = remove_unfinished([*folder.glob(f"{NOTE}.*"), *folder.glob(f"{SHARDS}/*/*.*.*")])
        if removed:
            say(f"Cache {cache}: {counted(removed, 'half-written file')} of killed runs removed")


def fetch_shard(place: str, number: int) -> SharedShard:
    """Return a shard of the shared place, sound by its checksums, or the state that it is in."""
    name = shard_name(number)
    try:
        receipt = _sound_receipt(read_object(_receipt(place, number)))
        content = read_object(f"{place}/{name}") if receipt else b""
    except FileNotFoundError:
        return SharedShard({}, b"", "absent")
    if not receipt or hashlib.sha256(content).hexdigest() != receipt["sha256 of shard"]:
        return SharedShard({}, b"", "damaged")
    return SharedShard(receipt, content)


def keep_shard(folder: Path, number: int, shard: SharedShard) -> None:
    """Write a shard of the shared place into a run's own folder."""
    put_shard(folder, number, shard.content, json.dumps(shard.receipt))


def share_shard(place: str, folder: Path, number: int) -> None:
    """Put a complete shard of a run's folder into the shared place, and then its receipt."""
    name = shard_name(number)
    text = json.dumps(read_receipt(folder, number)).encode()
    write_object(f"{place}/{name}", (folder / name).read_bytes())
    write_object(_receipt(place, number), f"{hashlib.sha256(text).hexdigest()}\n".encode() + text)


def _receipt(place: str, number: int) -> str:
    return f"{place}/{Path(shard_name(number)).stem}.json"


def _sound_receipt(content: bytes) -> Receipt:
    """Return a receipt whose checksum fits, else an empty one."""
    digest, _, text = content.partition(b"\n")
    return json.loads(text) if hashlib.sha256(text).hexdigest().encode() == digest else {}

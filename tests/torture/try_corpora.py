"""The files that other projects test their decoders with, through `lucency predict`, by corpus.

Corpora are fetched by pip and apt-get into ~/.cache/lucency-torture, or lie on disk with pydicom
and Python; a line says why one cannot be had. Every binary file is tried: archives by their
suffix, others by a film's name, whatever they are. Sources are tried packed, too, as archives of
films. Held is what `torture.try_pictures` has as held, where libraries wrote nothing themselves.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from torture.film_tries import Tried, heavy, small_model, try_films, write_films
from torture.public_corpora import Corpus, public_corpora
from torture.tally import Tally, script
from torture.try_pictures import counted, tried_archives

TIMES = 10_000  # files of a corpus, at most: more than any has


def tries(times: int) -> Iterator[Tally]:
    with TemporaryDirectory() as scratch:
        model = small_model(Path(scratch) / "model")
        for corpus in public_corpora():
            yield from tried_corpus(model, Path(scratch) / corpus.name, corpus, times=times)


def tried_corpus(model: Path, folder: Path, corpus: Corpus, *, times: int) -> Iterator[Tally]:
    """Yield a tally of a corpus's films, of its archives, and of the films in its packed source."""
    folder.mkdir()
    if films := [file.read_bytes() for file in corpus.films[:times]]:
        place = folder / "films"
        write_films(place, films, suffix=".png")
        with chatter() as written:
            tried = try_films(model, place, expected=len(films) + 1)
        yield tallied(f"{corpus.name}: files by a film's name", tried, heavy(place), written)
    if archives := corpus.archives[:times]:
        packed = [(archive_suffix(file), file.read_bytes()) for file in archives]
        with chatter() as written:
            tried, weights = tried_archives(model, folder / "archives", packed)
        yield tallied(f"{corpus.name}: archives", tried, weights, written)
    if corpus.packed:
        place = folder / "packed"
        write_films(place, [], suffix=".png")
        for number, file in enumerate(corpus.packed):
            (place / f"{number}{archive_suffix(file)}").write_bytes(file.read_bytes())
        with chatter() as written:
            tried = try_films(model, place)
        yield tallied(f"{corpus.name}: films in its packed source", tried, [], written)


def tallied(what: str, tried: Tried, weights: list[str], written: list[str]) -> Tally:
    return counted(what, tried, [*weights, *written])


@contextmanager
def chatter() -> Iterator[list[str]]:
    """Collect the lines that libraries write to the terminal past this process's streams."""
    lines, kept = list[str](), os.dup(2)
    with TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


def archive_suffix(file: Path) -> str:
    """Return a suffix by which a file is opened as an archive, which its content then is or not."""
    with file.open("rb") as content:
        return ".zip" if content.read(2) == b"PK" else ".tar.gz"


if __name__ == "__main__":
    script("corpora", tries, times=TIMES, doc=__doc__ or "")

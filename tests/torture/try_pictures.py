"""Films that are damaged, that lie or that do harm, through `lucency predict`, counted by kind.

Each kind is a folder with one good film. Held is a film that was read or was left out with a code,
where the command ended well, listed every film once, wrote no control character and no traceback,
and where no film below 1 MiB took 20 s of processor time or 1.5 GiB (`torture.weigh`).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from torture import hostile_archives, hostile_dicom, hostile_folders, hostile_pictures
from torture.film_tries import GOOD, Tried, heavy, small_model, try_films, write_films
from torture.hostile_pictures import whole
from torture.tally import Tally, script, tally

TIMES = 200
WRONG = "wrong: "


def tries(times: int) -> Iterator[Tally]:
    with TemporaryDirectory() as scratch:
        place = Path(scratch)
        model = small_model(place / "model")
        for number, (what, suffix, films) in enumerate(kinds(times)):
            folder = place / f"films-{number}"
            write_films(folder, films, suffix=suffix)
            tried = try_films(model, folder, expected=len(films) + 1)
            yield counted(what, tried, heavy(folder))
        for what, archives in archive_kinds(times):
            folder = place / what.replace(" ", "-")
            yield counted(what, *tried_archives(model, folder, archives))
        yield from folders(model, place)


def kinds(times: int) -> Iterator[tuple[str, str, list[bytes]]]:
    """Yield what is wrong with films, their suffix, and their content."""
    for what, films in hostile_pictures.damaged(times):
        yield f"pictures: {what}", ".png", films
    yield "pictures: headers that lie", ".png", hostile_pictures.lying()
    yield "pictures: huge texts and profiles", ".jpg", hostile_pictures.chatty()
    yield "pictures: bombs", ".png", hostile_pictures.bombs()
    yield "pictures: other files by a film's name", ".png", hostile_pictures.foreign()
    for what, films in hostile_dicom.damaged(times):
        yield f"DICOM: {what}", ".dcm", films
    yield "DICOM: headers that lie", ".dcm", hostile_dicom.lying()
    yield "DICOM: JPEG 2000 streams that lie", ".dcm", hostile_dicom.lying_streams()
    yield "DICOM: sequences in sequences, items without end", ".dcm", hostile_dicom.nested()
    yield "DICOM: bombs", ".dcm", hostile_dicom.bombs()


def archive_kinds(times: int) -> Iterator[tuple[str, list[hostile_archives.Packed]]]:
    for what, archives in hostile_archives.damaged(times):
        yield f"archives: {what}", archives
    yield "archives: bombs", hostile_archives.bombs()
    yield "archives: odd names, members and methods", hostile_archives.odd()


def tried_archives(
    model: Path, folder: Path, archives: list[hostile_archives.Packed]
) -> tuple[Tried, list[str]]:
    """Predict the films of archives beside a good film; outcomes are those of the archives."""
    folder.mkdir()
    (folder / GOOD).write_bytes(whole()["PNG"])
    for number, (suffix, content) in enumerate(archives):
        (folder / f"{number:05d}{suffix}").write_bytes(content)
    tried = try_films(model, folder)
    lost = sum(line.startswith("An archive is left out") for line in tried.lines)
    outcomes = ["not opened"] * lost + ["opened"] * (len(archives) - lost)
    return tried._replace(outcomes=outcomes), heavy(folder)


def folders(model: Path, place: Path) -> Iterator[Tally]:
    named = place / "names"
    named.mkdir()
    (named / GOOD).write_bytes(whole()["PNG"])
    count = hostile_folders.write_names(named)
    yield counted("names of films", try_films(model, named, expected=count + 1), [])
    odd = place / "kinds"
    odd.mkdir()
    (odd / GOOD).write_bytes(whole()["PNG"])
    hostile_folders.write_kinds(odd)
    what = "pipes, sockets, devices, folders, cycles of links by a film's name"
    if os.geteuid() == 0:
        print("unreadable modes cannot be tried: this user (root) may read everything")
    else:
        what += "; unreadable modes"
    yield counted(what, try_films(model, odd), heavy(odd))


def counted(what: str, tried: Tried, weights: list[str]) -> Tally:
    """Tally a folder's films; what was wrong counts as one outcome that did not hold, each."""
    wrong = [f"{WRONG}{one}" for one in (*tried.wrong, *weights)]
    for one in wrong:
        print(f"  {what}: {one}")
    return tally(what, [*tried.outcomes, *wrong], right=lambda kind: not kind.startswith(WRONG))


if __name__ == "__main__":
    script("pictures", tries, times=TIMES, doc=__doc__ or "")

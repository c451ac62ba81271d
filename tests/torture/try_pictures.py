"""Films that are damaged, that lie or that do harm, through `lucency predict`, counted by kind.

Each kind is a folder with one good film. Held is a film that was read or was left out with a code,
where the command ended well, listed every film once, wrote no control character and no traceback,
and where no film below 1 MiB took 20 s of processor time or 1.5 GiB (`torture.weigh`). The films of
an archive are those that Python's own zipfile or tarfile lists, as far as it can
(`torture.archive_films`): each was read or left out with a code, and what is intact was read.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

from torture import hostile_archives, hostile_dicom, hostile_folders, hostile_pictures
from torture.archive_films import ERRORS, films_of
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
    """Predict the films of archives beside a good film; outcomes are those of the archives.

    Wrong is, beside what `try_films` finds, what `wrong_films` does of each archive.
    """
    folder.mkdir()
    (folder / GOOD).write_bytes(whole()["PNG"])
    places = [folder / f"{number:05d}{suffix}" for number, (suffix, _) in enumerate(archives)]
    for place, (_, content) in zip(places, archives, strict=True):
        place.write_bytes(content)
    tried = try_films(model, folder)
    found = films_by_archive(tried)
    lost = {place: f"An archive is left out: {place} cannot be opened: " for place in places}
    wrong, outcomes = list(tried.wrong), list[str]()
    for place in places:
        unopened = any(line.startswith(lost[place]) for line in tried.lines)
        outcomes.append("not opened" if unopened else "opened")
        remarks = [line for line in tried.lines if f"{place} " in line or f"{place}: " in line]
        films = found.get(str(place), {})
        wrong += [
            f"{place.name}: {one}"
            for one in wrong_films(place.read_bytes(), films, remarks, unopened=unopened)
        ]
    return tried._replace(outcomes=outcomes, wrong=wrong), heavy(folder)


def films_by_archive(tried: Tried) -> dict[str, dict[str, str]]:
    """Return what became of films, by the path of their archive and their name in it."""
    found = dict[str, dict[str, str]]()
    for place, outcome in zip(tried.places, tried.outcomes, strict=False):
        archive, mark, name = place.partition("::/")
        if mark:
            found.setdefault(archive, {})[name] = outcome
    return found


def wrong_films(
    archive: bytes, found: dict[str, str], remarks: list[str], *, unopened: bool
) -> list[str]:
    """Return what is wrong with the films found of an archive, beside Python's own listing of it.

    Every film that is listed must have been read, or left out with a reason; an intact one read.
    Films of one name count once, the others in a remark. Of an archive that could not be listed to
    its end a remark must say so, and more may have been found.
    """
    try:
        listed = films_of(archive, intact=whole()["PNG"])
    except ERRORS:
        return []
    if unopened:
        return [f"not opened, but {len(listed.names)} films are listed"] if listed.names else []
    names = set(listed.names)
    wrong = [f"lost: {name!r}" for name in sorted(names - found.keys())]
    wrong += [
        f"{found[name]}, but intact: {name!r}"
        for name in sorted(listed.intact & found.keys())
        if found[name] != "read"
    ]
    twice = len(listed.names) - len(names)
    if listed.whole:
        wrong += [f"in no listing: {name!r}" for name in sorted(found.keys() - names)]
        if twice and not any(f"{twice} earlier film" in line for line in remarks):
            wrong.append(f"{twice} films of one name without a remark")
    elif not any(" is damaged or cut short (" in line for line in remarks):
        wrong.append("no remark on the damage")
    return wrong


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
    if reads([]):
        print("unreadable modes cannot be tried: this user may read everything")
    else:
        what += "; unreadable modes"
    yield counted(what, try_films(model, odd), heavy(odd))


def reads(words: list[str]) -> bool:
    """Say whether what is started behind these words reads a file that its mode forbids to read."""
    with NamedTemporaryFile() as file:
        Path(file.name).chmod(0)
        return not subprocess.run([*words, "test", "-r", file.name], check=False).returncode


def start_again_without_right() -> None:
    """Become this very program without root's right to read everything, where setpriv can do it."""
    dropped = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    if reads([]) and shutil.which(dropped[0]) and not reads(dropped):
        os.execvp(dropped[0], [*dropped, *sys.orig_argv])


def counted(what: str, tried: Tried, weights: list[str]) -> Tally:
    """Tally a folder's films; what was wrong counts as one outcome that did not hold, each."""
    wrong = [f"{WRONG}{one}" for one in (*tried.wrong, *weights)]
    for one in wrong:
        print(f"  {what}: {one}")
    return tally(what, [*tried.outcomes, *wrong], right=lambda kind: not kind.startswith(WRONG))


if __name__ == "__main__":
    start_again_without_right()
    script("pictures", tries, times=TIMES, doc=__doc__ or "")

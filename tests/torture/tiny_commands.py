"""Commands on a workplace so small that each takes a moment: what faults and kills are tried on.

Each has a folder that it starts from, built by the commands before it, and the content that an
unbroken call leaves. Every try works in the same folder, for paths are part of what is written.
"""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import typer.main

from lucency.core.saved_files import CHECKSUM, fingerprint_file, read_json
from lucency.core.written import WRITTEN
from torture.fault_layer import UNHINDERED, Ended, Fault, in_child, warm
from torture.range_server import download_from, start_server

PROTOCOL = """
name = "tiny"
findings = ["Effusion"]
[data]
source = "nih"
root = "films"
[preparation]
size = 32
[training]
epochs = 2
batch = 16
[[network]]
name = "test_resnet"
[evaluation]
resamples = 20
[explanation]
methods = []
"""
DRAW = ("data", "phantom", "--out", "films", "--films", "40", "--size", "64", "--workers", "1")
RUN = ("run", "tiny.toml", "--out", "run", "--workers", "1")
TABLE = "films/Data_Entry_2017_v2020.csv"
TIMES = re.compile(rb"^(\d+,.*),[\d.]+,[\d.]+$", re.MULTILINE)  # the ends of history.csv's rows
UNFINISHED = re.compile(
    r"\.lucency-new$|\.partial(/|$)|\.lock$|\.[0-9a-f]{32}$|\.part(\.etag)?$|shards/\d+\.json$|"
    r"checkpoint\.pt$"
)
TIMED = ("history.csv", CHECKSUM)  # in a note of files
INCOMPLETE = 3  # exit status of a report that lacks a chapter

Content = dict[str, bytes]


COMMANDS = {  # in this order: each starts from what those before it have left
    "download": ("data", "download", "nih", "--out", "archives"),
    "draw": DRAW,
    "prepare": (*RUN, "--until", "prepare"),
    "train": ("train", "tiny.toml", "--out", "run"),
    "finish": RUN,
    "report": ("report", "run"),
    "predict": ("predict", "run", "films/images", "--csv", "scores.csv"),
    "evaluate": ("evaluate", "scores.csv", "--labels", TABLE, "--out", "evaluated"),
    "audit": ("audit", "errors", "scores.csv", "--labels", TABLE, "--out", "errors"),
    "export": ("export", "run", "--out", "exported"),
}


class Bench:
    """A folder in which commands are tried again and again, each from the same start.

    `wholes` holds what an unbroken call of each leaves, `seconds` how long it takes.
    """

    def __init__(self, folder: Path, *names: str) -> None:
        """Do the commands up to the last of `names` once, and keep what those start from."""
        self.place, self.notes, self._starts = folder / "place", folder / "notes", folder / "starts"
        self.wholes: dict[str, Content] = {}
        self.seconds: dict[str, float] = {}
        self._left: dict[str, set[str]] = {}
        self._again: dict[tuple[str, str], str] = {}
        for one in (self.place, self.notes, self._starts):
            one.mkdir(parents=True)
        (self.place / "tiny.toml").write_text(PROTOCOL)
        typer.main.get_command = cache(typer.main.get_command)  # built anew by every call else
        self._server, port = start_server()
        download_from(port)
        last = max(map([*COMMANDS].index, names))
        for name in [*COMMANDS][: last + 1]:
            shutil.copytree(self.place, self._starts / name)
            self.seconds[name] = warm(called(name), place=self.place, notes=self.notes).seconds
            self.wholes[name] = content(self.place)
            self._left[name] = unfinished(self.place)

    def close(self) -> None:
        """End the server of archives."""
        self._server.communicate()

    def reset(self, name: str) -> None:
        """Let the folder be again what the command starts from, with its times."""
        shutil.rmtree(self.place)
        shutil.copytree(self._starts / name, self.place)

    def do(self, name: str, fault: Fault = UNHINDERED) -> Ended:
        """Do a command in a child, in the folder as it is."""
        return in_child(called(name), place=self.place, notes=self.notes, fault=fault)

    def wrong_between(self, name: str) -> str:
        """Return what is wrong with what a broken call has left, "" where nothing is."""
        start, whole = content(self._starts / name), self.wholes[name]
        for file, held in content(self.place).items():
            if Path(file).name == WRITTEN and not is_true(self.place / file):
                return f"a note of other files: {file}"
            if Path(file).name != WRITTEN and held not in (start.get(file), whole.get(file)):
                return f"half a file: {file}"
        return ""

    def wrong_again(self, name: str) -> str:
        """Do the command again, unbroken; return what is wrong then, "" where all is whole.

        Of one and the same content the answer is kept.
        """
        state = (name, fingerprint(self.place))
        if state not in self._again:
            self._again[state] = self._wrong_again(name)
        return self._again[state]

    def _wrong_again(self, name: str) -> str:
        finished = {one: one.stat().st_mtime_ns for one in self.place.rglob("receipt.json")}
        kept = {one: at for one, at in finished.items() if ".partial" not in str(one)}
        ended = self.do(name)
        if ended.status:
            return f"not mended by the same command: status {ended.status}, {ended.err[-200:]}"
        left = unfinished(self.place) - self._left[name]
        if left := {one for one in left if not one.endswith(".lock")}:  # which is empty
            return f"left over: {min(left)}"
        lost = [one for one, at in kept.items() if one.stat().st_mtime_ns != at]
        if lost := [one for one in lost if one.parent.name != "report"]:  # made for a lost chapter
            return f"made twice: {lost[0].relative_to(self.place)}"
        now, whole = content(self.place), self.wholes[name]
        other = [file for file in {**now, **whole} if now.get(file) != whole.get(file)]
        return f"other bytes: {other[0]}" if other else ""


def wrong_end(ended: Ended) -> str:
    """Return what is wrong with how a command ended that was hindered, "" where nothing is."""
    last = ended.err.splitlines()[-1] if ended.err else ""
    if "Traceback" in ended.err:
        return f"traceback: {last}"
    if ended.status not in (0, 2, INCOMPLETE):
        return f"status {ended.status}: {last}"
    return f"no line of its own: {last!r}" if ended.status == 2 and "lucency: " not in last else ""


def called(name: str) -> Callable[[], int]:
    """Return a call of a command as the command line makes it; checkpoints are always due."""

    def act() -> int:
        from lucency.cli import app

        if name == "train":
            from lucency.models.checkpoint import Pace

            Pace.is_due = lambda *_: True

        sys.argv = ["lucency", *COMMANDS[name]]
        return app.call()

    return act


def content(folder: Path) -> Content:
    """Return the files of a folder by name, but unfinished ones; without times that work took."""
    names = [one for one in sorted(folder.rglob("*")) if one.is_file()]
    found = {str(one.relative_to(folder)): one.read_bytes() for one in names}
    return {
        name: without_times(name, held)
        for name, held in found.items()
        if not UNFINISHED.search(name)
    }


def without_times(name: str, held: bytes) -> bytes:
    """Return a file's content without times that work took, and without what changes with them."""
    if name.endswith("history.csv"):
        return TIMES.sub(rb"\1", held)
    if name.endswith(WRITTEN):
        noted = json.loads(held)
        return json.dumps({name: noted[name] for name in noted if name not in TIMED}).encode()
    return held


def is_true(note: Path) -> bool:
    """Return whether every file is as a note of them states, or was being written."""
    stated = {note.parent / name: held for name, held in read_json(note).items() if held}
    return all(file.is_file() and held == fingerprint_file(file) for file, held in stated.items())


def unfinished(folder: Path) -> set[str]:
    """Return the names in a folder of what is not finished."""
    names = {str(one.relative_to(folder)) for one in folder.rglob("*")}
    return {name for name in names if UNFINISHED.search(name)}


def fingerprint(folder: Path) -> str:
    """Return what names the content of a folder, with all that is unfinished there."""
    digest = hashlib.sha256()
    for one in sorted(folder.rglob("*")):
        digest.update(f"{one.relative_to(folder)}\0".encode())
        if one.is_file():
            digest.update(hashlib.sha256(one.read_bytes()).digest())
    return digest.hexdigest()

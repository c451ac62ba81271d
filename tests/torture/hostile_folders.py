"""Folders with what no folder of films should hold: pipes, cycles of links, names that do harm."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path

from torture.hostile_pictures import whole

MOST = 255  # bytes of a file's name
NAMES = (
    b"new\nline.png", b"two\r\nlines.png", b"\x1b[2J\x1b[31mred.png", b"\x1b]0;title\x07.png",
    "\u202egnp.film.png".encode(), "\u2066isolated\u2069.png".encode(), "\u200bzero.png".encode(),
    b"tab\there.png", b"bell\x07.png", b"delete\x7f.png", "c1\u009b31m.png".encode(),
    "line\u2028separator.png".encode(), b"caf\xe9.png", b"\xff\xfe.png", b"\xed\xa0\x80.png",
    b"quote\"'.png", b"comma,semi;.png", b"=1+1.png", b"-rf.png", b"--help.png", b"%s%n.png",
    b"back\\slash.png", b"a::b.png", b"x.zip::.png", b"<b>&amp;.png", b"{0}.png", b" .png",
    b"[red]markup.png", "e\u0301combined.png".encode(), "胸部Ｘ線.png".encode(), b"nul.png",
    b"s3:.png", b"a" * (MOST - 4) + b".png", "胸".encode() * 83 + b".png",
)  # fmt: skip


def write_names(folder: Path) -> int:
    """Write a film that can be read, and one that cannot, under every odd name; return how many."""
    for kind, content in (("good", whole()["PNG"]), ("bad", b"\x89PNG")):
        (folder / kind).mkdir()
        for name in NAMES:
            Path(os.fsdecode(os.fsencode(folder / kind) + b"/" + name)).write_bytes(content)
    return 2 * len(NAMES)


def write_kinds(folder: Path) -> None:
    """Make what is no file: pipes, sockets, devices, folders and links under a film's name."""
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe")  # whose first bytes might be read
    for suffix in (".zip", ".tar", ".tar.gz"):
        os.mkfifo(folder / f"pipe{suffix}")
    with ExitStack() as stack:
        door = stack.enter_context(socket.socket(socket.AF_UNIX))
        here = os.open(".", os.O_RDONLY)
        stack.callback(os.close, here)
        os.chdir(folder)  # a socket's whole path may have 108 bytes
        stack.callback(os.fchdir, here)
        door.bind("socket.png")
    for name in ("folder.png", "folder.zip", "empty", "deep"):
        (folder / name).mkdir()
    for name, goal in {
        "self.png": "self.png", "one.png": "other.png", "other.png": "one.png", "up": "..",
        "deep/up": "../..", "gone.png": "nowhere.png", "null.png": "/dev/null",
        "zero.png": "/dev/zero", "endless.zip": "/dev/zero", "memory.png": "/proc/self/mem",
        "itself": ".",
    }.items():  # fmt: skip
        (folder / name).symlink_to(goal)
    (folder / "empty.png").touch()
    place = folder / "deep"
    for _ in range(40):
        place /= "d" * 60
        try:
            place.mkdir()
        except OSError:  # a path of more than 4,096 bytes
            break
    (folder / "locked").mkdir()
    (folder / "locked" / "film.png").write_bytes(whole()["PNG"])
    (folder / "unreadable.png").write_bytes(whole()["PNG"])
    (folder / "locked").chmod(0)
    (folder / "unreadable.png").chmod(0)
    (folder / "sparse.png").touch()
    os.truncate(folder / "sparse.png", 1 << 40)

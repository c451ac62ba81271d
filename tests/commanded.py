"""The commands of the program, with those of its groups."""

from pathlib import Path
from typing import Any

import typer

from lucency.cli.app import app


def named_commands() -> dict[str, Any]:
    """Return every command by all its words: `audit`, `audit labels`."""
    return _below(typer.main.get_command(app), ())


def serve_nothing(app: object, *, line: str, **about: object) -> None:
    """Stand in for the server, which would serve until it is stopped: print its line."""
    del app, about
    typer.echo(line)


def fetch_nothing(name: str, out: Path) -> None:
    """Stand in for the download of 45 GB: make its folder."""
    assert name == "nih"
    out.mkdir(exist_ok=True)


def _below(group: Any, words: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for name, command in getattr(group, "commands", {}).items():
        named = (*words, name)
        found |= {" ".join(named): command, **_below(command, named)}
    return found

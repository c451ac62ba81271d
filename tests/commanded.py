"""The commands of the program, with those of its groups."""

from typing import Any

import typer

from lucency.cli.app import app


def named_commands() -> dict[str, Any]:
    """Return every command by all its words: `audit`, `audit labels`."""
    return _below(typer.main.get_command(app), ())


def _below(group: Any, words: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for name, command in getattr(group, "commands", {}).items():
        named = (*words, name)
        found |= {" ".join(named): command, **_below(command, named)}
    return found

"""The command line, thin. Everything heavy is imported where it is used."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from traceback import extract_tb
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from lucency.cli.answers import OUTPUT, naming_output, write_out
from lucency.cli.audit_commands import audit_group
from lucency.cli.data_commands import data_group
from lucency.cli.deploy_commands import export, results, serve, view
from lucency.cli.evaluate_commands import check, ensemble, evaluate
from lucency.cli.film_commands import explain, predict, similar
from lucency.cli.options import word_with_home
from lucency.cli.run_commands import StageName, protocols, report, run, train
from lucency.cli.study_commands import study_group
from lucency.core.memory import (
    LIBRARIES,
    check_room,
    errors_of_memory,
    out_of_memory,
    says_out_of_memory,
)
from lucency.core.parallel import rank, share_cores, world_size
from lucency.core.progress import printable, shortened

USAGE = cast("type[typer.BadParameter]", typer.BadParameter.__base__)  # a call that is wrong
ELSEWHERE = {  # what other programs call a command of ours
    "fit": "run", "infer": "predict", "inference": "predict", "test": "evaluate",
    "validate": "evaluate", "convert": "export",
}  # fmt: skip
BROKEN_PIPE = 141  # 128 and SIGPIPE, as of other programs
HELP = {"-h", "--help"}
WRITTEN = ("--csv", "--figure", "--table")  # options of a file to write
ONCE = (*WRITTEN, "--labels", "--out", "--root", "--test", "--train", "--val")  # of a place
LONGEST = 1200  # signs of an error's line; names in it may be of any length
TOGETHER = ("train",)  # what several processes do together
FIRST_SPEAKS_SECONDS = 5.0  # the launcher ends the others when the first process has failed


class CommandGroup(TyperGroup):
    """A group of commands that names what may have been meant by one that it lacks."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command; raises a wrong call, with what may have been meant, for none."""
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            ctx.fail(f"No such command {name!r}{_command_meant(self, name)}")
        found, command, words = super().resolve_command(ctx, args)
        rest = [word_with_home(word) for word in words]
        if message := _words_that_clash(command, rest):
            ctx.fail(message)
        return found, command, rest


app = typer.Typer(
    cls=CommandGroup,
    help="Multi-label classification of chest X-rays: one protocol, one command, one page. "
    "For research only, not a medical device.\n\nExample:\n\n"
    "lucency run quick --out runs/quick",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _words_that_clash(command: Any, words: list[str]) -> str:
    """Return what is wrong with a command's words as they stand beside each other, "" for nothing.

    An empty one would be the working folder; of two files of one option only the last would count.
    """
    if "" in words:
        return "found an empty word, expected a name or a value: is a variable not set?"
    known = {name for one in command.params for name in one.opts if name.startswith("--")}
    for word, value in pairwise(words[: words.index("--") if "--" in words else None]):
        if word in ONCE and value in known:
            return f"{word} requires an argument, found the option {value}"
    single = [one for one in command.params if not getattr(one, "multiple", True)]
    options = {name: one.name for one in single for name in one.opts if name in ONCE}
    named = [
        word.partition("=")[0] for word in words[: words.index("--") if "--" in words else None]
    ]
    times = Counter(options[name] for name in named if name in options)
    if twice := [one for one in times if times[one] > 1]:
        name = next(name for name in options if options[name] == twice[0])
        return f"{name} is given twice, expected it once"
    values = [word.partition("=")[2] if word.startswith("--") else word for word in words]
    places = [Path(value) if value else None for value in values]
    written = {at for at, word in enumerate(words[:-1], start=1) if word in WRITTEN}
    written |= {at for at, word in enumerate(words) if word.partition("=")[0] in WRITTEN}
    for at in written:
        for other in {*range(len(words))} - written:
            if _is_one_file(places[at], places[other]):
                return f"{words[at]} would replace a file that the command reads: choose another"
    return ""


def _is_one_file(one: Path | None, other: Path | None) -> bool:
    try:
        return bool(one and other and one.is_file() and other.is_file() and one.samefile(other))
    except (OSError, ValueError):
        return False


def main() -> None:
    """Run the command and end the program with its status."""
    sys.exit(call())


def call(*, before: Callable[[], None] | None = None) -> int:
    """Run the command in `sys.argv`, after `before`, and return its exit status.

    What people can mend is one line on standard error and status 2. Where nobody reads standard
    output any more, as behind `| head`, the command ends without a line, as by SIGPIPE.
    """
    share_cores()
    _open_closed_streams()
    _choose_encodings()
    try:
        return _called(before)
    except USAGE as error:
        return _failed(_usage_line(error))
    except (ValueError, OSError, *errors_of_memory()) as error:
        known = isinstance(error, (ValueError, OSError)) or says_out_of_memory(error)
        if os.environ.get("LUCENCY_TRACEBACK") or not known:
            raise
        if isinstance(error, OSError) and error.filename == OUTPUT:
            return _ended(error)
        return _failed(_message(error))


def _open_closed_streams() -> None:
    """Let what is written to a closed standard stream go nowhere, and its number to no file."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - to the end


def _choose_encodings() -> None:
    """Let a console that cannot write a sign show "?", and programs and files get UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    if isinstance(sys.stdout, TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")


def _called(before: Callable[[], None] | None) -> int:
    """Run the command, and write all of its answer."""
    try:
        if before:
            before()
        _check_start(sys.argv[1:])
        with naming_output() if HELP & {*sys.argv} else nullcontext():  # typer writes help
            status = int(app(standalone_mode=False, prog_name="lucency") or 0)
        with naming_output():
            sys.stdout.flush()
        return status
    except SystemExit as end:  # what typer makes of any pipe that breaks, and rich of a help page
        error = end.__context__
        if not isinstance(error, BrokenPipeError):
            raise
        if any(frame.name == "on_broken_pipe" for frame in extract_tb(end.__traceback__)):
            error.filename = OUTPUT
        raise error from None


def _ended(error: OSError) -> int:
    """Return the status where standard output takes no more; a line, unless its reader left."""
    if sys.__stdout__:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.__stdout__.fileno())  # or Python would try once more at its end
        os.close(nowhere)
    return BROKEN_PIPE if isinstance(error, BrokenPipeError) else _failed(_message(error))


def _check_start(words: list[str]) -> None:
    """Raise MemoryError where there is no room for libraries that are not loaded yet.

    Raises ValueError where several processes would do, each for itself, what one should do.
    """
    command = next((word for word in words if not word.startswith("-")), "")
    if not command:
        return
    if not HELP & {*words} and "numpy" not in sys.modules:
        check_room(room=LIBRARIES)
    processes, _ = world_size(), rank()  # an environment that states other than numbers ends here
    if processes > 1 and command not in TOGETHER:
        raise ValueError(
            f"{processes} processes were started for `lucency {command}`: start several for "
            "`lucency train` alone, then give this command without a launcher"
        )


def _usage_line(error: Any) -> str:
    """Return what is wrong with a call, and what may have been meant; nothing where help is shown.

    `error` is of the class USAGE, which typer does not export.
    """
    message = error.format_message().replace("Value error, ", "").rstrip(".?")  # of pydantic
    if not message or not error.ctx:
        return f"{message}; see {_command_named(sys.argv[1:])} --help" if message else ""
    if hasattr(error, "possibilities"):  # of an option that there is not
        from lucency.core.manifest import nearest

        meant = _option_meant(error.ctx.command, error.option_name.lstrip("-"))
        near = nearest(error.option_name, error.possibilities or ())
        message = error.message + (f"; {meant}" if meant else near)
    return f"{message}; see {error.ctx.command_path} --help"


def _command_named(words: list[str]) -> str:
    """Return the command that words begin with, as far as it is known.

    >>> _command_named(["data", "phantom", "--out"]), _command_named(["--set"])
    ('lucency data phantom', 'lucency')
    """
    known = {**dict.fromkeys(command.__name__ for command in COMMANDS), **GROUPS}
    found = words[:1] if words and words[0] in known else []
    if found and known[found[0]]:
        found += [word for word in words[1:2] if not word.startswith("-")]
    return " ".join(["lucency", *found])


def _command_meant(group: Any, name: str) -> str:
    """Return the end of an error about a command that a group lacks: where it is, or the nearest.

    It may be in another group, or a stage of a run.
    """
    homes = [one for one, below in group.commands.items() if name in getattr(below, "commands", ())]
    if homes:
        return f"; expected {' or '.join(f'lucency {home} {name}' for home in homes)}"
    if name in [*StageName]:
        return f"; it is a stage: lucency run PROTOCOL --out DIR --until {name}"
    if name in ELSEWHERE:
        return f"; expected lucency {ELSEWHERE[name]}"
    from lucency.core.manifest import nearest

    return nearest(name, group.commands)


def _option_meant(command: Any, option: str) -> str:
    """Return what stands in place of an option that a command lacks: a key of the protocol."""
    if hasattr(command, "commands"):
        return "options stand behind the command, as in lucency run PROTOCOL --out DIR"
    if "--set" not in {name for one in command.params for name in one.opts}:
        return ""
    from lucency.config.protocol import nearest_key

    keys = nearest_key(option.replace("-", "_")).removeprefix("; ")
    if keys.startswith("expected "):
        return f"{keys} of the protocol, which --set KEY=VALUE changes"
    return keys if keys.startswith("leave") else ""


def _failed(line: str) -> int:
    """Write the line and return status 2; of several processes that fail alike the first writes."""
    number = _rank_where_stated()
    who = f"process {number} of {world_size()}: " if number > 0 else ""
    if number > 0:
        time.sleep(FIRST_SPEAKS_SECONDS)
    if line:
        from lucency.core.stores import without_credentials

        shown = printable(without_credentials(_in_one_line(line)))
        with suppress(OSError):  # where standard error takes no more, the status says it
            typer.echo(f"lucency: {who}{shortened(shown, most=LONGEST)}", err=True)
    return 2


def _in_one_line(text: str) -> str:
    """Return lines as one; blanks and tabs within a line stay, as names hold such.

    >>> _in_one_line("a  film.png:\\n  expected a picture\\n")
    'a  film.png: expected a picture'
    """
    return " ".join(filter(None, map(str.strip, text.split("\n"))))


def _rank_where_stated() -> int:
    try:
        return rank()
    except ValueError:  # of the environment, which is what the line is about
        return 0


def _message(error: BaseException) -> str:
    """Return what is wrong; of the system's own errors, where and what to do."""
    if says_out_of_memory(error):
        return out_of_memory(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        place = f"{error.filename} to {error.filename2}" if error.filename2 else error.filename
        return f"{place}: {error.strerror.lower()}; expected a place to read or write"
    return str(error)


def _print_version(chosen: bool) -> bool:
    if chosen:
        from importlib.metadata import version

        write_out(version("lucency") + "\n")
        raise typer.Exit
    return chosen


@app.callback()
def about(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Only `--version` is about no command."""


COMMANDS: tuple[Callable[..., None], ...] = (
    run, train, report, protocols, predict, explain, similar, evaluate, ensemble, check,
    export, results, serve, view,
)  # fmt: skip
GROUPS = {"data": data_group, "audit": audit_group, "study": study_group}
for command in COMMANDS:
    app.command()(command)
for name, group in GROUPS.items():
    app.add_typer(group, name=name, cls=CommandGroup)

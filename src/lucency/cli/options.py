"""What several commands share: arguments, options and checks of places."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lucency.config.sections import External

OPTIONS = ("source", "root", "labels", "image_column", "patient_column")  # keys with one
TEXT = "conclusion.txt"  # of an audit, beside its tables
SERVICE_NEEDS = ("starlette", "uvicorn", "python_multipart")


def check_place(file: Path | None) -> Path | None:
    """Return a file to write; ValueError unless it may be written: before the work, not after."""
    if file is None or (file.exists() and not (file.is_file() or file.is_dir())):
        return file  # a pipe or device is written to as it is
    from lucency.core.files import check_writable, real_place

    place = real_place(file)
    if place.is_dir() or not place.parent.is_dir():
        found = "is a folder" if place.is_dir() else "has no folder to lie in"
        raise ValueError(f"{file} {found}: expected the name of a file to write")
    if (place.parent / "receipt.json").is_file():
        raise ValueError(f"{place.parent} holds finished work: choose another place for {file}")
    check_writable(place.parent)
    return file


def check_figure(file: Path | None) -> Path | None:
    """Return an SVG file to write; ValueError as in `check_place`, and for another kind."""
    if file is not None and file.suffix.lower() != ".svg":
        raise ValueError(f"--figure {file}: expected a file name that ends in .svg")
    if file is not None and file.is_file():
        from lucency.report.rendering import refuse_other_picture

        refuse_other_picture(file)
    return check_place(file)


def check_folder(folder: Path | None) -> Path | None:
    """Return a folder for tables; ValueError where a file or a run is: before the work."""
    if folder is None:
        return None
    if not folder.name or folder.name == "..":
        folder = Path(os.path.abspath(folder))  # noqa: PTH100 - as it is written
    from lucency.core.files import check_writable, real_place
    from lucency.core.stores import url_of

    if url := url_of(folder):
        raise ValueError(f"{url}: expected a folder of this machine to write to")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: expected a folder to write tables to")
    above = real_place(folder).parents
    _refuse_others_folders(folder, *above)
    for place in above:
        if (place / "model.json").is_file():
            raise ValueError(f"{place} holds an exported model: choose another --out")
    if (above[0] / "receipt.json").is_file():  # further above it may be anything
        raise ValueError(f"{above[0]} holds finished work: choose another --out")
    check_writable(next(place for place in (folder, *above) if place.is_dir()))
    return folder


def check_tables(folder: Path | None) -> Path | None:
    """Return a folder for an audit's tables; ValueError too where tables of others are in it."""
    folder = check_folder(folder)
    if folder is not None and folder.is_dir():
        from lucency.core.written import refuse_others

        there = [one.name for one in folder.iterdir() if one.suffix == ".csv" or one.name == TEXT]
        refuse_others(folder, there)
    return folder


def check_own_folder(folder: Path | None) -> Path | None:
    """Return the folder of a run; ValueError for a new one inside of another run."""
    if folder is not None and not (folder / "protocol.toml").is_file():
        from lucency.core.files import real_place

        _refuse_others_folders(*real_place(folder).parents)
    return folder


def _refuse_others_folders(*places: Path) -> None:
    for place in places:
        if (place / "protocol.toml").is_file() and (place / "manifest").is_dir():
            raise ValueError(f"{place} holds a run: choose another --out")


def to_table(name: str, about: str, *, head: str) -> Any:
    """Return an option of a CSV file to write; one that is there must begin with `head`, as ours.

    `name` is the option.
    """

    def check_csv(file: Path | None) -> Path | None:
        if file is not None and not file.name.lower().endswith((".csv", ".csv.gz")):
            raise ValueError(f"{name} {file}: expected a file name that ends in .csv or .csv.gz")
        if file is not None and file.is_file() and not _begins_with(file, head):
            raise ValueError(f"{name} {file} is there, and is no such table: choose another name")
        return check_place(file)

    return typer.Option(name, metavar="FILE", help=about, callback=check_csv)


def _begins_with(file: Path, head: str) -> bool:
    """Return whether a file, packed or not, begins so, or is empty."""
    import gzip
    import zlib

    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rb") as content:
            return content.read(len(head)) in (b"", head.encode())
    except (EOFError, gzip.BadGzipFile, zlib.error):  # of another kind, or damaged
        return False


def word_with_home(word: str) -> str:
    """Return a word of a command with the home folder for ~ at the head of it or of its value.

    Shells leave the ~ of --out=~/runs as it is.
    """
    if "~" not in word:
        return word
    from lucency.core.stores import with_home

    option, equals, value = word.partition("=")
    return f"{option}={with_home(value)}" if equals and option[:2] == "--" else with_home(word)


def label_columns(image_column: str, patient_column: str) -> dict[str, str]:
    """Return the columns of a label file, as the options name them, by the keys of a protocol."""
    return {"image_column": image_column, "patient_column": patient_column}


def refuse_columns(image_column: str, patient_column: str, *, about: str) -> None:
    """Raise ValueError where columns of a label file are named beside what has none."""
    if (image_column, patient_column) != ("image", "patient"):
        raise ValueError(
            f"--image-column and --patient-column are about {about}: expected it beside them"
        )


def chosen_source(
    about: Mapping[str, object], *, name: str | None = None, changes: list[str] | None
) -> External:
    """Return the source of films that options describe by its keys; what is None is not stated.

    Raises ValueError for `changes` of what has an option of its own, and without a root.
    """
    from lucency.config.protocol import parse_external

    keys = [change.partition("=")[0].strip() for change in changes or ()]
    if twice := [key for key in ("name", "source") if key in keys]:
        raise ValueError(
            f"--set {twice[0]}=…: expected another key of the source: --set changes no {twice[0]}"
        )
    stated = {key: str(value) for key, value in about.items() if value is not None}
    if Path(stated.get("labels", "")).is_file():  # otherwise a choice of a collection's labels
        stated["labels"] = str(Path(stated["labels"]).absolute())
    choice = parse_external(
        {**stated, "name": stated["source"] if name is None else name}, changes=changes
    )
    if choice.source != "phantom" and not choice.root:
        raise ValueError(f"--root is needed: the folder of the films of {choice.source}")
    return choice


@contextmanager
def named_by_options() -> Iterator[None]:
    """Let an error of an external test or source name options in place of a protocol's keys."""
    from lucency.core.files import BusyError

    try:
        yield
    except BusyError:
        raise
    except ValueError as error:
        raise ValueError(in_options(str(error))) from error


def in_options(message: str) -> str:
    """Return a message about an external test with options in place of its keys.

    >>> in_options("external.2.root is '/x', which is no folder; external.2.views: no film")
    "--root is '/x', which is no folder; --set views: no film"
    >>> in_options("external.0 (ov): both are phantoms")
    'external test ov: both are phantoms'
    """
    message = re.sub(r", or external\.\d+\.\w+ of a protocol,", "", message)
    own = re.sub(r"\bexternal\.\d+ \(([a-z0-9-]+)\)", r"external test \1", message)
    own = re.sub(rf"\bexternal\.\d+\.({'|'.join(OPTIONS)})\b", _option, own)
    return re.sub(r"\bexternal\.\d+\.(?=[a-z])", "--set ", own)


def _option(key: re.Match[str]) -> str:
    return f"--{key[1].replace('_', '-')}"


def to_file(about: str) -> Any:
    """Return an option of a file to write, which is checked."""
    return typer.Option(metavar="FILE", help=about, callback=check_place)


def to_folder(about: str) -> Any:
    """Return the option --out of a folder to write, which is checked."""
    return typer.Option("--out", metavar="DIR", help=about, callback=check_folder)


def to_own_folder(about: str) -> Any:
    """Return the option --out of a run or of another folder of stages, which lies in no run."""
    return typer.Option("--out", metavar="DIR", help=about, callback=check_own_folder)


def choose_engine(engine: str) -> str:
    """Let films be worked on by this engine; ValueError for one that cannot be had."""
    from lucency.core import engines

    return engines.choose_engine(engine)


def choose_cache(place: str) -> str:
    """Let prepared films be shared at this place; ValueError for one that cannot be."""
    from lucency.data import shared_shards

    return shared_shards.choose_cache(place)


def require_service() -> None:
    """Raise ValueError unless what the service needs is installed."""
    lost = [name for name in SERVICE_NEEDS if find_spec(name) is None]
    if lost:
        raise ValueError(f"{lost[0]} is not installed: pip install 'lucency[serve]'")


ProtocolFile = Annotated[
    Path, typer.Argument(metavar="PROTOCOL", help="A name of `lucency protocols`, or a .toml file.")
]
RunOut = Annotated[Path, to_own_folder("The run's folder.")]
StudyOut = Annotated[  # which may be in a run, whose page it joins
    Path, typer.Option("--out", metavar="DIR", help="The study's folder.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, e.g. training.epochs=3."),
]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes that prepare films; 0 means one a core.")
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine", metavar="ENGINE", callback=choose_engine,
        help="Who works on films: local processes, dask://HOST:PORT, or slurm.",
    ),
]  # fmt: skip
Cache = Annotated[
    str,
    typer.Option(
        "--cache", metavar="PLACE", callback=choose_cache,
        help="Share prepared films with other runs: a folder, or a URL such as s3://BUCKET/cache.",
    ),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
Model = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="A run's folder, a network's, or an exported one."),
]
Films = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILM…", help="PNG, JPEG or DICOM films, or folders or archives of them."
    ),
]
KnownFilms = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILM…", help="Films, folders or archives of films, or names of the run's films."
    ),
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model", metavar="NAME",
        help="What of the run predicts. Default: the best on validation films.",
    ),
]  # fmt: skip
EngineName = Annotated[
    str,
    typer.Option(
        "--engine", metavar="NAME",
        help="onnx or torch. Default: onnx, and torch beside an NVIDIA GPU.",
    ),
]  # fmt: skip
LabelFile = Annotated[Path | None, typer.Option(metavar="FILE", help="The films' label file.")]
ImageColumn = Annotated[
    str, typer.Option(metavar="NAME", help="The label file's column of image names.")
]
PatientColumn = Annotated[
    str, typer.Option(metavar="NAME", help="The label file's column of patients.")
]
LabelTable = Annotated[Path, typer.Argument(metavar="FILE", help="A label file, .csv or .csv.gz.")]
NameList = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The image names of this part, one a line.")
]
SourceRoot = Annotated[
    Path | None, typer.Option("--root", metavar="DIR", help="The folder of that source.")
]
SourceChanges = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a key of the source, e.g. uncertain=ones."
    ),
]
Scale = Annotated[str, typer.Option(help="What a table holds: probability, percent or logit.")]
Tables = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", callback=check_tables, help="Write all tables here, as CSV."
    ),
]
Figure = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Draw the figure, an SVG file.", callback=check_figure),
]

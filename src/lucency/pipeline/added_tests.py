"""External tests added to a finished run, as if its protocol had named them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lucency.config.protocol import parse_protocol, without_places
from lucency.config.sections import External
from lucency.core.files import BusyError, no_leftovers
from lucency.core.locks import locked
from lucency.core.progress import say
from lucency.core.stage import RECEIPT, fingerprint_of
from lucency.core.tables import Answer, files_of, save_tables
from lucency.core.written import writing_into
from lucency.evaluation.external_validation import ExternalValidation
from lucency.pipeline import stages
from lucency.pipeline.external_stage import (
    KnownFilmsError,
    check_test,
    discard_other_films,
    remove_test,
)
from lucency.pipeline.run import (
    EXTERNAL,
    Run,
    checked_run,
    keep_protocol,
    open_run_folder,
    require_finished,
)


def add_external_test(folder: Path, choice: External) -> ExternalValidation:
    """Return what a finished run's networks are worth on films of another source.

    The test lies in `external/NAME` of the run's folder and, once finished, joins the run's
    protocol, so that it is a part of the report when that is written anew. One that is there is not
    made again, one that is refused leaves nothing. Raises ValueError for a run that is not
    finished, for a source that cannot test it, and for a name that is taken by other films.
    """
    run = open_run_folder(folder)
    require_finished(run)
    taken = [one for one in run.protocol.external if one.name == choice.name]
    if taken and _choices(run, choice) != _choices(run, taken[0]):
        raise ValueError(
            f"{folder} has an external test {choice.name!r} of other films: expected another --name"
        )
    place = run.out / EXTERNAL / choice.name
    if not taken:
        discard_other_films(_with_test(run, choice), choice.name)
    with nullcontext() if taken else _nothing_left_of(place):
        tested = _opened_with(run, choice)
        check_test(tested, choice.name, read=stages.labelled_films)
        _say_same_films(tested, choice.name)
        found = stages.external_test(tested, choice.name)
    keep_protocol(_opened_with(open_run_folder(folder), choice))  # others may have joined meanwhile
    return found


def _with_test(run: Run, choice: External) -> Run:
    """Return a run whose protocol names a test, in place of one of its name."""
    tests = {one.name: one for one in run.protocol.external} | {choice.name: choice}
    external = [one.model_dump() for one in tests.values()]
    choices = run.protocol.model_dump() | {"external": external}
    return replace(run, protocol=parse_protocol(choices, name=str(run.out)))


def _choices(run: Run, choice: External) -> dict[str, Any]:
    """Return the choices of a protocol with a test, without its places."""
    return without_places(_with_test(run, choice).protocol)


def _opened_with(run: Run, choice: External) -> Run:
    """Return a run with a test more, checked; its folder keeps its protocol."""
    protocol = _with_test(run, choice).protocol
    opened = checked_run(protocol, out=run.out, workers=run.workers)
    return replace(opened, source=run.source, cache=run.cache, shared=run.shared)


def _say_same_films(run: Run, name: str) -> None:
    """Tell which other test of a run has films of the same tables, lists and choices."""
    several = {
        one.name: run.out / EXTERNAL / one.name / "manifest" for one in run.protocol.external
    }
    read = {
        one: fingerprint_of(folder)
        for one, folder in several.items()
        if (folder / RECEIPT).is_file()
    }
    own = read.pop(name, "")
    if same := [f"{one!r}" for one, films in read.items() if films == own]:
        say(f"{name}: these are the films of test {' and '.join(same)}")


@contextmanager
def _nothing_left_of(place: Path) -> Iterator[None]:
    """Lend the folder of a test; one that is refused is removed if it is new, or of known films.

    Films that are prepared stay after other errors, and so does what was there before, and what
    another process writes.
    """
    new = not place.exists()
    with no_leftovers(place.parent, notes=()):
        place.parent.mkdir(exist_ok=True)
        with locked(place):
            try:
                yield
            except BusyError:
                raise
            except ValueError as error:
                cheap = new and not any(place.glob("prepared*"))
                if place.exists() and (cheap or isinstance(error, KnownFilmsError)):
                    with suppress(BusyError):  # another process's, and the refusal is what to show
                        remove_test(place)
                raise


def answer(folder: Path, found: ExternalValidation, *, out: Path | None) -> Answer:
    """Return an external test for people and programs; its tables are written to `out`, too."""
    place = folder / EXTERNAL / found.about["name"] / "evaluation"
    if out is not None:
        with writing_into(out, [*files_of(found)]):
            save_tables(found, out)
    return {
        "conclusion": found.conclusion,
        **found.about,
        "findings": found.findings,
        "scores": found.scores,
        "calibration": found.calibration,
        "mix": found.mix,
        "distances": found.distance,
        "tables": out or place,
    }

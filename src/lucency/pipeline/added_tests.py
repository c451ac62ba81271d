"""External tests added to a finished run, as if its protocol had named them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lucency.config.protocol import parse_protocol, without_places
from lucency.config.sections import External
from lucency.core.tables import Answer, save_tables
from lucency.evaluation.external_validation import ExternalValidation
from lucency.pipeline import stages
from lucency.pipeline.external_stage import check_external
from lucency.pipeline.run import EXTERNAL, Run, open_run, open_run_folder, require_finished


def add_external_test(folder: Path, choice: External) -> ExternalValidation:
    """Return what a finished run's networks are worth on films of another source.

    The test joins the run's protocol, lies in `external/NAME` of its folder, and is a part of its
    report when that is written anew. One that is there is not made again. Raises ValueError for a
    run that is not finished, for a source that cannot test it, and for a name that is taken by
    other films.
    """
    run = open_run_folder(folder)
    require_finished(run)
    alone = _with_tests(run, [choice])
    taken = [one for one in run.protocol.external if one.name == choice.name]
    if taken and without_places(alone.protocol) != without_places(_with_tests(run, taken).protocol):
        raise ValueError(
            f"{folder} has an external test {choice.name!r} of other films: expected another --name"
        )
    check_external(alone, read=stages.labelled_films)
    tests = {one.name: one for one in run.protocol.external} | {choice.name: choice}
    protocol = _with_tests(run, list(tests.values())).protocol
    opened = open_run(protocol, out=run.out, workers=run.workers)
    opened = replace(opened, source=run.source, cache=run.cache, shared=run.shared)
    return stages.external_test(opened, choice.name)


def _with_tests(run: Run, tests: list[External]) -> Run:
    choices = run.protocol.model_dump() | {"external": [one.model_dump() for one in tests]}
    return replace(run, protocol=parse_protocol(choices, name=str(run.out)))


def answer(folder: Path, found: ExternalValidation, *, out: Path | None) -> Answer:
    """Return an external test for people and programs; its tables are written to `out`, too."""
    place = folder / EXTERNAL / found.about["name"] / "evaluation"
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
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

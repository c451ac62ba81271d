"""Films explained by a run's network: which findings, how sure, and where it looked.

Letters in shapes: h and w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lucency.config.protocol import Protocol, read_protocol
from lucency.config.sections import ExplanationChoices
from lucency.core.manifest import Preparation, Prepared, load_prepared
from lucency.core.progress import progress, say
from lucency.core.stage import fingerprint_file, fingerprint_of, produce
from lucency.core.tables import Answer
from lucency.explain.heatmap_results import HeatmapResults
from lucency.pipeline.film_inference import films_of, network_folder, requested_films
from lucency.pipeline.heatmap_stage import explain_network
from lucency.pipeline.run import Run, open_run_folder, require_finished
from lucency.pipeline.stages import heatmaps, trained


class Request(NamedTuple):
    """What is to be explained, and how; no finding means those that the network names."""

    network: str
    methods: tuple[str, ...]
    findings: tuple[str, ...]


def localize(
    folder: Path, *, changes: tuple[str, ...], out: Path | None
) -> tuple[HeatmapResults, Path]:
    """Return how well a run's network finds the boxes on its test films.

    Other choices of `explanation` than the run's need a folder of their own.
    """
    run, choices = _run_with(folder, changes)
    if changes and out is None:
        raise ValueError("--set asks for other maps than the run's: say where with --out DIR")
    place = out or run.out / "explanation"
    return explain_network(trained(run), choices, out=place), place


def explain_films(folder: Path, films: Sequence[Path], *, request: Request, out: Path) -> Answer:
    """Explain films on disk, films of the run by name, or those that the run shows, to `out`.

    There: explained.html, one PNG a film and finding, maps-METHOD.npz, probabilities.csv. Raises
    ValueError for an unknown film, finding, method or network.
    """
    from lucency.explain.methods.registry import check_request
    from lucency.models.classifier import load_classifier

    place = network_folder(folder, request.network)
    classifier = load_classifier(place)
    check_request(classifier, methods=request.methods, findings=request.findings)
    shown = _films(folder, films, classifier.findings, classifier.preparation)
    findings = request.findings or classifier.findings
    say(f"Network: {classifier.name}; films: {len(shown.manifest):,}")
    inputs = {
        "network": fingerprint_of(place),
        "weights": fingerprint_file(place / "weights.safetensors"),
        "films": shown.manifest.origin,
        "request": request._asdict(),
    }

    def write(partial: Path) -> None:
        from lucency.core.plan import originals
        from lucency.explain.methods.registry import explain
        from lucency.models.inference import predict
        from lucency.report.explanation_page import write_explanation

        plan = originals(shown.manifest.label)
        maps = []
        for name in request.methods:
            with progress(f"Explaining with {name}", unit="films") as advance:
                what = {"method": name, "findings": findings, "progress": advance}
                maps.append(explain(classifier, prepared=shown, plan=plan, **what))
        predicted = predict(classifier, prepared=shown, plan=plan)
        write_explanation(
            predicted,
            maps=maps,
            prepared=shown,
            threshold=classifier.threshold,
            findings=request.findings,
            folder=partial,
        )

    made = produce(out, inputs=inputs, write=write)
    return {"films": len(shown.manifest), "folder": str(made), "page": str(made / "explained.html")}


def _run_with(folder: Path, changes: tuple[str, ...]) -> tuple[Run, ExplanationChoices]:
    run = open_run_folder(folder)
    was, now = run.protocol, read_protocol(folder / "protocol.toml", changes=changes)
    if _without_maps(was) != _without_maps(now):
        raise ValueError("--set may change explanation.* alone here: the run is what it is")
    require_finished(run)
    return run, now.explanation


def _without_maps(protocol: Protocol) -> dict[str, object]:
    return protocol.model_dump(exclude={"explanation"})


def _films(
    folder: Path, films: Sequence[Path], findings: tuple[str, ...], preparation: Preparation
) -> Prepared:
    """Return the films as a network sees them: named ones, or those that the report shows."""
    if films:
        return requested_films(folder, films, findings=findings, preparation=preparation)
    run, _ = _run_with(folder, ())
    shown = heatmaps(run).cases["image"].drop_duplicates().tolist()
    if not shown:
        raise ValueError(f"{folder}: its report shows no film; name films to explain")
    return films_of(load_prepared(run.cache / "prepared"), shown)

"""Films explained by a run's network, and the heat maps of its test films scored by boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lucency.config.protocol import Protocol, read_protocol
from lucency.core.progress import progress, say
from lucency.core.stage import fingerprint_file, fingerprint_of, produce
from lucency.core.tables import Answer
from lucency.explain.heatmap_results import HeatmapResults
from lucency.pipeline.film_inference import network_folder, requested_films
from lucency.pipeline.heatmap_stage import explain_network
from lucency.pipeline.run import open_run_folder, require_finished
from lucency.pipeline.stages import trained


class Request(NamedTuple):
    """What is to be explained, and how; no finding means those that the network names."""

    network: str
    methods: tuple[str, ...]
    findings: tuple[str, ...]


def score_run_heatmaps(folder: Path, *, changes: tuple[str, ...], out: Path) -> HeatmapResults:
    """Return how well a run's network finds the boxes on its test films, kept in `out`.

    `changes` are of `explanation` alone; ValueError for others, and for an unfinished run.
    """
    run = open_run_folder(folder)
    changed = read_protocol(folder / "protocol.toml", changes=changes)
    if _without_heatmaps(run.protocol) != _without_heatmaps(changed):
        raise ValueError("--set may change explanation.* alone here: the run is what it is")
    require_finished(run)
    return explain_network(trained(run), changed.explanation, out=out)


def explain_films(folder: Path, films: Sequence[Path], *, request: Request, out: Path) -> Answer:
    """Explain films on disk, or films of the run by name, to `out`.

    There: explained.html, one PNG a film and finding, maps-METHOD.npz, probabilities.csv. Raises
    ValueError for an unknown film, finding, method or network.
    """
    from lucency.explain.methods.registry import check_request
    from lucency.models.classifier import load_classifier

    place = network_folder(folder, request.network)
    classifier = load_classifier(place)
    check_request(classifier, methods=request.methods, findings=request.findings)
    about = {"findings": classifier.findings, "preparation": classifier.preparation}
    shown = requested_films(folder, films, **about)
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
        from lucency.report.heatmap_figures import write_explanation

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


def _without_heatmaps(protocol: Protocol) -> dict[str, object]:
    return protocol.model_dump(exclude={"explanation"})

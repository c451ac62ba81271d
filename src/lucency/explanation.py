"""Films explained by a run's network: which findings, how sure, and where it looked.

Letters in shapes: h and w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from lucency.choices import Explaining
from lucency.data.film import prepare_film, read_grey
from lucency.inference import films_below, network_folder
from lucency.looking import look_again, sight
from lucency.progress import progress, say
from lucency.protocol import Protocol, read_protocol
from lucency.receipt import fingerprint_file, fingerprint_of, produce
from lucency.reopening import reopen
from lucency.service import Answer, localised
from lucency.values import Manifest, Preparation, Prepared, empty_boxes, load_prepared
from lucency.workspace import Run

UNKNOWN_PATIENT = -1
MOST_FILMS = 200  # of one page
Named = TypeVar("Named", str, Path)


class Asked(NamedTuple):
    """What is to be explained, and how; no finding means those that the network names."""

    network: str
    methods: tuple[str, ...]
    findings: tuple[str, ...]


def localize(folder: Path, *, changes: tuple[str, ...], out: Path | None) -> Answer:
    """Return how well a run's network finds the boxes on its test films.

    Other choices of `explaining` than the run's need a folder of their own.
    """
    run, choices = _run_with(folder, changes)
    if changes and out is None:
        raise ValueError("--set asks for other maps than the run's: say where with --out DIR")
    place = out or run.out / "explanation"
    return localised(look_again(run, choices, out=place), place)


def explain_films(folder: Path, films: Sequence[Path], *, asked: Asked, out: Path) -> Answer:
    """Explain films on disk, films of the run by name, or those that the run shows, to `out`.

    There: explained.html, one PNG a film and finding, maps-METHOD.npz, probabilities.csv. Raises
    ValueError for an unknown film, finding, method or network.
    """
    from lucency.learn.explain import check_request
    from lucency.learn.zoo import load_classifier

    place = network_folder(folder, asked.network)
    classifier = load_classifier(place)
    check_request(classifier, methods=asked.methods, findings=asked.findings)
    shown = _films(folder, films, classifier.findings, classifier.preparation)
    findings = asked.findings or classifier.findings
    say(f"Network: {classifier.name}; films: {len(shown.manifest):,}")
    inputs = {
        "network": fingerprint_of(place),
        "weights": fingerprint_file(place / "weights.safetensors"),
        "films": shown.manifest.origin,
        "asked": asked._asdict(),
    }

    def write(partial: Path) -> None:
        from lucency.learn.explain import explain
        from lucency.learn.predict import predict
        from lucency.plan import originals
        from lucency.show.explained import write_explained

        plan = originals(shown.manifest.label)
        maps = []
        for name in asked.methods:
            with progress(f"Explaining with {name}", unit="films") as advance:
                what = {"method": name, "findings": findings, "progress": advance}
                maps.append(explain(classifier, prepared=shown, plan=plan, **what))
        said = predict(classifier, prepared=shown, plan=plan)
        write_explained(
            said,
            maps=maps,
            prepared=shown,
            threshold=classifier.threshold,
            findings=asked.findings,
            folder=partial,
        )

    made = produce(out, inputs=inputs, write=write)
    return {"films": len(shown.manifest), "folder": str(made), "page": str(made / "explained.html")}


def _run_with(folder: Path, changes: tuple[str, ...]) -> tuple[Run, Explaining]:
    run = reopen(folder)
    was, now = run.protocol, read_protocol(folder / "protocol.toml", changes=changes)
    if _without_maps(was) != _without_maps(now):
        raise ValueError("--set may change explaining.* alone here: the run is what it is")
    done = [run.out / "networks" / network.name for network in was.network]
    if not all((place / "receipt.json").is_file() for place in (run.cache / "prepared", *done)):
        raise ValueError(
            f"{folder} is not finished: expected its films prepared and all its networks trained; "
            "go on with lucency run"
        )
    return run, now.explaining


def _without_maps(protocol: Protocol) -> dict[str, object]:
    return protocol.model_dump(exclude={"explaining"})


def _films(
    folder: Path, films: Sequence[Path], findings: tuple[str, ...], preparation: Preparation
) -> Prepared:
    """Return the films as a network sees them: the run's own by name, others prepared anew."""
    if not films:
        run, _ = _run_with(folder, ())
        shown = sight(run).cases["image"].drop_duplicates().tolist()
        if not shown:
            raise ValueError(f"{folder}: its report shows no film; name films to explain")
        return _of_run(load_prepared(run.cache / "prepared"), shown)
    names = [str(film) for film in films if not film.exists()]
    if len(names) == len(films) and (folder / "protocol.toml").is_file():
        run, _ = _run_with(folder, ())
        return _of_run(load_prepared(run.cache / "prepared"), _few(names))
    if names:
        raise ValueError(f"{names[0]}: no such file; expected films, folders, or films of the run")
    return _of_disk(_few(list(films_below(list(films)))), findings, preparation)


def _few(films: list[Named]) -> list[Named]:
    if len(films) > MOST_FILMS:
        raise ValueError(
            f"found {len(films):,} films, expected {MOST_FILMS} at most for one page: name fewer"
        )
    return films


def _of_run(prepared: Prepared, names: list[str]) -> Prepared:
    row = pd.Index(prepared.manifest.image).get_indexer(pd.Index(names))
    if (row < 0).any():
        lost = names[int(np.flatnonzero(row < 0)[0])]
        raise ValueError(f"{lost}: no such file, and no film of the run; expected either")
    films = prepared.manifest.take(row.astype(np.int64))
    return Prepared(
        manifest=replace(films, origin=f"of the run: {', '.join(names)}"),
        preparation=prepared.preparation,
        pixels=np.asarray(prepared.pixels[row]),
        rejected=prepared.rejected,
    )


def _of_disk(files: list[Path], findings: tuple[str, ...], preparation: Preparation) -> Prepared:
    label = np.full((len(files), len(findings)), np.nan, dtype=np.float32)
    named = [f"{file} {fingerprint_file(file)}" for file in files]
    manifest = Manifest(
        findings=findings,
        image=np.array([str(file) for file in files]),
        patient=np.full(len(files), UNKNOWN_PATIENT),
        label=label,
        facts=pd.DataFrame(index=range(len(files))),
        boxes=empty_boxes(),
        origin=f"on disk: {', '.join(named)}",
    )
    pixels = [_seen(file, preparation) for file in files]
    none = pd.DataFrame({"image": [], "reason": []})
    return Prepared(
        manifest=manifest, preparation=preparation, pixels=np.stack(pixels), rejected=none
    )


def _seen(file: Path, preparation: Preparation) -> UInt8[np.ndarray, "h w"]:
    try:
        return prepare_film(read_grey(file), preparation=preparation)
    except (ValueError, OSError) as error:
        raise ValueError(f"{file}: {error}; leave it out, or name a film") from error

"""Effect of CLAHE's parameters on AUC: a grid of preparations, evaluated on the same films.

manifest -> originals -> a cell for each preparation -> its predictions -> evaluation -> page. Films
go through a frozen network, so that nothing is trained but a logistic regression in folds by
patient. Every cell is a folder of its own, so a killed study goes on where it was; a cell's
prepared films are deleted as soon as its features and measures are stored.

Letters in shapes: n films, m of them that are measured, h and w pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool

from lucency.audit.checks.issue import issue_table
from lucency.audit.checks.run_checks import invented, pretrained
from lucency.config.protocol import Protocol, read_protocol, without_folders, without_places
from lucency.config.sections import Network
from lucency.core.files import write_array, write_table, write_whole
from lucency.core.manifest import Manifest, Preparation, Prepared, load_prepared, read_table
from lucency.core.parallel import in_workers
from lucency.core.predictions import Predictions, load_predictions, save_predictions
from lucency.core.progress import progress, say
from lucency.core.stage import (
    RECEIPT,
    differences,
    discard_outdated,
    fingerprint_of,
    is_complete,
    produce,
)
from lucency.core.tables import save_tables
from lucency.data.film_cache import prepare
from lucency.data.film_files import stat_film
from lucency.data.image_measures import MEASURES, measure_film
from lucency.data.several_sources import inputs_of_sources
from lucency.data.split import set_apart
from lucency.ensemble.lungs import lung_mask
from lucency.evaluation import preparation_grid
from lucency.evaluation.evaluate import MACRO
from lucency.evaluation.preparation_grid import OFF, OWN, STUDY, PreparationStudy
from lucency.pipeline import stages
from lucency.pipeline.run import Run, kept, open_run, require_pictures
from lucency.report.preparation_page import AblationResult, draw_study, write_preparation_page
from lucency.report.rendering import standalone_svg

HIGHEST = 5  # cells that the command names
LEARNER, FOLDS = "logistic", 5
PREPARED, CLEAR, LUNGS, REASONS = "prepared", "clear", "lungs.npy", "lungs.csv"
FEATURE, ROWS, MEASURED = "feature.npy", "rows.npy", "measures.csv"


# A cell's folder of predictions, what they are made from, and how they are written.
Task = tuple[Path, dict[str, object], Callable[[Path], None]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """A grid of preparations on the films of a protocol, and the frozen network that sees them.

    `measured` is how many films the measures are taken of, `repeats` how often the cross-validation
    is repeated; `ablation` is the folder of a finished ablation of preparations whose table the
    page shows, or nothing.
    """

    run: Run
    network: Network
    grid: Mapping[str, Preparation]
    measured: int
    repeats: int
    ablation: Path | None


def open_study(
    protocol: Protocol,
    *,
    grid: Mapping[str, Preparation],
    out: Path,
    measured: int,
    repeats: int,
    ablation: Path | None,
    workers: int,
) -> Study:
    """Return the study of `protocol` in `out`, which may exist; nothing is computed yet.

    In `RUN/preparation-study` it takes the run's films, and the run's report will show it. Raises
    ValueError where no network of the protocol has weights, where that run or the ablation is of
    other films, and as `open_run` does.
    """
    network = frozen_network(protocol)
    source = _films_beside(protocol, out)
    if ablation:
        _check_ablation(protocol, ablation)
    run = replace(open_run(protocol, out=out, workers=workers), source=source)
    return Study(
        run=run, network=network, grid=grid, measured=measured, repeats=repeats, ablation=ablation
    )


def frozen_network(protocol: Protocol) -> Network:
    """Return the first network whose weights are not random.

    Raises ValueError where none has any, and where layers of its head are trained by nothing.
    """
    names = ", ".join(network.name for network in protocol.network)
    chosen = next((one for one in protocol.network if one.weights != "random"), None)
    if chosen is None:
        raise ValueError(
            f"all networks begin with random weights ({names}), whose features would mean nothing: "
            'expected a [[network]] with weights, such as weights = "timm" or a file'
        )
    if chosen.head.is_deep:
        raise ValueError(
            f"{chosen.name} has a head with layers that nothing has trained: expected a first "
            "network with weights whose head, if stated, is pooling alone"
        )
    return chosen


@kept
def originals(study: Study) -> Prepared:
    """Return the films that measures are taken of, without CLAHE; their lungs lie beside them.

    Lungs are looked for with the reference study's CLAHE, without which a quarter of real films
    show none to the simple segmentation; every cell is measured with the same.
    """
    films, run = _films(study.run), study.run
    seed = run.protocol.evaluation.seed
    rows = np.sort(np.random.default_rng(seed).permutation(len(films))[: study.measured])
    inputs = {
        "film_bytes": _film_bytes(study),
        "preparation": study.grid[OFF].model_dump(),
        "films": len(rows),
        "seed": seed,
        **run.fingerprints("manifest"),
    }
    write = partial(_write_originals, study, films.take(rows))
    return load_prepared(produce(run.out / "originals", inputs=inputs, write=write) / PREPARED)


def _write_originals(study: Study, films: Manifest, folder: Path) -> None:
    plain, clear = (
        prepare(films, preparation=study.grid[cell], out=folder / place, workers=study.run.workers)
        for cell, place in ((OFF, PREPARED), (OWN, CLEAR))
    )
    found = [lung_mask(film) for film in clear.pixels]
    del clear  # Windows removes no file that is mapped
    shutil.rmtree(folder / CLEAR)
    write_array(np.stack([one.mask for one in found]), folder / LUNGS)
    reasons = {"image": plain.manifest.image, "reason": [one.reason for one in found]}
    write_table(pd.DataFrame(reasons), folder / REASONS)


def cell(study: Study, name: str) -> Path:
    """Return the folder of one preparation: features, measures, and which films they are of."""
    from lucency.models.weights import fingerprint_weights

    run, root = study.run, Path(study.run.protocol.data.root)
    originals(study)
    inputs = {
        "preparation": study.grid[name].model_dump(),
        "network": study.network.model_dump(exclude={"training"}),
        "weights": fingerprint_weights(study.network, root=root),
        **run.fingerprints("manifest", "originals"),
    }
    return produce(run.out / "cells" / name, inputs=inputs, write=partial(_write_cell, study, name))


def _write_cell(study: Study, name: str, folder: Path) -> None:
    from lucency.models.features import embed, frozen_network

    run, films = study.run, _films(study.run)
    with progress(f"{name}: preparing", unit="films") as advance:
        shown = prepare(
            films, preparation=study.grid[name], out=folder / PREPARED, workers=run.workers,
            progress=advance, inputs=run.fingerprints("manifest"),
        )  # fmt: skip
    lungs = np.load(run.out / "originals" / LUNGS)
    write_table(_measures(shown, originals(study), lungs), folder / MEASURED)
    rows, root = np.arange(len(shown.manifest)), Path(run.protocol.data.root)
    with progress(f"{name}: features", unit="films") as advance:
        network = frozen_network(study.network, root=root)
        feature = embed(shown, rows=rows, network=network, progress=advance)
    write_array(feature, folder / FEATURE)
    place = pd.Index(films.image).get_indexer(pd.Index(shown.manifest.image))
    write_array(place.astype(np.int64), folder / ROWS)
    del shown  # Windows removes no file that is mapped
    shutil.rmtree(folder / PREPARED)


def predictions(study: Study) -> dict[str, list[Predictions]]:
    """Return the predictions of logistic regression for every film, by cell, one for each repeat.

    A repeat deals patients to folds anew; each film is predicted by a regression of the other
    folds' patients, as `ensemble.feature_classifiers.cross_validated` does. Cells are learnt in
    worker processes.
    """
    run, films = study.run, _films(study.run)
    draws = {"seed": run.protocol.evaluation.seed, "repeats": study.repeats}
    tasks: dict[str, Task] = {}
    for number, name in enumerate(study.grid, start=1):
        if not (run.out / "cells" / name / RECEIPT).is_file():
            say(f"{name}: {number} of {len(study.grid)} preparations")
        place, out = cell(study, name), run.out / "predictions" / name
        inputs = {"cell": fingerprint_of(place), "learner": LEARNER, "folds": FOLDS, **draws}
        discard_outdated(out, inputs=inputs)
        known = films.take(np.load(place / ROWS))
        write = partial(
            _write_predictions,
            feature=place / FEATURE,
            films=known,
            source=study.network.name,
            **draws,
        )
        tasks[name] = (out, inputs, write)
    todo = [task for task in tasks.values() if not is_complete(task[0], inputs=task[1])]
    with progress("Learning", unit="preparations") as advance:
        learnt = in_workers(_learn, iter(todo), workers=min(run.workers, len(todo)))
        for done, _ in enumerate(learnt, start=1):
            advance(done, len(todo))
    return {
        name: [load_predictions(out / f"{k}.npz") for k in range(study.repeats)]
        for name, (out, _, _) in tasks.items()
    }


@kept
def evaluation(study: Study) -> PreparationStudy:
    """Return the tables of all cells and the conclusion; those of another grid are made anew."""
    run, predicted = study.run, predictions(study)
    made = {name: fingerprint_of(run.out / "predictions" / name) for name in predicted}
    inputs = {"evaluation": run.draws, "predictions": made}
    discard_outdated(run.out / "evaluation", inputs=inputs)
    write = partial(_write_evaluation, study, predicted)
    return preparation_grid.load_study(produce(run.out / "evaluation", inputs=inputs, write=write))


def _write_evaluation(study: Study, predicted: dict[str, list[Predictions]], folder: Path) -> None:
    say(f"Comparing {len(predicted)} preparations")
    draws, cells = study.run.draws, study.run.out / "cells"
    cell_table, summary = preparation_grid.compare_cells(predicted, grid=study.grid, **draws)
    several = {name: read_table(cells / name / MEASURED, text=("image",)) for name in predicted}
    measures = preparation_grid.average_measures(
        {name: table.loc[:, list(MEASURES)] for name, table in several.items()},
        patient=several[OFF]["patient"].to_numpy(dtype=np.int64),
        **draws,
    )
    first = predicted[OFF][0]
    conclusion = preparation_grid.conclude_preparations(
        cell_table, summary, films=len(first), patients=len(np.unique(first.patient))
    )
    found = PreparationStudy(
        cells=cell_table,
        summary=summary,
        measures=measures,
        about=_about(study, first, measured=len(several[OFF])),
        conclusion=conclusion,
    )
    save_tables(found, folder)


def report(study: Study) -> Path:
    """Return the page of the study; figure.svg lies beside it."""
    evaluation(study)
    run = study.run
    inputs: dict[str, object] = {**run.fingerprints("evaluation")}
    if study.ablation:
        inputs["ablation"] = fingerprint_of(study.ablation / "evaluation")
        inputs["place"] = _link(study.ablation, run.out)
    discard_outdated(run.out / "page", inputs=inputs)
    folder = produce(run.out / "page", inputs=inputs, write=partial(_write_page, study))
    return folder / "report.html"


def _write_page(study: Study, folder: Path) -> None:
    say("Writing the page")
    run, found = study.run, evaluation(study)
    frozen = run.protocol.model_copy(update={"network": (study.network,)})
    write_preparation_page(
        run.protocol,
        study=found,
        issues=issue_table([*invented(frozen), *pretrained(frozen)]),
        ablated=_ablated(study.ablation, run.out) if study.ablation else None,
        file=folder / "report.html",
    )
    write_whole(folder / "figure.svg", standalone_svg(draw_study(found)))


def answer(study: Study) -> dict[str, object]:
    """Do the whole study and return what there is to say about it."""
    page, found = report(study), evaluation(study)
    ranked = found.cells.sort_values("auc", ascending=False, kind="stable").set_index("cell")
    highest = ranked["auc"].head(HIGHEST).round(4).to_dict()
    return {
        "conclusion": found.conclusion,
        "highest macro AUC": highest,
        "tables": str(study.run.out / "evaluation"),
        "figure": str(page.with_name("figure.svg")),
        "report": str(page),
    }


def _learn(task: Task) -> Path:
    """Do one cell's regressions, in one thread: for so small products more only wait."""
    from threadpoolctl import threadpool_limits

    out, inputs, write = task
    with threadpool_limits(1):
        return produce(out, inputs=inputs, write=write)


def _write_predictions(
    folder: Path, *, feature: Path, films: Manifest, source: str, seed: int, repeats: int
) -> None:
    from lucency.ensemble.feature_classifiers import cross_validated

    known, how = np.load(feature), {"learner": LEARNER, "folds": FOLDS}
    for k in range(repeats):
        found, _ = cross_validated(known, manifest=films, source=source, seed=seed + k, **how)
        save_predictions(found, folder / f"{k}.npz")


def _films(run: Run) -> Manifest:
    """Return the films of the study: all but those of patients set apart, whom nothing may meet."""
    films = stages.manifest(run)
    apart = set_apart(films, choices=run.protocol.split)
    return films.take(np.flatnonzero(~apart)) if apart.any() else films


def _films_beside(protocol: Protocol, out: Path) -> Path:
    """Return where manifest and phantoms lie: in the run that the study stands in, or in `out`."""
    beside = out.absolute().parent / "protocol.toml"
    if out.name != STUDY or not beside.is_file():
        return out
    parts = {"data", "findings", "preparation", "split"}
    own, other = (
        {part: without_places(one)[part] for part in parts}
        for one in (protocol, read_protocol(beside))
    )
    if found := differences(other, own):
        raise ValueError(
            f"{out} lies in a run that differs ({'; '.join(found[:2])}) and that would show it: "
            "expected that run's own protocol, or another folder (--out)"
        )
    return out.parent


@kept
def _film_bytes(study: Study) -> str:
    """Return what names the films' files, so that films that were replaced are not mixed up."""
    path = _films(study.run).facts["path"].tolist()
    require_pictures(study.run, path)
    found = [stat_film(file) for file in path]
    size = np.array([one.size for one in found if one is not None], dtype=np.int64)
    return hashlib.sha256(size.tobytes()).hexdigest()[:16]


def _measures(shown: Prepared, plain: Prepared, lungs: Bool[np.ndarray, "m h w"]) -> pd.DataFrame:
    """Return image, patient and every measure of the films that are measured."""
    place = pd.Index(shown.manifest.image).get_indexer(pd.Index(plain.manifest.image))
    if (place < 0).any():
        lost = plain.manifest.image[place < 0][0]
        raise ValueError(f"film {lost} can no longer be read: put it back, or begin another study")
    rows = [
        measure_film(np.asarray(shown.pixels[row]), original=np.asarray(film), lungs=mask)
        for row, film, mask in zip(place.tolist(), plain.pixels, lungs, strict=True)
    ]
    about = {"image": plain.manifest.image, "patient": plain.manifest.patient}
    return pd.DataFrame(about).join(pd.DataFrame(rows, columns=list(MEASURES)))


def _about(study: Study, predicted: Predictions, *, measured: int) -> dict[str, object]:
    """Return what the page says beside the tables."""
    run, evaluation = study.run, study.run.protocol.evaluation
    lungs = read_table(run.out / "originals" / REASONS, text=("image", "reason"))
    return {
        "origin": stages.manifest(run).origin,
        "films": len(predicted),
        "patients": len(np.unique(predicted.patient)),
        "findings": len(predicted.findings),
        "network": study.network.name,
        **without_folders({"provenance": study.network.provenance or study.network.weights}),
        "side": study.network.size or study.grid[OFF].size,
        "size": study.grid[OFF].size,
        "learner": LEARNER,
        "folds": FOLDS,
        "repeats": study.repeats,
        "seed": evaluation.seed,
        "resamples": evaluation.resamples,
        "measured": measured,
        "without_lungs": int(np.count_nonzero(lungs["reason"].to_numpy(dtype=str) != "")),
    }


def _check_ablation(protocol: Protocol, folder: Path) -> None:
    """Raise ValueError unless a folder holds a finished ablation of preparations on these films."""
    file = folder / "protocol.toml"
    if not file.is_file():
        raise ValueError(
            f"--ablation {folder} holds no run: expected the --out of `lucency study ablation`"
        )
    other = read_protocol(file)
    if not other.variant or any(set(one.changes) != {"preparation"} for one in other.variant):
        raise ValueError(
            f"--ablation {folder}: expected a protocol with variants that change `preparation` "
            "alone, such as protocols/clahe-sample.toml"
        )
    if not (folder / "evaluation" / RECEIPT).is_file():
        raise ValueError(f"--ablation {folder} is not finished: go on with lucency study ablation")
    own, others = (
        {part: without_places(one)[part] for part in ("data", "findings")}
        for one in (protocol, other)
    )
    if all(one.root for one in protocol.data.every) and (folder / "manifest" / RECEIPT).is_file():
        own |= inputs_of_sources(protocol.data, findings=protocol.findings)
        others |= json.loads((folder / "manifest" / RECEIPT).read_text(encoding="utf-8"))
    if found := differences(own, others):
        raise ValueError(f"--ablation {folder} is of other films: {'; '.join(found[:2])}")


def _ablated(folder: Path, out: Path) -> AblationResult:
    """Return the macro AUC of an ablation's variants, each with its preparation in words."""
    protocol = read_protocol(folder / "protocol.toml")
    table = read_table(folder / "evaluation" / "ablation.csv", text=("network", "variant"))
    macro = table.loc[(table["finding"] == MACRO) & (table["metric"] == "auc")]
    names = dict.fromkeys(macro["variant"].tolist())
    words = {
        name: preparation_grid.describe_cell(protocol.varied(name, seed=0).preparation)
        for name in names
    }
    if "p_holm" not in macro:
        raise ValueError(
            f"--ablation {folder} was compared by an earlier rule, without p values: run lucency "
            "study ablation on it again; nothing is trained anew"
        )
    rows = macro.assign(preparation=macro["variant"].map(words)).to_dict("records")
    conclusion = (folder / "evaluation" / "conclusion.txt").read_text(encoding="utf-8").strip()
    size = protocol.preparation.size
    return AblationResult(rows=rows, conclusion=conclusion, size=size, page=_link(folder, out))


def _link(folder: Path, out: Path) -> str:
    """Return where an ablation's page lies, seen from the study's page."""
    page = folder.absolute() / "report" / "report.html"
    return Path(os.path.relpath(page, out.absolute() / "page")).as_posix()

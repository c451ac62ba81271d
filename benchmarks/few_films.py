"""How good are recipes for few films, in five folds by patient and from 150 films up?

Usage: python benchmarks/few_films.py {folds,curve} [--protocol FILE] [--folds 0,1] [--out DIR]
The 1,400 real films of ../shared/nih and the recipe of a protocol (protocols/sample.toml): its
networks, the learners on frozen features, and the ensemble of its members. `folds`: each fold of
patients tests once, the others train and validate (85:15). `curve`: 150, 350, 700 and 1,120 films
of the other patients, by three seeds, which also draw the patients that test (a fifth). Scores of a
fold are put on one scale by their ranks among the fold's films; films count together. Features and
trained networks stay in DIR, and are not made again. Prints and saves tables of macro AUC with
intervals over patients, on all films and on each folder alone, paired differences from the best,
and minutes.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import logit
from scipy.stats import rankdata

from lucency.config.protocol import Protocol, read_protocol
from lucency.config.sections import FROZEN
from lucency.core.files import write_table
from lucency.core.manifest import FINDINGS, Prepared
from lucency.core.plan import Plan, originals
from lucency.core.predictions import Features, Predictions, concatenate
from lucency.data.preprocess import prepare
from lucency.data.sources import read_films
from lucency.ensemble.ensembles import make_ensemble
from lucency.ensemble.feature_classifiers import (
    Fitting,
    classical_predictions,
    folds_by_patient,
)
from lucency.evaluation.calibration import recalibrated
from lucency.evaluation.compare import compare
from lucency.evaluation.evaluate import MACRO, evaluate

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FOLDS, SEEDS, FILMS = 5, 3, (150, 350, 700, 1120)
VAL = 0.15
RESAMPLES = 1_000


class Data(NamedTuple):
    """Prepared films, the fold of each by its patient, and frozen features by source."""

    films: Prepared
    fold: np.ndarray
    frozen: dict[str, np.ndarray]


class Scored(NamedTuple):
    """Predictions of test films by predictor, and the minutes of making each."""

    predictions: dict[str, Predictions]
    minutes: dict[str, float]


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description="Recipes for few films.")
    parser.add_argument("what", choices=["folds", "curve"])
    parser.add_argument("--protocol", type=Path, default=ROOT / "protocols" / "sample.toml")
    parser.add_argument("--folds", default="0,1,2,3,4")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "few-films")
    given = parser.parse_args()
    protocol = read_protocol(given.protocol)
    data = _data(protocol, given.out)
    if given.what == "curve":
        table = _curve(protocol, data, given.out)
    else:
        table = _folds(protocol, data, given.out, folds=[*map(int, given.folds.split(","))])
    print(table.to_string(index=False))
    cores = f"{platform.machine()}-{os.cpu_count()}core"
    name = f"few-films-{protocol.name}-{given.what}-{cores}-{datetime.date.today()}.csv"
    write_table(table, RESULTS / name)


def _data(protocol: Protocol, out: Path) -> Data:
    from lucency.models.features import embed

    out.mkdir(parents=True, exist_ok=True)
    manifest = read_films(protocol.data, findings=FINDINGS, out=out / "films")
    films = prepare(
        manifest,
        preparation=protocol.preparation,
        out=out / f"prepared-{protocol.preparation.size}",
        workers=os.cpu_count() or 1,
    )
    frozen, choices = {}, protocol.ensemble
    for choice in choices.frozen:
        file = out / f"{choice.name}-{choices.feature_views}.npy"
        if not file.is_file():
            started = time.monotonic()
            rows = np.arange(len(films.manifest))
            views = choices.feature_views
            np.save(file, embed(films, rows=rows, choice=choice, root=ROOT, views=views))
            print(f"features {choice.name}: {time.monotonic() - started:.0f} s", flush=True)
        frozen[FROZEN + choice.name] = np.load(file)
    fold = folds_by_patient(films.manifest.patient, folds=FOLDS, seed=0)
    return Data(films, fold, frozen)


def _folds(protocol: Protocol, data: Data, out: Path, *, folds: list[int]) -> pd.DataFrame:
    scored = []
    for fold in folds:
        plan = _plan(data.films, test=data.fold == fold, wanted=0, seed=fold)
        scored.append(_score(protocol, data, plan, out / f"fold-{fold}"))
        _print(scored[-1], f"fold {fold}")
    return _table(_together(scored), _folder(data, scored))


def _curve(protocol: Protocol, data: Data, out: Path) -> pd.DataFrame:
    tables = []
    for films in FILMS:
        scored = []
        for seed in range(SEEDS):
            plan = _plan(data.films, test=data.fold == seed, wanted=films, seed=seed)
            scored.append(_score(protocol, data, plan, out / f"films-{films}-{seed}"))
            _print(scored[-1], f"{films} films, seed {seed}")
        table = _table(_together(scored), _folder(data, scored))
        table.insert(0, "films", films)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _plan(films: Prepared, *, test: np.ndarray, wanted: int, seed: int) -> Plan:
    """Return a plan whose other patients train and validate: about `wanted` films; 0 is all."""
    patient = films.manifest.patient
    order = np.random.default_rng(seed).permutation(np.unique(patient[~test]))
    counts = pd.Series(patient[~test]).value_counts().loc[order].cumsum().to_numpy()
    last = np.searchsorted(counts, wanted) + 1 if wanted else len(order)
    validate = np.searchsorted(counts, VAL * counts[last - 1]) + 1
    part = np.full(len(patient), "", dtype="<U5")
    part[np.isin(patient, order[:validate])] = "val"
    part[np.isin(patient, order[validate:last])] = "train"
    part[test] = "test"
    seen = np.flatnonzero(part != "")
    plan = originals(films.manifest.label).take(seen)
    return replace(plan, part=part[seen])


def _score(protocol: Protocol, data: Data, plan: Plan, folder: Path) -> Scored:
    """Return what the recipe's predictors say of the plan's test films."""
    predictions, minutes = {}, {}
    for name, made, taken in _predictors(protocol, data, plan, folder):
        predictions[name] = recalibrated(made, method=protocol.evaluation.recalibration)
        predictions[name] = replace(predictions[name], network=name)
        minutes[name] = taken
    choices = protocol.ensemble
    members = choices.members or tuple(predictions)
    for method in choices.ensembles:
        several = [predictions[one] for one in members]
        combined = make_ensemble(several, method=method, seed=choices.seed)
        predictions[method] = combined.predictions
        minutes[method] = sum(minutes[one] for one in members)
    return Scored({name: one.of("test") for name, one in predictions.items()}, minutes)


def _predictors(
    protocol: Protocol, data: Data, plan: Plan, folder: Path
) -> Iterator[tuple[str, Predictions, float]]:
    evaluated = plan.take(plan.part != "train")
    for choice in protocol.network:
        made, minutes = _trained(protocol, data, plan, folder, choice.name)
        yield choice.name, made.pop("plain"), minutes
        for name, views in made.items():
            yield f"{choice.name} with {name}", views, minutes
    for source in protocol.ensemble.sources:
        started = time.monotonic()
        if not source.startswith(FROZEN):
            continue
        feature = np.concatenate([data.frozen[one] for one in source.split("+")], axis=1)
        sides = [
            _features(data.films, side, feature, source)
            for side in (plan.take(plan.part == "train"), evaluated)
        ]
        for learner in protocol.ensemble.learners:
            made, _ = classical_predictions(*sides, learner=learner, seed=0, fitting=Fitting())
            yield f"{learner} on {source}", made, (time.monotonic() - started) / 60


def _trained(
    protocol: Protocol, data: Data, plan: Plan, folder: Path, name: str
) -> tuple[dict[str, Predictions], float]:
    """Return what a network, trained here or before, says of the films, plainly and by views."""
    from lucency.core.progress import silent
    from lucency.models.classifier import load_classifier
    from lucency.models.inference import predict, predict_views
    from lucency.models.training import train

    choice = next(one for one in protocol.network if one.name == name)
    out = train(
        data.films,
        plan=plan,
        protocol=protocol,
        choice=choice,
        upstream={"split": "few films"},
        out=folder / name,
        progress=silent,
    )
    seconds = pd.read_csv(out / "history.csv")["seconds"].iloc[-1]
    classifier, evaluated = load_classifier(out), plan.take(plan.part != "train")
    made = {"plain": predict(classifier, prepared=data.films, plan=evaluated)}
    if views := protocol.ensemble.views:
        made["views"] = predict_views(
            classifier,
            prepared=data.films,
            plan=evaluated,
            recipe="gentle",
            views=views,
            seed=0,
            progress=silent,
        )
    return made, seconds / 60


def _features(films: Prepared, plan: Plan, feature: np.ndarray, source: str) -> Features:
    manifest = films.manifest
    return Features(
        source=source,
        split="few films",
        findings=manifest.findings,
        image=manifest.image[plan.row],
        patient=manifest.patient[plan.row],
        part=plan.part,
        label=plan.label,
        feature=feature[plan.row],
    )


def _together(several: list[Scored]) -> Scored:
    """Return all folds' predictions as one, on one scale: ranks among each fold's films."""

    def ranked(one: Predictions) -> Predictions:
        share = (rankdata(one.logit, axis=0) - 0.5) / len(one.logit)
        plain = one.uncalibrated()
        return replace(
            plain, logit=logit(share), feature=np.empty((len(share), 0), np.float32), split="folds"
        )

    names = several[0].predictions
    whole = {n: concatenate([ranked(one.predictions[n]) for one in several]) for n in names}
    minutes = {n: float(np.mean([one.minutes[n] for one in several])) for n in names}
    return Scored({n: replace(one, network=n) for n, one in whole.items()}, minutes)


def _folder(data: Data, scored: list[Scored]) -> np.ndarray:
    """Return whether each test film, in order, is of the larger folder, images-320."""
    path = pd.Series(data.films.manifest.facts["path"].to_numpy(), index=data.films.manifest.image)
    first = next(iter(scored[0].predictions))
    image = np.concatenate([one.predictions[first].image for one in scored])
    return path.loc[image].str.contains("images-320").to_numpy()


def _table(scored: Scored, large: np.ndarray) -> pd.DataFrame:
    rows = []
    for name, one in scored.predictions.items():
        value, low, high = _macro(one)
        alone = [_macro(one.take(np.flatnonzero(side)))[0] for side in (large, ~large)]
        minutes = scored.minutes[name]
        rows.append((name, value, low, high, *alone, minutes))
    columns = ["predictor", "macro_auc", "low", "high", "images_320", "images", "minutes"]
    table = pd.DataFrame(rows, columns=columns).sort_values("macro_auc", ascending=False)
    return table.merge(_differences(scored.predictions, table["predictor"].iloc[0]), how="left")


def _differences(predictions: Mapping[str, Predictions], best: str) -> pd.DataFrame:
    """Return by how much each differs from the best, with the paired interval."""
    rows = []
    for name, one in predictions.items():
        if name != best:
            found = compare([predictions[best], one], resamples=RESAMPLES, seed=0)
            macro = found[found["finding"] == MACRO].iloc[0]
            rows.append((name, *(-macro[["difference", "high", "low"]].to_numpy(dtype=float))))
    return pd.DataFrame(rows, columns=["predictor", "less", "less_low", "less_high"])


def _macro(one: Predictions) -> tuple[float, float, float]:
    half = np.full(len(one.findings), 0.5)
    metrics = evaluate(one, threshold=half, resamples=RESAMPLES, seed=0)
    row = metrics[(metrics["finding"] == MACRO) & (metrics["metric"] == "auc")].iloc[0]
    return tuple(float(row[key]) for key in ("value", "low", "high"))  # pyright: ignore


def _print(scored: Scored, name: str) -> None:
    from lucency.evaluation.metrics import macro_auc

    for predictor, one in scored.predictions.items():
        score = macro_auc(one.label, one.logit)
        print(f"{name}: {predictor} {score:.4f} {scored.minutes[predictor]:.1f} min", flush=True)


if __name__ == "__main__":
    main()

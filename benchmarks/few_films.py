"""How good are recipes for few films, in five folds by patient and from 150 films up?

Usage: python benchmarks/few_films.py {folds,curve,recipes} [--protocol FILE] [--recipes NAME ...]
                                      [--out DIR]
The 1,400 real films of ../shared/nih and the recipe of a protocol (protocols/sample.toml): its
networks, the learners on frozen features, and the ensemble of its members.
folds: each fold of patients tests once, the others train and validate (85:15).
curve: about 150, 350, 700 and 1,120 films of the other patients, by three seeds, which also draw
the patients that test (a fifth).
recipes: the first network in the same folds, as stated and with each change of RECIPES.
Scores of a fold are put on one scale by their ranks among its films; then films of all folds count
together. Features and trained networks stay in DIR and are not made again. Prints and saves macro
AUC with its interval over patients, on all films and on each folder alone, the same of recalibrated
logits pooled as they are, the paired difference from the best, and minutes of all that a predictor
needs: features, training, views.
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

from lucency.config.protocol import Protocol, parse_protocol, read_protocol
from lucency.config.sections import FROZEN
from lucency.core.files import write_table, write_whole
from lucency.core.manifest import FINDINGS, PARTS, Prepared
from lucency.core.plan import Plan, originals
from lucency.core.predictions import Features, Predictions, concatenate
from lucency.core.stage import fingerprint
from lucency.data.film_cache import prepare
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
from lucency.evaluation.metrics import macro_auc

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FOLDS, SEEDS, FILMS = 5, 3, (150, 350, 700, 1120)
VAL = 0.15
RECIPES: dict[str, dict[str, object]] = {
    "as-before": {
        "optimizer": "adam", "learning_rate": 3e-4, "layer_decay": 1.0, "weight_decay": 0.0,
        "warmup_epochs": 1.0, "clip_norm": 0.0, "probe": False, "ema": 0.0, "keep": "best",
        "augment": "gentle", "mixup": 0.0, "epochs": 6,
    },
    "no-probe": {"probe": False},
    "no-layer-decay": {"layer_decay": 1.0},
    "no-ema": {"ema": 0.0},
    "no-mixup": {"mixup": 0.0},
    "gentle": {"augment": "gentle"},
    "swa": {"ema": 0.0, "swa_epochs": 3},
    "thawing": {"unfreeze_epochs": 3},
    "smoothing": {"smoothing": 0.1},
    "retrained": {"retrain": "balanced"},
    "asymmetric": {"loss": "asymmetric"},
    "frozen": {"frozen": 1.0},
}  # fmt: skip
RESAMPLES = 1_000


class Sample(NamedTuple):
    """Prepared films, the fold of each by its patient, frozen features by source and their cost."""

    films: Prepared
    fold: np.ndarray
    frozen: dict[str, np.ndarray]
    minutes: dict[str, float]


class Scored(NamedTuple):
    """Predictions of test films by predictor, and the minutes of making each."""

    predictions: dict[str, Predictions]
    minutes: dict[str, float]


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description="Recipes for few films.")
    parser.add_argument("what", choices=["folds", "curve", "recipes"])
    parser.add_argument("--protocol", type=Path, default=ROOT / "protocols" / "sample.toml")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "few-films")
    given = parser.parse_args()
    protocol = read_protocol(given.protocol)
    if given.what == "recipes":
        protocol = _with_recipes(protocol, given.recipes)
    sample = _sample(protocol, given.out)
    if given.what == "curve":
        table = _curve(protocol, sample, given.out)
    else:
        table = _folds(protocol, sample, given.out)
    print(table.to_string(index=False))
    cores = f"{platform.machine()}-{os.cpu_count()}core"
    name = f"few-films-{protocol.name}-{given.what}-{cores}-{datetime.date.today()}.csv"
    write_table(table, RESULTS / name)


def _sample(protocol: Protocol, out: Path) -> Sample:
    from lucency.models.features import embed, frozen_network

    out.mkdir(parents=True, exist_ok=True)
    manifest = read_films(protocol.data, findings=FINDINGS, out=out / "films")
    films = prepare(
        manifest,
        preparation=protocol.preparation,
        out=out / f"prepared-{protocol.preparation.size}",
        workers=os.cpu_count() or 1,
    )
    frozen, minutes, choices = {}, {}, protocol.ensemble
    for choice in choices.frozen:
        about = {
            **choice.model_dump(),
            "views": choices.feature_views,
            **films.preparation.model_dump(),
        }
        file = out / f"{choice.name}-{fingerprint(about)[:8]}.npz"
        if not file.is_file():
            started, rows = time.monotonic(), np.arange(len(films.manifest))
            network = frozen_network(choice, root=ROOT)
            made = embed(films, rows=rows, network=network, views=choices.feature_views)
            np.savez(file, feature=made, minutes=(time.monotonic() - started) / 60)
        with np.load(file) as kept:
            frozen[FROZEN + choice.name] = kept["feature"]
            minutes[FROZEN + choice.name] = float(kept["minutes"])
    fold = folds_by_patient(films.manifest.patient, folds=FOLDS, seed=0)
    return Sample(films, fold, frozen, minutes)


def _with_recipes(protocol: Protocol, names: list[str]) -> Protocol:
    """Return the protocol with its first network once for each recipe, and no learner."""
    choices = protocol.model_dump()
    first = choices["network"][0]
    architecture = protocol.network[0].built
    choices["network"] = [first] + [
        {
            **first,
            "name": name,
            "architecture": architecture,
            "training": {**first["training"], **RECIPES[name]},
        }
        for name in names
    ]
    choices["ensemble"] = {"views": protocol.ensemble.views}
    return parse_protocol(choices, name=protocol.name)


def _folds(protocol: Protocol, sample: Sample, out: Path) -> pd.DataFrame:
    scored = []
    for fold in range(FOLDS):
        plan = _plan(sample.films, test=sample.fold == fold, wanted=0, seed=fold)
        scored.append(_score(protocol, sample, plan, out / f"fold-{fold}"))
        _print(scored[-1], f"fold {fold}")
    return _table(_together(scored), _folder(sample, scored))


def _curve(protocol: Protocol, sample: Sample, out: Path) -> pd.DataFrame:
    tables = []
    for films in FILMS:
        scored = []
        for seed in range(SEEDS):
            test, every = sample.fold == seed, films == FILMS[-1]  # the folds' own
            plan = _plan(sample.films, test=test, wanted=0 if every else films, seed=seed)
            folder = out / (f"fold-{seed}" if every else f"films-{films}-{seed}")
            scored.append(_score(protocol, sample, plan, folder))
            _print(scored[-1], f"{films} films, seed {seed}")
        table = _table(_together(scored), _folder(sample, scored))
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


def _score(protocol: Protocol, sample: Sample, plan: Plan, folder: Path) -> Scored:
    """Return what the recipe's predictors say of the plan's test films."""
    predictions, minutes = {}, {}
    for name, made, taken in _predictors(protocol, sample, plan, folder):
        predictions[name] = recalibrated(made, method=protocol.evaluation.recalibration)
        predictions[name] = replace(predictions[name], network=name)
        minutes[name] = taken
    choices = protocol.ensemble
    members = choices.members or tuple(one.name for one in protocol.network)
    for method in choices.ensembles:
        several = [predictions[one] for one in members]
        combined = make_ensemble(several, method=method, seed=choices.seed)
        predictions[method] = combined.predictions
        minutes[method] = sum(minutes[one] for one in members)
    return Scored({name: one.of("test") for name, one in predictions.items()}, minutes)


def _predictors(
    protocol: Protocol, sample: Sample, plan: Plan, folder: Path
) -> Iterator[tuple[str, Predictions, float]]:
    evaluated = plan.take(plan.part != "train")
    for choice in protocol.network:
        made, minutes = _trained(protocol, sample, plan, folder, choice.name)
        yield choice.name, made.pop("plain"), minutes
        for name, views in made.items():
            yield f"{choice.name} with {name}", views, minutes
    for source in protocol.ensemble.sources:
        started = time.monotonic()
        if not source.startswith(FROZEN):
            continue
        feature = np.concatenate([sample.frozen[one] for one in source.split("+")], axis=1)
        sides = [
            _features(sample.films, side, feature, source, split=_split_of(plan))
            for side in (plan.take(plan.part == "train"), evaluated)
        ]
        for learner in protocol.ensemble.learners:
            made, *_ = classical_predictions(*sides, learner=learner, seed=0, fitting=Fitting())
            passed = sum(sample.minutes[one] for one in source.split("+"))
            yield f"{learner} on {source}", made, passed + (time.monotonic() - started) / 60


def _trained(
    protocol: Protocol, sample: Sample, plan: Plan, folder: Path, name: str
) -> tuple[dict[str, Predictions], float]:
    """Return what a network, trained here or before, says of the films, plainly and by views."""
    from lucency.core.progress import silent
    from lucency.models.classifier import load_classifier
    from lucency.models.inference import predict, predict_views
    from lucency.models.training import train

    choice = next(one for one in protocol.network if one.name == name)
    started, out = time.monotonic(), folder / name
    made = train(
        sample.films,
        plan=plan,
        protocol=protocol,
        choice=choice,
        upstream={"split": _split_of(plan)},
        out=out,
        progress=silent,
    )
    classifier, evaluated = load_classifier(made), plan.take(plan.part != "train")
    said = {"plain": predict(classifier, prepared=sample.films, plan=evaluated)}
    if views := protocol.ensemble.views:
        said["views"] = predict_views(
            classifier,
            prepared=sample.films,
            plan=evaluated,
            recipe="gentle",
            views=views,
            seed=0,
            progress=silent,
        )
    file = folder / f"{name}.minutes"
    if not file.is_file():
        write_whole(file, str((time.monotonic() - started) / 60))
    return said, float(file.read_text())


def _split_of(plan: Plan) -> str:
    return fingerprint({part: plan.row[plan.part == part].tolist() for part in PARTS})


def _features(
    films: Prepared, plan: Plan, feature: np.ndarray, source: str, *, split: str
) -> Features:
    manifest = films.manifest
    return Features(
        source=source,
        split=split,
        findings=manifest.findings,
        image=manifest.image[plan.row],
        patient=manifest.patient[plan.row],
        part=plan.part,
        label=plan.label,
        feature=feature[plan.row],
    )


def _together(several: list[Scored]) -> Scored:
    """Return all folds' predictions as one, on one scale: ranks among each fold's films.

    Features of them are their recalibrated logits, on the scale of validation films.
    """

    def ranked(one: Predictions) -> Predictions:
        share = (rankdata(one.logit, axis=0) - 0.5) / len(one.logit)
        kept = one.calibrated.astype(np.float32)
        return replace(one.uncalibrated(), logit=logit(share), feature=kept, split="folds")

    names = several[0].predictions
    whole = {n: concatenate([ranked(one.predictions[n]) for one in several]) for n in names}
    minutes = {n: float(np.mean([one.minutes[n] for one in several])) for n in names}
    return Scored({n: replace(one, network=n) for n, one in whole.items()}, minutes)


def _folder(sample: Sample, scored: list[Scored]) -> np.ndarray:
    """Return whether each test film, in order, is of the larger folder, images-320."""
    path = pd.Series(
        sample.films.manifest.facts["path"].to_numpy(), index=sample.films.manifest.image
    )
    first = next(iter(scored[0].predictions))
    image = np.concatenate([one.predictions[first].image for one in scored])
    return path.loc[image].str.contains("images-320").to_numpy()


def _table(scored: Scored, large: np.ndarray) -> pd.DataFrame:
    rows = []
    for name, one in scored.predictions.items():
        value, low, high = _macro(one)
        alone = [_macro(one.take(np.flatnonzero(side)))[0] for side in (large, ~large)]
        pooled = macro_auc(one.label, one.feature)
        rows.append((name, value, low, high, pooled, *alone, scored.minutes[name]))
    columns = ["predictor", "macro_auc", "low", "high", "pooled", "images_320", "images", "minutes"]
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
    for predictor, one in scored.predictions.items():
        score = macro_auc(one.label, one.logit)
        print(f"{name}: {predictor} {score:.4f} {scored.minutes[predictor]:.1f} min", flush=True)


if __name__ == "__main__":
    main()

"""The sweep: trials of a search space, the best of them at fresh seeds, and what it was worth.

All trials share films and parts; what they reach on validation films is all that the search sees.
Any number of processes may work in one folder: each takes trials, then trainings at fresh seeds.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from lucency.config.ensemble_section import EnsembleChoices
from lucency.config.protocol import BASE, Protocol, protocol_text
from lucency.config.sections import ExplanationChoices
from lucency.core.files import BusyError, write_whole
from lucency.core.manifest import read_table
from lucency.core.predictions import Predictions
from lucency.core.progress import say
from lucency.core.stage import discard_outdated, fingerprint, fingerprint_of, produce
from lucency.core.tables import load_tables, save_tables
from lucency.evaluation.metrics import macro_auc
from lucency.evaluation.sweep_optimism import SweepResults, conclude_sweep, optimism_table
from lucency.pipeline import stages
from lucency.pipeline.run import FINALS, Run, kept, open_run, sharing, validation_auc

if TYPE_CHECKING:  # a sweep alone needs Optuna
    from optuna.trial import Trial

    from lucency.pipeline.trials import Trials

TEXT = ("state", "reason", "candidate", "part", "key")
UNUSED = ("external", "explanation", "ensemble", "unfamiliar")  # sections of what is made later
WAIT = 1.0  # seconds between two attempts at what another process is making
WEIGHTS = (".safetensors", ".pt")  # endings of what is removed of a finished trial
FEWEST = 4  # finished trials from which the importance of keys is estimated
Made = TypeVar("Made")


def open_sweep(protocol: Protocol, *, out: str | Path, workers: int = 0) -> Run:
    """Return the run that holds a sweep; ValueError, before any work, for one that cannot be."""
    if not protocol.sweep.space:
        raise ValueError(
            f"{protocol.name} has no sweep.space: expected keys to search, see sweep.md"
        )
    if find_spec("optuna") is None:
        raise ValueError("optuna is not installed: pip install 'lucency[sweep]'")
    _check_candidates(protocol)
    _say_unused(protocol)
    return open_run(protocol, out=out, workers=workers)


def _say_unused(protocol: Protocol) -> None:
    """Tell which sections of a protocol a sweep leaves alone."""
    fields = Protocol.model_fields
    stated = [name for name in UNUSED if getattr(protocol, name) != fields[name].default]
    if stated:
        say(f"No part of a sweep, kept for lucency run in best.toml: {', '.join(stated)}")


def _check_candidates(protocol: Protocol) -> None:
    """Raise ValueError for a network of the space that cannot be built."""
    from lucency.models.training import check_choice

    seen = set()
    for values in protocol.sweep.corners():
        candidate = protocol.candidate(values)
        choice = candidate.network[0]
        training = candidate.training_of(choice.name)
        same = (choice.model_dump_json(exclude={"training"}), training.frozen, training.probe)
        if same not in seen:
            check_choice(choice, root=Path(protocol.data.root), training=training)
        seen.add(same)


@kept
def search(run: Run) -> pd.DataFrame:
    """Return the table of all trials, done by this process and others, as SweepResults has it."""
    _patiently(partial(stages.prepared, run))
    _patiently(partial(stages.parts, run))
    _check_objective(run)
    trials = _trials(run)
    with closing(trials.each()) as several:
        for trial, values in several:
            try:
                _do_trial(run, trials, trial, values)
            except (ValueError, OSError, KeyboardInterrupt):  # films, a disk, a user
                trials.forgive(trial)
                raise
    for one in trials.every():
        _discard_weights(_home(run, one.number))
    return _table(trials)


def _trials(run: Run) -> Trials:
    """Return the trials of a run's sweep, as `lucency.pipeline.trials` keeps them."""
    from lucency.pipeline.trials import Trials

    several = (run.protocol.candidate(one) for one in run.protocol.sweep.corners())
    epochs = max(one.training_of(one.network[0].name).epochs for one in several)
    trials = Trials(folder=run.out / "trials", sweep=run.protocol.sweep, epochs=epochs)
    if (done := len(trials.every())) > trials.sweep.trials:
        raise ValueError(
            f"{run.out}: sweep.trials is {trials.sweep.trials}, but {done} trials were begun here: "
            f"expected {done} or more, or another folder"
        )
    return trials


def _check_objective(run: Run) -> None:
    films, part = stages.prepared(run).manifest, stages.parts(run)
    label = films.label[part == "val"]
    if np.isnan(macro_auc(label, np.zeros_like(label))):
        raise ValueError(
            "no finding has positive and negative validation films, so trials cannot be compared: "
            "expected more films, or a larger split.val"
        )


def _do_trial(run: Run, trials: Trials, trial: Trial, values: dict[str, Any]) -> None:
    """Train one candidate and enter its macro AUC on validation films, or why it has none."""
    shown = ", ".join(f"{key} = {_short(value)}" for key, value in values.items())
    say(f"Trial {trial.number} ({trial.number + 1} of {trials.sweep.trials}): {shown}")
    value, reason = _score(run, trials, trial, values)
    home = _home(run, trial.number)
    trial.set_user_attr("minutes", _minutes(home))
    trials.finish(trial, value, reason=" ".join(reason.split()))
    _discard_weights(home)
    say(f"Trial {trial.number}: {reason or f'val AUC {value:.3f}'}")


def _score(
    run: Run, trials: Trials, trial: Trial, values: dict[str, Any]
) -> tuple[float | None, str]:
    """Return a candidate's macro AUC on validation films and "", or None and why it has none.

    What is wrong with the candidate alone ends its trial. All else ends the sweep, so that no trial
    is entered for weights, films or a store that are not there.
    """
    import torch
    from optuna import TrialPruned

    from lucency.balance.resampling import BalancingError
    from lucency.models.networks import check_name
    from lucency.models.training import DivergedError, check_layers

    try:
        protocol = run.protocol.candidate(values)
    except ValueError as error:  # of a combination between the ends, which all fit
        return None, str(error)
    choice = protocol.network[0]
    training = protocol.training_of(choice.name)
    check_name(choice.built)  # a place of networks that is gone ends the sweep
    try:
        check_name(choice.built, head=choice.head)
        check_layers(choice, training=training)
    except ValueError as error:
        return None, str(error)
    member = _member(run, protocol, _home(run, trial.number))
    try:
        _patiently(partial(stages.plan, member))
    except BalancingError as error:
        return None, str(error)
    watch = trials.watching(trial, epochs=training.epochs)
    try:
        trained = _patiently(partial(stages.classifiers, member, after_epoch=watch))
    except TrialPruned:
        return None, "pruned: behind other trials"
    except (DivergedError, torch.OutOfMemoryError) as error:
        return None, str(error)
    return validation_auc(trained[choice.name]), ""


def _home(run: Run, number: int) -> Path:
    return run.out / "trials" / f"trial-{number:04d}"


def _member(run: Run, protocol: Protocol, out: Path) -> Run:
    """Return the run of a candidate, which shares films and parts, and makes predictions only."""
    late = {"ensemble": EnsembleChoices(), "explanation": ExplanationChoices(), "external": ()}
    member = open_run(protocol.model_copy(update=late), out=out, workers=run.workers)
    return sharing(member, films_of=run)


def _minutes(home: Path) -> float:
    """Return how long the epochs of a trial took to train."""
    found = list(home.glob("networks/*/history.csv"))
    return float(read_table(found[0], text=())["seconds"].iloc[-1]) / 60 if found else 0.0


def _discard_weights(home: Path) -> None:
    """Remove what is large of a finished trial: weights, plan and copies; its history stays."""
    for name in ("plan", "copies"):
        shutil.rmtree(home / name, ignore_errors=True)
    for file in home.glob("networks/*/*"):
        if file.suffix in WEIGHTS:
            file.unlink()


def _table(trials: Trials) -> pd.DataFrame:
    from lucency.pipeline.trials import REASON

    rows = []
    for one in trials.every():
        values = {key: trials.shown(one).get(key) for key in trials.sweep.space}
        row = {
            "trial": one.number,
            "state": "finished" if one.state.name == "COMPLETE" else "pruned",
        }
        row |= {key: json.dumps(value) for key, value in values.items()}
        row |= {
            "epochs": max(one.intermediate_values, default=0),
            "minutes": one.user_attrs.get("minutes", 0.0),
            "val_auc": np.nan if one.value is None else one.value,
            "reason": one.user_attrs.get(REASON, ""),
        }
        rows.append(row)
    table = pd.DataFrame(rows)
    finished = table["val_auc"].where(table["state"] == "finished")
    return table.assign(best=finished.cummax().ffill())


@kept
def finals(run: Run) -> dict[str, dict[int, Run]]:
    """Return the runs of the best candidate and of the protocol as it stands, at fresh seeds."""
    search(run)
    number, found = _found(run)
    made: dict[str, dict[int, Run]] = {}
    for name, values in ((f"trial-{number:04d}", found), (BASE, {})):
        for seed in run.protocol.sweep.seeds:
            seeds = {"training.seed": seed, "balance.seed": seed}
            protocol = run.protocol.candidate({**values, **seeds})
            place = run.out / FINALS / name / f"seed-{seed}"
            made.setdefault(name, {})[seed] = _member(run, protocol, place)
    return made


def _found(run: Run) -> tuple[int, dict[str, Any]]:
    """Return the number of the best trial, and its values by keys."""
    trials = _trials(run)
    best = trials.best()
    return best.number, trials.shown(best)


@kept
def predictions(run: Run) -> dict[str, list[Predictions]]:
    """Return the predictions of the finals by candidate, one a seed, by this process and others."""
    several = [one for members in finals(run).values() for one in members.values()]
    while several:
        busy = [one for one in several if not _is_predicted(one)]
        if len(busy) == len(several):
            time.sleep(WAIT)
        several = busy
    return {
        name: [stages.predictions(one)[0] for one in members.values()]
        for name, members in finals(run).items()
    }


def _is_predicted(member: Run) -> bool:
    """Train and predict with one of the finals; return False where another process does."""
    try:
        stages.predictions(member)
    except BusyError:
        return False
    return True


@kept
def results(run: Run) -> SweepResults:
    """Return trials, optimism, importance and conclusion; evaluation/best.toml is written too."""
    found, default = predictions(run).values()
    places = [one.out for members in finals(run).values() for one in members.values()]
    inputs = {
        "evaluation": run.protocol.evaluation.draws,
        "trials": fingerprint({"table": search(run).to_csv(index=False)}),
        "predictions": [fingerprint_of(next(p.glob("predictions/*"))) for p in places],
    }
    out = run.out / "evaluation"
    discard_outdated(out, inputs=inputs)
    write = partial(_write_results, run, found, default)
    folder = _patiently(partial(produce, out, inputs=inputs, write=write))
    return load_tables(SweepResults, folder, text=(*TEXT, *run.protocol.sweep.space))


def _write_results(
    run: Run, found: list[Predictions], default: list[Predictions], folder: Path
) -> None:
    table = search(run)
    number, values = _found(run)
    best = float(table["val_auc"].iloc[number])
    optimism = optimism_table(best, found=found, default=default, **run.draws)
    conclusion = conclude_sweep(optimism, trials=len(table))
    made = {"trials": table, "optimism": optimism, "importance": _importance(run)}
    save_tables(SweepResults(**made, conclusion=conclusion), folder)
    which = f"trial {number} ({number + 1} of {len(table)})"
    head = f"# Found by a sweep: {which}.\n# {conclusion}\n\n"
    write_whole(folder / "best.toml", head + protocol_text(_named(run.protocol, values)) + "\n")


def _named(protocol: Protocol, values: dict[str, Any]) -> Protocol:
    return protocol.candidate(values).model_copy(update={"name": f"{protocol.name}-best"})


def _importance(run: Run) -> pd.DataFrame:
    """Return the share of each key in the variance of trials; no row where too few are finished.

    Functional ANOVA over random forests (Hutter et al., ICML 2014), by Optuna.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    trials = _trials(run)
    values = {one.value for one in trials.every() if one.state.name == "COMPLETE"}
    shares: dict[str, float] = {}
    if len(values) >= FEWEST:
        forest = FanovaImportanceEvaluator(seed=run.protocol.sweep.seed)
        shares = get_param_importances(trials.study, evaluator=forest)
    rows = [(key, shares[key]) for key in run.protocol.sweep.space if key in shares]
    return pd.DataFrame(rows, columns=["key", "share"])


def report(run: Run) -> Path:
    """Return the page that shows trials, optimism and what was found."""
    found = results(run)
    inputs = run.fingerprints("evaluation")
    discard_outdated(run.out / "report", inputs=inputs)
    write = partial(_write_report, run, found)
    folder = _patiently(partial(produce, run.out / "report", inputs=inputs, write=write))
    return folder / "report.html"


def _write_report(run: Run, found: SweepResults, folder: Path) -> None:
    from lucency.report.study_pages import write_sweep_page

    say("Writing the report")
    films, part = stages.prepared(run).manifest, stages.parts(run)
    counts = [
        f"{int((part == name).sum()):,} films of {len(np.unique(films.patient[part == name])):,} "
        f"patients {verb}"
        for name, verb in (("train", "train"), ("val", "validate"), ("test", "test"))
    ]
    write_sweep_page(
        run.protocol,
        seen=f"{films.origin}. {', '.join(counts)}",
        results=found,
        best=(run.out / "evaluation" / "best.toml").read_text(encoding="utf-8").strip(),
        file=folder / "report.html",
    )


def _patiently(make: Callable[[], Made]) -> Made:
    """Return what `make` makes, when no other process is making it any more."""
    waiting = False
    while True:
        try:
            return make()
        except BusyError as busy:
            if not waiting:
                say(f"{busy}; this process waits")
            waiting = True
            time.sleep(WAIT)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value)

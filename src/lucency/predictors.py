"""What can be made of a run's networks, one function a kind; each says what a film costs it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from scipy.special import logit

from lucency.combine.pool import EQUAL, pool
from lucency.combining_keys import AND, TEXTURE
from lucency.costs import costs
from lucency.featuring import sides
from lucency.judge.league import Entrant
from lucency.plan import Plan
from lucency.predictions import Predictions, concatenate
from lucency.progress import progress, say
from lucency.run import classifiers, pictures, plan, predictions
from lucency.workspace import Run

VIEWS = "gentle"  # how the views of a film differ


class Made(NamedTuple):
    """A predictor's say on validation and test films, what a film costs, and tables beside it."""

    said: Predictions
    entrant: Entrant
    tables: dict[str, pd.DataFrame]


def ensemble(run: Run, method: str) -> Made:
    """Return the networks combined by a method of ENSEMBLES, or stacked."""
    say(f"Combining {len(predictions(run))} networks: {method}")
    cost = costs(run)
    pooled = pool(predictions(run), method=method, seed=run.protocol.combining.seed)
    entrant = Entrant("ensemble", sum(cost[one.network] for one in predictions(run)))
    return Made(pooled.said, entrant, {"weights": pooled.weights})


def snapshots(run: Run, network: str) -> Made:
    """Return the mean probability of a network's snapshots, one at the end of each cycle."""
    from lucency.learn.snapshots import predict_snapshots

    with progress(f"Snapshots of {network}", unit="films") as advance:
        several = predict_snapshots(
            classifiers(run)[network], prepared=pictures(run), plan=_asked(run), progress=advance
        )
    said = pool(several, method=EQUAL, seed=0).said
    return Made(said, Entrant("snapshots", costs(run)[network] * len(several)), {})


def viewed(run: Run, network: str) -> Made:
    """Return the mean logit of a film and of several augmented views of it."""
    from lucency.learn.views import predict_views
    from lucency.learn.zoo import load_classifier

    choices = run.protocol.combining
    with progress(f"More views for {network}", unit="films") as advance:
        said = predict_views(
            load_classifier(classifiers(run)[network]),
            prepared=pictures(run),
            plan=_asked(run),
            recipe=VIEWS,
            views=choices.views,
            seed=choices.seed,
            progress=advance,
        )
    return Made(said, Entrant("views", costs(run)[network] * (choices.views + 1)), {})


def learnt(run: Run, source: str, learner: str) -> Made:
    """Return what a classical learner makes of the features of a source."""
    from lucency.combine.classical import classical_predictions
    from lucency.combine.space import Fitting

    train, asked, _ = sides(run, source)
    choices = run.protocol.combining
    reduction = "selection" if source == TEXTURE else "components"
    several = [asked.of("val"), asked.of("test")]
    with progress(f"Fitting {learner} to features of {source}", unit="fits") as advance:
        said, table = classical_predictions(
            train,
            several,
            learner=learner,
            seed=choices.seed,
            fitting=Fitting(choices.oversampling, reduction, advance),
        )
    cost = _cost_of(run, source) + float(table["milliseconds"].iloc[0])
    table = table.drop(columns=["fold", "milliseconds"])
    return Made(concatenate(said), Entrant("learner", cost), {"choices": table})


def voted(run: Run, source: str) -> Made:
    """Return the vote of similar training films, and how good the search for them is."""
    from lucency.combine.relevance import similar_table
    from lucency.combine.retrieve import build_index, neighbour_predictions, prevalence

    say(f"Looking for similar films by features of {source}")
    train, asked = _comparable(*sides(run, source)[:2], source=source)
    train, there = train.take(_shown(train)), _shown(asked)
    choices, judging = run.protocol.combining, run.protocol.judging
    index = build_index(train.feature, image=train.image, patient=train.patient)
    started = time.perf_counter()
    found = neighbour_predictions(
        asked.take(there), index=index, label=train.label, neighbours=choices.neighbours
    )
    cost = _cost_of(run, source) + 1000 * (time.perf_counter() - started) / len(there)
    draws = {"resamples": judging.resamples, "seed": judging.seed}
    table = similar_table(asked.take(there).of("test"), index=index, label=train.label, **draws)
    table.insert(0, "source", source)
    said = np.tile(logit(prevalence(train.label)), (len(asked), 1))
    said[there] = found.logit
    nothing = np.empty((len(asked), 0), dtype=np.float32)
    whole = replace(asked.uncalibrated(), network=found.network, logit=said, feature=nothing)
    return Made(whole, Entrant("neighbours", cost), {"similar": table})


def _comparable(
    train: Predictions, asked: Predictions, *, source: str
) -> tuple[Predictions, Predictions]:
    """Return features whose cosine means something: textures have units, and may be missing."""
    if TEXTURE not in source.split(AND):
        return train, asked
    from lucency.combine.space import standardised

    rows = np.arange(len(train) + len(asked))
    space = standardised(
        np.concatenate([train.feature, asked.feature]),
        fitted=rows[: len(train)],
        left=rows[len(train) :],
        seed=0,
    )
    return _seen_by(train, space.known), _seen_by(asked, space.asked)


def _seen_by(said: Predictions, axes: Float64[np.ndarray, "n d"]) -> Predictions:
    """Return films on other axes; those without features stay without."""
    nothing = np.full(axes.shape, np.nan)
    nothing[_shown(said)] = axes[_shown(said)]
    return replace(said, feature=nothing.astype(np.float32))


def _shown(said: Predictions) -> Int64[np.ndarray, " m"]:
    """Return the rows of films that have features: those without lungs have no textures."""
    return np.flatnonzero(~np.isnan(said.feature).all(axis=1))


def _asked(run: Run) -> Plan:
    seen = plan(run)
    return seen.take(seen.part != "train")


def _cost_of(run: Run, source: str) -> float:
    return sum(costs(run)[one] for one in source.split(AND))

"""One look at a network: the maps of all methods that it allows, and how they stand the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lucency.choices import Explaining
from lucency.judge.maps import Maps
from lucency.learn.explain import explain
from lucency.learn.scrutiny import NOTHING, forgetful, refusals, scrutinise
from lucency.learn.zoo import Classifier
from lucency.plan import Plan
from lucency.progress import progress
from lucency.values import Prepared


class Look(NamedTuple):
    """Maps by method, those of the same network with a new head, and what the tests gave.

    `refused` says why a network does not allow a method; `similarities` and `tried` are as
    `learn.scrutiny` gives them.
    """

    maps: tuple[Maps, ...]
    redrawn: tuple[Maps, ...]
    refused: dict[str, str]
    similarities: pd.DataFrame
    tried: pd.DataFrame


def look(
    classifier: Classifier,
    *,
    prepared: Prepared,
    plan: Plan,
    findings: Sequence[str],
    choices: Explaining,
) -> Look:
    """Return what the plan's films show of the network, by the methods of `choices`."""
    if not len(plan):
        return Look((), (), {}, *NOTHING)
    where = {"prepared": prepared, "plan": plan}
    refused = refusals(classifier, **where, methods=choices.methods)
    methods = [name for name in choices.methods if name not in refused]
    blind = forgetful(classifier, seed=choices.seed)
    maps, redrawn = [], []
    for name in methods:
        for network, kept, told in ((classifier, maps, ""), (blind, redrawn, ", head redrawn")):
            with progress(f"Explaining with {name}{told}", unit="films") as advance:
                kept.append(
                    explain(network, **where, method=name, findings=findings, progress=advance)
                )
    positive = np.flatnonzero((plan.label == 1).any(axis=1))
    if not methods or not len(positive):
        return Look(tuple(maps), tuple(redrawn), refused, *NOTHING)
    with progress("Testing explanations", unit="steps") as advance:
        tests = scrutinise(
            classifier,
            prepared=prepared,
            plan=plan.take(positive),
            methods=methods,
            films=choices.films,
            seed=choices.seed,
            progress=advance,
        )
    return Look(tuple(maps), tuple(redrawn), refused, *tests)

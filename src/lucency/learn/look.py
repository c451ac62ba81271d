"""One look at a network: the maps of all methods that it allows, and how they stand the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lucency.choices import Explaining
from lucency.judge.maps import Maps
from lucency.judge.sight import REDRAWN
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
    boxed: Plan,
    tried: Plan,
    findings: Sequence[str],
    choices: Explaining,
) -> Look:
    """Return what a network sees by the methods of `choices`.

    Explained are the films of `plan`, and with a new head those of `boxed`; the maps are put to the
    test on some films of `tried` that have a finding.
    """
    if not len(plan):
        return Look((), (), {}, *NOTHING)
    refused = refusals(classifier, prepared=prepared, plan=plan, methods=choices.methods)
    methods = [name for name in choices.methods if name not in refused]
    about = {"prepared": prepared, "findings": findings}
    maps = [_explained(classifier, name, plan=plan, **about) for name in methods]
    redrawn = []
    if len(boxed):
        blind = forgetful(classifier, seed=choices.seed)
        named = f", {REDRAWN}"
        redrawn = [_explained(blind, name, plan=boxed, told=named, **about) for name in methods]
    positive = np.flatnonzero((tried.label == 1).any(axis=1))
    if not methods or not len(positive):
        return Look(tuple(maps), tuple(redrawn), refused, *NOTHING)
    with progress("Testing explanations", unit="steps") as advance:
        tests = scrutinise(
            classifier,
            prepared=prepared,
            plan=tried.take(positive),
            methods=methods,
            films=choices.films,
            seed=choices.seed,
            progress=advance,
        )
    return Look(tuple(maps), tuple(redrawn), refused, *tests)


def _explained(
    classifier: Classifier,
    method: str,
    *,
    prepared: Prepared,
    plan: Plan,
    findings: Sequence[str],
    told: str = "",
) -> Maps:
    with progress(f"Explaining with {method}{told}", unit="films") as advance:
        where = {"prepared": prepared, "plan": plan, "findings": findings}
        return explain(classifier, **where, method=method, progress=advance)

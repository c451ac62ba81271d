"""Maps put to the test: do they forget with the network, name what it uses, and stay when it moves?

Letters in shapes: b films, c channels, gh and gw cells of the grid, h and w pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lucency.judge.maps import Centres, blend
from lucency.judge.sanity import map_similarity
from lucency.learn.device import device_here, laid_out
from lucency.learn.explain import BATCH, HEATMAPS, centres_of, heatmaps
from lucency.learn.occlusion import deletion_curve, insertion_curve
from lucency.learn.predict import Progress
from lucency.learn.sanity import is_flat, randomised, redraw_head, stability
from lucency.learn.zoo import Classifier
from lucency.plan import Plan
from lucency.values import Prepared

STEPS = 16  # shares of the film that are taken away or given back
SHIFT = 32  # films move by a 32nd of their side
BLOCKS = 5  # of the cascade, the head and the whole network among them


class Scrutiny(NamedTuple):
    """What the tests gave: similarities as `judge.sanity`, trials as `judge.sight` take them."""

    similarities: pd.DataFrame
    tried: pd.DataFrame


class _Cases(NamedTuple):
    """Scaled pictures of some films, and the finding (a column) that each is explained for."""

    pixels: Float[Tensor, "b c h w"]
    column: Int64[np.ndarray, " b"]


def refusals(
    classifier: Classifier, *, prepared: Prepared, plan: Plan, methods: Sequence[str]
) -> dict[str, str]:
    """Return why a network does not allow some methods; the plan's first film is tried."""
    cases = _cases(classifier, prepared, plan.take(np.arange(1)), np.zeros(1, dtype=np.int64))
    refused = {}
    for method in methods:
        try:
            HEATMAPS[method](classifier.network.body, cases.pixels, findings=[0])
        except ValueError as error:
            refused[method] = str(error)
    return refused


def scrutinise(
    classifier: Classifier,
    *,
    prepared: Prepared,
    plan: Plan,
    methods: Sequence[str],
    films: int,
    seed: int,
    progress: Progress | None = None,
) -> Scrutiny:
    """Return what becomes of each method's maps on at most `films` positive films of the plan.

    Drawn films are explained for one of their findings. The network is drawn anew from the head
    down (Adebayo et al., NeurIPS 2018), pixels are taken away and given back by the map's order
    and by a random one (Petsiuk et al., BMVC 2018), and films are moved by a 32nd of their side.
    """
    entry, column = _drawn(plan.label, films=films, seed=seed)
    cases = _cases(classifier, prepared, plan.take(entry), column)
    body = classifier.network.body
    mapping = {name: partial(heatmaps, method=name) for name in methods}
    own = {name: _maps(mapping[name], body, cases) for name in methods}
    laid = {name: centres_of(name, body, cases.pixels[:1], own[name][:1, None]) for name in methods}
    similarities, tried = [], []
    steps = BLOCKS + len(methods)
    blocks = randomised(body, seed=seed, copies=BLOCKS)
    for done, (block, other) in enumerate(blocks, start=1):
        for name in methods:
            changed = _maps(mapping[name], other, cases)
            same = map_similarity(_grids(own[name]), other=_grids(changed))[:, 0]
            similarities.append(pd.DataFrame({"method": name, "block": block, "similarity": same}))
        if progress:
            progress(done, steps, "networks drawn anew")
    rows = plan.row[entry]
    about = {
        "image": prepared.manifest.image[rows],
        "patient": prepared.manifest.patient[rows],
    }
    rivals = {_where(laid[name]): name for name in methods}
    rival = {
        place: _areas(body, _noise(own[name], seed=seed), laid[name], cases, suffix="_random")
        for place, name in rivals.items()
    }
    for done, name in enumerate(methods, start=1):
        areas = _areas(body, own[name], laid[name], cases, suffix="") | rival[_where(laid[name])]
        steady = {"stability": _steadiness(mapping[name], body, cases)}
        tried.append(pd.DataFrame({"method": name, **about, **areas, **steady}))
        if progress:
            progress(BLOCKS + done, steps, name)
    return Scrutiny(pd.concat(similarities, ignore_index=True), pd.concat(tried, ignore_index=True))


def forgetful(classifier: Classifier, *, seed: int) -> Classifier:
    """Return the classifier with a head drawn anew: it has features, and knows no finding."""
    network = copy.deepcopy(classifier.network)
    redraw_head(network.body, seed=seed)
    return replace(classifier, network=network)


def _cases(
    classifier: Classifier, prepared: Prepared, plan: Plan, column: Int64[np.ndarray, " b"]
) -> _Cases:
    device = device_here()
    network = classifier.network.to(device)
    laid_out(network)
    films = torch.from_numpy(prepared.pixels[plan.row]).to(device)
    return _Cases(network.pictures(films), column)


def _drawn(
    label: np.ndarray, *, films: int, seed: int
) -> tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " b"]]:
    """Return entries that have a finding, at random, and one of the findings of each."""
    generator = np.random.default_rng(seed)
    positive = generator.permutation(np.flatnonzero((label == 1).any(axis=1)))[:films]
    column = [generator.choice(np.flatnonzero(label[entry] == 1)) for entry in positive]
    return positive.astype(np.int64), np.array(column, dtype=np.int64)


def _maps(
    method: Callable[..., Tensor], body: nn.Module, cases: _Cases
) -> Float[Tensor, "b gh gw"]:
    found: dict[int, Tensor] = {}
    for column, mine in _batches(cases.column):
        maps = method(body, cases.pixels[mine], findings=[column])[:, 0].detach()
        found |= dict(zip(mine.tolist(), maps, strict=True))
    return torch.stack([found[film] for film in range(len(found))])


def _over(
    pixels: Float[Tensor, "b c h w"], maps: Float[Tensor, "b gh gw"], centres: Centres
) -> Float[Tensor, "b h w"]:
    """Return maps at the size of the pictures, laid where their cells look."""
    down, across = (
        torch.from_numpy(blend(centre, frame=length)).to(maps)
        for centre, length in zip(centres, pixels.shape[2:], strict=True)
    )
    return down @ maps @ across.T


def _where(centres: Centres) -> tuple[tuple[float, ...], ...]:
    """Return centres as a key: methods whose cells look alike have one random rival."""
    return tuple(tuple(axis.tolist()) for axis in centres)


def _noise(maps: Float[Tensor, "b gh gw"], *, seed: int) -> Float[Tensor, "b gh gw"]:
    drawn = np.random.default_rng(seed).random(tuple(maps.shape), dtype=np.float32)
    return torch.from_numpy(drawn).to(maps)


def _areas(
    body: nn.Module,
    maps: Float[Tensor, "b gh gw"],
    centres: Centres,
    cases: _Cases,
    *,
    suffix: str,
) -> dict[str, np.ndarray]:
    """Return the areas under both curves of a map; NaN where it is flat and names no order."""
    found = {name + suffix: np.full(len(maps), np.nan) for name in CURVES}
    ranked = np.flatnonzero(~is_flat(maps).cpu().numpy())
    for start in range(0, len(ranked), BATCH):
        mine = ranked[start : start + BATCH]
        pixels = cases.pixels[mine]
        over, findings = _over(pixels, maps[mine], centres), cases.column[mine].tolist()
        for name, curve in CURVES.items():
            line = curve(body, pixels, heatmap=over, findings=findings, steps=STEPS)
            found[name + suffix][mine] = torch.trapezoid(line, dx=1 / STEPS, dim=1).cpu().numpy()
    return found


def _steadiness(method: Callable[..., Tensor], body: nn.Module, cases: _Cases) -> np.ndarray:
    """Return how each film's map moves with it."""
    shift = max(1, cases.pixels.shape[-1] // SHIFT)
    found = np.full(len(cases.column), np.nan)
    for column, mine in _batches(cases.column):
        same = stability(body, cases.pixels[mine], method=method, shift=shift, findings=[column])
        found[mine] = same[:, 0].cpu().numpy()
    return found


def _batches(column: Int64[np.ndarray, " b"]) -> Iterator[tuple[int, Int64[np.ndarray, " m"]]]:
    """Yield films that are explained for one finding, a batch at a time."""
    for finding in np.unique(column).tolist():
        mine = np.flatnonzero(column == finding)
        yield from ((finding, mine[start : start + BATCH]) for start in range(0, len(mine), BATCH))


def _grids(maps: Float[Tensor, "b gh gw"]) -> np.ndarray:
    return maps.unsqueeze(1).float().cpu().numpy()


CURVES: dict[str, Callable[..., Tensor]] = {
    "deletion": deletion_curve,
    "insertion": insertion_curve,
}
TRIALS = ("deletion", "deletion_random", "insertion", "insertion_random", "stability")
NOTHING = Scrutiny(
    pd.DataFrame(columns=["method", "block", "similarity"]),
    pd.DataFrame(columns=["method", "image", "patient", *TRIALS]),
)

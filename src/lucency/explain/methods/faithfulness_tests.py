"""Heat maps of a network by all methods that it allows, and tests of how faithful they are to it.

Three tests: randomised weights must change a map (Adebayo et al., NeurIPS 2018); blanking pixels in
the map's order must lower the probability, and giving them back raise it (Petsiuk et al., BMVC
2018); a shifted film must shift its map.

Letters in shapes: b films, k findings, c channels, h and w pixels, gh and gw cells of the grid,
s shares of the film.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

from lucency.config.sections import ExplanationChoices
from lucency.core.manifest import Prepared
from lucency.core.plan import Plan
from lucency.core.progress import Advance, progress, silent
from lucency.explain.heatmap_results import RANDOMISED, map_similarity
from lucency.explain.heatmaps import Centres, Heatmaps, blend
from lucency.explain.methods.network_split import blank, chosen, logits, undisturbed
from lucency.explain.methods.registry import BATCH, HEATMAPS, centres_of, explain, heatmaps
from lucency.models.classifier import Classifier
from lucency.models.device import place
from lucency.models.heads import Body

FLAT = 1e-6
STEPS = 16  # shares of the film that are taken away or given back
SHIFT = 32  # films move by a 32nd of their side
BLOCKS = 5  # of the cascade, the head and the whole network among them
BLUR = ([11, 11], [5.0, 5.0])  # pixels of the kernel, sigma


class Faithfulness(NamedTuple):
    """What the tests gave: similarities and trials, as `explain.heatmap_results` takes them."""

    similarities: pd.DataFrame
    tried: pd.DataFrame


class NetworkHeatmaps(NamedTuple):
    """Heat maps by method, those of the same network with a new head, and what the tests gave.

    `refused` says why a network does not allow a method.
    """

    maps: tuple[Heatmaps, ...]
    randomised_maps: tuple[Heatmaps, ...]
    refused: dict[str, str]
    tests: Faithfulness


class _Cases(NamedTuple):
    """Scaled pictures of some films, and the finding (a column) that each is explained for."""

    pixels: Float[Tensor, "b c h w"]
    column: Int64[np.ndarray, " b"]


def network_heatmaps(
    classifier: Classifier,
    *,
    prepared: Prepared,
    plan: Plan,
    boxed: Plan,
    tried: Plan,
    findings: Sequence[str],
    choices: ExplanationChoices,
) -> NetworkHeatmaps:
    """Return the maps of a network by the methods of `choices` that it allows.

    Explained are the films of `plan`, and with a new head those of `boxed`; the maps are tested on
    some films of `tried` that have a finding.
    """
    if not len(plan):
        return NetworkHeatmaps((), (), {}, NOTHING)
    refused = refusals(classifier, prepared=prepared, plan=plan, methods=choices.methods)
    methods = [name for name in choices.methods if name not in refused]
    about = {"methods": methods, "prepared": prepared, "findings": findings}
    maps, randomised_maps = _explained(classifier, plan=plan, **about), ()
    if len(boxed):
        blind = randomised_network(classifier, seed=choices.seed)
        randomised_maps = _explained(blind, plan=boxed, mark=f", {RANDOMISED}", **about)
    drawn = {"films": choices.films, "seed": choices.seed}
    with progress("Testing explanations", unit="steps") as advance:
        tests = measure_faithfulness(
            classifier, prepared=prepared, plan=tried, methods=methods, progress=advance, **drawn
        )
    return NetworkHeatmaps(maps, randomised_maps, refused, tests)


def refusals(
    classifier: Classifier, *, prepared: Prepared, plan: Plan, methods: Sequence[str]
) -> dict[str, str]:
    """Return why a network does not allow some methods; the plan's first film is tried."""
    pixels, refused = _pictures(classifier, prepared, plan.row[:1]), {}
    for method in methods:
        try:
            HEATMAPS[method](classifier.network.body, pixels, findings=[0])
        except ValueError as error:
            refused[method] = str(error)
    return refused


def measure_faithfulness(
    classifier: Classifier,
    *,
    prepared: Prepared,
    plan: Plan,
    methods: Sequence[str],
    films: int,
    seed: int,
    progress: Advance = silent,
) -> Faithfulness:
    """Return what becomes of each method's maps on at most `films` positive films of the plan.

    Random films are explained for one of their findings. The network is randomised from the head
    down, pixels are taken away and given back by the map's order and by a random one, and films
    are moved by a 32nd of their side.
    """
    generator, label = np.random.default_rng(seed), plan.label == 1
    entry = generator.permutation(np.flatnonzero(label.any(axis=1)))[:films]
    column = np.array([generator.choice(np.flatnonzero(row)) for row in label[entry]], np.int64)
    if not methods or not len(entry):
        return NOTHING
    rows, body = plan.row[entry], classifier.network.body
    cases = _Cases(_pictures(classifier, prepared, rows), column)
    mapping = {name: partial(heatmaps, method=name) for name in methods}
    own = {name: _of_each(cases, partial(mapping[name], body)) for name in methods}
    similarities, tried, steps = [], [], BLOCKS + len(methods)
    blocks = randomised(body, seed=seed, copies=BLOCKS)
    for done, (block, other) in enumerate(blocks, start=1):
        for name in methods:
            changed = _of_each(cases, partial(mapping[name], other))
            grids = [one.unsqueeze(1).float().cpu().numpy() for one in (own[name], changed)]
            same = map_similarity(grids[0], other=grids[1])[:, 0]
            similarities.append(pd.DataFrame({"method": name, "block": block, "similarity": same}))
        progress(done, steps, "randomised networks")
    about = {"image": prepared.manifest.image[rows], "patient": prepared.manifest.patient[rows]}
    baseline, shift = {}, max(1, cases.pixels.shape[-1] // SHIFT)
    for done, name in enumerate(methods, start=1):
        centres = centres_of(name, body, cases.pixels[:1], cells=own[name].shape[1:])
        key = tuple(map(tuple, centres))
        if key not in baseline:  # methods of equal centres have one
            drawn = np.random.default_rng(seed).random(own[name].shape, dtype=np.float32)
            noise = torch.from_numpy(drawn).to(own[name])
            baseline[key] = _areas(body, noise, centres, cases, suffix="_random")
        areas = _areas(body, own[name], centres, cases, suffix="") | baseline[key]
        steady = _of_each(cases, partial(stability, body, method=mapping[name], shift=shift))
        areas["stability"] = steady.cpu().double().numpy()
        tried.append(pd.DataFrame({"method": name, **about, **areas}))
        progress(BLOCKS + done, steps, name)
    return Faithfulness(*(pd.concat(rows, ignore_index=True) for rows in (similarities, tried)))


def randomised_network(classifier: Classifier, *, seed: int) -> Classifier:
    """Return the classifier with a random head, as the first copy of `randomised` has it."""
    network = copy.deepcopy(classifier.network)
    _randomise(next(iter(_steps(network.body).values())), np.random.default_rng(seed))
    return replace(classifier, network=network)


def randomised(
    network: nn.Module, *, seed: int, copies: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Yield copies with weights randomised from the head down, each with its deepest block's name.

    One a block, or `copies` of these evenly apart, the first and the last among them. Adebayo et
    al., NeurIPS 2018, cascading: the first copy has a random head (both of a distilled
    transformer), the last is random throughout, positions and class tokens with it. Values come
    from a normal distribution about zero with the root mean square of their tensor, so that
    logits keep their scale; running statistics stay.
    """
    generator = np.random.default_rng(seed)
    changed = copy.deepcopy(network)
    steps = _steps(changed)
    wanted = np.linspace(0, len(steps) - 1, copies or len(steps)).round()
    for at, (name, parameters) in enumerate(steps.items()):
        _randomise(parameters, generator)
        if at in wanted:
            yield name, copy.deepcopy(changed)


def stability(
    network: nn.Module,
    pixels: Float[Tensor, "b c h w"],
    *,
    method: Callable[..., Tensor],
    shift: int,
    findings: Sequence[int] | None = None,
) -> Float[Tensor, "b k"]:
    """Return the mean correlation of maps with those of films moved by `shift` pixels, moved back.

    Films move up, down, left and right; the border is repeated and not compared. NaN where a map
    is the same everywhere, as there is nothing to correlate.
    """
    size = (pixels.shape[2], pixels.shape[3])
    if not 0 < shift < min(size) // 2:
        raise ValueError(f"shift is {shift}: expected 1 to {min(size) // 2 - 1} pixels")
    inner = slice(shift, -shift)

    def scaled(films: Tensor) -> Tensor:
        found = method(network, films, findings=findings)
        return functional.interpolate(found, size, mode="bilinear")

    still = scaled(pixels)[..., inner, inner]
    padded = functional.pad(pixels, (shift,) * 4, mode="replicate")
    found = []
    for down, right in ((0, shift), (2 * shift, shift), (shift, 0), (shift, 2 * shift)):
        moved = scaled(padded[..., down : down + size[0], right : right + size[1]])
        back = moved.roll((down - shift, right - shift), (2, 3))[..., inner, inner]
        found.append(_correlation(still, back))
    return torch.stack(found).mean(0)


def probability_curve(
    network: nn.Module,
    pixels: Float[Tensor, "b c h w"],
    *,
    ends: Callable[[Tensor], tuple[Tensor, Tensor]],
    heatmap: Float[Tensor, "b gh gw"],
    findings: Sequence[int],
    steps: int,
) -> Float[Tensor, "b s"]:
    """Return the probability after 0, 1, … `steps` equal shares of pixels change, strongest first.

    Of one finding a film; a map of fewer pixels than the film is laid evenly over it. s is
    steps + 1. Petsiuk et al., BMVC 2018: `ends` makes of the films what pixels change from and to.
    Deletion blanks them, and the lower that curve, the truer the map; insertion puts them into the
    blurred film, and the higher that one, the truer the map.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}: expected at least 1 share of the film")
    points, rank = [], _ranks(heatmap, pixels)
    before, after = ends(pixels)
    with undisturbed(network), torch.no_grad():
        for step in range(steps + 1):
            logit = logits(network, torch.where(rank < step / steps, after, before))
            column = chosen(findings, logit.shape[1])
            points.append(logit[range(len(logit)), column].sigmoid())
    return torch.stack(points, dim=1)


def is_flat(maps: Float[Tensor, "*b gh gw"]) -> Bool[Tensor, "*b"]:
    """Return which maps are the same everywhere, but for rounding."""
    return maps.amax((-2, -1)) - maps.amin((-2, -1)) <= FLAT * maps.abs().amax((-2, -1))


def _explained(
    classifier: Classifier, *, methods: Sequence[str], mark: str = "", **what: Any
) -> tuple[Heatmaps, ...]:
    maps = []
    for method in methods:
        with progress(f"Explaining with {method}{mark}", unit="films") as advance:
            maps.append(explain(classifier, method=method, progress=advance, **what))
    return tuple(maps)


def _pictures(
    classifier: Classifier, prepared: Prepared, rows: Int64[np.ndarray, " b"]
) -> Float[Tensor, "b c h w"]:
    films = torch.from_numpy(prepared.pixels[rows]).to(place(classifier.network))
    return classifier.network.pictures(films)


def _of_each(cases: _Cases, make: Callable[..., Tensor]) -> Float[Tensor, "b ..."]:
    """Return what `make` makes of every film, a batch at a time of those with one finding."""
    found: dict[int, Tensor] = {}
    for finding in np.unique(cases.column).tolist():
        films = np.flatnonzero(cases.column == finding)
        for start in range(0, len(films), BATCH):
            mine = films[start : start + BATCH]
            made = make(cases.pixels[mine], findings=[finding])[:, 0].detach()
            found |= dict(zip(mine.tolist(), made, strict=True))
    return torch.stack([found[film] for film in range(len(found))])


def _over(
    pixels: Float[Tensor, "b c h w"], maps: Float[Tensor, "b gh gw"], centres: Centres
) -> Float[Tensor, "b h w"]:
    """Return maps at the size of the pictures, laid on the centres of their cells."""
    down, across = (
        torch.from_numpy(blend(centre, frame=length)).to(maps)
        for centre, length in zip(centres, pixels.shape[2:], strict=True)
    )
    return down @ maps @ across.T


def _ranks(heatmap: Tensor, pixels: Tensor) -> Tensor:
    """Return the rank (b 1 h w) of each pixel in 0..1, 0 the strongest of its film."""
    size = (pixels.shape[2], pixels.shape[3])
    fine = functional.interpolate(heatmap.unsqueeze(1), size, mode="bilinear").flatten(1)
    order = fine.argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1).to(pixels.dtype) / order.shape[1]
    return rank.view(-1, 1, *size)


def _areas(
    body: nn.Module, maps: Float[Tensor, "b gh gw"], centres: Centres, cases: _Cases, *, suffix: str
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


def _steps(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return what is randomised in each step by its block's name: the head first, together."""
    blocks = dict(reversed(list(_blocks(network, ""))))
    last = network.get_classifier() if isinstance(network, Body) else nn.Identity()
    heads = set(last if isinstance(last, tuple) else (last,))
    own = [name for name, block in blocks.items() if heads & set(block.modules())]
    first = own or [next(iter(blocks))]
    steps = {first[0]: [one for name in first for one in blocks[name].parameters()]}
    steps |= {n: list(block.parameters()) for n, block in blocks.items() if n not in first}
    inside = {id(one) for parameters in steps.values() for one in parameters}
    steps[list(steps)[-1]] += [one for one in network.parameters() if id(one) not in inside]
    return steps


def _blocks(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts with weights in their order; plain lists of layers are opened."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if type(child) in (nn.Sequential, nn.ModuleList):
            yield from _blocks(child, f"{path}.")
        elif any(True for _ in child.parameters()):
            yield path, child


def _randomise(parameters: Sequence[Tensor], generator: np.random.Generator) -> None:
    with torch.no_grad():
        for parameter in parameters:
            draw = torch.from_numpy(generator.standard_normal(tuple(parameter.shape)))
            parameter.copy_(draw.to(parameter) * parameter.square().mean().sqrt())


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return Pearson's correlation over the last two axes."""
    flat = is_flat(one) | is_flat(other)
    one, other = one.flatten(2), other.flatten(2)
    one, other = one - one.mean(2, keepdim=True), other - other.mean(2, keepdim=True)
    cosine = functional.cosine_similarity(one, other, dim=2, eps=torch.finfo(one.dtype).tiny)
    return cosine.masked_fill(flat, torch.nan)


CURVES: dict[str, Callable[..., Tensor]] = {
    "deletion": partial(probability_curve, ends=lambda pixels: (pixels, blank(pixels))),
    "insertion": partial(
        probability_curve, ends=lambda pixels: (gaussian_blur(pixels, *BLUR), pixels)
    ),
}
TRIALS = ("deletion", "deletion_random", "insertion", "insertion_random", "stability")
NOTHING = Faithfulness(
    pd.DataFrame(columns=["method", "block", "similarity"]),
    pd.DataFrame(columns=["method", "image", "patient", *TRIALS]),
)

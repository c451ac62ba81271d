"""Resampling by labels alone: films dropped, copied, parted, weighed or drawn by their findings.

Films that carry exactly the same findings are one bag, those without any too. A minority finding's
IRLbl is above MeanIR (see balance.imbalance); one that no film has is never one. A label of NaN
counts as absent, and weighs 1: the loss leaves it out. LP-RUS, LP-ROS, ML-RUS and ML-ROS are of
Charte et al., "Addressing imbalance in multilabel classification: Measures and random resampling
algorithms", Neurocomputing 163, 2015.
Letters in shapes: n films, k findings, b bags, p entries with a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Int64

from lucency.balance.imbalance import Step, carries, minority_findings, scumble_of_films
from lucency.config.sections import Cap, Copy
from lucency.core.plan import Plan, clones, followed_by, joined, originals

ROUNDING = 1e-9  # values of SCUMBLE that differ by less are the same
Label = Float32[np.ndarray, "n k"]


class BalancingError(ValueError):
    """A balancing that these films do not allow: too few have what it wants."""


def cap_and_copy(
    label: Label,
    *,
    findings: tuple[str, ...],
    cap: Sequence[Cap],
    copy_plan: Sequence[Copy],
    cap_after: Sequence[Cap],
    seed: int,
) -> Iterator[Step]:
    """Yield the plan of the reference study after each of its steps, the last one whole.

    "Research on Chest X-Rays" (2025), its notebooks: `cap` drops random films of a finding until
    the number is left; `copy_plan` adds augmented copies, later findings copying copies too;
    `cap_after` drops again. Whole label rows move, so capping one finding costs others.
    """
    generator = np.random.default_rng(seed)
    plan = originals(label)
    for step in (*cap, *copy_plan, *cap_after):
        carried = carries(plan, findings=findings, finding=step.finding)
        members = np.flatnonzero(carried).astype(np.int64)
        if isinstance(step, Cap):
            surplus = max(0, len(members) - step.films)
            dropped = generator.choice(members, size=surplus, replace=False)
            plan, action = _without(plan, dropped), "cap"
        else:
            plan, action = _copy(plan, step, members, generator), "copy"
        yield Step(action, step.finding, plan)


def lp_rus(label: Label, *, percent: float, seed: int) -> Plan:
    """Return LP-RUS: random films dropped from the bags of more films than the mean bag.

    `percent` of all films, cut to whole films, is shared equally among those bags, from the
    smallest up. No bag is left with fewer films than the mean, and what one cannot give is shared
    equally among the bigger ones. Every share is cut to whole films and the cut passed on too: the
    total is as wanted, or less when all these bags have come down to the mean (rounded up).
    The seed decides which films of a bag go, never how many.
    """
    bag, size = _bags(label)
    above_mean = (size * len(size) - len(label)) // max(1, len(size))
    share = _share(above_mean, films=int(len(label) * percent / 100))
    order = np.random.default_rng(seed).permutation(len(label))
    order = order[np.argsort(bag[order], kind="stable")]
    start = np.cumsum(size) - size
    place = np.arange(len(label)) - np.repeat(start, size)
    return _without(originals(label), order[place < np.repeat(share, size)])


def lp_ros(label: Label, *, percent: float, copies: str, seed: int) -> Plan:
    """Return LP-ROS: copies of random films added to the bags of fewer films than the mean bag.

    The mirror of `lp_rus`: shared from the largest of those bags down, no bag grows beyond the
    mean (rounded down), and what one cannot take is shared among the smaller ones. A film may be
    copied several times; `copies` is a key of plan.RECIPES.
    """
    bag, size = _bags(label)
    below_mean = (len(label) - size * len(size)) // max(1, len(size))
    share = _share(below_mean, films=int(len(label) * percent / 100))
    drawn = np.random.default_rng(seed).integers(np.repeat(size, share))
    members, start = np.argsort(bag, kind="stable"), np.cumsum(size) - size
    source = np.sort(members[np.repeat(start, share) + drawn])
    return joined(originals(label), clones(label, source, copies=copies))


def ml_rus(label: Label, *, percent: float, seed: int) -> Plan:
    """Return ML-RUS: random films dropped among those that carry no minority finding.

    `percent` of all films, cut to whole films, is dropped; when fewer are without a minority
    finding, all of those and no more.
    """
    minority, _ = minority_findings(label)
    common = np.flatnonzero(~(label[:, minority] == 1).any(axis=1))
    films = min(len(common), int(len(label) * percent / 100))
    dropped = np.random.default_rng(seed).choice(common, size=films, replace=False)
    return _without(originals(label), dropped)


def ml_ros(label: Label, *, percent: float, copies: str, seed: int) -> Plan:
    """Return ML-ROS: copies of random films that carry a minority finding, finding after finding.

    In each round every minority finding has one of its films copied, until there are `percent` of
    all films in copies, cut to whole films. A finding leaves once its IRLbl, copies counted, is at
    most the MeanIR of the start; when all have left, there are fewer copies. A copy adds to
    whatever else it carries, so copying may raise the commonest finding faster than a minority
    one: copies end at the last one after which no minority finding's IRLbl is above that of the
    start, possibly before the first. `copies` is a key of plan.RECIPES; copies are in the order in
    which they were drawn.
    """
    minority, mean_ir = minority_findings(label)
    generator, films = np.random.default_rng(seed), int(len(label) * percent / 100)
    active = label == 1
    bags = {finding: np.flatnonzero(active[:, finding]) for finding in np.flatnonzero(minority)}
    start = active.sum(axis=0)
    count, source, sound = start.copy(), [], 0
    while bags and len(source) < films:
        for finding in list(bags)[: films - len(source)]:
            film = generator.choice(bags[finding])
            source.append(film)
            count += active[film]
            if count.max() / count[finding] <= mean_ir:
                del bags[finding]
            if (count.max() * start[minority] <= start.max() * count[minority]).all():
                sound = len(source)
    drawn = np.array(source[:sound], dtype=np.int64)
    return joined(originals(label), clones(label, drawn, copies=copies))


def remedial(label: Label, *, copies: str) -> Plan:
    """Return REMEDIAL: films on which rare and common findings meet, parted into two entries.

    Charte et al., "Resampling multilabel datasets by decoupling highly imbalanced labels", HAIS
    2015, as R's mldr does it. Every film with more SCUMBLE than the mean keeps its majority
    findings in place and gets a copy with its minority findings; either may be left with none, a
    training target of no finding at all. No finding's count changes, NaN stays NaN in both.
    `copies` is a key of plan.RECIPES. Nothing is random: there is no seed.
    """
    minority, _ = minority_findings(label)
    scumble = scumble_of_films(label)
    parted = scumble - scumble.sum() / max(1, len(label)) > ROUNDING
    source = np.flatnonzero(parted)
    common = np.where(parted[:, np.newaxis] & minority & (label == 1), 0, label)
    rare = np.where(~minority & (label[source] == 1), 0, label[source])
    return joined(
        replace(originals(label), label=common),
        replace(clones(label, source, copies=copies), label=rare),
    )


def partial(label: Label, *, ratio: float, positive_weight: float, seed: int) -> Plan:
    """Return partial resampling: each finding balanced by weights of its own, no film moved.

    García-Pedrajas et al., Knowledge-Based Systems 302, 2024, for a network's loss. Where a
    finding has more than `ratio` negatives to a positive, positives weigh `positive_weight` and
    random negatives weigh 0, so that `ratio` to 1 is what their weights come to, up to one
    negative. Where that takes more negatives than there are, all weigh 1 and positives only as
    much as it takes. A finding at or below `ratio`, or without positives, weighs 1 throughout.
    A finding's draws depend on the seed and its own column alone.
    """
    weight = np.ones(label.shape, dtype=np.float32)
    generators = np.random.default_rng(seed).spawn(label.shape[1])
    for value, column, generator in zip(label.T, weight.T, generators, strict=True):
        positives, negatives = np.flatnonzero(value == 1), np.flatnonzero(value == 0)
        if len(positives) and len(negatives) > ratio * len(positives):
            heavy = min(positive_weight, len(negatives) / (ratio * len(positives)))
            left_out = len(negatives) - round(ratio * heavy * len(positives))
            column[positives] = heavy
            column[generator.choice(negatives, size=left_out, replace=False)] = 0
    return replace(originals(label), weight=weight)


def positive_weights(label: Label) -> Plan:
    """Return positives weighed by inverse frequency: their finding's negatives over positives.

    Both then weigh the same in sum. A finding without positives or without negatives weighs 1.
    """
    positives, negatives = (label == 1).sum(axis=0), (label == 0).sum(axis=0)
    both = (positives > 0) & (negatives > 0)
    heavy = np.where(both, negatives / np.maximum(positives, 1), 1)
    weight = np.where(label == 1, heavy, 1).astype(np.float32)
    return replace(originals(label), weight=weight)


def weighted_sampler(label: Label, *, copies: str, seed: int) -> Plan:
    """Return as many entries as films, drawn with replacement, films of rare findings more often.

    A film's chance is proportional to the mean of 1 / count over its findings; films without any
    share the weight of one finding. The first draw of a film is the film itself, further ones are
    copies (`copies` is a key of plan.RECIPES). A film that is not drawn is left out, be it the
    only one of its finding.
    """
    active = label == 1
    carried = active.sum(axis=1)
    summed = active @ (1 / np.maximum(active.sum(axis=0), 1))
    none = carried == 0
    weight = np.where(none, 1 / max(1, int(none.sum())), summed / np.maximum(carried, 1))
    share = weight / weight.sum()
    drawn = np.random.default_rng(seed).choice(len(label), size=len(label), p=share)
    return _drawn(label, np.bincount(drawn, minlength=len(label)), copies=copies)


def class_aware(label: Label, *, copies: str, seed: int) -> Plan:
    """Return as many entries as films, each of a class drawn first and then of a film of it.

    Class-aware sampling, Shen, Lin and Huang, "Relay backpropagation for effective learning of
    deep convolutional neural networks", ECCV 2016: classes are gone through in random order again
    and again, and so are the films of each class, so every class is drawn equally often, give or
    take one, and each of its films too. Classes are the findings that some film has and, as one
    more, the films without any. The first draw of a film is the film itself, further ones are
    copies (`copies` is a key of plan.RECIPES). A film that is not drawn is left out.
    """
    active, generator = label == 1, np.random.default_rng(seed)
    classes = [np.flatnonzero(of) for of in (*active.T, ~active.any(axis=1)) if of.any()]
    turns = _turns(len(classes), draws=len(label), generator=generator)
    times = np.zeros(len(label), dtype=np.int64)
    for members, draws in zip(classes, turns.tolist(), strict=True):
        times[members] += _turns(len(members), draws=draws, generator=generator)
    return _drawn(label, times, copies=copies)


def _turns(members: int, *, draws: int, generator: np.random.Generator) -> Int64[np.ndarray, " p"]:
    """Return how often each of some members is drawn, in rounds in which each comes once."""
    rounds, rest = divmod(draws, max(1, members))
    turns = np.full(members, rounds, dtype=np.int64)
    turns[generator.permutation(members)[:rest]] += 1
    return turns


def _drawn(label: Label, times: Int64[np.ndarray, " n"], *, copies: str) -> Plan:
    """Return every film as often as `times` has it: itself once, then copies."""
    source = np.repeat(np.arange(len(label)), np.maximum(times - 1, 0))
    return joined(originals(label).take(times > 0), clones(label, source, copies=copies))


def _copy(
    plan: Plan, step: Copy, members: Int64[np.ndarray, " p"], generator: np.random.Generator
) -> Plan:
    if step.films > len(members):
        raise BalancingError(
            f"balance.copy_plan wants {step.films} films of {step.finding}, but only "
            f"{len(members)} are there: state fewer, or 0 for all"
        )
    if step.films:
        members = np.sort(generator.choice(members, size=step.films, replace=False))
    source = np.repeat(members, step.copies)
    copies = clones(plan.label, source, copies=f"reference@{step.sharpen:g}")
    return followed_by(plan, joined(originals(plan.label), copies))


def _without(plan: Plan, dropped: Int64[np.ndarray, " d"]) -> Plan:
    return plan.take(np.delete(np.arange(len(plan)), dropped))


def _bags(label: Label) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " b"]]:
    """Return each film's bag and each bag's number of films."""
    packed = np.packbits(label == 1, axis=1)
    _, bag, size = np.unique(packed, axis=0, return_inverse=True, return_counts=True)
    return bag, size


def _share(room: Int64[np.ndarray, " b"], *, films: int) -> Int64[np.ndarray, " b"]:
    """Return how many films each bag gives or takes: an equal share, at most its room."""
    share, order = np.zeros_like(room), np.argsort(room, kind="stable")
    order = order[room[order] > 0]
    for place, bag in enumerate(order):
        share[bag] = min(room[bag], films // (len(order) - place))
        films -= int(share[bag])
    return share

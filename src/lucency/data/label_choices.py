"""What a protocol makes of a collection's own labels: the protocol's findings, and counts of it.

In order: readers are combined, No Finding negates, empty labels are filled, own names become
findings, uncertain labels are resolved. Letters in shapes: n films, k own findings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32
from numpy.random import default_rng

from lucency.config.sections import Source, Uncertain
from lucency.core.manifest import (
    READING_COLUMNS,
    Manifest,
    cells_where,
    nearest,
)
from lucency.data.collections.collection import PublicCollection

OR = " or "  # between the parts of a group of findings, as "Nodule or Mass"
SOFT_ONES = (0.55, 0.85)  # of an uncertain label: Pham et al. 2021 (arXiv 1911.06475), section 3.3
Label = Float32[np.ndarray, "n k"]


class Steps:
    """What became of films and labels, in the order of it: rows of `Manifest.reading`."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, int]] = []

    def add(self, step: str, films: int, *, finding: str = "") -> None:
        """Count the films of a step; none are no row."""
        if films:
            self.rows.append((step, finding, int(films)))

    def table(self) -> pd.DataFrame:
        """Return the rows as `Manifest.reading` has them."""
        return pd.DataFrame(self.rows, columns=list(READING_COLUMNS))


class LabelCells(NamedTuple):
    """Labels, which of them are stated as uncertain, and training targets (NaN: the label)."""

    label: Label
    uncertain: Bool[np.ndarray, "n k"]
    share: Label


def choose_labels(
    films: Manifest, *, source: Source, findings: tuple[str, ...], collection: PublicCollection
) -> Manifest:
    """Return the films with the protocol's findings, as `source` has them made of the own ones.

    A finding that the collection does not state is NaN throughout. A group "A or B" that it does
    not state is made of A and B. `reading` of what is returned counts every step.
    Raises ValueError where the collection states none of the findings, and where `source.align`
    names what it has not.
    """
    steps = Steps()
    steps.add("in the label files", len(films))
    cells = _combined(films, source)
    if source.no_finding_negates and collection.no_finding:
        cells = _negated(cells, films.findings, collection, steps)
    if source.missing == "negative":
        cells = _filled(cells, films.findings, steps)
    sources = own_names(films.findings, source=source, findings=findings, collection=collection)
    cells = _aligned(cells, films.findings, sources, findings, steps)
    cells = _resolved(cells, findings, source, steps)
    return _made(films, cells, sources, steps)


def own_names(
    own: tuple[str, ...], *, source: Source, findings: tuple[str, ...], collection: PublicCollection
) -> dict[str, list[str]]:
    """Return which of a collection's `own` names each finding is made of; of none is not stated.

    Raises ValueError for a name in `source.align` that is not one of `own`, or a finding in it that
    the protocol has not, and where every finding would be not stated.
    """
    _refuse_strange(own, source.align, findings)
    made = {finding: list[str]() for finding in findings}
    for name in own:
        ours = source.align.get(name, collection.align.get(name, name))
        for finding in (ours,) if isinstance(ours, str) else ours:
            if finding in made:
                made[finding].append(name)
    for finding, names in made.items():
        parts = finding.split(OR)
        if not names and len(parts) > 1 and all(made.get(part) or part in own for part in parts):
            names += [one for part in parts for one in made.get(part) or [part]]
    if not any(made.values()):
        raise ValueError(
            f"{collection.title} states none of {', '.join(findings)}: expected of "
            f"{', '.join(own[:40])}, mapped by [data.align] where they are spelt otherwise"
        )
    return made


def _refuse_strange(
    own: tuple[str, ...], align: Mapping[str, str | tuple[str, ...]], findings: tuple[str, ...]
) -> None:
    for name, ours in align.items():
        if name not in own:
            raise ValueError(
                f"data.align: the collection has no {name!r}{nearest(name, own)}: expected names "
                "as it spells them"
            )
        for finding in (ours,) if isinstance(ours, str) else ours:
            if finding and finding not in findings:
                hint = nearest(finding, findings)
                raise ValueError(f"data.align: {finding!r} is not among the findings{hint}")


def _combined(films: Manifest, source: Source) -> LabelCells:
    """Return the own labels of several readers as one; `soft` holds the share that state 1."""
    label, share, uncertain = films.label.copy(), films.targets, films.is_uncertain
    is_read = share != films.label
    is_read &= ~np.isnan(share)
    if source.readers in ("any", "all"):
        label[is_read] = (share if source.readers == "all" else np.ceil(share))[is_read] == 1
    soft = np.where(is_read if source.readers == "soft" else False, share, np.nan)
    return LabelCells(label, uncertain, soft.astype(np.float32))


def _negated(
    cells: LabelCells, own: tuple[str, ...], collection: PublicCollection, steps: Steps
) -> LabelCells:
    """Return the cells with 0 for what is not stated of films of No Finding."""
    label = cells.label.copy()
    normal = label[:, own.index(collection.no_finding)] == 1
    for column, name in enumerate(own):
        if name in (collection.no_finding, *collection.beside_no_finding):
            continue
        filled = normal & np.isnan(label[:, column]) & ~cells.uncertain[:, column]
        label[filled, column] = 0
        steps.add(f"{collection.no_finding}: 0", filled.sum(), finding=name)
    return cells._replace(label=label)


def _filled(cells: LabelCells, own: tuple[str, ...], steps: Steps) -> LabelCells:
    """Return the cells with 0 for what is not stated."""
    empty = np.isnan(cells.label) & ~cells.uncertain
    for name, films in zip(own, empty.sum(axis=0).tolist(), strict=True):
        steps.add("missing: 0", films, finding=name)
    return cells._replace(label=np.where(empty, np.float32(0), cells.label))


def _aligned(
    cells: LabelCells,
    own: tuple[str, ...],
    made: Mapping[str, list[str]],
    findings: tuple[str, ...],
    steps: Steps,
) -> LabelCells:
    """Return the cells of findings: 1 where an own name of them is, 0 where all of them are."""
    films = len(cells.label)
    label = np.full((films, len(findings)), np.nan, dtype=np.float32)
    uncertain = np.zeros(label.shape, dtype=np.bool_)
    share = label.copy()
    for place, (finding, names) in enumerate(made.items()):
        if not names:
            steps.add("not stated by the collection", films, finding=finding)
            continue
        column = [own.index(name) for name in names]
        theirs, unsure = cells.label[:, column], cells.uncertain[:, column]
        one, all_zero = (theirs == 1).any(axis=1), (theirs == 0).all(axis=1)
        label[one, place], label[all_zero, place] = 1, 0
        uncertain[:, place] = unsure.any(axis=1) & ~one
        soft = cells.share[:, column]
        aims = np.where(np.isnan(soft), theirs, soft)
        is_soft = ~np.isnan(soft).all(axis=1) & ~np.isnan(aims).any(axis=1)
        share[is_soft, place] = aims[is_soft].max(axis=1)
        if names != [finding]:
            steps.add(f"made of {', '.join(names)}", int(one.sum()), finding=finding)
    used = {name for names in made.values() for name in names}
    for column, name in enumerate(own):
        if name not in used:
            films = int((cells.label[:, column] == 1).sum())
            steps.add("left out, no finding of the protocol", films, finding=name)
    return LabelCells(label, uncertain, share)


def _resolved(
    cells: LabelCells, findings: tuple[str, ...], source: Source, steps: Steps
) -> LabelCells:
    """Return the cells with uncertain labels as the protocol resolves them."""
    label, share = cells.label.copy(), cells.share.copy()
    generator = default_rng([source.seed, len(SOFT_ONES)])
    for place, finding in enumerate(findings):
        policy, unsure = policy_of(source, finding), cells.uncertain[:, place]
        steps.add(f"uncertain: {policy}", unsure.sum(), finding=finding)
        if policy in ("zeros", "ones"):
            label[unsure, place] = policy == "ones"
        if policy == "soft":
            share[unsure, place] = generator.uniform(*SOFT_ONES, size=int(unsure.sum()))
    return LabelCells(label, cells.uncertain, share)


def policy_of(source: Source, finding: str) -> Uncertain:
    """Return what an uncertain label of a finding becomes."""
    if isinstance(source.uncertain, str):
        return source.uncertain
    return source.uncertain.get(finding, source.uncertain.get("", "ignore"))


def _made(
    films: Manifest, cells: LabelCells, made: Mapping[str, list[str]], steps: Steps
) -> Manifest:
    """Return the films with other findings; boxes of others are left out."""
    findings, is_soft = tuple(made), ~np.isnan(cells.share)
    about = {"image": films.image, "findings": findings}
    boxes = [
        films.boxes[films.boxes["finding"].isin(names)].assign(finding=finding)
        for finding, names in made.items()
    ]
    return replace(
        films,
        findings=findings,
        label=cells.label,
        boxes=pd.concat(boxes, ignore_index=True),
        uncertain=cells_where(cells.uncertain, **about),
        soft=cells_where(is_soft, **about, share=cells.share),
        reading=pd.concat([films.reading, steps.table()], ignore_index=True),
    )

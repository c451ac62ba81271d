"""What a protocol makes of a source's own labels and films, and counts of it.

Of labels, in this order: readers are combined, No Finding negates, empty labels are filled, own
names become findings, uncertain labels are resolved. Of films: views are taken, then one film a
patient. Letters in shapes: n films, k own names.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, SupportsInt

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Int64, Shaped

from lucency.config.sections import COLLECTED, Source, Uncertain
from lucency.core.manifest import (
    READING_COLUMNS,
    UNKNOWN_PATIENT,
    Manifest,
    cells_where,
    counted,
    listed,
    nearest,
)
from lucency.data.collections.collection import PublicCollection

OR = " or "  # between the parts of a group of findings, as "Nodule or Mass"
SOFT_ONES = (0.55, 0.85)  # of an uncertain label: Pham et al. 2021 (arXiv 1911.06475)
ALL_FILMS = "in the label files"  # the first step: every film
FEW = 28  # own names that an error lists; of more it shows those most like a finding
NEAREST = 3
UNKNOWN_VIEW = "unknown"  # in small letters, unlike views
OF_A_TABLE = ("csv", "dicom")  # sources whose every film has a row of labels
Label = Float32[np.ndarray, "n k"]
Align = Mapping[str, str | tuple[str, ...]]


class Steps:
    """What became of films and labels, in the order of it: rows of `Manifest.reading`."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, int]] = []

    def add(self, step: str, films: SupportsInt, *, finding: str = "") -> None:
        """Count the films of a step; none are no row."""
        if count := int(films):
            self.rows.append((step, finding, count))

    def table(self) -> pd.DataFrame:
        """Return the rows as `Manifest.reading` has them."""
        return pd.DataFrame(self.rows, columns=list(READING_COLUMNS))


class LabelCells(NamedTuple):
    """Labels by name, which of them are stated as uncertain, and training targets (NaN: none)."""

    names: tuple[str, ...]
    label: Label
    uncertain: Bool[np.ndarray, "n k"]
    share: Label

    def of(self, names: Sequence[str]) -> LabelCells:
        """Return the columns of these names, in their order."""
        column = [self.names.index(name) for name in names]
        cells = (self.label[:, column], self.uncertain[:, column], self.share[:, column])
        return LabelCells(tuple(names), *cells)


def choose_labels(
    films: Manifest, *, source: Source, findings: tuple[str, ...], collection: PublicCollection
) -> Manifest:
    """Return the films with the protocol's findings, as `source` has them made of the own ones.

    A finding that the collection does not state is NaN throughout. A group "A or B" is made of A
    and B too. `reading` of what is returned counts every step; labels are counted among all films.
    Boxes of names that no finding is made of are left out, and those of readers who are outvoted.
    Raises ValueError where the collection states none of the findings, and where `source.align` or
    `source.uncertain` names what is not there.
    """
    steps = Steps()
    steps.add(ALL_FILMS, len(films))
    own = films.findings
    made = own_names(own, source=source, findings=findings, collection=collection)
    normal = collection.no_finding if source.no_finding_negates else ""
    used = {name for names in made.values() for name in names}
    cells = LabelCells(own, films.label.copy(), films.is_uncertain, films.targets)
    cells = cells.of([name for name in own if name in {*used, normal}])
    cells = _combined(cells, source, steps)
    films = _with_boxes(films, cells, steps)
    if normal in cells.names:
        cells = _negated(cells, collection, steps)
    cells = cells.of([name for name in cells.names if name in used])
    if source.missing == "negative":
        is_stated = (~np.isnan(films.label) | films.is_uncertain).any(axis=1)
        is_stated |= source.source in OF_A_TABLE
        cells = _filled(cells, np.asarray(is_stated), steps)
    cells = _aligned(cells, made, steps)
    for column, name in enumerate(own):
        if name not in {*used, normal}:
            left = int((films.label[:, column] == 1).sum())
            steps.add("left out, no finding of the protocol", left, finding=name)
    cells = _resolved(cells, films.image, source, steps)
    return _made(films, cells, made, steps)


def own_names(
    own: tuple[str, ...], *, source: Source, findings: tuple[str, ...], collection: PublicCollection
) -> dict[str, list[str]]:
    """Return which of a collection's `own` names each finding is made of; of none is not stated.

    A group "A or B" is made of the own names that are mapped to it, and of those of A and of B;
    without the former, only if both parts have some. The order of its parts does not matter.
    An own name that the collection maps elsewhere is also the finding that is spelt as it is.
    Raises ValueError for a name in `source.align` that is not one of `own`, a finding in it or in
    `source.uncertain` that the protocol has not, and where every finding would be not stated.
    """
    _refuse_strange(own, source, findings)
    mapped = dict[frozenset[str], list[str]]()
    kept = _kept_names(source, findings, collection)
    for name in own:
        ours_of_name = targets_of(name, source.align, collection.align)
        for ours in (*ours_of_name, name) if name in kept else ours_of_name:
            mapped.setdefault(parts_of(ours), []).append(name)
    made = dict[str, list[str]]()
    for finding in findings:
        parts = parts_of(finding)
        each = [mapped.get(frozenset([part]), []) for part in sorted(parts)]
        group = mapped.get(parts, [])
        whole = [name for names in each for name in names] if group or all(each) else []
        made[finding] = list(dict.fromkeys([*group, *whole]))
    if not any(made.values()):
        hint = names_like(findings, own, source=source, collection=collection)
        raise ValueError(
            f"{collection.title} states none of {listed(findings)}{hint}, mapped by [data.align] "
            "where they are spelt otherwise"
        )
    return made


def _kept_names(
    source: Source, findings: tuple[str, ...], collection: PublicCollection
) -> set[str]:
    """Return the findings that are own names which the collection alone maps elsewhere.

    None that it maps another name to: what is Fibrosis in ChestX-ray14 is OpenI's Pulmonary
    Fibrosis, and its Fibrosis nothing.
    """
    wanted = {part for finding in findings for part in parts_of(finding)}
    made = {ours for name in collection.align for ours in targets_of(name, collection.align)}
    return {name for name in wanted - made if name in collection.align and name not in source.align}


def names_known(collection: PublicCollection) -> list[str]:
    """Return what a protocol may call a collection's findings: by its own names, then by ours."""
    own = collection.findings
    return [*own, *(ours for name in own for ours in targets_of(name, collection.align))]


def names_like(
    findings: Sequence[str],
    own: Sequence[str],
    *,
    source: Source,
    collection: PublicCollection,
) -> str:
    """Return the end of an error about findings that a source does not state: what it states.

    That is all of its `own` names where they are few, else those most like each finding, and the
    documentation page that lists all.
    """
    if len(own) <= FEW or source.source not in COLLECTED:
        return f": expected of {', '.join(own)}"
    known = names_known(collection)
    near = (nearest(one, known, most=NEAREST).removeprefix("; ") for one in findings)
    each = [f"{one}: {like}" for one, like in zip(findings, near, strict=True) if like][:NEAREST]
    page = f"docs/sources/{source.source}.md lists its {len(own)} names: expected some of them"
    return "; ".join(["", *each, page])


def targets_of(name: str, *aligns: Align) -> tuple[str, ...]:
    """Return what a source's own name is mapped to by the first mapping that has it, else itself.

    >>> targets_of("Knoten", {"Knoten": ("Nodule", "Mass")}), targets_of("a", {"a": ""})
    (('Nodule', 'Mass'), ())
    """
    ours = next((align[name] for align in aligns if name in align), name)
    return tuple(one for one in ((ours,) if isinstance(ours, str) else ours) if one)


def parts_of(finding: str) -> frozenset[str]:
    """Return the parts of a group of findings; of another finding itself.

    >>> sorted(parts_of("Nodule or Mass"))
    ['Mass', 'Nodule']
    """
    return frozenset(finding.split(OR))


def _refuse_strange(own: tuple[str, ...], source: Source, findings: tuple[str, ...]) -> None:
    known = tuple(dict.fromkeys([*findings, *(p for one in findings for p in parts_of(one))]))
    sets = {parts_of(finding) for finding in known}
    for name in source.align:
        if name not in own:
            raise ValueError(
                f"data.align: the source has no {name!r}{nearest(name, own)}: expected names "
                "as it spells them"
            )
        for finding in targets_of(name, source.align):
            if parts_of(finding) not in sets:
                hint = nearest(finding, known)
                raise ValueError(f"data.align: {finding!r} is not among the findings{hint}")
    for finding in source.uncertain if isinstance(source.uncertain, dict) else ():
        if finding and finding not in findings:
            hint = nearest(finding, findings)
            raise ValueError(f"data.uncertain: {finding!r} is not among the findings{hint}")


def _combined(cells: LabelCells, source: Source, steps: Steps) -> LabelCells:
    """Return the own labels of several readers as one; `share` is left where it is trained on.

    Readers disagree where the share of those who state 1 is not the label.
    """
    label, share = cells.label.copy(), cells.share
    differ = ~np.isnan(share) & (share != label)
    if source.readers in ("any", "all"):
        positive = share == 1 if source.readers == "all" else share > 0
        label[differ] = positive[differ]
    for name, films in zip(cells.names, differ.sum(axis=0).tolist(), strict=True):
        steps.add(f"readers disagree: {source.readers}", films, finding=name)
    soft = differ & (source.readers == "soft")
    return cells._replace(label=label, share=np.where(soft, share, np.float32(np.nan)))


def _with_boxes(films: Manifest, cells: LabelCells, steps: Steps) -> Manifest:
    """Return the films without the boxes of labels on which readers disagree and that are not 1."""
    boxes = films.boxes
    row = pd.Index(films.image).get_indexer(pd.Index(boxes["image"]))
    place = pd.Index(cells.names).get_indexer(pd.Index(boxes["finding"]))
    disputed = pd.MultiIndex.from_arrays([films.soft["image"], films.soft["finding"]])
    left = pd.MultiIndex.from_arrays([boxes["image"], boxes["finding"]]).isin(disputed)
    left &= (place >= 0) & (cells.label[row, place] != 1)
    for column, name in enumerate(cells.names):
        count = np.count_nonzero(left & (place == column))
        steps.add("boxes left out: the label is not 1", count, finding=name)
    return replace(films, boxes=boxes[~left].reset_index(drop=True))


def _negated(cells: LabelCells, collection: PublicCollection, steps: Steps) -> LabelCells:
    """Return the cells with 0 for what is not stated of films of No Finding."""
    label = cells.label.copy()
    normal = label[:, cells.names.index(collection.no_finding)] == 1
    for column, name in enumerate(cells.names):
        if name in (collection.no_finding, *collection.beside_no_finding):
            continue
        if np.isnan(label[:, column]).all():
            continue  # the label file states nothing of it
        filled = normal & np.isnan(label[:, column]) & ~cells.uncertain[:, column]
        label[filled, column] = 0
        steps.add(f"{collection.no_finding}: 0", filled.sum(), finding=name)
    return cells._replace(label=label)


def _filled(cells: LabelCells, is_stated: Bool[np.ndarray, " n"], steps: Steps) -> LabelCells:
    """Return the cells with 0 for what is not stated of films of which something `is_stated`.

    What the label file states of no film stays unknown, and films of which it states nothing do.
    """
    empty = np.isnan(cells.label) & ~cells.uncertain
    empty &= ~empty.all(axis=0) & is_stated[:, None]
    for name, films in zip(cells.names, empty.sum(axis=0).tolist(), strict=True):
        steps.add("missing: 0", films, finding=name)
    steps.add("missing: unknown, nothing of the film is stated", (~is_stated).sum())
    return cells._replace(label=np.where(empty, np.float32(0), cells.label))


def _aligned(cells: LabelCells, made: Mapping[str, list[str]], steps: Steps) -> LabelCells:
    """Return the cells of findings: 1 where an own name of them is, 0 where all of them are."""
    shape = (len(cells.label), len(made))
    label = np.full(shape, np.nan, dtype=np.float32)
    uncertain, share = np.zeros(shape, dtype=np.bool_), label.copy()
    for place, (finding, names) in enumerate(made.items()):
        if not names:
            steps.add("not stated by the collection", shape[0], finding=finding)
            continue
        _, theirs, unsure, soft = cells.of(names)
        one = (theirs == 1).any(axis=1)
        label[(theirs == 0).all(axis=1), place], label[one, place] = 0, 1
        uncertain[:, place] = unsure.any(axis=1) & ~one
        aims = np.where(np.isnan(soft), theirs, soft)
        is_soft = ~np.isnan(soft).all(axis=1) & ~np.isnan(aims).any(axis=1)
        share[is_soft, place] = aims[is_soft].max(axis=1)
        if names != [finding]:
            steps.add(f"made of {', '.join(names)}", int(one.sum()), finding=finding)
    return LabelCells(tuple(made), label, uncertain, share)


def _resolved(
    cells: LabelCells, image: Shaped[np.ndarray, " n"], source: Source, steps: Steps
) -> LabelCells:
    """Return the cells with uncertain labels as the protocol resolves them."""
    label, share = cells.label.copy(), cells.share.copy()
    for place, finding in enumerate(cells.names):
        policy, unsure = policy_of(source, finding), np.flatnonzero(cells.uncertain[:, place])
        steps.add(f"uncertain: {policy}", len(unsure), finding=finding)
        if policy in ("zeros", "ones"):
            label[unsure, place] = policy == "ones"
        if policy == "soft":
            share[unsure, place] = [
                soft_one(str(name), finding, seed=source.seed) for name in image[unsure].tolist()
            ]
    return cells._replace(label=label, share=share)


def policy_of(source: Source, finding: str) -> Uncertain:
    """Return what an uncertain label of a finding becomes."""
    if isinstance(source.uncertain, str):
        return source.uncertain
    return source.uncertain.get(finding, source.uncertain.get("", "ignore"))


def soft_one(image: str, finding: str, *, seed: int) -> float:
    """Return the training target of an uncertain label: uniform between SOFT_ONES.

    It is of the film's name, the finding and the seed alone, whatever the other films.
    """
    digest = hashlib.sha256(f"{seed}\0{finding}\0{image}".encode()).digest()
    low, high = SOFT_ONES
    return low + (high - low) * int.from_bytes(digest[:8]) / 2**64


def _made(
    films: Manifest, cells: LabelCells, made: Mapping[str, list[str]], steps: Steps
) -> Manifest:
    """Return the films with other findings; boxes of others are left out."""
    about = {"image": films.image, "findings": cells.names}
    boxes = [
        films.boxes[films.boxes["finding"].isin(names)].assign(finding=finding)
        for finding, names in made.items()
    ]
    return replace(
        films,
        findings=cells.names,
        label=cells.label,
        boxes=pd.concat(boxes, ignore_index=True),
        uncertain=cells_where(cells.uncertain, **about),
        soft=cells_where(~np.isnan(cells.share), **about, share=cells.share),
        reading=pd.concat([films.reading, steps.table()], ignore_index=True).astype({"films": int}),
    )


def choose_films(films: Manifest, *, source: Source) -> Manifest:
    """Return the films of the views that `source` takes, and of these one a patient if it wants.

    That is each patient's first film, in the order of the films; a film of an unknown patient is
    kept. Every film that is left out is counted in `reading`.
    Raises ValueError for a view that no film has.
    """
    if source.views:
        films = _of_views(films, tuple(view.upper() for view in source.views))
    if source.one_film_a_patient:
        again = pd.Series(films.patient).duplicated().to_numpy()
        kept = np.flatnonzero(~again | (films.patient == UNKNOWN_PATIENT))
        films = left_out(films, kept, step="not the patient's first film")
    return films


def left_out(films: Manifest, kept: Int64[np.ndarray, " m"], *, step: str) -> Manifest:
    """Return the films at `kept`; the others are counted in `reading`, and stated in `origin`."""
    lost = len(films) - len(kept)
    if not lost:
        return films
    return replace(
        films.take(kept),
        origin=f"{films.origin}, {lost:,} {step}",
        reading=with_steps(films.reading, {step: lost}),
    )


def with_steps(reading: pd.DataFrame, films: Mapping[str, int]) -> pd.DataFrame:
    """Return `Manifest.reading` with further steps, of all findings; a step of no film is none."""
    rows = [(step, "", count) for step, count in films.items() if count]
    if not rows:
        return reading
    more = pd.DataFrame(rows, columns=list(READING_COLUMNS))
    return pd.concat([reading, more], ignore_index=True) if len(reading) else more


def _of_views(films: Manifest, views: tuple[str, ...]) -> Manifest:
    """Return the films of these views, which are in capital letters."""
    if "view" not in films.facts:
        raise ValueError(
            f"data.views: the source states no view of a film: leave out {', '.join(views)}"
        )
    view = films.facts["view"].fillna("").astype(str).str.strip().str.upper().to_numpy(dtype=str)
    count = Counter(np.where(view == "", UNKNOWN_VIEW, view).tolist())
    for one in views:
        if one not in count:
            found = listed([f"{name} {number:,}" for name, number in count.most_common()])
            raise ValueError(f"data.views: no film is {one!r}: found {found}")
    kept = np.flatnonzero(np.isin(view, views))
    lost = {name: number for name, number in count.most_common() if name not in views}
    if not lost:
        return films
    steps = {f"view not taken: {name}": number for name, number in lost.items()}
    return replace(
        films.take(kept),
        origin=f"{films.origin}, {counted(len(films) - len(kept), 'film')} of other views left out",
        reading=with_steps(films.reading, steps),
    )

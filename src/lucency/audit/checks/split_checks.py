"""The leak doctor on a split: patients, films and copies in two parts, films lost or repeated.

Every check is a mistake seen in published work, named in CHECKS; those of lists, labels and boxes
of ChestX-ray14 are in `nih_checks`. No pixel is read here. Letters in shapes: n rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Bool

from lucency.audit.checks import nih_checks
from lucency.audit.checks.issue import Issue, SplitTable, issues_of, ranked
from lucency.core.manifest import PARTS, counted
from lucency.core.tables import film_names, within

AFTERWARDS = "split first, then balance the training part alone: balance.before_split = false"
Rows = Bool[np.ndarray, " n"]


def check_split(table: SplitTable) -> list[Issue]:
    """Return what is wrong with a split, the serious issues first."""
    return ranked(issue for check in CHECKS.values() for issue in check(table))


def patients_on_two_sides(table: SplitTable) -> Iterator[Issue]:
    """Return for each two parts how many rows of the later one have their patient in the other."""
    for one, other, mine, theirs in _part_pairs(table):
        leak = theirs & np.isin(table.patient, table.patient[mine])
        people, films = np.unique(table.patient[leak]), int(leak.sum())
        message = (
            f"{films:,} of {theirs.sum():,} {other} films ({films / max(1, theirs.sum()):.1%}) are "
            f"of {counted(len(people), 'patient')} with films in {one}: films of a patient "
            "resemble each other, so that recognising the patient is rewarded"
        )
        names = [f"patient {table.named.get(number, number)}" for number in people.tolist()]
        remedy = 'split by patient: split.method = "patient", "shuffled" or "official"'
        yield from issues_of("patients_on_two_sides", names, message, count=films, remedy=remedy)


def pictures_on_two_sides(table: SplitTable) -> Iterator[Issue]:
    """Return for each two parts the films that stand in both themselves."""
    for one, other, mine, theirs in _part_pairs(table):
        same, _ = _shared(table, mine, theirs)
        message = (
            f"{counted(len(same), 'film', 'stands/stand')} in {one} and in {other}: the labels of "
            "these are known from the other part"
        )
        remedy = f"list every film once: take these out of {one} or out of {other}"
        yield from issues_of("pictures_on_two_sides", same, message, remedy=remedy)


def copies_on_two_sides(table: SplitTable) -> Iterator[Issue]:
    """Return for each two parts the films that stand in both, in one at least by copies only."""
    for one, other, mine, theirs in _part_pairs(table):
        _, copied = _shared(table, mine, theirs)
        message = (
            f"{counted(len(copied), 'film', 'stands/stand')} in {one} and in {other} by copies: "
            "films were copied before the split, and a copy gives away its source's labels"
        )
        yield from issues_of("copies_on_two_sides", copied, message, remedy=AFTERWARDS)


def resampled_test(table: SplitTable) -> Iterator[Issue]:
    """Return the copies among validation films and among test films."""
    for part in PARTS[1:]:
        rows = table.part == part
        copies = table.image[rows & (table.copy != "")].tolist()
        message = (
            f"{counted(len(copies), f'{part} row', 'is/are', of=rows.sum())} copies: the part was "
            "resampled, so that its scores hold for no mix of films that exists"
        )
        yield from issues_of("resampled_test", copies, message, remedy=AFTERWARDS)


def duplicate_rows(table: SplitTable) -> Iterator[Issue]:
    """Return the rows that repeat another of their part; in training that is a note."""
    rows = pd.DataFrame({"film": table.film, "copy": table.copy, "part": table.part})
    again = rows.duplicated().to_numpy()
    for part in PARTS:
        names = table.image[again & (table.part == part)].tolist()
        repeated = counted(len(names), f"{part} row", "repeats/repeat")
        message = f"{repeated} another: these films count several times"
        severity = "note" if part == "train" else "serious"
        remedy = "remove the repeated rows; name a wanted copy film#1, film#2, …"
        yield from issues_of("duplicate_rows", names, message, severity=severity, remedy=remedy)


def unlabelled_rows(table: SplitTable) -> Iterator[Issue]:
    """Return the films of the split that are not in the label table, where one is at hand."""
    listed = film_names(table.listed)
    unknown = table.film[~within(table.film, listed)] if len(listed) else listed
    lost = list(dict.fromkeys(unknown.tolist()))
    message = (
        f"{counted(len(lost), 'film')} of the split {'is' if len(lost) == 1 else 'are'} not among "
        f"the {len(listed):,} of the label table: their labels are unknown, so the two do not "
        "belong together"
    )
    remedy = (
        "take the label table that the split was made from, or leave these films out and say so"
    )
    return issues_of("unlabelled_rows", lost, message, remedy=remedy)


def films_left_out(table: SplitTable) -> Iterator[Issue]:
    """Return the films of the label table that stand in no part; those of balancing apart."""
    listed = film_names(table.listed)
    out = listed[~within(listed, table.film)]
    dropped = within(out, film_names(table.dropped))
    lost, known = (list(dict.fromkeys(out[rows].tolist())) for rows in (~dropped, dropped))
    message = (
        f"{counted(len(known), 'film', 'is/are')} left out by balancing, in no part: scores on the "
        "rest are not affected unless balancing came before the split"
    )
    remedy = "state the number beside the scores; [balance] of the protocol decides it"
    yield from issues_of("films_left_out", known, message, remedy=remedy, severity="note")
    message = (
        f"{len(lost):,} of {len(listed):,} films of the label table are in no part: scores on the "
        "rest are not those of the data set"
    )
    remedy = "put them into a part, or say in every table which films were dropped and why"
    yield from issues_of("films_left_out", lost, message, remedy=remedy, severity="note")


def near_identical_pictures(table: SplitTable) -> Iterator[Issue]:
    """Return for each two parts the films of the later one whose picture is in the other."""
    pairs = film_names(table.alike.ravel()).reshape(-1, 2).tolist()
    pairs = [pair for pair in [*pairs, *(pair[::-1] for pair in pairs)] if pair[0] != pair[1]]
    for one, other, mine, theirs in _part_pairs(table) if pairs else ():
        here, there = set(table.film[mine].tolist()), set(table.film[theirs].tolist())
        seen = {b: a for a, b in pairs if a in here and b in there}
        message = (
            f"{counted(len(seen), f'{other} film', 'shows/show')} the same picture as a {one} "
            "film of another name: the labels of one part are known from the other"
        )
        names = [f"{b} = {a}" for b, a in seen.items()]
        remedy = "look at these pairs, and keep one film of each or both in one part"
        yield from issues_of("near_identical_pictures", names, message, remedy=remedy)


def _part_pairs(table: SplitTable) -> Iterator[tuple[str, str, Rows, Rows]]:
    """Yield each two parts and their rows."""
    for one, other in combinations(PARTS, 2):
        yield one, other, table.part == one, table.part == other


def _shared(table: SplitTable, mine: Rows, theirs: Rows) -> tuple[list[str], list[str]]:
    """Return the films that stand in both themselves, and the others that stand in both."""
    itself = table.copy == ""
    same = set(table.film[mine & itself].tolist()) & set(table.film[theirs & itself].tolist())
    both = set(table.film[mine].tolist()) & set(table.film[theirs].tolist())
    return sorted(same), sorted(both - same)


CHECKS: dict[str, Callable[[SplitTable], Iterator[Issue]]] = {
    check.__name__: check
    for check in (
        patients_on_two_sides, pictures_on_two_sides, copies_on_two_sides, resampled_test,
        duplicate_rows, unlabelled_rows, films_left_out, nih_checks.community_lists,
        nih_checks.official_split, nih_checks.box_images_in_training, nih_checks.label_versions,
        near_identical_pictures,
    )
}  # fmt: skip

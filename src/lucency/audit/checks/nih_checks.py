"""The leak doctor on ChestX-ray14: its official lists, community lists, boxes and label files.

NIH published two lists; others that CheXNet re-implementations share (arnoweng/CheXNet and its
heirs) look like them and are not. Letters in shapes: n names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Shaped

from lucency.audit.checks.issue import Issue, SplitTable, issues_of
from lucency.core.manifest import counted
from lucency.core.tables import NIH_NAME, film_names, within
from lucency.data.labels import OFFICIAL_LISTS, UNPUBLISHED

LUCK = 1e-6  # by chance alone, patients stand as in the community lists no oftener than this
SEVERAL = 10  # patients in test; of fewer, all may be official test patients by chance
BY_LISTS = 'take NIH\'s own lists, split.method = "official", and train anew'
COMMUNITY = {  # by the number of films: the start of their names' SHA-256, sorted; the list's name
    78_468: ("fbd965d7aeb3a9b4", "train"),
    11_219: ("a1b892445ac87971", "val"),
    22_433: ("8b08042d1be20114", "test"),
    89_687: ("53df133da6df40f0", "train and val"),
}
GROUPS = (("train",), ("val",), ("test",), ("train", "val"))
THEIR_MISTAKE = (
    "17,920 of NIH's 25,596 test films, 606 of the 880 with boxes, are in the training part of "
    "those lists, and scores on their test part run .02 to .03 above those on NIH's"
)
# The 30 patients with most films on the community's test list, and on its other two.
HEAVY_TEST = frozenset((
    583, 1170, 2437, 3393, 4342, 5681, 6642, 10007, 10294, 10531, 11237, 11683, 12094, 12628,
    13310, 13685, 13894, 14663, 16568, 16587, 17236, 18360, 18610, 18921, 19373, 20408, 20482,
    22572, 23068, 27415,
))  # fmt: skip
HEAVY_REST = frozenset((
    1836, 3028, 4006, 4808, 4858, 4893, 6271, 7034, 11702, 11925, 12021, 12364, 12834, 13111,
    13625, 13670, 13993, 14022, 15530, 17138, 18253, 19124, 19176, 20213, 20326, 21201, 22416,
    22815, 25252, 27213,
))  # fmt: skip
FIRST_LABELS = "NIH's label file of November 2017"
LATER_LABELS = ("NIH's later label file, as on Kaggle", "NIH v2020 label file")


def community_lists(table: SplitTable) -> Iterator[Issue]:
    """Return the community's lists, where parts hold them or they lie under the names of NIH's.

    A part that holds a list whole is known by its fingerprint; a split that lost films by where
    the patients with most films stand. That is serious where the split is meant to be official.
    """
    official = (table.official_train_val, table.official_test)
    posing = [
        f"{file}, {len(names):,} films, is the community's {name} list"
        for file, names in zip(OFFICIAL_LISTS, official, strict=True)
        if (name := _community_name(film_names(names)))
    ]
    held = _whole_lists(table) or _known_patients(table)
    found = [*posing, *held]
    strays = _unofficial_tests(table) if held and not posing else ""
    return issues_of(
        "community_lists",
        found,
        f"{'; '.join(found)}: {strays}{THEIR_MISTAKE}",
        count=len(table.image),
        severity="serious" if posing or table.method == "official" else "note",
        remedy=f"say so, and compare with results on the same lists alone; or {BY_LISTS}",
    )


def official_split(table: SplitTable) -> Iterator[Issue]:
    """Return the films on the wrong side of NIH's lists, where the split is meant to be theirs.

    It is meant so when the protocol says it, or when all of many test films are on NIH's test
    list; any other split may deal those films as it likes.
    """
    tests = within(table.film, film_names(table.official_test))
    mine = table.part == "test"
    all_official = tests[mine].all() and len(np.unique(table.patient[mine])) >= SEVERAL
    if not len(table.official_test) or not (table.method == "official" or all_official):
        return
    for part, uses in (("train", "train the network"), ("val", "choose epoch and thresholds")):
        names = np.unique(table.film[tests & (table.part == part)].astype(str)).tolist()
        message = (
            f"{len(names):,} of the {len(table.official_test):,} films on NIH's test list {uses}: "
            "a score on that list is then no official one"
        )
        yield from issues_of("official_split", names, message, remedy=BY_LISTS)
    trained = within(table.film, film_names(table.official_train_val))
    names = np.unique(table.film[mine & trained].astype(str)).tolist()
    message = (
        f"{counted(len(names), 'test film', 'is/are', of=mine.sum())} on NIH's train_val list, "
        "whose films are healthier: the score is no official one"
    )
    yield from issues_of("official_split", names, message, remedy=BY_LISTS)


def box_images_in_training(table: SplitTable) -> Iterator[Issue]:
    """Return the training films that have boxes; a note, unless the split is meant to be NIH's."""
    boxed = np.unique(film_names(table.boxed).astype(str))
    names = boxed[within(boxed, table.film[table.part == "train"])].tolist()
    message = (
        f"{len(names):,} of {len(boxed):,} films with boxes are in train: the network has learnt "
        "their labels, so that hits of these boxes prove no localisation"
    )
    remedy = f"score the boxes of other films alone, or {BY_LISTS}: all box films are in its test"
    severity = "serious" if table.method == "official" else "note"
    return issues_of("box_images_in_training", names, message, severity=severity, remedy=remedy)


def label_versions(table: SplitTable) -> Iterator[Issue]:
    """Return what is wrong with the label files in play: mixed, superseded, or not published."""
    origins = dict.fromkeys(table.origins)
    first = [origin for origin in origins if FIRST_LABELS in origin]
    later = [origin for origin in origins if any(name in origin for name in LATER_LABELS)]
    odd = [origin for origin in origins if UNPUBLISHED in origin]
    remedy = "take Data_Entry_2017_v2020.csv for everything"
    if first and later:
        message = (
            "labels come from two editions of the label file, which differ on 181 films of NIH's "
            "test list: a film may be right in one table and wrong in the other"
        )
        yield from issues_of("label_versions", [*first, *later], message, remedy=remedy)
        return
    message = (
        f"the labels are {FIRST_LABELS}: 181 films, all on NIH's test list and with boxes, lack "
        "188 findings that NIH added later, so scores are not quite those of others"
    )
    yield from issues_of("label_versions", first, message, remedy=remedy, severity="note")
    message = (
        f"{counted(len(odd), 'label file', 'holds/hold')} other counts than any that NIH "
        "published: scores on them compare with no others"
    )
    remedy = "say which rows or labels were changed, or take Data_Entry_2017_v2020.csv whole"
    yield from issues_of("label_versions", odd, message, remedy=remedy, severity="note")


def _community_name(film: Shaped[np.ndarray, " n"]) -> str:
    """Return which list of the community these films are, or nothing."""
    names = sorted(set(film.tolist()))
    known, name = COMMUNITY.get(len(names), ("", ""))
    found = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16] if known else ""
    return name if found == known else ""


def _whole_lists(table: SplitTable) -> list[str]:
    """Return which parts, or else train and val together, hold a whole list of the community."""
    found = []
    for group in GROUPS:
        names = table.film[np.isin(table.part, group)]
        if not (len(group) > 1 and found) and (name := _community_name(names)):
            count = f"{len(set(names.tolist())):,} {' and '.join(group)} films"
            found.append(f"the {count} are the community's {name} list")
    return found


def _known_patients(table: SplitTable) -> list[str]:
    """Return that all patients with most films stand as in the community's lists, where they do."""
    tests = table.part == "test"
    inside, outside = _patients(table.film[tests]), _patients(table.film[~tests])
    share = len(inside) / max(1, len(inside | outside))
    hits, rests = len(inside & HEAVY_TEST), len(outside & HEAVY_REST)
    if inside & HEAVY_REST or outside & HEAVY_TEST or share**hits * (1 - share) ** rests > LUCK:
        return []
    known = f"{hits} patients of many films in test and {rests} outside it, none elsewhere"
    return [f"patients stand as in the community's lists ({known})"]


def _patients(film: Shaped[np.ndarray, " n"]) -> set[int]:
    """Return the patients that the names of ChestX-ray14 hold."""
    return {int(name[:8]) for name in film.tolist() if NIH_NAME.fullmatch(name)}


def _unofficial_tests(table: SplitTable) -> str:
    """Return how many films are on which of NIH's lists, where those are at hand."""
    lists = (table.official_train_val, table.official_test)
    if not all(len(names) for names in lists):
        return ""
    train, test = (table.film[table.part == part] for part in ("train", "test"))
    known = [film_names(names) for names in lists]
    learnt = int(within(train, known[1]).sum())
    trained, tested = (int(within(test, names).sum()) for names in known)
    training = f"{counted(learnt, 'train film', 'is/are')} on NIH's test list; " if learnt else ""
    return (
        f"{training}{counted(trained, 'test film', 'is/are')} on NIH's train_val list, {tested:,} "
        "on its test list; "
    )

"""The leak doctor on splits: every planted mistake is found and counted, honest splits pass."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucency.audit.checks import nih_checks, prediction_checks, split_checks
from lucency.audit.checks.issue import Issue, SplitTable, issue_table
from lucency.audit.checks.split_checks import CHECKS, check_split
from lucency.config.sections import Split
from lucency.core.manifest import PARTS, Manifest
from lucency.core.plan import clones, joined, originals
from lucency.core.tables import film_names
from lucency.data.duplicates import near_identical
from lucency.data.labels import LABEL_FILES, read_official_lists
from lucency.data.split import split, split_by_image, split_by_patient
from toys import toy_films

COMMUNITY = ("train", "val", "test")


def _table(*rows: tuple[str, int, str], **known: object) -> SplitTable:
    """Return films, patients and parts, in rows of three."""
    image, patient, part = zip(*rows, strict=True)
    return SplitTable(
        image=np.array(image),
        patient=np.array(patient, dtype=np.int64),
        part=np.array(part),
        **known,
    )


CLEAN = (
    ("a", 1, "train"), ("b", 1, "train"), ("b#1", 1, "train"), ("c", 2, "train"),
    ("d", 3, "val"), ("e", 4, "val"), ("f", 5, "test"), ("g", 6, "test"), ("h", 6, "test"),
)  # fmt: skip
ALL = np.array(list("abcdefgh"))
MANY = tuple((f"t{number}", 100 + number, "test") for number in range(10))
OFFICIAL = {
    "official_test": np.array([*(name for name, _, _ in MANY), "a", "b", "d"]),
    "official_train_val": np.array(["c", "e"]),
}
KAGGLE = "NIH's later label file, as on Kaggle"

# check -> rolls, each with the counts of its issues
PLANTED: dict[str, list[tuple[SplitTable, list[int]]]] = {
    "patients_on_two_sides": [
        (_table(*CLEAN, ("i", 1, "test"), ("j", 2, "test"), ("k", 2, "test")), [3]),
        (_table(*CLEAN, ("i", 1, "val"), ("j", 3, "test")), [1, 1]),
    ],
    "pictures_on_two_sides": [
        (_table(*CLEAN, ("b", 7, "test"), ("c", 8, "test"), ("d", 9, "test")), [2, 1]),
        (_table(("00000001_000.png", 1, "train"), ("images/00000001_000.PNG", 2, "test")), [1]),
    ],
    "copies_on_two_sides": [
        (_table(("a#1", 1, "train"), ("a#2", 2, "test"), ("b", 3, "test")), [1]),
        (_table(("a", 1, "train"), ("b", 3, "train"), ("a#1", 2, "val"), ("b#1", 4, "val")), [2]),
    ],
    "resampled_test": [
        (_table(*CLEAN, ("d#1", 3, "val"), ("f#1", 5, "test"), ("f#2", 5, "test")), [1, 2])
    ],
    "duplicate_rows": [
        (_table(*CLEAN, *CLEAN[6:8], ("f", 5, "test"), ("d", 3, "val")), [1, 3]),
        (_table(*CLEAN, ("b#1", 1, "train")), [1]),
    ],
    "unlabelled_rows": [(_table(*CLEAN, ("x", 7, "train"), ("x#1", 7, "train"), listed=ALL), [1])],
    "films_left_out": [(_table(*CLEAN, listed=np.array([*ALL, "y", "z"])), [2])],
    "official_split": [
        (_table(*CLEAN, ("c2", 2, "train"), method="official", **OFFICIAL), [2, 1]),
        (_table(*CLEAN[:6], *MANY, **OFFICIAL), [2, 1]),
        (_table(*CLEAN[:3], *MANY, ("c", 2, "test"), method="official", **OFFICIAL), [2, 1]),
    ],
    "box_images_in_training": [(_table(*CLEAN, boxed=np.array(["b", "b", "c", "f", "q"])), [2])],
    "label_versions": [
        (_table(*CLEAN, origins=(f"x: {LABEL_FILES[0]}", f"y: {nih_checks.FIRST_LABELS}, 9")), [1]),
        (_table(*CLEAN, origins=(f"y: {nih_checks.FIRST_LABELS}, 9", f"z: {KAGGLE}, 9")), [2]),
        (_table(*CLEAN, origins=("mine.csv: not a published version, 9 films",)), [1]),
    ],
    "near_identical_pictures": [
        (_table(*CLEAN, alike=np.array([["a", "f"], ["g", "b"], ["h", "b"], ["a", "b"]])), [3]),
        (_table(*CLEAN, alike=np.array([["a", "d"], ["e", "f"], ["b#1", "b"]])), [1, 1]),
    ],
}  # fmt: skip
IMPLIED = {  # a mistake may be another one too
    "pictures_on_two_sides": set(),
    "copies_on_two_sides": {"resampled_test"},
}


def _community(shared: Path) -> SplitTable:
    folder = shared / "nih" / "community"
    lists = [(folder / f"{name}.txt").read_text().split() for name in COMMUNITY]
    image = np.array([name for names in lists for name in names])
    return SplitTable(
        image=image,
        patient=np.array([int(name[:8]) for name in image.tolist()]),
        part=np.repeat(COMMUNITY, [len(names) for names in lists]),
    )


def _take(table: SplitTable, rows: np.ndarray) -> SplitTable:
    return replace(
        table, image=table.image[rows], patient=table.patient[rows], part=table.part[rows]
    )


def issues(check: str, table: SplitTable) -> list[Issue]:
    return list(CHECKS[check](table))


def _only(found: list[Issue]) -> Issue:
    (one,) = found
    return one


@pytest.fixture(scope="module")
def lists(shared: Path) -> dict[str, np.ndarray]:
    """NIH's two lists."""
    train_val, test = read_official_lists(shared / "nih")
    return {"official_train_val": train_val, "official_test": test}


def _dealt(nih: Manifest, lists: dict[str, np.ndarray], method: str, *, root: Path) -> SplitTable:
    """Return all films in the parts of a method, with all that is known of them."""
    part = split(nih, choices=Split(method=method), root=root)
    about = {"method": method, "listed": nih.image, "origins": (nih.origin,), **lists}
    return SplitTable(image=nih.image, patient=nih.patient, part=part, **about)


@pytest.fixture(scope="module")
def community(shared: Path) -> SplitTable:
    return _community(shared)


def test_every_check_has_a_planted_mistake():
    """The community's lists cannot be made up: they are planted below, from the real ones."""
    assert set(PLANTED) | {"community_lists"} == set(CHECKS)
    assert all(function.__name__ == name for name, function in CHECKS.items())


@pytest.mark.parametrize("check", list(PLANTED))
def test_a_planted_mistake_is_found_with_its_count(check: str):
    for table, counts in PLANTED[check]:
        found = issues(check, table)
        assert [issue.count for issue in found] == counts
        for issue in found:
            assert issue.check == check
            assert re.search(rf"\b{issue.count:,}\b|label file", issue.message)
            assert 1 <= len(issue.examples) <= 3
            assert ":" in issue.message
            assert issue.remedy


@pytest.mark.parametrize("check", list(PLANTED))
def test_no_other_check_takes_it_for_its_own(check: str):
    """But for films on two sides, which are other mistakes too by what they are."""
    for table, _ in PLANTED[check]:
        strangers = {one.check for one in check_split(table)} - {check}
        allowed = {"patients_on_two_sides"} if check == "official_split" else set()
        assert strangers <= IMPLIED.get(check, set()) | allowed


def test_an_honest_split_has_no_complaint():
    origins = (f"f: {KAGGLE}, 9 films", "g: NIH v2020 label file, 9 films", "h.csv: 9 films")
    assert check_split(_table(*CLEAN, method="patient", listed=ALL, origins=origins)) == []
    alike = np.array([["a", "b"], ["f", "g"], ["x", "y"]])
    assert check_split(_table(*CLEAN, alike=alike, boxed=np.array(["f", "d"]))) == []
    assert check_split(_table(*CLEAN[:4])) == []


def test_copies_made_by_balancing_the_training_part_are_no_complaint():
    label = np.zeros((6, 1), dtype=np.float32)
    plan = joined(originals(label), clones(label, np.array([0, 0, 1])))
    image = np.array([f"{film}.png" for film in range(6)])
    part = np.array(["train", "train", "train", "val", "test", "test"])[plan.row]
    table = SplitTable(image=plan.names(image), patient=plan.row, part=part)
    assert check_split(table) == []
    shuffled = replace(table, part=np.where(plan.copy > 0, "test", part))
    assert {"copies_on_two_sides", "resampled_test"} < {one.check for one in check_split(shuffled)}


def test_serious_complaints_stand_first_and_make_a_table():
    table = _table(*CLEAN, ("i", 1, "test"), ("b#1", 1, "train"), listed=ALL)
    found = check_split(table)
    assert [one.severity for one in found] == ["serious", "serious", "note"]
    table = issue_table(found)
    assert table["check"].tolist() == ["patients_on_two_sides", "unlabelled_rows", "duplicate_rows"]
    assert table["examples"].tolist() == ["patient 1", "i", "b#1"]
    assert list(issue_table([]).columns) == list(table.columns)


def test_a_roll_of_unequal_length_or_another_part_is_refused():
    with pytest.raises((ValueError, TypeError), match="patient"):
        replace(_table(*CLEAN), patient=np.arange(2))
    with pytest.raises(ValueError, match="part: found"):
        _table(("a", 1, "training"))


def test_names_of_chestxray14_are_one_with_folder_suffix_or_none():
    names = ["images/00000013_001.png", "a\\00000013_001.jpg", "00000013_001", "00000013_001.png#7"]
    assert set(film_names(np.array(names))) == {"00000013_001"}
    others = ["a/1.png", "b/1.png", "1.png", "x00000013_001.png", "00000013_001.png.bak#2"]
    plain = ["a/1.png", "b/1.png", "1.png", "x00000013_001.png", "00000013_001.png.bak"]
    assert film_names(np.array(others)).tolist() == plain


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    films=st.integers(1, 60),
    patients=st.integers(1, 30),
)
def test_patients_are_counted_as_the_overlap_of_the_report(seed: int, films: int, patients: int):
    """An independent count: a loop over rows."""
    generator = np.random.default_rng(seed)
    image = np.array([f"{number}.png" for number in range(films)])
    patient = generator.integers(patients, size=films)
    part = generator.choice(PARTS, size=films)
    found = {
        (one, other): sum(
            part[row] == other and patient[row] in patient[part == one] for row in range(films)
        )
        for one, other in (("train", "val"), ("train", "test"), ("val", "test"))
    }
    leaks = issues("patients_on_two_sides", SplitTable(image=image, patient=patient, part=part))
    assert [one.count for one in leaks] == [count for count in found.values() if count]
    shares = [count / (part == other).sum() for (_, other), count in found.items() if count]
    for issue, share in zip(leaks, shares, strict=True):
        assert f"({share:.1%})" in issue.message


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), patients=st.integers(3, 60))
def test_any_split_by_patient_is_left_alone(seed: int, patients: int):
    generator = np.random.default_rng(seed)
    patient = np.append(np.arange(patients), generator.integers(patients, size=90))
    label = generator.integers(0, 2, (len(patient), 2)).astype(np.float32)
    part = split_by_patient(label, patient=patient, share=(0.7, 0.15, 0.15), seed=seed)
    image = np.array([f"{who:08d}_{row:03d}.png" for row, who in enumerate(patient.tolist())])
    assert check_split(SplitTable(image=image, patient=patient, part=part, listed=image)) == []


@pytest.mark.parametrize("method", ["patient", "official"])
def test_an_honest_split_of_chestxray14_has_no_complaint(nih, lists, shared, method):
    assert check_split(_dealt(nih, lists, method, root=shared / "nih")) == []


def test_a_split_by_image_of_chestxray14_leaks_as_published(nih, lists, shared):
    table = _dealt(nih, lists, "image", root=shared)
    found = check_split(table)
    assert [one.check for one in found] == ["patients_on_two_sides"] * 3
    tests = int((table.part == "test").sum())
    assert found[1].count / tests == pytest.approx(0.817, abs=0.005)
    assert f"{found[1].count:,} of {tests:,} test films (81." in found[1].message


def test_the_community_s_lists_are_known_whole(community: SplitTable, lists):
    """Facts, chestxray14.md: 17,920 official test films and 606 of 880 box films in training."""
    one = _only(check_split(replace(community, **lists)))
    assert (one.check, one.severity, one.count) == ("community_lists", "note", 112_120)
    assert len(one.examples) == 3
    train = community.film[community.part == "train"]
    official = set(film_names(lists["official_test"]).tolist())
    assert len(official & set(train.tolist())) == 17_920
    assert "17,920 of NIH's 25,596 test films, 606 of the 880 with boxes" in one.message
    labelled = replace(community, method="official", **lists)
    assert [one.severity for one in issues("community_lists", labelled)] == ["serious"]
    assert [one.count for one in issues("official_split", labelled)] == [17_920, 2_463, 17_220]


def test_boxes_of_films_in_the_community_s_training_part_are_refused(
    community: SplitTable, nih: Manifest
):
    boxed = nih.boxes["image"].to_numpy(dtype=str)
    one = _only(issues("box_images_in_training", replace(community, boxed=boxed)))
    assert len(boxed) == 984
    assert one.count == 606
    assert one.message.startswith("606 of 880 films")


def test_the_community_s_lists_are_known_under_nih_s_names(community: SplitTable):
    test = community.image[community.part == "test"]
    rest = community.image[community.part != "test"]
    lists = {"official_test": test, "official_train_val": rest}
    one = _only(issues("community_lists", _table(*CLEAN, **lists)))
    assert one.severity == "serious"
    assert "test_list.txt, 22,433 films, is the community's test list" in one.message
    assert "train_val_list.txt, 89,687 films, is the community's train and val list" in one.message


def test_the_community_s_lists_are_known_by_content_not_by_order_or_form(community: SplitTable):
    generator = np.random.default_rng(0)
    order = generator.permutation(len(community.image))
    bare = np.array([f"images/{name[:12]}" for name in community.image[order].tolist()])
    turned = replace(_take(community, order), image=bare)
    assert len(_only(issues("community_lists", turned)).examples) == 3
    joint = replace(community, part=np.where(community.part == "val", "train", community.part))
    assert "the 89,687 train films are" in _only(issues("community_lists", joint)).message


@pytest.mark.parametrize("films", [3_000, 30_000])
def test_the_community_s_split_is_known_when_films_are_left_out(community: SplitTable, films: int):
    rows = np.random.default_rng(films).permutation(len(community.image))[:films]
    some = _take(community, np.sort(rows))
    assert "patients stand as in the community's lists" in _only(check_split(some)).message
    joint = replace(some, part=np.where(some.part == "val", "train", some.part))
    assert len(issues("community_lists", joint)) == 1
    moved = replace(some, part=np.where(some.patient == 10007, "train", some.part))
    assert films < 30_000 or issues("community_lists", moved) == []


def test_nih_s_own_lists_and_other_patients_are_not_the_community_s(nih, lists):
    part = split_by_image(len(nih), share=(0.7, 0.1, 0.2), seed=1)
    table = SplitTable(image=nih.image, patient=nih.patient, part=part)
    assert issues("community_lists", table) == []
    assert issues("community_lists", _table(*CLEAN, **lists)) == []


def test_zech_s_test_films_are_the_community_s_and_not_nih_s(shared: Path, lists):
    image = pd.read_csv(shared / "nih" / "zech" / "preds.csv")["Image Index"].to_numpy(dtype=str)
    patient = np.array([int(name[:8]) for name in image.tolist()])
    table = SplitTable(image=image, patient=patient, part=np.full(len(image), "test"), **lists)
    one = _only(check_split(table))
    assert (one.check, one.count) == ("community_lists", 22_433)
    assert "17,220 test films are on NIH's train_val list, 5,213 on its test list" in one.message


def test_a_network_of_the_community_s_lists_is_not_scored_on_nih_s(community: SplitTable, lists):
    """Trained on one split, scored on the other: 17,920 films were seen."""
    rows = np.flatnonzero(community.part == "train")
    test = lists["official_test"]
    table = SplitTable(
        image=np.append(community.image[rows], test),
        patient=np.append(community.patient[rows], [int(name[:8]) for name in test.tolist()]),
        part=np.append(community.part[rows], np.full(len(test), "test")),
        official_test=test,
        official_train_val=lists["official_train_val"],
    )
    found = {one.check: one.count for one in check_split(table)}
    assert found["pictures_on_two_sides"] == 17_920
    assert found["official_split"] == 17_920


def test_label_files_are_distinguished_by_their_origin(nih: Manifest, first_nih: Manifest):
    first = first_nih
    changed = (first.label != nih.label[pd.Index(nih.image).get_indexer(first.image)]).any(1)
    assert changed.sum() == 181
    base = _table(*CLEAN)
    check = partial(issues, "label_versions")
    assert check(replace(base, origins=(nih.origin, nih.origin))) == []
    mixed = _only(check(replace(base, origins=(first.origin, nih.origin))))
    assert (mixed.severity, mixed.count) == ("serious", 2)
    assert f"{changed.sum()} films" in mixed.message
    alone = _only(check(replace(base, origins=(first.origin,))))
    assert (alone.severity, alone.examples) == ("note", (first.origin,))


def test_few_test_films_on_the_official_list_do_not_make_a_split_official():
    """Of fewer than ten patients all may be there by chance; and the lists must be at hand."""
    check = partial(issues, "official_split")
    few = _table(*CLEAN[:6], *MANY[:9], **OFFICIAL)
    assert check(few) == []
    assert check(_table(*CLEAN[:6], *MANY, method="official")) == []
    assert check(_table(*CLEAN[:6], *MANY, ("u", 7, "test"), **OFFICIAL)) == []


def test_pictures_found_by_their_pixels_are_named_with_their_twin():
    prepared = toy_films(24, seed=3)
    pixels = prepared.pixels.copy()
    pixels[20] = pixels[2]
    part = np.repeat(["train", "test"], [16, 8])
    table = near_identical(replace(prepared, pixels=pixels), side=part)
    films = prepared.manifest
    table = SplitTable(
        image=films.image,
        patient=films.patient,
        part=part,
        alike=table[["image", "other"]].to_numpy(dtype=str),
    )
    one = _only(check_split(table))
    assert one.examples == ("020.png = 002.png",)
    assert check_split(replace(table, alike=table.alike[:0])) == []


UNSEEN = "cannot be seen in a split, predictions or tables"
MISTAKES = {  # of facts/judging.md, by how a row begins
    "split by image": ("patients_on_two_sides",),
    "copies or resampling before": ("copies_on_two_sides", "resampled_test", "duplicate_rows"),
    "thresholds tuned on test": ("fitted_elsewhere",),
    "validation scored as test": ("scored_as_test",),
    "random augmentation on": UNSEEN,
    "double sigmoid": ("double_sigmoid",),
    "class order mismatch": ("column_order",),
    "published mean": ("mean_of_another_table",),
    "weights silently not": ("chance", "constant_output"),
    "NaN metrics behind": ("unexplained_gaps",),
    "accuracy as headline": ("no_baseline",),
    "2 % test sets": ("few_positives", "no_interval"),
    "rows silently dropped": ("films_left_out", "missing_predictions"),
    "probabilities after": ("overstated_risk",),
    "comparing losses": UNSEEN,
    "boxes scored on": ("box_images_in_training",),
    "pre-training on the same": UNSEEN,  # provenance says so, no data
}


def test_films_that_balancing_dropped_are_told_from_films_that_are_lost():
    table = _table(*CLEAN, listed=np.array([*ALL, "x", "y", "z"]), dropped=np.array(["x", "y"]))
    known, lost = (one for one in check_split(table) if one.check == "films_left_out")
    assert known.message.startswith("2 films are left out by balancing")
    assert (known.severity, known.count, lost.count) == ("note", 2, 1)
    assert "put them into a part" not in known.remedy


def test_no_mistake_of_the_field_that_data_can_show_is_without_a_check(shared: Path):
    text = (shared / "facts" / "judging.md").read_text()
    table = text.partition("## Mistakes seen in the field")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?!mistake|---)(.+?) \|", table.replace("|---|---|", ""), flags=re.M)
    assert len(rows) == len(MISTAKES)
    for row in rows:
        assert sum(row.startswith(start) for start in MISTAKES) == 1, row
    named = {name for names in MISTAKES.values() if names != UNSEEN for name in names}
    assert named <= {*CHECKS, *prediction_checks.CHECKS}


def test_no_check_is_left_out_of_the_tables():
    """Every public function that takes a SplitTable or UnverifiedPredictions is a check."""
    for rooms, subject, checks in (
        ((split_checks, nih_checks), "SplitTable", CHECKS),
        ((prediction_checks,), "UnverifiedPredictions", prediction_checks.CHECKS),
    ):
        public = {
            member.__name__
            for room in rooms
            for name, member in vars(room).items()
            if not name.startswith("_")
            and getattr(member, "__module__", "").startswith("lucency.audit.checks")
            and subject in str(getattr(member, "__annotations__", {}).values())
            and isinstance(getattr(member, "__annotations__", None), dict)
            and "Issue" in str(member.__annotations__.get("return"))
        }
        assert public - {"check_split", "check_predictions"} == set(checks)

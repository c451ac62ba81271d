"""Splits: nobody on two sides, every finding at its share, the official lists as published."""

from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from lucency.config.protocol import parse_protocol
from lucency.config.sections import SHIFTED_DATES, Split
from lucency.core.manifest import FINDINGS, PARTS, Manifest, empty_boxes
from lucency.data.split import SPLITS, list_fingerprints, split
from lucency.deploy.model_card import SPLITS as EXPLAINED

SHARE = (0.70, 0.15, 0.15)
SHUFFLED: dict[str, Any] = {"method": "shuffled", "train": 0.7, "val": 0.1, "test": 0.2}


def invented(label: np.ndarray, patient: np.ndarray) -> Manifest:
    return Manifest(
        findings=tuple(f"finding {place}" for place in range(label.shape[1])),
        image=np.arange(len(label)).astype(str),
        patient=patient,
        label=label,
        facts=pd.DataFrame(index=range(len(label))),
        boxes=empty_boxes(),
        origin="invented",
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_every_film_tests_in_one_fold_and_patients_stay_together(seed: int):
    generator = np.random.default_rng(seed)
    patient = generator.integers(0, 300, 1_200)
    label = (generator.random((1_200, 3)) < [0.3, 0.1, 0.02]).astype(np.float32)
    films = invented(label, patient)
    choices = [
        Split(train=0.64, val=0.16, test=0.2, folds=5, fold=fold, seed=seed) for fold in range(5)
    ]
    found = np.stack([split(films, choices=one, root=Path()) for one in choices])
    assert ((found == "test").sum(axis=0) == 1).all()
    for part in found:
        assert sides(patient, part) == 0
        share = [(part == name).mean() for name in ("train", "val", "test")]
        np.testing.assert_allclose(share, [0.64, 0.16, 0.2], atol=0.02)
        positives = label[part == "test"].sum(axis=0) / label.sum(axis=0)
        np.testing.assert_allclose(positives, 0.2, atol=0.06)


@pytest.mark.parametrize(
    "choices", [{"folds": 2}, {"folds": 5, "method": "image"}, {"folds": 5, "fold": 5}, {"fold": 1}]
)
def test_impossible_folds_are_refused(choices: dict[str, Any]):
    with pytest.raises(ValueError, match="fold"):
        Split(**choices)


@pytest.fixture(scope="module")
def films(nih_films: Manifest, chestxray14: np.ndarray) -> Manifest:
    return replace(nih_films, findings=FINDINGS, label=chestxray14)


def sides(patient: np.ndarray, part: np.ndarray) -> int:
    """Count the patients who stand in more than one part."""
    pairs = {(who, where) for who, where in zip(patient.tolist(), part.tolist(), strict=True)}
    return len(pairs) - len(np.unique(patient))


def assert_stratified(label: np.ndarray, part: np.ndarray, wanted: dict[str, float]) -> None:
    for name, share in wanted.items():
        rows = part == name
        assert rows.mean() == pytest.approx(share, abs=0.01)
        common = label.sum(axis=0) >= 100
        relative = label[rows].mean(axis=0)[common] / label.mean(axis=0)[common]
        np.testing.assert_allclose(relative, 1, atol=0.1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_by_patient_on_the_whole_of_chestxray14(films: Manifest, shared: Path, seed: int):
    part = split(films, choices=Split(seed=seed), root=shared)
    assert sides(films.patient, part) == 0
    assert_stratified(films.label, part, dict(zip(PARTS, SHARE, strict=True)))
    largest = np.array([films.patient[part == name].size for name in PARTS])
    people = np.array([len(np.unique(films.patient[part == name])) for name in PARTS])
    np.testing.assert_allclose(largest / people, 112_120 / 30_805, rtol=0.02)


def test_parts_of_chestxray14_are_alike(films: Manifest):
    """Films of patients with many, and AP films: four standard deviations of 50 seeds."""
    _, owner, count = np.unique(films.patient, return_inverse=True, return_counts=True)
    many, front = count[owner] >= 20, (films.facts["view"] == "AP").to_numpy()
    for seed in range(3):
        part = split(films, choices=Split(seed=seed), root=Path())
        for name in PARTS:
            assert many[part == name].mean() == pytest.approx(many.mean(), abs=0.013)
            assert front[part == name].mean() == pytest.approx(front.mean(), abs=0.005)


def heavy_tailed(seed: int = 0) -> Manifest:
    """Two hundred patients, a few of them with many films, all films of these with findings."""
    generator = np.random.default_rng(seed)
    patient = np.repeat(np.arange(200), np.ceil(generator.pareto(1.0, 200)).clip(1, 40).astype(int))
    label = (generator.random((len(patient), 3)) < [0.3, 0.1, 0.05]).astype(np.float32)
    return invented(label, patient)


def test_patients_with_many_films_have_the_chances_of_others():
    """The ten with most films, dealt 60 times: .7 has a standard error of .019 at most."""
    films = heavy_tailed()
    _, first, count = np.unique(films.patient, return_index=True, return_counts=True)
    many = first[np.argsort(-count, kind="stable")[:10]]
    parts = [split(films, choices=Split(seed=seed), root=Path())[many] for seed in range(60)]
    share = [(np.array(parts) == name).mean() for name in PARTS]
    np.testing.assert_allclose(share, SHARE, atol=0.06)


@pytest.mark.parametrize("patients", [3, 4, 7, 20])
def test_every_part_gets_a_patient(patients: int):
    label = np.ones((2 * patients, 2), np.float32)
    films = invented(label, np.arange(2 * patients) // 2)
    for seed in range(20):
        part = split(films, choices=Split(seed=seed), root=Path())
        assert sides(films.patient, part) == 0
        assert set(part.tolist()) == set(PARTS)
    with pytest.raises(ValueError, match="2 patients cannot fill 3 parts"):
        split(films.take(np.arange(4)), choices=Split(), root=Path())


@pytest.mark.parametrize("view", [None, np.nan, "AP"])
def test_a_split_is_of_its_seed_and_not_of_the_order_of_films(view: str | float | None):
    films = heavy_tailed()
    if view is not None:
        known = pd.Series(np.where(np.arange(len(films)) % 3, "PA", "AP"), dtype=object)
        known[::5] = view
        films = replace(films, facts=pd.DataFrame({"view": known}))
    part = split(films, choices=Split(), root=Path())
    order = np.random.default_rng(1).permutation(len(films))
    assert split(films.take(order), choices=Split(), root=Path()).tolist() == part[order].tolist()
    assert split(films, choices=Split(seed=1), root=Path()).tolist() != part.tolist()


def test_shuffled_patients_are_those_of_synthensemble(films: Manifest):
    """Patients, seed 85: 22,356 of 112,120 films test."""
    part = split(films, choices=Split(**SHUFFLED, seed=85), root=Path())
    assert (part == "test").sum() == 22_356
    assert (part == "val").mean() == pytest.approx(0.1, abs=0.002)
    assert sides(films.patient, part) == 0
    people = np.unique(films.patient)
    other = np.isin(films.patient, train_test_split(people, test_size=0.2, random_state=86)[1])
    assert other.sum() != 22_356
    few = invented(films.label[:4], np.array([1, 1, 2, 2]))
    with pytest.raises(ValueError, match="2 patients cannot fill 3 parts"):
        split(few, choices=Split(**SHUFFLED), root=Path())


def stated(part: list[str], patient: list[int] | None = None, **facts: list[Any]) -> Manifest:
    """Return films with a part and other facts each, of a patient each where none is named."""
    films = invented(np.ones((len(part), 1), np.float32), np.array(patient or range(len(part))))
    return replace(films, facts=pd.DataFrame({"split": part, **facts}))


def test_a_column_states_parts_in_any_word_for_them():
    words = ["train", "Training", "VAL", "valid", "Validation", "validate", "test", " Testing "]
    part = split(stated(words), choices=Split(method="column"), root=Path())
    assert part.tolist() == ["train"] * 2 + ["val"] * 4 + ["test"] * 2
    named = replace(stated(words), facts=pd.DataFrame({"fold": words}))
    again = split(named, choices=Split(method="column", column="fold"), root=Path())
    assert again.tolist() == part.tolist()


@pytest.mark.parametrize(
    ("part", "patient", "message"),
    [
        (
            ["train", "test", "dev", "dev", ""],
            None,
            r"found dev \(2 films\), nothing \(1 film\); exp",
        ),
        (["train", "test", "val"], [1, 1, 2], r"put 1 patient in several parts \(1, …\)"),
        (["train", "val", "test"], [1, 1, 2], "put 1 patient in several parts"),
        (["train", "val"], None, r"put no film in test \(found train 1, val 1, test 0\)"),
        (["test", "val"], None, "put no film in train"),
        (["train", "test"], None, "1 patients cannot fill 2 parts"),
    ],
)
def test_parts_that_cannot_be_are_refused(part: list[str], patient: Any, message: str):
    with pytest.raises(ValueError, match=message):
        split(stated(part, patient), choices=Split(method="column"), root=Path())


@pytest.mark.parametrize("number", [np.int64, np.float64])
def test_numbers_are_named_as_the_table_has_them(number: type):
    films = replace(stated([""] * 3), facts=pd.DataFrame({"fold": np.array([1, 2, 2], number)}))
    with pytest.raises(ValueError, match=r"found 1 \(1 film\), 2 \(2 films\); expected train"):
        split(films, choices=Split(method="column", column="fold"), root=Path())


def test_a_fact_that_is_not_there_is_named():
    message = r"have no fact 'splt'; nearest is 'split': found split; .* by data\.columns"
    with pytest.raises(ValueError, match=message):
        split(stated(["train"]), choices=Split(method="column", column="splt"), root=Path())


@pytest.mark.parametrize("method", ["column", "official"])
def test_validation_films_are_taken_from_train_by_patient(method: Any):
    films = heavy_tailed()
    tests = films.patient % 4 == 0
    films = replace(films, facts=pd.DataFrame({"split": np.where(tests, "test", "train")}))
    part = split(films, choices=Split(method=method, train=0.6, val=0.2, test=0.2), root=Path())
    assert ((part == "test") == tests).all()
    assert sides(films.patient, part) == 0
    people = [len(np.unique(films.patient[part == name])) for name in ("train", "val")]
    assert people[1] / sum(people) == pytest.approx(0.25, abs=0.02)


def test_an_official_split_is_the_fact_or_nihs_lists(tmp_path: Path):
    films = stated(["train", "val", "test"])
    official = Split(method="official")
    assert split(films, choices=official, root=tmp_path).tolist() == ["train", "val", "test"]
    with pytest.raises(ValueError, match=r"states no official split, and .*train_val_list.txt is"):
        split(replace(films, facts=films.facts[[]]), choices=official, root=tmp_path)


def listed_films(root: Path, **lists: str) -> Split:
    """Write lists of films and return the split that names them."""
    for name, text in lists.items():
        (root / f"{name}.txt").write_text(text)
    return Split(method="lists", lists={name: f"{name}.txt" for name in lists})


def test_lists_state_parts_and_what_is_on_none_is_in_no_part(tmp_path: Path, capsys):
    films = stated(["a.png", "deep/b.png", "c", "d", "e"])
    films = replace(films, image=films.facts["split"].to_numpy(dtype=str))
    choices = listed_films(tmp_path, train="a\nb.png\n", val="c.png\n", test="D\nz\n")
    part = split(films, choices=choices, root=tmp_path)
    assert part.tolist() == ["train", "train", "val", "test", "apart"]
    told = capsys.readouterr().err
    assert "test.txt: 1 of 2 names is no film of the run (z, …)" in told
    assert "1 of 5 films is on no list of split.lists: in no part (e, …)" in told
    choices = listed_films(tmp_path, train="a\nb\nc\n", test="d\n")
    part = split(films, choices=choices, root=tmp_path)
    assert sorted(part.tolist()) == ["apart", "test", "train", "train", "val"]
    assert part[3:].tolist() == ["test", "apart"]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": "0\n1\n", "test": "1\n2\n"}, r"test.txt: 1 film is also on train.txt \(1, …\)"),
        (
            {"train": "0\n1\n", "test": "x.png\ny.png\n"},
            r"split.lists.test: test.txt: 2 of 2 names are no film of the run \(x.png, …\): "
            r"expected films on each list, named as in the label table \(0, …\)",
        ),
        ({"train": "0\n", "test": "1\n"}, "the lists put 1 patient in several parts"),
    ],
)
def test_lists_that_cannot_be_are_refused(tmp_path: Path, lists: dict[str, str], message: str):
    films = stated(["", "", ""], [7, 7, 8])
    with pytest.raises(ValueError, match=message):
        split(films, choices=listed_films(tmp_path, **lists), root=tmp_path)


def test_an_absent_list_is_named(tmp_path: Path):
    choices = Split(method="lists", lists={"train": "a.txt", "test": "b.txt"})
    with pytest.raises(ValueError, match=r"split.lists.train: .*a.txt: no such file"):
        list_fingerprints(choices, tmp_path)
    with pytest.raises(ValueError, match=r"split.lists.train: "):
        split(stated(["", ""]), choices=choices, root=tmp_path)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("1\n")
    assert set(list_fingerprints(choices, tmp_path)) == {"train", "test"}
    assert list_fingerprints(Split(), tmp_path) == {}


@pytest.mark.parametrize(
    "choices",
    [
        {"method": "lists"},
        {"lists": {"train": "a", "test": "b"}},
        {"method": "lists", "lists": {"train": "a"}},
        {"method": "lists", "lists": {"train": "a", "testing": "b"}},
        {"method": "patient", "column": "fold"},
    ],
)
def test_keys_of_another_method_are_refused(choices: dict[str, Any]):
    with pytest.raises(ValueError, match=r"lists|column|test"):
        Split(**choices)


def dated(seed: int = 0) -> Manifest:
    """Films of 200 patients; each patient's are some days apart, in any order."""
    films, generator = heavy_tailed(), np.random.default_rng(seed)
    start = generator.integers(0, 4_000, films.patient.max() + 1)
    day = start[films.patient] + generator.integers(0, 900, len(films))
    dates = pd.Timestamp("2007-05-03") + pd.to_timedelta(day, unit="D")
    return replace(films, facts=pd.DataFrame({"date": dates.strftime("%Y%m%d").astype(object)}))


def test_by_time_whole_patients_are_in_the_order_of_their_first_films():
    films = dated()
    part = split(films, choices=Split(method="time"), root=Path())
    assert sides(films.patient, part) == 0
    first = films.facts["date"].astype(int).groupby(films.patient).min()
    of = pd.Series(part).groupby(films.patient).first()
    begin, end = (first.groupby(of).agg(how) for how in ("min", "max"))
    assert end["train"] <= begin["val"]
    assert end["val"] <= begin["test"]
    for name, share in zip(PARTS, SHARE, strict=True):
        assert (part == name).mean() == pytest.approx(share, abs=0.05)
    order = np.random.default_rng(1).permutation(len(films))
    turned = split(films.take(order), choices=Split(method="time"), root=Path())
    assert turned.tolist() == part[order].tolist()


@pytest.mark.parametrize("how", ["iso", "number", "float", "time"])
def test_days_are_read_as_they_are_written(how: str):
    films = dated()
    text, number = films.facts["date"], films.facts["date"].astype(int)
    iso = text.str.slice(0, 4) + "-" + text.str.slice(4, 6) + "-" + text.str.slice(6, 8)
    written = {"iso": iso, "number": number, "float": number * 1.0, "time": iso + "T10:00:01"}
    other = replace(films, facts=pd.DataFrame({"StudyDate": written[how]}))
    choices = Split(method="time", column="StudyDate")
    part = split(films, choices=Split(method="time"), root=Path())
    assert split(other, choices=choices, root=Path()).tolist() == part.tolist()


@pytest.mark.parametrize(
    ("day", "message"),
    [
        ("", "split by time: 1 of 3 films has no date: expected a day for each"),
        (None, "1 of 3 films has no date"),
        ("20071332", "date: found '20071332', expected a day as 20240131 or 2024-01-31"),
        ("May 2007", "found 'May 2007', expected a day"),
        ("21800503", "date goes up to 2180-05-03, which is to come: such dates are shifted"),
    ],
)
def test_days_that_give_no_order_are_refused(day: str | None, message: str):
    films = stated([""] * 3, date=["20070503", "20070504", day])
    with pytest.raises(ValueError, match=message):
        split(films, choices=Split(method="time"), root=Path())


@pytest.mark.parametrize("patients", [3, 4])
def test_every_part_in_time_gets_a_patient(patients: int):
    patient = np.r_[np.zeros(41 - patients, np.int64), np.arange(1, patients)]
    films = invented(np.ones((40, 1), np.float32), patient)
    films = replace(films, facts=pd.DataFrame({"date": 20070503 + patient}))
    assert set(split(films, choices=Split(method="time"), root=Path()).tolist()) == set(PARTS)
    with pytest.raises(ValueError, match="1 patients cannot fill 3 parts"):
        split(films.take(np.arange(9)), choices=Split(method="time"), root=Path())


@pytest.mark.parametrize("tied", [30, 365])
def test_patients_of_one_day_are_in_one_part(tied: int):
    films = dated()
    day = pd.to_datetime(films.facts["date"]).map(pd.Timestamp.toordinal) // tied * tied
    coarse = day.map(lambda one: pd.Timestamp.fromordinal(one).strftime("%Y%m%d"))
    films = replace(films, facts=pd.DataFrame({"date": coarse.astype(object)}))
    part = pd.Series(split(films, choices=Split(method="time"), root=Path()))
    first = day.groupby(films.patient).transform("min")
    begin, end = (first.groupby(part).agg(how) for how in ("min", "max"))
    assert end["train"] < begin["val"]
    assert end["val"] < begin["test"]
    for name, share in zip(PARTS, SHARE, strict=True):
        assert (part == name).mean() == pytest.approx(share, abs=0.05 + tied / 4_000)


@pytest.mark.parametrize("days", [1, 2])
def test_too_few_days_have_no_borders(days: int):
    date = [f"2020013{k % days}" for k in range(12)]
    films = stated([""] * 12, list(range(12)), date=date)
    with pytest.raises(ValueError, match=rf"12 patients are all of {days} days? \(2020-01-30"):
        split(films, choices=Split(method="time"), root=Path())
    films = stated([""] * 4, [1, 1, 2, 3], date=["20200130", "20200131", "20200131", "20200131"])
    with pytest.raises(ValueError, match=r"all of 2 days \(2020-01-30, 2020-01-31\): expected 3"):
        split(films, choices=Split(method="time"), root=Path())


@pytest.mark.parametrize("source", SHIFTED_DATES)
def test_a_split_by_shifted_dates_is_refused_with_the_protocol(source: str):
    choices: dict[str, Any] = {"name": "late", "network": [{"name": "resnet18"}]}
    choices |= {"split": {"method": "time"}, "data": {"source": source}}
    with pytest.raises(ValueError, match=f"the dates of {source} are shifted, patient by patient"):
        parse_protocol(choices, name="late")


def test_every_method_is_made_shown_and_explained():
    methods = set(get_args(Split.model_fields["method"].annotation))
    assert set(SPLITS) == set(EXPLAINED) == methods
    template = resources.files("lucency.report").joinpath("report.html.jinja").read_text()
    line = next(line for line in template.splitlines() if line.startswith("Split {{"))
    assert {method for method in methods if f'"{method}": "' in line} == methods

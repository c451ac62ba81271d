"""Labels reviewed by people: what is drawn stands for all, and planted shares are found again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from lucency.audit.agreement import fleiss
from lucency.audit.review import (
    FORM,
    SAMPLE,
    draw_films,
    draw_label_errors,
    draw_sample,
    empty_form,
    film_id,
    label_ppv,
    read_answers,
    read_sample,
    reviewers_agree,
)
from lucency.core.manifest import FINDINGS, NO_FINDING, Manifest, empty_boxes
from lucency.evaluation.bootstrap import once
from lucency.evaluation.significance import wilson

DRAWS = {"resamples": 100, "seed": 0}


def manifest(label: np.ndarray, patient: np.ndarray) -> Manifest:
    films = len(label)
    return Manifest(
        findings=tuple("abcdef"[: label.shape[1]]),
        image=np.array([f"{film:05d}.png" for film in range(films)]),
        patient=patient.astype(np.int64),
        label=label.astype(np.float32),
        facts=pd.DataFrame({"age": [50] * films}),
        boxes=empty_boxes(),
        origin="toys",
    )


def noisy() -> tuple[Manifest, np.ndarray]:
    """Return labels with planted errors, most of them on patients of many films, and the truth."""
    random = np.random.default_rng(5)
    size = random.choice([1, 2, 5, 15], 900, p=[0.5, 0.3, 0.15, 0.05])
    patient = np.repeat(np.arange(len(size)), size)
    rate = np.where(size[patient] > 2, 0.5, 0.1)[:, None] * [1, 0.3]
    label = random.random(rate.shape) < 0.3
    truth = label ^ (random.random(rate.shape) < rate)
    return manifest(label, patient), truth.astype(np.float32)


def reviewed(sample: pd.DataFrame, films: Manifest, truth: np.ndarray) -> pd.DataFrame:
    """Return what a reviewer says who knows the truth."""
    row = dict(zip(films.image.tolist(), truth, strict=True))
    words = []
    for finding, image in zip(sample["finding"], sample["image"], strict=True):
        seen = row[image]
        absent = finding == NO_FINDING
        true = not seen.any() if absent else seen[films.findings.index(finding)]
        words.append("yes" if true else "no")
    form = empty_form(sample)
    return form.assign(reviewer="R1", answer=words)


def small(sheet: str = "a", films: int = 6) -> pd.DataFrame:
    image = [f"{film}.png" for film in range(films)]
    table = {"sheet": sheet, "finding": sheet, "place": range(1, films + 1), "id": "x"}
    return pd.DataFrame({**table, "image": image, "label": 1, "weight": 10.0})


def answered(sheet: str, **words: str) -> pd.DataFrame:
    """Return answers of reviewers, a letter a film: y, n, u, or - for none."""
    full = {"y": "yes", "n": "no", "u": "unsure"}
    rows = [
        (sheet, f"{film}.png", reviewer, full[letter], "")
        for reviewer, letters in words.items()
        for film, letter in enumerate(letters)
        if letter != "-"
    ]
    return pd.DataFrame(rows, columns=["sheet", "image", "reviewer", "answer", "also"])


def written(folder: Path, *lines: str, name: str = "v.csv") -> Path:
    file = folder / name
    file.write_text("\n".join(["sheet,image,reviewer,answer", *lines]) + "\n")
    return file


@pytest.mark.parametrize("films", [1, 7, 12])
def test_every_film_is_drawn_as_often_as_its_weight_says(films: int):
    patient = np.repeat(np.arange(14), [1, 1, 1, 2, 1, 3, 1, 1, 2, 1, 1, 9, 4, 2])
    counted, weighed = np.zeros(len(patient)), np.zeros(len(patient))
    draws = 1_000
    for seed in range(draws):
        row, weight = draw_films(patient, films=films, seed=seed)
        assert len(np.unique(patient[row])) == len(row) == films
        assert weight.sum() == pytest.approx(len(patient))
        counted[row] += 1
        weighed[row] += weight
    chance = draws / np.maximum(1, weighed / np.maximum(1, counted))
    np.testing.assert_allclose(weighed / draws, 1, atol=0.7)
    assert (np.abs(counted - chance) < 4.5 * np.sqrt(chance)).all()


def test_a_patient_of_many_films_is_taken_once_and_stands_for_all_of_them():
    patient = np.append(np.zeros(60, np.int64), np.arange(1, 41))
    row, weight = draw_films(patient, films=21, seed=3)
    assert weight[patient[row] == 0].tolist() == [60]
    assert set(weight[patient[row] > 0]) == {2.0}
    row, weight = draw_films(patient, films=500, seed=3)  # fewer patients: everybody is met
    assert sorted(patient[row]) == list(range(41))
    assert weight.sum() == 100
    assert [len(one) for one in draw_films(patient[:0], films=3, seed=0)] == [0, 0]
    with pytest.raises(ValueError, match="films: found 0; expected at least 1"):
        draw_films(patient, films=0, seed=0)


def test_a_sample_of_the_whole_data_set_stands_for_its_published_counts(nih: Manifest):
    films = nih
    sample = draw_sample(films, seed=1)
    assert list(sample) == list(SAMPLE)
    sheets = sample.groupby("sheet", sort=False)
    assert list(sheets.groups) == [*FINDINGS, NO_FINDING]
    assert (sheets.size() == 36).all()
    count = dict(zip(FINDINGS, (films.label == 1).sum(axis=0), strict=True))
    assert sheets["weight"].sum().round(6).to_dict() == {**count, NO_FINDING: 60_361}
    place = {name: row for row, name in enumerate(films.image.tolist())}
    row = sample["image"].map(place).to_numpy()
    for sheet, mine in sample.assign(row=row, patient=films.patient[row]).groupby("sheet"):
        label = films.label[mine["row"]]
        none = sheet == NO_FINDING
        assert not label.any() if none else label[:, FINDINGS.index(str(sheet))].all()
        assert mine["patient"].is_unique
        assert sorted(mine["place"]) == list(range(1, 37))


def test_a_sample_says_nothing_of_patients():
    films, _ = noisy()
    sample = draw_sample(films, seed=0)
    assert sample.equals(draw_sample(films, seed=0))
    assert not sample.equals(draw_sample(films, seed=1))
    assert not {"patient", "age", "sex"} & {*sample, *empty_form(sample)}
    assert sample["id"].tolist() == [film_id(name) for name in sample["image"]]
    assert not any(row.image.removesuffix(".png") in row.id for row in sample.itertuples())
    assert sample["id"].nunique() == sample["image"].nunique()


def test_what_is_not_stated_is_not_drawn():
    label = np.array([[0, np.nan], [0, 0], [np.nan, 1], [np.nan, np.nan]])
    sample = draw_sample(manifest(label, np.arange(4)), seed=0)
    sheets = {name: mine["image"].tolist() for name, mine in sample.groupby("sheet")}
    assert sheets == {"b": ["00002.png"], NO_FINDING: ["00001.png"]}


def test_planted_errors_are_within_the_interval_in_19_of_20_samples():
    films, truth = noisy()
    positive = films.label == 1
    share = {name: truth[positive[:, k], k].mean() for k, name in enumerate(films.findings)}
    share[NO_FINDING] = 1 - truth[~positive.any(axis=1)].any(axis=1).mean()
    assert 0.5 < min(share.values()) < max(share.values()) < 0.95
    hits = []
    for seed in range(200):
        sample = draw_sample(films, seed=seed)
        table = label_ppv(sample, reviewed(sample, films, truth))
        known = table["sheet"].map(share)
        hits.append(((table["low"] <= known) & (known <= table["high"])).tolist())
    cover = np.mean(hits, axis=0)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.025)
    assert ((cover > 0.9) & (cover < 0.995)).all()


def test_weighted_shares_are_unbiased_where_patients_drawn_alike_are_not():
    films, truth = noisy()
    pool = np.flatnonzero(films.label[:, 0] == 1)
    right, patient = truth[pool, 0], films.patient[pool]
    random = np.random.default_rng(0)
    naive, ours = [], []
    for _ in range(300):
        order = random.permutation(len(pool))
        first = order[np.unique(patient[order], return_index=True)[1]]
        naive.append(right[random.choice(first, 36, replace=False)].mean())
    for seed in range(6_000):
        row, weight = draw_films(patient, films=36, seed=seed)
        ours.append((right[row] * weight).sum() / weight.sum())
    assert np.mean(naive) - right.mean() > 0.05
    assert abs(np.mean(ours) - right.mean()) < 3 * np.std(ours) / np.sqrt(len(ours))


def test_label_errors_are_shown_first_one_a_patient_and_stand_for_themselves():
    films, _ = noisy()
    found = [(film % 2, film) for film in range(80)]
    errors = pd.DataFrame({
        "finding": "a",
        "direction": [("missing", "spurious")[side] for side, _ in found],
        "image": films.image[:80],
    })  # fmt: skip
    sample = draw_label_errors(films, errors, seed=0, films=10)
    assert sample["sheet"].unique().tolist() == ["a, missing", "a, spurious"]
    assert sample.groupby("sheet")["label"].first().tolist() == [0, 1]
    mine = films.patient[:80:2]
    first = np.sort(np.unique(mine, return_index=True)[1])[:10]
    assert sorted(sample["image"][:10]) == films.image[:80:2][first].tolist()
    assert sample["image"][:10].tolist() != sorted(sample["image"][:10])
    form = empty_form(sample).assign(reviewer="R", answer=["yes"] * 3 + ["no"] * 17)
    table = label_ppv(sample, form)
    assert table["right"].tolist() == [0.7, 0]  # of labels of 0, and of 1
    assert table["note"].tolist() == ["each film stands for itself alone"] * 2
    assert draw_label_errors(films, errors[:0], seed=0).empty
    for column, word, message in (
        ("image", "x.png", "film 'x.png' is not in toys"),
        ("direction", "mising", "'mising' is unknown; expected missing, spurious; nearest is"),
        ("finding", "z", "finding 'z' is unknown; expected a, b"),
    ):
        with pytest.raises(ValueError, match=message):
            draw_label_errors(films, errors.assign(**{column: word}), seed=0)


def test_a_form_goes_out_and_comes_back(tmp_path: Path):
    films, truth = noisy()
    sample = draw_sample(films, seed=0)
    sample.to_csv(tmp_path / "sample.csv", index=False)
    read = read_sample(tmp_path / "sample.csv")
    pd.testing.assert_frame_equal(read, sample, check_dtype=False)
    form = reviewed(read, films, truth)
    assert list(form) == list(FORM)
    form.loc[3, ["answer", "also"]] = [" Unsure ", "b"]  # as spreadsheets have it
    form.loc[5, "answer"] = ""
    form.to_csv(tmp_path / "form.csv", index=False, encoding="utf-8-sig")
    answers = read_answers([tmp_path / "form.csv"], sample=read)
    assert len(answers) == len(sample) - 1
    assert answers.loc[3, ["answer", "also"]].tolist() == ["unsure", "b"]
    table = label_ppv(read, answers).set_index("sheet")
    assert table.loc["a", ["drawn", "unsure", "left"]].tolist() == [36, 1, 1]
    message = "1 of 36 films are unsure and do not count; 1 of 36 films have no answer yet"
    assert table.loc["a", "note"] == message
    assert table.loc["b", "films"] == (films.label[:, 1] == 1).sum()
    with pytest.raises(ValueError, match=r"no column 'finding'; expected a sample\.csv"):
        read_sample(tmp_path / "form.csv")


@pytest.mark.parametrize(("was", "now"), [("0.5\n", "0.5"), ("0.5", "half")])
def test_a_sample_that_was_saved_otherwise_is_not_to_be_deleted(tmp_path: Path, was: str, now: str):
    file = tmp_path / "sample.csv"
    whole = "sheet,finding,place,id,image,label,weight\nMass,Mass,1,a,a.png,1,0.5\n"
    file.write_text(whole)
    assert read_sample(file)["weight"].tolist() == [0.5]
    file.write_text(whole.replace(was, now))
    with pytest.raises(ValueError, match=r"sample\.csv.*each line with its end: save it so$"):
        read_sample(file)


def test_the_majority_counts_and_the_unsure_apart():
    answers = answered("a", A="yynuy-", B="yynuy-", C="ynuyu-")
    row = label_ppv(small(), answers).iloc[0]
    low, high = wilson(np.array(3.0), np.array(4.0))
    counts = ["yes", "no", "unsure", "left", "drawn", "films", "reviewers"]
    assert row[counts].tolist() == [3, 1, 1, 1, 6, 60, 3]
    assert row[["right", "low", "high"]].tolist() == pytest.approx([0.75, low, high])
    divided = label_ppv(small(), answered("a", A="yy", B="nu")).iloc[0]
    assert divided[["yes", "no", "unsure"]].tolist() == [0, 0, 2]
    assert np.isnan(divided["right"])
    assert divided["note"] == "not computable: of 6 films 2 are unsure, 4 have no answer"
    with pytest.raises(ValueError, match=r"film '5.png' was not drawn"):
        label_ppv(small(films=5), answered("a", A="yyyyyy"))


def test_weights_count_and_widen_the_interval():
    sample = small(films=4).assign(weight=[30.0, 10, 10, 10])
    row = label_ppv(sample, answered("a", A="nyyy")).iloc[0]
    assert row["right"] == 0.5
    worth = 60**2 / (900 + 300)  # as many equal films: 3
    expected = wilson(np.array(0.5 * worth), np.array(worth))
    assert row[["low", "high"]].tolist() == pytest.approx(expected.tolist())


def test_kappa_of_two_is_scikit_learn_s_and_of_more_fleiss_s():
    two = answered("a", A="yynnyu", B="ynnnyy")
    row = reviewers_agree(small(), two, **DRAWS).iloc[0]
    assert row["kappa"] == pytest.approx(cohen_kappa_score(list("yynny"), list("ynnny")))
    assert row[["measure", "films", "reviewers"]].tolist() == ["cohen", 5, 2]
    assert row["note"] == "no interval: 3 patients, expected 30 or more"
    assert np.isnan(row["low"])
    sample = small(films=80)
    many = reviewers_agree(sample, answered("a", A="yynny" * 16, B="ynnny" * 16), **DRAWS).iloc[0]
    assert row["kappa"] == pytest.approx(many["kappa"])
    assert many["low"] < many["kappa"] < many["high"]
    three = answered("a", A="yynnyu", B="ynnnyy", C="yyn-yu")
    row = reviewers_agree(small(), three, **DRAWS).iloc[0]
    yes, no = np.array([3, 2, 0, 0, 3]), np.array([0, 1, 3, 2, 0])
    assert row["kappa"] == pytest.approx(fleiss(yes, no, weights=once(5))[0])
    assert row[["measure", "films", "reviewers"]].tolist() == ["fleiss", 5, 3]


@pytest.mark.parametrize(
    ("answers", "note"),
    [
        (answered("a", A="yyn"), "not computable: fewer than two reviewers"),
        (answered("a", A="yuu", B="uyu"), "not computable: no film has two answers"),
        (answered("a", A="yyy", B="yyy"), "not computable: all answers are the same"),
        (answered("a", A="yyy", B="yyy", C="yy"), "not computable: all answers are the same"),
    ],
)
def test_a_missing_kappa_has_a_reason(answers: pd.DataFrame, note: str):
    row = reviewers_agree(small(), answers, **DRAWS).iloc[0]
    assert row[["kappa", "low", "high"]].isna().all()
    assert row["note"] == note


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,1.png,R,yess", r"v\.csv, line 3: answer 'yess' is unknown; expected yes, no, unsure;"),
        ("a,1.png,,yes", r"v\.csv, line 3: an answer without a reviewer"),
        ("a,9.png,R,yes", r"line 3: film '9\.png' was not drawn for 'a'"),
        ("b,1.png,R,yes", r"line 3: film '1\.png' was not drawn for 'b'"),
        ("a,0.png,R,no", r"line 3: 'R' has reviewed '0\.png' before, v\.csv, line 2"),
    ],
)
def test_mistakes_in_a_file_of_verdicts_are_named(tmp_path: Path, line: str, message: str):
    file = written(tmp_path, "a,0.png,R,yes", line)
    with pytest.raises(ValueError, match=message):
        read_answers([file], sample=small())


def test_several_files_are_one_table_and_no_reviewer_speaks_twice(tmp_path: Path):
    one = written(tmp_path, "a,0.png,R,yes", "a,1.png,R,", name="one.csv")
    two = written(tmp_path, "a,0.png,S,NO", name="two.csv")
    table = read_answers([one, two], sample=small())
    assert table["answer"].tolist() == ["yes", "no"]
    assert table["also"].tolist() == ["", ""]
    with pytest.raises(ValueError, match=r"two\.csv, line 2: 'S' has reviewed"):
        read_answers([two, one, two], sample=small())
    semicolons = tmp_path / "semicolons.csv"
    semicolons.write_text("sheet;image;reviewer;answer\na;0.png;R;yes\n")
    assert read_answers([semicolons], sample=small())["answer"].tolist() == ["yes"]
    semicolons.write_text("place;image;reviewer;answer\na;0.png;R;yes\n")
    with pytest.raises(ValueError, match=r"no 'sheet'; expected a form\.csv"):
        read_answers([semicolons], sample=small())

"""Networks of several files against each other: joined by film, named apart, refused in a line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from lucency.cli.answers import in_json, in_words
from lucency.config.sections import DRAWS
from lucency.core.predictions import Predictions, save_predictions
from lucency.evaluation.compare import compare
from lucency.pipeline.table_evaluation import compare_tables

FINDINGS = ("Mass", "Edema")
FILMS = 120
IMAGE = np.array([f"{n:03d}.png" for n in np.random.default_rng(9).permutation(FILMS)])
PATIENT = np.arange(FILMS) // 2
LABEL = (np.random.default_rng(8).random((FILMS, 2)) < 0.4).astype(np.float32)


def said(network: str = "net", *, skill: float, seed: int = 0, split: str = "0123") -> Predictions:
    """Return predictions of test films that do not stand in the order of their names."""
    noise = np.random.default_rng(seed).normal(size=LABEL.shape)
    return Predictions(
        network=network,
        split=split,
        findings=FINDINGS,
        image=IMAGE,
        patient=PATIENT,
        part=np.full(FILMS, "test"),
        label=LABEL,
        logit=(skill * LABEL + noise).astype(np.float32),
        feature=np.empty((FILMS, 0), dtype=np.float32),
    )


def a_file(folder: Path, predictions: Predictions) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_predictions(predictions, folder / "predictions.npz")
    return folder / "predictions.npz"


def a_run(folder: Path, **skills: float) -> Path:
    for seed, (network, skill) in enumerate(skills.items()):
        a_file(folder / "predictions" / network, said(network, skill=skill, seed=seed))
    return folder


def a_table(file: Path, *, skill: float, seed: int = 5) -> Path:
    """Write predictions as somebody else might: probabilities, by the films' names."""
    file.parent.mkdir(parents=True, exist_ok=True)
    logit = said(skill=skill, seed=seed).logit.astype(np.float64)
    table = pd.DataFrame(expit(logit), columns=list(FINDINGS)).assign(image=IMAGE)
    table.sort_values("image").to_csv(file, index=False)
    return file


def labels(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(LABEL.astype(int), columns=list(FINDINGS))
    table.assign(image=IMAGE, patient=PATIENT).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lucency.pipeline.table_evaluation.DRAWS", {**DRAWS, "resamples": 100})


def met(*several: Path, labelled: Path | None = None, out: Path | None = None) -> dict[str, object]:
    return compare_tables(several, labels=labelled, scale="probability", out=out)


def names(answer: dict[str, object]) -> set[str]:
    return set(json.loads(in_json(answer))["ranking"])


def test_a_table_and_a_run_are_compared_film_by_film(tmp_path: Path, capsys):
    run = a_run(tmp_path / "run", net=2.0)
    table = a_table(tmp_path / "theirs.csv", skill=0.5)
    answer = met(run, table, labelled=labels(tmp_path))
    mine, theirs = (
        roc_auc_score(LABEL, said(skill=skill, seed=seed).logit)
        for skill, seed in ((2.0, 0), (0.5, 5))
    )
    ranking = json.loads(in_json(answer))["ranking"]
    assert list(ranking) == ["run/net", "theirs"]
    assert [one["macro_auc"] for one in ranking.values()] == pytest.approx([mine, theirs])
    assert [one["rank"] for one in ranking.values()] == [1, 2]
    pair = json.loads(in_json(answer))["pairs"]["run/net - theirs"]
    assert pair["difference"] == pytest.approx(mine - theirs)
    assert pair["low"] < pair["difference"] < pair["high"]
    assert pair["p_holm"] < 0.05
    assert pair["p_holm_signed_rank"] is None
    assert answer["conclusion"].startswith("Highest macro AUC: run/net ")
    assert "Unknown split of theirs" in capsys.readouterr().err


def test_the_numbers_are_those_of_compare(tmp_path: Path):
    one, other = said("one", skill=1.0, seed=1), said("other", skill=1.2, seed=2)
    answer = met(a_file(tmp_path / "a", one), a_file(tmp_path / "b", other), out=tmp_path / "out")
    order = np.argsort(IMAGE)
    rows = ("image", "patient", "part", "label", "logit", "feature")
    sorted_ = [replace(p, **{n: getattr(p, n)[order] for n in rows}) for p in (one, other)]
    expected = compare(sorted_, resamples=100, seed=DRAWS["seed"])
    written = pd.read_csv(tmp_path / "out" / "comparison.csv", keep_default_na=True)
    numbers = ["difference", "low", "high", "p", "p_holm"]
    pd.testing.assert_frame_equal(written[numbers], expected[numbers])
    assert written["finding"].tolist() == [*FINDINGS, "macro", "over findings"]
    ranking = pd.read_csv(tmp_path / "out" / "ranking.csv")
    assert ranking["network"].tolist() == list(json.loads(in_json(answer))["ranking"])
    assert answer["tables"] == tmp_path / "out"
    assert not (tmp_path / "out" / "report.html").exists()


def test_with_labels_there_is_a_page(tmp_path: Path):
    answer = met(
        a_run(tmp_path / "run", net=1.0, other=2.0), labelled=labels(tmp_path), out=tmp_path / "out"
    )
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert answer["report"] == tmp_path / "out" / "report.html"
    assert "Highest macro AUC: run/other " in page


def test_names_are_as_short_as_tells_them_apart(tmp_path: Path, monkeypatch):
    labelled = labels(tmp_path)
    tables = [a_table(tmp_path / f"{place}/x/p.csv", skill=1.0) for place in "ab"]
    third = a_table(tmp_path / "q.csv", skill=1.0)
    assert names(met(*tables, third, labelled=labelled)) == {"a/x/p", "b/x/p", "q"}
    runs = [a_run(tmp_path / f"{place}/run", net=1.0) for place in "ab"]
    assert names(met(*runs)) == {"a/run/net", "b/run/net"}
    monkeypatch.chdir(a_run(tmp_path / "home", net=1.0, other=2.0))
    assert names(met(Path())) == {"home/net", "home/other"}
    files = [a_file(tmp_path / f"{place}/y", said(skill=1.0)) for place in "ab"]
    assert names(met(*files)) == {"a/y/net", "b/y/net"}


def test_words_have_a_line_a_network_and_a_pair(tmp_path: Path):
    text = in_words(met(a_run(tmp_path / "run", one=2.0, two=0.0, three=1.0)))
    lines = [line.strip().split(" rank ")[0] for line in text.splitlines() if " rank " in line]
    assert lines == ["run/one", "run/three", "run/two"]
    assert sum(" - " in line and " difference " in line for line in text.splitlines()) == 3
    assert "Holm-corrected over 3 pairs" in text


def test_what_cannot_be_computed_is_null(tmp_path: Path):
    several = [replace(said(name, skill=1.0), label=np.zeros_like(LABEL)) for name in "ab"]
    text = in_json(met(*(a_file(tmp_path / one.network, one) for one in several)))
    assert "NaN" not in text
    answer = json.loads(text)
    assert answer["ranking"]["a"]["macro_auc"] is None
    assert answer["pairs"]["a - b"]["p_holm"] is None
    assert answer["conclusion"].startswith("Macro AUC: not computable")


def _one(folder: Path) -> list[Path]:
    return [a_run(folder / "run", net=1.0)]


def _twice(folder: Path) -> list[Path]:
    return [a_table(folder / "p.csv", skill=1.0), folder / "x" / ".." / "p.csv"]


def _nothing(folder: Path) -> list[Path]:
    (folder / "empty").mkdir()
    return [folder / "empty", folder / "empty"]


def _absent(folder: Path) -> list[Path]:
    return [folder / "no.csv", folder / "no.npz"]


def _other_split(folder: Path) -> list[Path]:
    splits = {"a": "0123", "b": "4567"}
    return [a_file(folder / n, said(n, skill=1.0, split=s)) for n, s in splits.items()]


def _other_labels(folder: Path) -> list[Path]:
    other = replace(said(skill=1.0), label=np.where(IMAGE[:, None] == "007.png", 1 - LABEL, LABEL))
    return [a_table(folder / "p.csv", skill=1.0), a_file(folder / "a", other)]


def _other_films(folder: Path) -> list[Path]:
    table = pd.read_csv(a_table(folder / "p.csv", skill=1.0))
    table[table["image"] != "007.png"].to_csv(folder / "p.csv", index=False)
    return [folder / "p.csv", a_run(folder / "run", net=1.0)]


def _fewer_findings(folder: Path) -> list[Path]:
    table = pd.read_csv(a_table(folder / "p.csv", skill=1.0))
    table.drop(columns="Edema").to_csv(folder / "p.csv", index=False)
    return [folder / "p.csv", a_run(folder / "run", net=1.0)]


def _unlabelled(folder: Path) -> list[Path]:
    other = replace(said(skill=1.0), image=np.where(IMAGE == "007.png", "x.png", IMAGE))
    return [a_file(folder / "a", other), a_file(folder / "b", other)]


REFUSED = {
    _one: "found 1 network; expected two or more",
    _twice: "p is there twice; expected each file and run once",
    _nothing: "empty holds no predictions: expected the folder of a finished run",
    _absent: r"no.csv: no such file; expected a table, a predictions.npz or a run",
    _other_split: "a and b differ in split: they were made under split 0123 and split 4567",
    _other_labels: "1 of 120 films has other labels there, such as '007.png', of net",
    _unlabelled: "120 films.: 1 of 120 films is not there, such as 'x.png', of a.net",
    _other_films: "differ in image: 119 films are in both, 1 in one alone, such as '007.png'",
    _fewer_findings: "p and run/net differ in findings: only one has Edema",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_belong_together_is_refused_in_one_line(tmp_path: Path, capsys, what):
    (tmp_path / "x").mkdir()
    several, labelled = what(tmp_path), labels(tmp_path)
    with pytest.raises(ValueError, match=REFUSED[what]) as refusal:
        met(*several, labelled=labelled, out=tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert "Nobody knows" not in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_table_without_labels_is_refused(tmp_path: Path):
    several = [a_table(tmp_path / f"{name}.csv", skill=1.0) for name in "ab"]
    with pytest.raises(ValueError, match="holds no labels: expected --labels FILE"):
        met(*several)


def test_two_tables_of_unknown_splits_are_compared_without_ado(tmp_path: Path, capsys):
    several = [a_table(tmp_path / f"{name}.csv", skill=1.0, seed=n) for n, name in enumerate("ab")]
    assert names(met(*several, labelled=labels(tmp_path))) == {"a", "b"}
    assert capsys.readouterr().err == ""

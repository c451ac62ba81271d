"""External predictions: published AUCs to every digit, and what does not fit refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from lucency.core.manifest import FINDINGS
from lucency.data.csv_tables import read_scores
from lucency.data.labels import read_labelled
from lucency.evaluation.bootstrap import once
from lucency.evaluation.evaluate import evaluate
from lucency.evaluation.external import SCALES, read_predictions_table, read_tables
from lucency.evaluation.metrics import by_finding

FILMS = 60


def write(folder: Path, *, findings: tuple[str, ...] = ("Mass", "Edema"), seed: int = 0) -> Path:
    """Write labels.csv and scores.csv of as many films; return the folder."""
    random = np.random.default_rng(seed)
    image = [f"{n:03d}.png" for n in range(FILMS)]
    label = (random.random((FILMS, len(findings))) < 0.4).astype(int)
    table = pd.DataFrame(label, columns=list(findings))
    table.assign(image=image, patient=np.arange(FILMS) // 2).to_csv(
        folder / "labels.csv", index=False
    )
    score = np.clip(0.3 * label + 0.6 * random.random(label.shape), 0.001, 0.999)
    predictions = pd.DataFrame(score, columns=[f"prob_{name}" for name in findings])
    predictions.assign(image=image).to_csv(folder / "scores.csv", index=False)
    return folder


def _evaluated(folder: Path, scores: str = "scores.csv", **given: object) -> pd.DataFrame:
    choices = {"val": None, "scale": "probability", **given}
    films = read_labelled(folder / "labels.csv")
    predictions, thresholds = read_tables(folder / scores, films=films, **choices)
    fitted = thresholds["threshold"].to_numpy(dtype=np.float64)
    return evaluate(predictions, threshold=fitted, resamples=20, seed=0)


@pytest.mark.slow
def test_the_published_aucs_to_every_digit(shared: Path):
    """Facts: evaluation.md, John Zech's reproduce-chexnet on NIH's 2020 labels."""
    films = read_labelled(shared / "nih" / "Data_Entry_2017_v2020.csv")
    file = shared / "nih" / "zech" / "preds.csv"
    predictions, _ = read_tables(file, films=films, val=None, scale="probability")
    area = by_finding("auc", predictions.label, predictions.logit, weights=once(len(predictions)))
    auc = dict(zip(predictions.findings, area[:, 0], strict=True))
    published = (
        pd.read_csv(shared / "nih" / "zech" / "aucs.csv").set_index("label")["auc"].to_dict()
    )
    for finding in FINDINGS:
        assert auc[finding] == pytest.approx(published[finding], abs=1e-9)
    assert area.mean() == pytest.approx(0.8382671332, abs=1e-9)


def test_rows_are_joined_by_name_whatever_their_order(tmp_path: Path):
    write(tmp_path)
    table = pd.read_csv(tmp_path / "scores.csv").sample(frac=1, random_state=1)
    table.assign(image="films/" + table["image"]).to_csv(tmp_path / "other.csv", index=False)
    one, other = _evaluated(tmp_path), _evaluated(tmp_path, "other.csv")
    wanted = ["finding", "metric", "value", "low", "high"]
    pd.testing.assert_frame_equal(one[wanted], other[wanted])
    label = pd.read_csv(tmp_path / "labels.csv").set_index("image").loc[table["image"], "Mass"]
    auc = one.set_index(["finding", "metric"])["value"].to_dict()["Mass", "auc"]
    assert auc == pytest.approx(roc_auc_score(label, table["prob_Mass"]), abs=1e-12)


def test_logits_and_probabilities_of_one_network_are_evaluated_alike(tmp_path: Path):
    write(tmp_path)
    table = pd.read_csv(tmp_path / "scores.csv")
    for name in ("prob_Mass", "prob_Edema"):
        table[name] = np.log(table[name] / (1 - table[name]))
    table.rename(columns=lambda name: name.replace("prob_", "logit_")).to_csv(
        tmp_path / "logits.csv", index=False
    )
    one, other = _evaluated(tmp_path), _evaluated(tmp_path, "logits.csv", scale="logit")
    np.testing.assert_allclose(one["value"], other["value"], atol=1e-9, equal_nan=True)
    with pytest.raises(ValueError, match="give --scale logit"):
        _evaluated(tmp_path, "logits.csv")
    with pytest.raises(ValueError, match="give --scale probability"):
        _evaluated(tmp_path, scale="logit")
    assert set(SCALES) == {"probability", "percent", "logit"}


@pytest.mark.parametrize("scale", ["probability", "logit"])
def test_probabilities_that_are_called_logits_are_named(tmp_path: Path, capsys, scale: str):
    write(tmp_path)
    table = pd.read_csv(tmp_path / "scores.csv").rename(columns={"prob_Mass": "logit_Mass"})
    if scale == "logit":
        table["prob_Edema"] = np.log(table["prob_Edema"] / (1 - table["prob_Edema"]))
    table.to_csv(tmp_path / "shares.csv", index=False)
    _evaluated(tmp_path, "shares.csv", scale=scale)
    line = "shares.csv: all scores in logit_Mass lie between 0 and 1: probabilities rather than"
    assert line in capsys.readouterr().err


def test_percent_is_read_where_it_is_written_and_never_called_logits(tmp_path: Path):
    write(tmp_path)
    own, table = _evaluated(tmp_path), pd.read_csv(tmp_path / "scores.csv").set_index("image")
    signed = (100 * table).map("{:.9f} %".format).reset_index()
    signed.to_csv(tmp_path / "signed.csv", index=False)
    (100 * table).reset_index().to_csv(tmp_path / "plain.csv", index=False, sep=";", decimal=",")
    signed.assign(prob_Mass=100 * table["prob_Mass"].to_numpy()).to_csv(
        tmp_path / "partly.csv", index=False
    )
    for name, scale in [
        ("signed.csv", "probability"),
        ("signed.csv", "percent"),
        ("partly.csv", "percent"),
        ("plain.csv", "percent"),
    ]:
        other = _evaluated(tmp_path, name, scale=scale)
        np.testing.assert_allclose(own["value"], other["value"], atol=1e-6, equal_nan=True)
    with pytest.raises(ValueError, match="give --scale percent") as refusal:
        _evaluated(tmp_path, "plain.csv")
    assert "logit" not in str(refusal.value)
    with pytest.raises(ValueError, match="give --scale probability"):
        _evaluated(tmp_path, scale="percent")
    (1000 * table).reset_index().to_csv(tmp_path / "many.csv", index=False)
    with pytest.raises(ValueError, match=r"from 0.* expected probabilities from 0 to 1: rescale"):
        _evaluated(tmp_path, "many.csv")


def test_films_that_predict_could_not_read_are_left_out_and_counted(tmp_path: Path, capsys):
    write(tmp_path)
    own, table = _evaluated(tmp_path), pd.read_csv(tmp_path / "scores.csv")
    table = table.rename(columns={"image": "film"}).assign(called="", quality="", reason="")
    junk = pd.DataFrame({"film": ["films/._000.png", "old/001.png"], "reason": ["no image"] * 2})
    whole = pd.concat([table, junk], ignore_index=True)
    whole.to_csv(tmp_path / "predicted.csv", index=False)
    other = _evaluated(tmp_path, "predicted.csv")
    wanted = ["finding", "metric", "value", "low", "high"]
    pd.testing.assert_frame_equal(own[wanted], other[wanted])
    assert "2 of 62 films are left out as unreadable" in capsys.readouterr().err
    whole.loc[0, "prob_Mass"], whole.loc[0, "reason"] = np.nan, "half a row"
    whole.to_csv(tmp_path / "half.csv", index=False)
    with pytest.raises(ValueError, match="line 2, prob_Mass: found '', expected a finite number"):
        _evaluated(tmp_path, "half.csv")
    junk.assign(prob_Mass="", prob_Edema="").to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(ValueError, match="no film could be read"):
        _evaluated(tmp_path, "none.csv")


@pytest.mark.parametrize("name", ["PROB_MASS", "prob mass", "Mass "])
def test_a_finding_in_another_spelling_is_read_and_reported(tmp_path: Path, capsys, name: str):
    write(tmp_path)
    table = pd.read_csv(tmp_path / "scores.csv").rename(columns={"prob_Mass": name})
    table.to_csv(tmp_path / "spelt.csv", index=False)
    assert len(_evaluated(tmp_path, "spelt.csv")) == len(_evaluated(tmp_path))
    assert (f"{name!r} as Mass" in capsys.readouterr().err) == (name != "Mass ")


def test_thresholds_come_from_other_patients(tmp_path: Path):
    write(tmp_path)
    table = pd.read_csv(tmp_path / "scores.csv")
    table[: FILMS // 2].to_csv(tmp_path / "val.csv", index=False)
    table[FILMS // 2 :].to_csv(tmp_path / "test.csv", index=False)
    with_val = _evaluated(tmp_path, "test.csv", val=tmp_path / "val.csv")
    without = _evaluated(tmp_path, "test.csv")
    recall = [
        t.set_index(["finding", "metric"])["value"].to_dict()["Mass", "recall"]
        for t in (with_val, without)
    ]
    assert recall[0] != recall[1]
    with pytest.raises(ValueError, match=r"15 patients are in the test table too"):
        _evaluated(tmp_path, val=tmp_path / "val.csv")


WRONG = {
    "no image": ("Mass\n0.5\n", "expected a column 'image'"),
    "no finding": ("image,Masss\n000.png,0.5\n", "no column is named by a finding.*'Mass'"),
    "a word": ("image,Mass\n000.png,high\n", "line 2, Mass: found 'high'"),
    "nothing": ("image,Mass\n000.png,\n", "expected a finite number"),
    "a film twice": (
        "image,Mass\n000.png,0.5\n000.png,0.4\n",
        "line 3: film '000.png' is listed 2",
    ),
    "two names": ("image,Mass\n000.png,0.5\na/000.png,0.4\n", "both name the film '000.png'"),
    "another suffix": ("image,Mass\n000.jpg,0.5\n", "000.png is labelled, not '000.jpg': write na"),
    "in a folder": (
        "image,Mass\nx/007.dcm,1\nx/008.dcm,1\n",
        "007.png is labelled, not 'x/007.dcm'",
    ),
    "a number": ("image,Mass\n7,0.5\n", "007.png is labelled, not '7', which has lost leading z"),
    "a float": ("image,Mass\n0.0,0.5\n", "000.png is labelled, not '0.0', which has lost leading"),
    "a stranger": ("image,Mass\nxyz.png,0.5\n", "1 of 1 films are not labelled, such as 'xyz.png'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_table_that_does_not_fit_is_one_line(tmp_path: Path, what: str):
    write(tmp_path)
    text, message = WRONG[what]
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as refusal:
        _evaluated(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_label_file_that_has_lost_leading_zeros_is_named_itself(tmp_path: Path):
    write(tmp_path)
    labels = pd.read_csv(tmp_path / "labels.csv")
    number = labels["image"].str.removesuffix(".png").astype(int)
    labels.assign(image=number).to_csv(tmp_path / "labels.csv", index=False)
    (tmp_path / "scores.csv").write_text("image,Mass\n007.png,0.5\n008.png,0.5\n")
    message = (
        r"7 is labelled, not '007.png': the label file has lost leading zeros: save that column"
    )
    with pytest.raises(ValueError, match=message):
        _evaluated(tmp_path)


def test_findings_without_a_column_are_left_out_and_other_columns_named(tmp_path: Path):
    write(tmp_path)
    table = pd.read_csv(tmp_path / "scores.csv").drop(columns="prob_Edema")
    table.assign(fold=3).to_csv(tmp_path / "scores.csv", index=False)
    scores = read_scores(tmp_path / "scores.csv", findings=("Mass", "Edema"))
    assert (scores.findings, scores.left_out) == (("Mass",), ("fold",))
    films = read_labelled(tmp_path / "labels.csv")
    predictions = read_predictions_table(
        tmp_path / "scores.csv", films=films, scale="probability", part="test"
    )
    assert predictions.findings == ("Mass",)
    assert predictions.label.shape == (FILMS, 1)


def test_a_misspelt_finding_is_named_and_not_skipped(tmp_path: Path):
    write(tmp_path)
    table = pd.read_csv(tmp_path / "scores.csv").rename(columns={"prob_Mass": "prob_Masss"})
    table.to_csv(tmp_path / "typo.csv", index=False)
    with pytest.raises(ValueError, match="column 'prob_Masss' is no finding; 'Mass' is"):
        _evaluated(tmp_path, "typo.csv")


def test_two_columns_of_one_finding_are_refused(tmp_path: Path):
    write(tmp_path)
    table = pd.read_csv(tmp_path / "scores.csv")
    table.assign(Mass=table["prob_Mass"]).to_csv(tmp_path / "twice.csv", index=False)
    with pytest.raises(ValueError, match=r"twice.csv: columns Mass and prob_Mass are one f"):
        _evaluated(tmp_path, "twice.csv")

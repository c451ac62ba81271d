"""Warnings: each appears when it should, and not otherwise; leaks are counted, copies included."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lucency.choices import Balance, Network, Split
from lucency.judge.evaluate import evaluate, trivial
from lucency.judge.leaks import overlap, warnings_for
from lucency.predictions import Predictions
from lucency.protocol import Protocol

FINDINGS = ("Mass", "Hernia")
CLEAN = Protocol(
    name="clean", findings=FINDINGS, network=(Network(name="net", weights="timm", provenance="x"),)
)


def _test(films=400, seed=0):
    generator = np.random.default_rng(seed)
    label = (generator.random((films, 2)) < 0.4).astype(np.float32)
    return Predictions(
        network="net",
        split="0123",
        findings=FINDINGS,
        image=np.array([f"{film}.png" for film in range(films)]),
        patient=np.arange(films),
        part=np.full(films, "test"),
        label=label,
        logit=(generator.normal(size=(films, 2)) + 2 * label).astype(np.float32),
        feature=np.empty((films, 0), dtype=np.float32),
    )


def _metrics(*several):
    half = np.full(2, 0.5)
    tables = [evaluate(p, threshold=half, resamples=100, seed=0) for p in several]
    return pd.concat(tables, ignore_index=True)


def _apart():
    image, part = np.array(["a", "b", "c"]), np.array(["train", "val", "test"])
    return overlap(image, patient=np.array([1, 2, 3]), part=part)


def _warnings(protocol=CLEAN, **changes):
    test = changes.get("test", _test())
    nothing = pd.DataFrame({"image": [], "reason": []})
    given = {"overlap": _apart(), "metrics": _metrics(test), "rejected": nothing, "missing": []}
    return warnings_for(protocol, **{**given, "test": test, **changes})


def test_a_clean_experiment_has_no_warning():
    table = _warnings()
    assert table.columns.tolist() == ["severity", "message", "count"]
    assert table.empty


def test_overlap_counts_patients_pictures_and_shares():
    image = np.array(["a.png", "b.png", "b.png#1", "c.png", "b.png#2", "d.png", "e.png", "f.png"])
    patient = np.array([1, 2, 2, 3, 2, 1, 4, 3])
    part = np.array(["train", "train", "train", "val", "test", "test", "test", "test"])
    table = overlap(image, patient=patient, part=part).set_index(["part", "other"])
    assert table.loc[("train", "val")].tolist() == [0, 0, 0, 0]
    # Patients 1 (d) and 2 (b#2) are in training, and so is the picture b.
    assert table.loc[("train", "test")].tolist() == [2, 1, 2 / 4, 1 / 4]
    assert table.loc[("val", "test")].tolist() == [1, 0, 1 / 4, 0]


def test_a_split_by_image_leaks_as_much_as_published(shared):
    """Facts, judging.md: 81.7 % of test images leak when ChestX-ray14 is split by image."""
    table = pd.read_csv(shared / "nih" / "Data_Entry_2017_v2020.csv")
    generator = np.random.default_rng(0)
    image, patient = table["Image Index"].to_numpy(dtype=str), table["Patient ID"].to_numpy()
    part = generator.choice(["train", "val", "test"], p=[0.7, 0.15, 0.15], size=len(table))
    found = overlap(image, patient=patient, part=part).set_index(["part", "other"])
    assert found.loc[("train", "test"), "patient_share"] == pytest.approx(0.817, abs=0.01)
    assert found.loc[("train", "test"), "films"] == 0


def test_the_official_split_leaks_nothing(shared):
    lists = {
        p: (shared / "nih" / f"{p}_list.txt").read_text().split() for p in ("train_val", "test")
    }
    image = np.array([name for names in lists.values() for name in names])
    part = np.repeat(["train", "test"], [len(names) for names in lists.values()])
    patient = np.array([int(name[:8]) for name in image])
    found = overlap(image, patient=patient, part=part)
    assert not found[["patients", "films"]].any().any()


def test_a_leak_is_serious_and_stands_first():
    image, part = np.array(["a", "a#1"]), np.array(["train", "test"])
    leaking = overlap(image, patient=np.array([1, 1]), part=part)
    table = _warnings(overlap=leaking, missing=["z.png"])
    assert table["severity"].tolist() == ["serious", "serious", "note"]
    assert table["message"][0] == "Patients in train and test: 100.0% of test films leak that way."
    assert table["message"][1].startswith("Films in train and test")


def test_a_protocol_that_leaks_by_design_says_so():
    by_film = CLEAN.model_copy(update={"split": Split(method="image")})
    assert "by film, not by patient" in _warnings(by_film)["message"].item()
    update = {
        "split": Split(method="image"),
        "balance": Balance(method="cap-and-copy", before_split=True),
    }
    table = _warnings(CLEAN.model_copy(update=update))
    assert table["severity"].tolist() == ["serious", "serious"]
    assert "before the split" in table["message"][0]


def test_few_positives_are_listed_with_their_number():
    test = _test()
    label = test.label.copy()
    label[:, 1] = test.logit[:, 1] >= np.sort(test.logit[:, 1])[-29]
    table = _warnings(test=replace(test, label=label))
    assert table["severity"].item() == "note"
    assert "Hernia (29)" in table["message"].item()
    assert table["count"].item() == 1
    label[:, 1] = test.logit[:, 1] >= np.sort(test.logit[:, 1])[-30]
    assert _warnings(test=replace(test, label=label)).empty


def test_an_area_that_may_be_chance_is_named_but_not_the_trivial_one():
    test = _test()
    logit = test.logit.copy()
    logit[:, 1] = np.random.default_rng(1).normal(size=len(test))
    half = replace(test, network="half", logit=logit)
    nothing = trivial(test, prevalence=np.full(2, 0.4))
    table = _warnings(metrics=_metrics(test, half, nothing))
    assert table["message"].item() == "half: the interval of AUC is not above .5 for Hernia."
    noise = replace(half, network="noise", logit=np.repeat(logit[:, 1:], 2, axis=1))
    table = _warnings(metrics=_metrics(noise))
    assert table["severity"].tolist() == ["serious", "note"]
    assert "noise: the interval of macro AUC" in table["message"][0]
    assert table["count"].tolist() == [1, 2]


def test_random_weights_lost_films_and_unstated_labels_are_noted():
    test = _test()
    label = test.label.copy()
    label[:5, 0] = np.nan
    table = _warnings(
        CLEAN.model_copy(update={"network": (Network(name="net"),)}),
        test=replace(test, label=label),
        rejected=pd.DataFrame({"image": ["x.png"], "reason": ["truncated"]}),
        missing=["a.png", "b.png", "c.png", "d.png"],
    )
    assert set(table["severity"]) == {"note"}
    assert table["count"].tolist() == [1, 1, 4, 5]
    assert "random initialisation, not from pre-trained weights: net." in table["message"][0]
    assert "a.png, b.png, c.png, …" in table["message"][2]

"""What stands beside a result: each remark appears when it should, and not otherwise."""

import numpy as np
import pandas as pd
import pytest

from lucency.audit.checks.run_checks import BEFORE, BESIDE, remark
from lucency.config.ensemble_section import EnsembleChoices
from lucency.config.protocol import Protocol
from lucency.config.sections import External, Network, Source
from lucency.core.predictions import Predictions
from lucency.models.foundation import FOUNDATIONS

NOTHING = pd.DataFrame({"image": [], "reason": []})


def _protocol(**network: object) -> Protocol:
    real = Source(source="nih", root=".")
    return Protocol(name="clean", data=real, network=(Network(name="net", **network),))


CLEAN = _protocol(weights="timm")


def _test(label: list[list[float]]) -> Predictions:
    stated = np.array(label, dtype=np.float32)
    films = len(stated)
    return Predictions(
        network="net",
        split="0123",
        findings=("Mass", "Hernia"),
        image=np.array([f"{film}.png" for film in range(films)]),
        patient=np.arange(films),
        part=np.full(films, "test"),
        label=stated,
        logit=np.zeros(stated.shape, dtype=np.float32),
        feature=np.empty((films, 0), dtype=np.float32),
    )


STATED = _test([[1, 0], [0, 1], [0, 0]])


def test_a_clean_experiment_has_no_remark():
    assert list(remark(CLEAN, test=STATED, rejected=NOTHING, missing=[])) == []


def test_lost_films_and_unstated_labels_are_noted_with_their_number():
    rejected = pd.DataFrame({"image": ["x.png"], "reason": ["truncated"]})
    unstated = _test([[1, np.nan], [np.nan, np.nan], [0, 0]])
    found = list(remark(CLEAN, test=unstated, rejected=rejected, missing=["a", "b", "c", "d"]))
    assert [one.severity for one in found] == ["note"] * 3
    counts = {one.check: one.count for one in found}
    assert counts == {"rejected_films": 1, "missing_films": 4, "unstated_labels": 3}
    assert found[1].examples == ("a", "b", "c")
    assert found[2].message.startswith("3 labels of 2 test films are not stated")


def test_phantoms_are_noted():
    protocol = CLEAN.model_copy(update={"data": Source()})
    found = remark(protocol, test=STATED, rejected=NOTHING, missing=[])
    assert [(one.check, one.severity) for one in found] == [("invented_films", "note")]


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ({"weights": "random"}, [("random_weights", "note")]),
        ({"weights": "w", "provenance": "ImageNet; no chest film"}, []),
        ({"weights": "w", "provenance": "CheXpert"}, [("pretrained_on_these", "note")]),
        ({"weights": "w", "provenance": "CheXpert", "seen": "none"}, []),
        (
            {"weights": "w", "provenance": "self-supervised", "seen": "images"},
            [("pretrained_on_these", "note")],
        ),
        (
            {"weights": "w", "provenance": "torchxrayvision all", "seen": "labels"},
            [("pretrained_on_these", "serious")],
        ),
    ],
)
def test_what_weights_have_seen_is_noted(network, expected):
    found = remark(_protocol(**network), test=STATED, rejected=NOTHING, missing=[])
    assert [(one.check, one.severity) for one in found] == expected


@pytest.mark.parametrize("match", FOUNDATIONS)
@pytest.mark.parametrize(
    ("source", "stated", "expected"),
    [
        ("nih", "", "have been shown these films without labels"),
        ("csv", "", "does not say whether from these"),
        ("phantom", "", ""),
        ("nih", "none", ""),
        ("nih", "labels", "have been shown labels of these films"),
    ],
)
def test_films_that_a_foundation_model_has_seen_are_named(match, source, stated, expected):
    about = {"weights": "w", "match": match, "seen": stated}
    frozen = {"sources": ("frozen big",), "learners": ("logistic",)}
    big = Network(name="big", **about)
    ensemble = EnsembleChoices(**frozen, frozen=(big,))
    place = Source(source=source, root="" if source == "phantom" else ".", labels="t.csv")
    update = {"data": place, "ensemble": ensemble}
    for protocol in (
        _protocol(**about).model_copy(update={"data": place}),
        CLEAN.model_copy(update=update),
    ):
        found = remark(protocol, test=STATED, rejected=NOTHING, missing=[])
        said = [one.message for one in found if one.check == "pretrained_on_these"]
        assert len(said) == bool(expected)
        assert all(expected in one for one in said)


def test_every_remark_is_named_so_that_it_is_counted():
    phantoms = _protocol(weights="w", provenance="x", seen="labels").model_copy(
        update={"data": Source()}
    )
    fresh = _protocol(weights="random")
    tests = (External(name="a", source="rsna"), External(name="b", source="chexpert"))
    external = _protocol(weights="w", match="eva-x").model_copy(update={"external": tests})
    rejected = pd.DataFrame({"image": ["x.png"], "reason": ["truncated"]})
    unstated = _test([[1, np.nan], [0, 0]])
    found = [
        one.check
        for protocol in (phantoms, fresh, external)
        for one in remark(protocol, test=unstated, rejected=rejected, missing=["a"])
    ]
    assert set(found) == {*BEFORE, *BESIDE}

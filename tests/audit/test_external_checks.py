"""The leak doctor on external tests: films that training has, and weights that have seen them."""

from typing import Any

import numpy as np
import pytest
import torchxrayvision.models

from lucency.audit.checks.issue import Issue
from lucency.audit.checks.run_checks import (
    external_shares_films,
    invented,
    of_protocol,
    pretrained_on_external,
)
from lucency.config.protocol import Protocol, parse_protocol
from lucency.config.sections import Network
from lucency.models.foundation import CLASSIFIERS, collections_named, collections_seen, seen_by

NAMES = np.array(["a.png", "b.png"])
SPELT = {  # datasets, as torchxrayvision names them; rsna, siim, google are films of ChestX-ray14
    "nih": "ChestX-ray14", "rsna": "ChestX-ray14", "google": "ChestX-ray14",
    "siim": "ChestX-ray14", "kaggle": "ChestX-ray14", "pc": "PadChest", "chex": "CheXpert",
    "mimic_ch": "MIMIC-CXR", "mimic_nb": "MIMIC-CXR", "openi": "OpenI", "vin": "VinDr-CXR",
}  # fmt: skip


def protocol_of(*external: str | dict[str, Any], data: Any = None, network: Any = None) -> Protocol:
    tests = [{"source": one, "root": "e"} if isinstance(one, str) else one for one in external]
    choices = {
        "name": "p",
        "data": data or {"source": "nih", "root": "n"},
        "external": [{"name": f"test-{k}", **test} for k, test in enumerate(tests)],
        "network": [{"name": "net", "weights": "timm", **(network or {})}],
    }
    return parse_protocol(choices, name="p")


def only(found: Any) -> Issue:
    (one,) = list(found)
    return one


@pytest.mark.parametrize(
    ("source", "external"),
    [("nih", "rsna"), ("nih", "siim"), ("nih", "nih-lt"), ("mimic-cxr", "cxr-lt"),
     ("chexpert", "chexpert-plus"), ("rsna", "nih")],
)  # fmt: skip
def test_an_external_test_of_trainings_films_is_serious(source: str, external: str):
    protocol = protocol_of("padchest", external, data={"source": source, "root": "n"})
    issue = only(external_shares_films(protocol, image=NAMES))
    assert (issue.check, issue.severity, issue.count) == ("external_shares_films", "serious", 1)
    assert issue.examples[0].startswith(f"test-1: {source!r} and {external!r} are both films of ")
    assert issue in list(of_protocol(protocol, image=NAMES))


@pytest.mark.parametrize("external", ["padchest", "chexpert", "vindr-cxr", "openi", "phantom"])
def test_another_collection_is_external(external: str):
    assert list(external_shares_films(protocol_of(external), image=NAMES)) == []


def test_films_of_any_of_several_sources_count():
    several = {"source": "padchest", "root": "n", "also": [{"source": "mimic-cxr", "root": "m"}]}
    issue = only(external_shares_films(protocol_of("cxr-lt", data=several), image=NAMES))
    assert "'mimic-cxr' and 'cxr-lt' are both films of MIMIC-CXR" in issue.message
    assert not list(external_shares_films(protocol_of("nih", data=several), image=NAMES))


def test_the_second_hospital_is_external_and_the_first_is_not():
    drawn = {"source": "phantom"}
    protocol = protocol_of({**drawn, "hospital": 2}, data=drawn)
    assert not list(external_shares_films(protocol, image=NAMES))
    issue = only(external_shares_films(protocol_of(drawn, data=drawn), image=NAMES))
    assert "both are phantoms of hospital 1 from seed 0" in issue.message


def test_a_table_of_chestxray14s_films_is_known_by_their_names():
    table = {"source": "csv", "root": "n", "labels": "t.csv"}
    named = np.array(["images/00000003_001.png", "a.png"])
    assert only(external_shares_films(protocol_of("rsna", data=table), image=named))
    assert not list(external_shares_films(protocol_of("rsna", data=table), image=NAMES))
    assert not list(external_shares_films(protocol_of("chexpert", data=table), image=named))
    drawn = {"source": "phantom"}  # whose films have such names, and are others
    assert not list(external_shares_films(protocol_of("rsna", data=drawn), image=named))


@pytest.mark.parametrize(
    ("network", "external", "severity"),
    [
        ({"weights": "w", "match": "eva-x"}, "chexpert", "note"),
        ({"weights": "w", "match": "eva-x"}, "cxr-lt", "note"),
        ({"weights": "w", "match": "eva-x"}, "padchest", ""),
        ({"weights": "w", "match": "rad-dino"}, "padchest", "note"),
        ({"weights": "w", "match": "rad-dino"}, "openi", ""),
        ({"weights": "w", "provenance": "densenet121-res224-all"}, "openi", "serious"),
        ({"weights": "w", "provenance": "densenet121-res224-all"}, "brax", ""),
        ({"weights": "w", "provenance": "DENSENET121-res224-pc, txv"}, "padchest", "serious"),
        ({"weights": "w", "provenance": "trained on PadChest by us"}, "padchest", "note"),
        ({"weights": "w", "provenance": "trained on PadChest by us"}, "chexpert", ""),
        ({"weights": "timm"}, "chexpert", ""),
        ({"weights": "w", "match": "eva-x"}, "csv", ""),
    ],
)
def test_weights_that_have_seen_an_external_test_are_named(
    network: dict[str, Any], external: str, severity: str
):
    test = {"source": external, "root": "e", "labels": "t.csv"}
    found = list(pretrained_on_external(protocol_of(test, network=network)))
    assert [(one.check, one.severity) for one in found] == (
        [("pretrained_on_external", severity)] if severity else []
    )
    assert all(one.examples == ("net on test-0",) for one in found)


def test_what_training_has_seen_counts_the_worst_of_several_sources():
    several = {"source": "padchest", "root": "n", "also": [{"source": "chexpert", "root": "m"}]}
    network = {"weights": "w", "provenance": "densenet121-res224-chex"}
    found = list(of_protocol(protocol_of(data=several, network=network), image=NAMES))
    assert [(one.check, one.severity) for one in found] == [("pretrained_on_these", "serious")]
    alone = {"source": "padchest", "root": "n"}
    assert not list(of_protocol(protocol_of(data=alone, network=network), image=NAMES))


def test_published_weights_are_what_their_publisher_states():
    urls = torchxrayvision.models.model_urls
    assert {name for name in urls if "-res" in name} == set(CLASSIFIERS)
    for name, collections in CLASSIFIERS.items():
        stated = urls[name]["weights_url"].rpartition("/")[2]
        sets = stated.partition("-densenet")[0].partition("-resnet")[0].split("-")
        assert {SPELT[one] for one in sets} == set(collections), name


def test_names_of_weights_are_known_whole():
    net = Network(name="n", weights="w", provenance="my densenet121-res224-all-of-them")
    assert collections_seen(net) == {}
    assert seen_by(net, source="nih") == ""


def test_collections_are_known_by_any_spelling():
    named = collections_named("ChestX-ray8, chexpert-v1, MIMIC, VinBigData, Open-i and BRAX")
    assert named == {"ChestX-ray14", "CheXpert", "MIMIC-CXR", "VinDr-CXR", "OpenI", "BRAX"}
    assert collections_named("ImageNet-1k images and labels; no chest film") == set()


def test_only_films_that_are_phantoms_are_called_so():
    drawn = {"source": "phantom"}
    assert only(invented(protocol_of(data=drawn))).message.startswith("the films are phantoms")
    mixed = only(invented(protocol_of(drawn, "chexpert")))
    assert mixed.message.startswith("some films of external test test-0 are phantoms")
    assert not list(invented(protocol_of("chexpert")))

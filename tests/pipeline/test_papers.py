"""Protocols after papers, in miniature: small networks with their heads, colours, frozen layers."""

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lucency.config.protocol import BASE, Protocol, parse_protocol, read_protocol
from lucency.config.sections import Head
from lucency.models.classifier import load_classifier
from lucency.models.training import check_choice
from lucency.pipeline import ablation_study as ablation
from lucency.pipeline import stages
from lucency.pipeline.run import open_run
from lucency.pipeline.stages import evaluation

PROTOCOLS = Path(__file__).resolve().parents[2] / "protocols"
SMALL = {
    "mobilenetv2": "test_efficientnet",
    "mobilenetv2_100": "test_efficientnet_gn",
    "inception_v3": "test_resnet",
    "alexnet": "test_convnext",
    "densenet121": "test_mambaout",
    "vgg19": "test_convnext2",
    "vgg16": "test_byobnet",
}


def smaller(choices: Any) -> Any:
    """Return choices with small networks in place of large ones, from random weights."""
    if isinstance(choices, list):
        return [smaller(one) for one in choices]
    if not isinstance(choices, dict):
        return choices
    made = {key: smaller(value) for key, value in choices.items()}
    if made.get("name") in SMALL:
        made |= {"name": SMALL[made["name"]], "weights": "random"}
    return made


def miniature(name: str, **changes: Any) -> Protocol:
    choices = smaller(tomllib.loads((PROTOCOLS / f"{name}.toml").read_text()))
    choices["data"] = {"source": "phantom", "films": 40, "size": 64}
    choices["preparation"] |= {"size": 64, "clahe_tiles": 4}
    choices["training"] |= {"epochs": 1, "batch": 16, "warmup_epochs": 0}
    choices["evaluation"] = {"resamples": 20}
    return parse_protocol({**choices, **changes}, name=name)


def test_mobilelungnetv2_trains_and_is_counted(tmp_path: Path) -> None:
    protocol = miniature("mobilelungnetv2")
    run = open_run(protocol, out=tmp_path / "run", workers=1)
    found = evaluation(run)
    cells = found.confusion.set_index(["network", "finding"])[["tp", "fp", "fn", "tn"]]
    test = stages.predictions(run)[0].of("test")
    assert len(cells) == 7 * 14  # six networks and the trivial predictor
    assert set(cells.sum(axis=1)) == {len(test)}
    specificity = found.metrics.query("metric == 'specificity'").set_index(["network", "finding"])
    for network in protocol.network:
        of = cells.loc[(network.name, "Effusion")]
        expected = of["tn"] / (of["tn"] + of["fp"])
        assert specificity.loc[(network.name, "Effusion"), "value"] == pytest.approx(expected)
    trained = load_classifier(stages.classifiers(run)["test_efficientnet"])
    assert trained.network.head == Head(pooling="average", dense=(256,), dropout=0.5)
    assert trained.preparation.denoise == ("gaussian",)
    table = load_classifier(stages.classifiers(run)["test_resnet"])
    assert table.network.head == Head()


@pytest.mark.parametrize("name", ["mobilelungnetv2", "thakur", "lungnet22"])
def test_the_networks_that_are_named_can_be_built(name: str) -> None:
    """Their heads and frozen layers, too, in every variant; weights are fetched when training."""
    protocol = read_protocol(PROTOCOLS / f"{name}.toml")
    for variant in (BASE, *(variant.name for variant in protocol.variant)):
        varied = protocol.varied(variant, seed=0)
        for choice in varied.network:
            training = varied.training_of(choice.name)
            check_choice(choice, root=Path(varied.data.root), training=training)


@pytest.mark.parametrize(("name", "members"), [("thakur", 6), ("lungnet22", 10)])
def test_the_ablations_train_every_variant(name: str, members: int, tmp_path: Path) -> None:
    run = open_run(miniature(name, seeds=[0]), out=tmp_path / "run", workers=1)
    said = ablation.predictions(run)
    assert len(said) == members
    logits = [one.logit for by_network in said.values() for (one,) in by_network.values()]
    assert len({logit.tobytes() for logit in logits}) == members
    assert np.isfinite(logits).all()
    files = (tmp_path / "run" / "variants").rglob("classifier.json")
    about = {file.parts[-5]: json.loads(file.read_text()) for file in files}
    assert {one["head"]["pooling"] for one in about.values()} == POOLED[name]
    assert {one["colour"] for one in about.values()} == COLOURED[name]


POOLED = {"thakur": {"average", "own"}, "lungnet22": {"average", "max"}}
COLOURED = {"thakur": {"none"}, "lungnet22": {"green-fire-blue", "none"}}

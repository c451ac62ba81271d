"""The contract of every network, and the published numbers of parameters."""

import json
from itertools import product

import numpy as np
import pytest
import torch

from lucency.config.sections import Head, Network
from lucency.core.manifest import FINDINGS, Preparation
from lucency.core.saved_files import read_json
from lucency.evaluation.calibration import no_recalibration
from lucency.models.classifier import Classifier, load_classifier, save_classifier
from lucency.models.heads import ATTENTIONS, POOLINGS, has_linear_classifier
from lucency.models.networks import NETWORKS, OWN, TIMM_NAMES, build, check_name, check_size

FINDING_COUNT = 3
TIMM = ("test_resnet", "test_vit", "test_efficientnet")
SIZE = 80
STATED = (
    Head(pooling="lse", transition=24, dense=(16, 8), dropout=0.5),
    Head(pooling="max"),
    Head(pooling="average", dense=(16,)),
    Head(pooling="grid", stage=1, transition=8, dense=(16,)),
    Head(pooling="grid", stage=-2),
    Head(pooling="csra", transition=8, attention_heads=4),
    Head(pooling="csra", stage=2, attention_weight=0.4, temperature=2.0),
    Head(pooling="ml-decoder", stage=2),
)
CONTRACTS = [
    *((name, OWN) for name in (*NETWORKS, *TIMM)),
    *((name, STATED[0]) for name in TIMM_NAMES),
    *product(("test_resnet", "test_efficientnet", "test_convnext"), STATED),
]
SLOW = {  # the same body or the same head is seen on others
    *(("resnet50-wang-average", OWN), ("resnet50-wang-max", OWN)),
    ("inceptionresnetv2", STATED[0]),
    *(("eva-x-small", OWN), ("eva-x-base", OWN)),
}


def films(count: int = 2, size: int = SIZE) -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8)
    return torch.from_numpy(pixels)


def test_the_four_networks_of_the_reference_study_are_there() -> None:
    assert {"alexnet", "densenet121", "inceptionresnetv2", "mobilenetv2"} <= set(NETWORKS)


def test_the_contract_is_asked_of_every_network_and_pooling() -> None:
    assert {name for name, head in CONTRACTS if head == OWN} == {*NETWORKS, *TIMM}
    assert {name for name, head in CONTRACTS if head != OWN} >= set(TIMM_NAMES)
    assert {head.pooling for _, head in CONTRACTS} == {"own", *POOLINGS, *ATTENTIONS}


@pytest.mark.parametrize(
    ("name", "head"),
    [pytest.param(*one, marks=[pytest.mark.slow] * (one in SLOW)) for one in CONTRACTS],
)
def test_contract(name: str, head: Head, tmp_path) -> None:
    torch.manual_seed(0)
    size = 160 if name in TIMM else 224 if name == "alexnet-reference" else SIZE
    colour = "none" if head == OWN else "hot"
    network = build(name, findings=FINDING_COUNT, head=head, colour=colour)
    batch = films(size=size)
    logit = network(batch)
    assert logit.shape == (2, FINDING_COUNT)
    logit.square().sum().backward()
    without = [key for key, p in network.named_parameters() if p.grad is None]
    queries = ["body.classifier.query_embed.weight"]  # of ML-Decoder, fixed
    assert without == queries * (head.pooling == "ml-decoder")
    network.eval()
    with torch.inference_mode():
        feature, again = network.embed(batch)
        before = network(batch)
        linear = has_linear_classifier(network.body)
        if linear:
            torch.testing.assert_close(network.body.get_classifier()(feature), before)
    assert linear == (head.pooling not in ATTENTIONS)
    assert feature.shape == (2, network.body.num_features)
    assert torch.equal(again, before)
    classifier = Classifier(
        network=network,
        name=name,
        architecture=name,
        findings=FINDINGS[:FINDING_COUNT],
        preparation=Preparation(size=size),
        mean=tuple(network.mean.flatten().tolist()),
        std=tuple(network.std.flatten().tolist()),
        protocol={},
        provenance="none",
        split="split",
        device="cpu",
        epoch=1,
        recalibration=no_recalibration(FINDING_COUNT),
        threshold=np.full(FINDING_COUNT, 0.5),
    )
    save_classifier(classifier, tmp_path)
    loaded = load_classifier(tmp_path)
    assert (loaded.network.head, loaded.network.colour) == (head, colour)
    assert (loaded.findings, loaded.preparation) == (classifier.findings, classifier.preparation)
    with torch.inference_mode():
        assert torch.equal(loaded.network(batch), before)


@pytest.mark.parametrize(
    ("name", "published"), [("alexnet-reference", 50_901_295), ("densenet121", 7_052_879)]
)
def test_parameters_equal_those_printed_by_the_reference_notebooks(
    name: str, published: int
) -> None:
    """Keras counts the running statistics of batch norm too (facts of the reference study)."""
    state = build(name, findings=15).body.state_dict()
    counted = sum(v.numel() for key, v in state.items() if "num_batches_tracked" not in key)
    assert counted == published


def test_a_smaller_input_is_the_area_under_the_larger_one() -> None:
    flat = torch.full((1, 64, 64), 200, dtype=torch.uint8)
    network = build("test_resnet", findings=2, size=32).eval()
    smaller = build("test_resnet", findings=2).eval()
    smaller.load_state_dict(network.state_dict())
    with torch.inference_mode():
        direct = smaller(flat[:, :32, :32])
        assert torch.allclose(network(flat), direct, atol=1e-5)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="nearest is 'densenet121'"):
        check_name("densnet121")


def test_classifiers_of_before_heads_colours_and_chains_still_load(tmp_path) -> None:
    network = build("test_resnet", findings=1).eval()
    about = {"preparation": Preparation(size=64), "protocol": {}, "provenance": "none"}
    about |= {"mean": (0.5,) * 3, "std": (0.5,) * 3, "split": "s", "device": "cpu", "epoch": 1}
    about |= {"recalibration": no_recalibration(1), "threshold": np.full(1, 0.5)}
    about["architecture"] = "test_resnet"
    save_classifier(
        Classifier(network=network, name="test_resnet", findings=("a",), **about), tmp_path
    )
    file = tmp_path / "classifier.json"
    earlier = read_json(file)
    for key in ("head", "colour", "architecture"):
        del earlier[key]
    for written, chain in (("none", ()), ("median", ("median",))):
        earlier["preparation"]["denoise"] = written
        file.write_text(json.dumps(earlier))
        loaded = load_classifier(tmp_path)
        assert (loaded.network.head, loaded.network.colour) == (OWN, "none")
        assert loaded.preparation.denoise == chain


def test_a_folder_without_a_network_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"no classifier\.json"):
        load_classifier(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path) -> None:
    network = build("test_resnet", findings=2)
    about = {"preparation": Preparation(size=64), "protocol": {}, "provenance": "none"}
    scaling = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "split": "s", "device": "cpu", "epoch": 1}
    scaling |= {"recalibration": no_recalibration(2), "threshold": np.full(2, 0.5)}
    about["architecture"] = "test_vit"
    wrong = Classifier(network=network, name="test_vit", findings=("a", "b"), **about, **scaling)
    save_classifier(wrong, tmp_path)
    with pytest.raises(ValueError, match="does not hold the weights of test_vit"):
        load_classifier(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"cut short")
    with pytest.raises(ValueError, match="does not hold the weights"):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    ("name", "side", "fits"),
    [
        ("alexnet", 62, False), ("alexnet", 63, True), ("inceptionresnetv2", 64, False),
        ("test_vit", 62, False), ("test_vit", 64, True), ("test_resnet", 16, True),
    ],
)  # fmt: skip
def test_films_too_small_for_a_network_are_refused_before_it_computes(name, side, fits):
    with torch.inference_mode():
        films = torch.zeros((1, side, side), dtype=torch.uint8)
        network = build(name, findings=1).eval()
        if fits:
            check_size(Network(name=name), side=side)
            assert network(films).shape == (1, 1)
            return
        with pytest.raises(ValueError, match=rf"{name}' cannot take films of {side} x {side} pix"):
            check_size(Network(name=name), side=side)
        with pytest.raises((RuntimeError, AssertionError)):  # as training would end
            network(films)

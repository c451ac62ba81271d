"""Class activation maps without torch: those of torch, whose mean is the logit but for its bias."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_predict import classifier

from lucency.config.sections import Head
from lucency.explain.class_activation import CamHead, class_activation_maps
from lucency.explain.heatmaps import MethodError
from lucency.explain.methods.cam import cam_head
from lucency.explain.methods.registry import explain
from lucency.models.classifier import Classifier
from lucency.models.networks import OWN, FilmNetwork, build
from lucency.models.onnx_export import write_onnx
from lucency.models.onnx_runtime import OnnxNetwork, open_onnx, run
from toys import FINDINGS, toy_films, toy_plan

SIZE = 64
FILMS = toy_films(11, size=SIZE)
ATTENTION = Head(pooling="csra", transition=8, attention_heads=2)
Exported = tuple[Classifier, OnnxNetwork, CamHead]


def exported(name: str, head: Head, folder: Path) -> Exported:
    torch.manual_seed(0)
    network = build(name, findings=2, head=head).eval()
    write_onnx(network, folder / "model.onnx", size=SIZE, metadata={})
    trained = replace(classifier(FILMS.preparation), network=network)
    return trained, open_onnx(folder / "model.onnx"), head_of(network)


def head_of(network: FilmNetwork) -> CamHead:
    return cam_head(network, torch.from_numpy(FILMS.pixels[:1]), findings=FINDINGS)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported("test_resnet", OWN, tmp_path_factory.mktemp("cam"))


def assert_as_torch(made: Exported) -> None:
    trained, network, head = made
    mine = class_activation_maps(network, head=head, prepared=FILMS)
    plan = replace(toy_plan(FILMS))
    theirs = explain(trained, prepared=FILMS, plan=plan, method="cam", findings=FINDINGS)
    np.testing.assert_allclose(mine.grid, theirs.grid, atol=1e-4)
    assert mine.grid.std() > 1e-3
    for name in ("image", "patient", "findings", "method"):
        assert np.array_equal(getattr(mine, name), getattr(theirs, name))
    for one, other in zip(mine.centres, theirs.centres, strict=True):
        np.testing.assert_array_equal(one, other)


def test_maps_are_those_of_torch(resnet: Exported) -> None:
    assert_as_torch(resnet)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("test_nfnet", OWN),
        ("densenet121", OWN),
        ("test_resnet", ATTENTION),
        ("swin_s3_tiny_224", OWN),
    ],
)
def test_maps_of_other_networks_are_those_of_torch(name: str, head: Head, tmp_path: Path) -> None:
    assert_as_torch(exported(name, head, tmp_path))


def test_the_mean_of_a_map_is_the_logit_less_its_bias(resnet: Exported) -> None:
    """Zhou et al. 2016, section 2: pooling by the mean and the weighted sum commute."""
    trained, network, head = resnet
    grid = class_activation_maps(network, head=head, prepared=FILMS).grid
    bias = trained.network.body.get_classifier().bias.detach().numpy()
    logit = run(network, FILMS.pixels)[0]
    np.testing.assert_allclose(grid.mean((2, 3)) + bias, logit, atol=1e-5)


def test_findings_are_chosen_by_name(resnet: Exported) -> None:
    _, network, head = resnet
    both = class_activation_maps(network, head=head, prepared=FILMS)
    right = class_activation_maps(network, head=head, prepared=FILMS, findings=["Right"])
    assert right.findings == ("Right",)
    np.testing.assert_allclose(right.grid[:, 0], both.grid[:, 1], rtol=1e-6)
    with pytest.raises(ValueError, match=r"does not know 'right': .*nearest is 'Right'"):
        class_activation_maps(network, head=head, prepared=FILMS, findings=["right"])


def test_the_head_of_another_network_is_refused(resnet: Exported) -> None:
    _, network, head = resnet
    other = head._replace(weight=head.weight[:, :8])
    with pytest.raises(ValueError, match="head of the same export"):
        class_activation_maps(network, head=other, prepared=FILMS)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("alexnet", OWN),
        ("test_convnext", OWN),
        ("test_resnet", Head(pooling="average", dense=(8,))),
    ],
)
def test_heads_that_are_not_pooling_and_a_linear_layer_have_none(name: str, head: Head) -> None:
    with pytest.raises(MethodError, match="cam is not defined for it; use grad-cam or hires-cam"):
        head_of(build(name, findings=2, head=head).eval())

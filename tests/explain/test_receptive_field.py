"""Receptive fields against gradients: what a cell depends on lies around its centre."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lucency.config.protocol import read_protocol
from lucency.explain.heatmaps import even_centres
from lucency.explain.methods.network_split import body_of, feature_centres
from lucency.explain.methods.registry import heatmaps
from lucency.models.networks import build


class Ones(nn.Module):
    """Layers of positive weights, so that a cell's gradient is its receptive field."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        for parameter in self.parameters():
            nn.init.ones_(parameter)

    def forward_features(self, pixels: Tensor) -> Tensor:
        return self.layers(pixels)

    def forward_head(self, feature: Tensor, *, pre_logits: bool = False) -> Tensor:
        del pre_logits
        return feature.mean((2, 3))

    def get_classifier(self) -> nn.Module:
        return nn.Identity()


def centre_of_dependence(network: nn.Module, side: int, cell: int, films: int = 1) -> float:
    """Return where, in pixels of one axis, what a cell on the diagonal depends on is centred."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(films, 3, side, side, generator=generator, requires_grad=True)
    feature = body_of(network).forward_features(pixels)
    (slope,) = torch.autograd.grad(feature[:, :, cell, cell].square().sum(), pixels)
    weight = slope.square().sum((0, 1, 2)).double()
    return float((weight * torch.arange(side)).sum() / weight.sum())


def conv(kernel: int, stride: int, padding: int) -> nn.Conv2d:
    return nn.Conv2d(3, 3, kernel, stride=stride, padding=padding, bias=False)


@pytest.mark.parametrize(
    "layers",
    [
        (conv(7, 2, 3), conv(3, 2, 1), conv(3, 1, 1), conv(3, 2, 1)),  # as ResNet
        (conv(7, 2, 3), nn.AvgPool2d(2), conv(3, 1, 1), nn.AvgPool2d(2)),  # as DenseNet
        (conv(11, 4, 2), conv(3, 2, 0), conv(3, 1, 0)),  # as AlexNet
        (conv(3, 2, 0), conv(3, 1, 0), nn.AvgPool2d(3, stride=2)),  # as Inception
        (conv(8, 8, 0), conv(7, 1, 3)),  # patches
        (nn.Conv2d(3, 3, 3, stride=2, padding=2, dilation=2, bias=False), conv(3, 2, 1)),
    ],
)
def test_centres_are_those_of_receptive_fields(layers):
    network, side = Ones(*layers), 96
    shape = network.forward_features(torch.zeros(1, 3, side, side)).shape[2:]
    centres = feature_centres(
        network, torch.zeros(1, 3, side, side), evenly=even_centres((shape[0], shape[1]))
    )
    cell = shape[0] // 2
    expected = (centre_of_dependence(network, side, cell) + 0.5) / side
    assert centres.across[cell] == pytest.approx(expected, abs=1e-6)
    assert centres.down.tolist() == centres.across.tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "evenly"),
    [("resnet18", False), ("mobilenetv2", False), ("densenet121", True), ("alexnet", False),
     ("inceptionresnetv2", False), ("efficientnet_lite0", False), ("convnext_atto", True),
     ("pvt_v2_b0", False), ("resnet26d", True)],
)  # fmt: skip
def test_real_networks_look_where_it_is_said(name, evenly):
    torch.manual_seed(0)
    side = 288
    body = build(name, findings=1).body.eval()
    pixels = torch.randn(2, 3, side, side)
    with torch.no_grad():
        rows, columns = body.forward_features(pixels).shape[2:]
    even = even_centres((rows, columns))
    centres = feature_centres(body, pixels, evenly=even)
    cell = rows // 2
    centre = centres.across[cell] * side - 0.5
    found = centre_of_dependence(body, side, cell, films=2)
    step = side / columns
    assert abs(found - centre) < step / 4, (found, centre)
    assert (np.abs(centres.across - even.across).max() * side < step / 8) == evenly


def test_what_does_not_convolve_divides_the_picture():
    body = build("test_vit", findings=1).body.eval()
    evenly = even_centres((10, 10))
    pixels = torch.zeros(1, 3, 160, 160)
    assert np.allclose(feature_centres(body, pixels, evenly=evenly).down, evenly.down)
    other = even_centres((3, 3))  # not the features' grid: which has no known centres
    assert feature_centres(body, pixels, evenly=other) is other


def test_the_demo_explains_a_network_whose_maps_have_several_cells() -> None:
    protocol = read_protocol("demo")
    network = build(protocol.explanation.network, findings=1, dropout=0.0).eval()
    side = protocol.preparation.size
    pixels = network.pictures(torch.zeros((1, side, side), dtype=torch.uint8))
    for method in protocol.explanation.methods:
        maps = heatmaps(network.body, pixels, method=method, findings=[0])
        assert maps.shape[2:] == (3, 3)

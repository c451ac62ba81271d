"""Wang's head: its pooling between mean and maximum, and maps that say what the logit says."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from lucency.learn.cams import cam
from lucency.learn.wang import (
    CHANNELS,
    POOLINGS,
    WangNetwork,
    average_pool,
    lse_pool,
    max_pool,
    wang,
)


def maps(scale: float = 1.0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    draw = np.random.default_rng(0).normal(0, scale, (2, 3, 5, 4))
    return torch.from_numpy(draw).to(dtype)


def network(pooling: str) -> WangNetwork:
    torch.manual_seed(0)
    return wang("test_resnet", pooling=pooling)(num_classes=4, drop_rate=0.5).eval()


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 10.0])
def test_pooling_is_the_paper_s_formula(sharpness: float) -> None:
    found = lse_pool(maps(), sharpness=sharpness)
    expected = (logsumexp(sharpness * maps().numpy(), axis=(2, 3)) - np.log(20)) / sharpness
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_the_limits_are_mean_and_maximum() -> None:
    torch.testing.assert_close(
        lse_pool(maps(), sharpness=1e-6), average_pool(maps()), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(lse_pool(maps(), sharpness=1e6), max_pool(maps()), atol=1e-5, rtol=0)
    between = lse_pool(maps())
    assert ((average_pool(maps()) < between) & (between < max_pool(maps()))).all()


def test_pooling_is_stable_at_ten_thousand() -> None:
    large = maps(1e4, torch.float32).requires_grad_()
    found = lse_pool(large)
    expected = lse_pool(large.detach().double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    found.sum().backward()
    assert large.grad is not None
    share = large.grad.sum((2, 3))  # a softmax: what the maps share sums to one
    torch.testing.assert_close(share, torch.ones_like(share))
    assert torch.exp(10 * large.detach()).isinf().any()  # the formula without x* would not hold


def test_gradients_are_true() -> None:
    assert torch.autograd.gradcheck(lse_pool, (maps().requires_grad_(),))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_contract(pooling: str) -> None:
    model = network(pooling)
    films = torch.randn(2, 3, 96, 96)
    found = model(films)
    feature = model.forward_features(films)
    assert (found.shape, feature.shape) == ((2, 4), (2, CHANNELS, 3, 3))
    assert model.forward_head(feature, pre_logits=True).shape == (2, model.num_features)
    found.square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    again = network(pooling)
    again.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(again(films), found)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_cam_is_the_linear_layer_on_the_transition_s_maps(pooling: str) -> None:
    model, films = network(pooling), torch.randn(2, 3, 96, 96)
    found = cam(model, films)
    feature = model.forward_features(films)
    expected = torch.nn.functional.conv2d(feature, model.classifier.weight[:, :, None, None])
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-4)
    if pooling == "average":
        torch.testing.assert_close(
            found.mean((2, 3)) + model.classifier.bias, model(films), atol=1e-5, rtol=1e-4
        )


def test_impossible_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of lse, max, average"):
        wang("test_resnet", pooling="mean")
    for sharpness in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="above 0"):
            lse_pool(maps(), sharpness=sharpness)

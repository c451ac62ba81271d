"""A network cut in two for explanation: its last maps of features, and the cheap head after them.

A network here is a body with timm's forward_features and forward_head, which takes scaled pictures.
Letters in shapes: b films, k findings, c channels, h and w pixels, gh and gw cells of the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lucency.models.heads import Body

AGREEMENT = 1e-4


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitNetwork:
    """Features of a batch as the network has them, the head after them, and their maps.

    `head` turns features into logits (b k), `grid` lays anything of their shape out as b c gh gw.
    `is_last` says that nothing but pooling and the last layers follows.
    """

    feature: Tensor
    head: Callable[[Tensor], Tensor]
    grid: Callable[[Tensor], Tensor]
    is_last: bool


def split(network: nn.Module, pixels: Float[Tensor, "b c h w"]) -> SplitNetwork:
    """Cut a network where its logits still depend on every place of the picture.

    A convolutional network is cut before its pooling. A transformer is cut at its last block's
    first norm: the tokens after that block no longer reach the logits where a class token is read.
    Raises ValueError for a network that can be cut at neither.
    """
    body = body_of(network)
    blocks = getattr(network, "blocks", None)
    last = blocks[-1] if isinstance(blocks, nn.Sequential | nn.ModuleList) and blocks else None
    with torch.no_grad():
        if hasattr(last, "norm1") and hasattr(network, "patch_embed"):
            return _split_tokens(network, cast(nn.Module, last), pixels)
        feature = body.forward_features(pixels)
    if feature.ndim != 4:
        raise _not_cut(network, f"its features have the shape {tuple(feature.shape)}")
    width = getattr(network, "map_channels", getattr(network, "num_features", None))
    channels_last = feature.shape[1] != width and feature.shape[3] == width

    def grid(one: Tensor) -> Tensor:
        return one.permute(0, 3, 1, 2) if channels_last else one

    return SplitNetwork(feature=feature, head=body.forward_head, grid=grid, is_last=True)


def gradients(
    parts: SplitNetwork, findings: Sequence[int] | None
) -> Iterator[Float[Tensor, "b c gh gw"]]:
    """Yield the gradient of each finding's logit with respect to the maps.

    The head runs once, and back once for all findings together.
    """
    feature = parts.feature.detach().requires_grad_()
    logit = parts.head(feature)
    films, count = logit.shape
    wanted = torch.eye(count).to(logit)[chosen(findings, count)]
    wanted = wanted.unsqueeze(1).expand(-1, films, -1)
    (slopes,) = torch.autograd.grad(logit, feature, wanted, is_grads_batched=True)
    yield from map(parts.grid, slopes)


def logits(network: nn.Module, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
    """Return the logits of pictures."""
    body = body_of(network)
    return body.forward_head(body.forward_features(pixels))


def chosen(findings: Sequence[int] | None, count: int) -> list[int]:
    """Return the requested columns, None for all; ValueError for one that the network has not."""
    columns = list(range(count)) if findings is None else list(findings)
    unknown = [column for column in columns if not 0 <= column < count]
    if unknown or not columns:
        raise ValueError(
            f"finding {unknown[0] if unknown else 'nothing'} is not among the network's {count}: "
            f"expected columns 0 to {count - 1}"
        )
    return columns


def blank(pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return films without a picture: every pixel the film's own mean."""
    return pixels.mean((2, 3), keepdim=True).expand_as(pixels)


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Run what is inside in evaluation mode and with gradients; leave the network as it was."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def body_of(network: nn.Module) -> Body:
    """Return the network as what can be explained, or raise ValueError naming what it lacks."""
    if isinstance(network, Body):
        return network
    raise ValueError(
        f"{type(network).__name__} lacks forward_features, forward_head or get_classifier: "
        "expected a body with timm's methods, such as `classifier.network.body`"
    )


def _split_tokens(network: nn.Module, block: nn.Module, pixels: Tensor) -> SplitNetwork:
    body, norm = body_of(network), cast(nn.Module, block.norm1)
    entered: list[tuple[tuple[Tensor, ...], dict[str, Tensor]]] = []
    handle = block.register_forward_pre_hook(
        lambda _, args, kwargs: entered.append((args, kwargs)), with_kwargs=True
    )
    try:
        expected = logits(network, pixels)
    finally:
        handle.remove()
    args, kwargs = entered[0]

    def head(tokens: Tensor) -> Tensor:
        handle = norm.register_forward_hook(lambda *_: tokens)
        try:
            after = block(*args, **kwargs)
        finally:
            handle.remove()
        return body.forward_head(cast(nn.Module, network.norm)(after))

    rows, columns = _patches(network, pixels)
    prefix = getattr(network, "num_prefix_tokens", 0)

    def grid(tokens: Tensor) -> Tensor:
        return tokens[:, prefix:].transpose(1, 2).unflatten(2, (rows, columns))

    feature = norm(args[0])
    if not torch.allclose(head(feature), expected, rtol=AGREEMENT, atol=AGREEMENT):
        raise _not_cut(network, "more than a norm follows its last block")
    return SplitNetwork(feature=feature, head=head, grid=grid, is_last=False)


def _patches(network: nn.Module, pixels: Tensor) -> tuple[int, int]:
    """Return the rows and columns of a transformer's patches."""
    size_of = getattr(network.patch_embed, "dynamic_feat_size", None)
    if size_of is None:
        raise _not_cut(network, "the layout of its patches is unknown")
    return size_of((pixels.shape[2], pixels.shape[3]))


def _not_cut(network: nn.Module, reason: str) -> ValueError:
    return ValueError(
        f"{type(network).__name__} has no maps of features to explain ({reason}): use "
        "integrated-gradients or smooth-grad"
    )

"""Batch norm over the films of all processes, on any device.

torch.nn.SyncBatchNorm refuses tensors of a CPU, and converting to it loses the activation that
timm's batch norms hold. So the function that all of them call is replaced while a network runs;
modules, weights and running statistics stay as they are.
Letters in shapes: b films of a process's share, c channels, s the sums that are added up.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_ARGUMENTS = inspect.signature(functional.batch_norm)


class SynchronisedBatchNorm(TorchFunctionMode):
    """While it lasts, every batch norm in training mode normalises by all processes' films.

    As in torch.nn.SyncBatchNorm. All processes must run the same network, forwards and backwards,
    equally often; torch.distributed must be there. Statistics are at least float32.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, or the batch norm over all processes in its place."""
        named = dict(kwargs or {})
        if func is functional.batch_norm:
            given = _ARGUMENTS.bind(*args, **named)
            given.apply_defaults()
            if given.arguments["training"]:
                return _normalise(**given.arguments)
        return func(*args, **named)


def _normalise(
    input: Float[Tensor, "b c *_"],  # named as torch.nn.functional.batch_norm does
    running_mean: Float[Tensor, " c"] | None,
    running_var: Float[Tensor, " c"] | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
    **_: object,
) -> Float[Tensor, "b c *_"]:
    """Return what batch_norm returns of the global batch, and move the running statistics."""
    with torch.no_grad():
        film = _precise(input.detach())
        number = film.new_tensor([film.numel() / film.shape[1]])
        sums = _over_processes(torch.cat([_by_channel(film), number]))
        mean, count = sums[:-1] / sums[-1], sums[-1]
        deviation = film - _as_maps(mean, film)
        variance = _over_processes(_by_channel(deviation * deviation)) / count
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            unbiased = variance * count / (count - 1)
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    inverse = torch.rsqrt(variance + eps)
    scale = torch.ones_like(mean) if weight is None else weight
    shift = torch.zeros_like(mean) if bias is None else bias
    return _BatchNorm.apply(input, scale, shift, mean, inverse, count)


class _BatchNorm(Function):
    """Normalisation by statistics of all processes, with the gradient through them.

    Ioffe and Szegedy, ICML 2015, section 3: of the batch's mean and variance the gradient needs the
    sums of dy and of dy x̂ over all films. Gradients of weight and bias are this process's part.
    """

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        film, weight, bias, mean, inverse, count = given
        ctx.save_for_backward(film, weight, mean, inverse, count)
        normal = (_precise(film) - _as_maps(mean, film)) * _as_maps(inverse * weight, film)
        return (normal + _as_maps(bias, film)).to(film.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        film, weight, mean, inverse, count = ctx.saved_tensors
        grad = _precise(grads[0])
        normal = (_precise(film) - _as_maps(mean, film)) * _as_maps(inverse, film)
        own = torch.stack([_by_channel(grad), _by_channel(grad * normal)])
        shift, slope = _over_processes(own.clone()) / count
        moved = grad - _as_maps(shift, film) - normal * _as_maps(slope, film)
        to_film = (moved * _as_maps(inverse * weight, film)).to(film.dtype)
        return to_film, own[1].to(weight.dtype), own[0].to(weight.dtype), None, None, None


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _by_channel(maps: Float[Tensor, "b c *_"]) -> Float[Tensor, " c"]:
    return maps.sum(dim=[0, *range(2, maps.dim())])


def _as_maps(values: Float[Tensor, " c"], maps: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (maps.dim() - 2))


def _over_processes(sums: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Add up in place, over all processes."""
    distributed.all_reduce(sums)
    return sums

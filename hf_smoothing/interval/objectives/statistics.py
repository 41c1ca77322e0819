"""Batch norms in train mode: the statistics of the clean batch serve whatever else is sent through the network in the same step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode


_ARGUMENTS = inspect.signature(F.batch_norm)

Statistics = list[tuple[Tensor, Tensor]]
"""Batch mean and variance of each batch norm in train mode, in the order of the calls, as a `Trace` keeps them."""


class NotedStatistics(TorchFunctionMode):
    """While it is entered, batch norms in train mode note the statistics of their batch; their running statistics move as ever."""

    def __init__(self) -> None:
        super().__init__()
        self.statistics: Statistics = []

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        call = _train_mode(function, args, kwargs)
        if call is not None:
            x = call["input"]
            axes = [axis for axis in range(x.ndim) if axis != 1]
            mean = x.mean(axes, keepdim=True)
            variance = (x - mean).square().mean(axes)  # on a CPU twice as fast as torch.var_mean
            self.statistics.append((mean.flatten(), variance))
        return function(*args, **(kwargs or {}))


class GivenStatistics(TorchFunctionMode):
    """While it is entered, batch norms in train mode normalise with these statistics, and their running statistics stay.

    Args:
        statistics: As noted in a pass through the same network; gradients flow into them.
    """

    def __init__(self, statistics: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.left = iter(statistics)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        call = _train_mode(function, args, kwargs)
        if call is None:
            return function(*args, **(kwargs or {}))
        x, weight, bias = call["input"], call["weight"], call["bias"]
        mean, variance = next(self.left)
        scale = (variance + call["eps"]).rsqrt()
        scale = scale if weight is None else scale * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return torch.addcmul(shift.view(shape), x, scale.view(shape))


def _train_mode(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> dict[str, Any] | None:
    """The arguments of a batch norm in train mode; None for all else."""
    if function is not F.batch_norm:
        return None
    call = _ARGUMENTS.bind(*args, **(kwargs or {}))
    call.apply_defaults()
    return call.arguments if call.arguments["training"] else None


def detached(statistics: Statistics) -> Statistics:
    """The same numbers, for passes whose gradient is not asked for."""
    return [(mean.detach(), variance.detach()) for mean, variance in statistics]


@contextmanager
def batches_uncounted(model: Any) -> Iterator[None]:
    """Batch norms with momentum=None average over the batches they have counted: only the clean pass of a step counts."""
    module = getattr(model, "module", None)
    counters = [
        norm.num_batches_tracked
        for norm in (module.modules() if isinstance(module, nn.Module) else ())
        if isinstance(norm, _BatchNorm) and norm.num_batches_tracked is not None
    ]
    counted = [counter.clone() for counter in counters]
    try:
        yield
    finally:
        for counter, count in zip(counters, counted, strict=True):
            counter.copy_(count)

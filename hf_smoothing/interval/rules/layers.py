"""Layers with weights: centre and half-width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.rounding import widened
from hf_smoothing.interval.rules.registry import register
from hf_smoothing.interval.trace import Linear


def _weighted(name: str) -> Callable[..., Box]:
    plain = getattr(F, name)

    def rule(box: Any, weight: Any, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Box:
        if not isinstance(box, Box) or isinstance(weight, Box):
            raise TypeError(f"{name} is bounded for a box times fixed weights, got a box among the weights.")
        # The weights are halved in place of the box, which is exact as well (but for the least subnormals, which the slack covers) and spares passes over the larger tensors.
        centre = plain(box.lower + box.upper, weight / 2, bias, *args, **kwargs)
        radius = plain(box.upper - box.lower, weight.abs() / 2, None, *args, **kwargs)
        value = None if box.value is None else plain(box.value, weight, bias, *args, **kwargs)
        result = Box.around(centre, radius, value, box.trace)
        if box.trace.outward:
            absolute_bias = None if bias is None else bias.abs()
            sizes = plain(box.largest, weight.abs(), absolute_bias, *args, **kwargs)
            result = widened(result, terms=weight[0].numel() + 8, sizes=sizes)
        box.trace.weights.append(weight)
        if name == "linear":
            box.trace.last_linear = weight, bias, box, result
        shift: Tensor | float = 0.0
        if bias is not None:  # of the last dimension of a linear layer, of the channels of a convolution
            shift = bias if name == "linear" else bias.view(-1, *(1,) * (result.ndim - 2))
        part = Linear(
            box,
            lambda x: plain(x, weight, None, *args, **kwargs),
            lambda x: plain(x, weight.abs(), None, *args, **kwargs),
            weight[0].numel() + 8,
        )
        return result.came_from(part, shift=shift)

    return rule


for _name in ("linear", "conv1d", "conv2d", "conv3d"):
    register(_weighted(_name), _name)


def _batch_norm(
    box: Box, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None, bias: Tensor | None = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Box:  # fmt: skip
    """In eval mode an affine map; in train mode that of the clean batch's statistics, which serve the bounds too."""
    trace, value = box.trace, None
    if training and box.value is not None:
        axes = [axis for axis in range(box.ndim) if axis != 1]
        variance, mean = torch.var_mean(box.value, axes, correction=0)
        trace.statistics.append((mean, variance))
        running = (running_mean, running_var) if trace.update_running else (None, None)
        value = F.batch_norm(box.value, *running, weight, bias, True, momentum, eps)
    elif training:
        if trace.read >= len(trace.statistics):
            raise ValueError(
                "A batch norm is in train mode or keeps no running statistics, so that its output depends on the other images: bounds would certify "
                "nothing. Call model.eval(), and train with track_running_stats=True."
            )
        mean, variance = trace.statistics[trace.read]
        trace.read += 1
    else:
        assert running_mean is not None and running_var is not None  # torch demands them in eval mode
        mean, variance = running_mean, running_var
        if box.value is not None:
            value = F.batch_norm(box.value, running_mean, running_var, weight, bias, False, momentum, eps)
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = (1, -1) + (1,) * (box.ndim - 2)
    scale, shift = scale.view(shape), shift.view(shape)
    centre, radius = torch.addcmul(shift, box.centre, scale), box.radius * scale.abs()
    result = Box.around(centre, radius, value, trace)
    shift_sizes = (mean.view(shape) * scale).abs() + shift.abs()
    if trace.outward:
        result = widened(result, terms=16, sizes=box.largest * scale.abs() + shift_sizes)
    linear = Linear(box, lambda x: x * scale, lambda x: x * scale.abs(), 8)
    return result.came_from(linear, shift=shift, shift_sizes=shift_sizes)


register(_batch_norm, "batch_norm")

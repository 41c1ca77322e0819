"""Layers and matrices of fixed weights: centre and half-width go through W and |W|."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.interval import constants
from hf_smoothing.interval.batches import images_first
from hf_smoothing.interval.box import Box
from hf_smoothing.interval.refusals import refuse, refuse_neighbours
from hf_smoothing.interval.registry import rule
from hf_smoothing.interval.rounding import FLUSHED, flushed, widened
from hf_smoothing.interval.trace import Linear, LinearLayer


_Apply = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def _weighted(
    name: str, box: Box, weight: Tensor, bias: Tensor | None, apply: _Apply, terms: int, batch: int | None
) -> Box:
    """The box of x -> W x + b: W c + b and |W| r, whatever the linear map is.

    Args:
        apply: The function (x, weight, bias) -> the map.
        terms: Number of products summed for one entry, the bias among them.
        batch: Dimension of the images afterwards.
    """
    exact = constants.weight(weight, box)
    shift = None if bias is None else constants.weight(bias, box)
    absolute = exact.abs()
    # The weights are halved in place of the box, which is exact as well (but for the least subnormals, which the slack covers) and spares passes over the larger tensors.
    centre = apply(box.lower + box.upper, exact / 2, shift)
    radius = apply(box.upper - box.lower, absolute / 2, None)
    before = box.make(centre, centre, batch)
    result = before.around(centre, radius)
    if box.trace.outward:
        least = flushed(box)
        sizes = apply(box.largest + least, absolute + least, None if shift is None else shift.abs())
        result = widened(result, terms=terms + 8, sizes=sizes, name=name)
    part = Linear(box, lambda x: apply(x, exact, None), lambda x: apply(x, absolute, None), terms + 8)
    box.trace.weights.append(weight)
    constant_part: Tensor | float = 0.0
    if shift is not None:  # of the last dimension of a linear layer, of the channels of a convolution
        constant_part = shift if name == "linear" else shift.view(-1, *(1,) * (result.ndim - 2))
    if name == "linear":
        box.trace.last_linear = LinearLayer(exact, shift, box, result.number, result.error)
    return result.came_from(part, shift=constant_part)


@rule("linear")
def linear(box: Box, weight: Tensor, bias: Tensor | None = None) -> Box:
    """x W^T + b over the last dimension, which may not be that of the images."""
    if box.batch is not None and box.batch == box.ndim - 1:
        refuse_neighbours("linear", "It sums over the images")
    if bias is not None and weight.ndim == 2:
        last = bias.shape[-1] if bias.ndim else 1
        if bias.numel() != last or last not in (1, len(weight)):
            refuse(
                "linear",
                f"Its bias must be one number, or one for each of {len(weight)} outputs, got shape {tuple(bias.shape)}.",
            )
        bias = bias.reshape(-1).expand(len(weight))
    return _weighted("linear", box, weight, bias, F.linear, weight.shape[-1] + 1, box.batch)


def _convolution(name: str, box: Box, weight: Tensor, bias: Tensor | None, terms: int, *options: Any) -> Box:
    plain = getattr(F, name)
    images_first(name, box, weight.ndim)
    return _weighted(name, box, weight, bias, lambda x, w, b: plain(x, w, b, *options), terms + 1, box.batch)


def _convolution_rule(name: str) -> None:
    @rule(name)
    def convolution(
        box: Box, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> Box:  # fmt: skip
        """Each entry sums over the inputs and places of one filter."""
        return _convolution(name, box, weight, bias, weight[0].numel(), stride, padding, dilation, groups)


for _name in ("conv1d", "conv2d", "conv3d"):
    _convolution_rule(_name)


@rule("conv_transpose2d")
def conv_transpose2d(
    box: Box, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Box:  # fmt: skip
    """Each entry sums over all inputs and places of the filters at most."""
    terms = weight[:, 0].numel()
    return _convolution(
        "conv_transpose2d", box, weight, bias, terms, stride, padding, output_padding, groups, dilation
    )


@rule("matmul", "mm", boxes=("input", "other"))
def matmul(input: Any, other: Any) -> Box:
    """A product with a constant matrix or vector on either side. Two boxes, as in attention, have no useful bound."""
    if isinstance(input, Box) and isinstance(other, Box):
        refuse(
            "matmul",
            "The product of two boxes is not bounded, as in attention, where intervals are vacuous; only with constants.",
        )
    box, matrix = (input, other) if isinstance(input, Box) else (other, input)
    if not isinstance(matrix, Tensor) or matrix.ndim not in (1, 2) or box.ndim < 2:
        refuse(
            "matmul",
            f"Its bound is for a constant matrix or vector, got {getattr(matrix, 'shape', type(matrix).__name__)} and {tuple(box.shape)}.",
        )
    after = box is input
    summed = box.ndim - 1 if after else box.ndim - 2
    if box.batch == summed:
        refuse_neighbours("matmul", "It sums over the images")
    batch = box.batch
    if batch is not None and matrix.ndim == 1 and batch > summed:
        batch -= 1

    def apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return torch.matmul(x, weight) if after else torch.matmul(weight, x)

    return _weighted("matmul", box, matrix, None, apply, box.shape[summed], batch)


@rule("addmm", boxes=("input", "mat1", "mat2"))
def addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Box:
    """A linear layer with its weights transposed: a bias and a product with a constant matrix."""
    if isinstance(input, Box) or isinstance(mat2, Box) or not isinstance(mat1, Box) or (beta, alpha) != (1, 1):
        refuse(
            "addmm", "Its bound is for a constant bias and a constant second matrix; write it as a sum and a matmul."
        )
    if mat1.ndim != 2 or mat2.ndim != 2:
        refuse("addmm", f"Its bound is for matrices, got {tuple(mat1.shape)} and {tuple(mat2.shape)}.")
    return linear(mat1, mat2.t(), input)


@rule("batch_norm")
def batch_norm(
    box: Box, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None, bias: Tensor | None = None,
    training: bool = False, momentum: float | None = 0.1, eps: float = 1e-5,
) -> Box:  # fmt: skip
    """In eval mode an affine map of each channel; in train mode that of the clean batch's statistics, which serve the bounds too."""
    images_first("batch_norm", box)
    trace = box.trace
    if training and box.batch is not None:
        raise ValueError(_TRAIN_MODE)
    if training:
        if trace.read >= len(trace.statistics):
            raise ValueError(_TRAIN_MODE)
        mean, variance = trace.statistics[trace.read]
        trace.read += 1
    else:
        if running_mean is None or running_var is None:
            refuse("batch_norm", "In eval mode it needs running statistics.")
        mean, variance = constants.weight(running_mean, box), constants.weight(running_var, box)
    spread = variance + eps
    if trace.outward and bool((spread < FLUSHED).any()):
        refuse("batch_norm", "It divides by the root of a variance that a run may take for 0; use a larger eps.")
    inverse = scale = spread.rsqrt()
    if weight is not None:
        scale = scale * constants.weight(weight, box)
    shift = -mean * scale if bias is None else constants.weight(bias, box) - mean * scale
    shape = (1, -1) + (1,) * (box.ndim - 2)
    inverse, scale, shift = inverse.view(shape), scale.view(shape), shift.view(shape)
    result = box.around(torch.addcmul(shift, box.centre, scale), box.radius * scale.abs())
    shift_sizes = (mean.view(shape) * scale).abs() + shift.abs()
    if trace.outward:
        # Pixels, mean, weight and scale may be subnormal.
        lost = flushed(box) * ((1.0 + inverse) * (box.largest + mean.view(shape).abs()) + scale.abs())
        sizes = box.largest * scale.abs() + shift_sizes + lost
        result = widened(result, terms=16, sizes=sizes, name="batch_norm")
    linear = Linear(box, lambda x: x * scale, lambda x: x * scale.abs(), 8)
    return result.came_from(linear, shift=shift, shift_sizes=shift_sizes)


_TRAIN_MODE = (
    "A batch norm is in train mode or keeps no running statistics, so that its output depends on the other images: bounds would certify "
    "nothing. Call model.eval(), and train with track_running_stats=True."
)

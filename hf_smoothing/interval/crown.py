"""Backward linear bounds (CROWN-IBP): tighter margins from the same journey of a box.

Lower bounds of linear functions of the logits are sent back through the network: exactly through affine steps, by the better of two
lines through each ReLU whose interval holds 0, and by the interval itself where there is no line. Source: Zhang et al., *Efficient
Neural Network Robustness Certification with General Activation Functions*, arXiv 1811.00866 (the lines), and arXiv 1906.06316
(intervals between the layers).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import vjp, vmap

from hf_smoothing.interval.box import Box, Linear


def backward_margins(logits: Box, labels: Tensor) -> Tensor:
    """Lower bounds of f_y - f_t over the box that the logits came from: (batch, num_labels), inf at t = y.

    Rounding is bounded as in `widened`: what a product with weights W may have lost changes the bound by at most
    gamma_n |A| |W| |x|.

    Args:
        logits: a box whose trace kept origins.
        labels: int64 (batch,).
    """
    batch, classes = logits.shape
    chosen = torch.nn.functional.one_hot(labels, classes).to(logits.dtype)
    every = torch.eye(classes, dtype=logits.dtype, device=labels.device)[:, None]
    weights: dict[int, tuple[Box, Tensor]] = {
        logits.number: (logits, chosen[None] - every)
    }  # (num_labels, batch, classes)
    constant = torch.zeros(classes, batch, dtype=logits.dtype, device=labels.device)
    while weights:
        # The newest box first: all that came of it is done.
        box, a = weights.pop(max(weights))
        if box.origin is None:
            constant = constant + _concrete(a, box)
        elif box.origin.activation is not None:
            before = box.origin.activation
            a, part = _through_relu(a, before)
            constant = constant + part
            _collect(weights, before, a)
        else:
            constant = constant + _sum(a * box.origin.shift) - _lost(a * box.origin.shift, 2)
            for part_of in box.origin.parts:
                constant = constant - _rounding(a, part_of)
                _collect(weights, part_of.source, _back(part_of, a))
    lower = constant.T.clone()
    lower[torch.arange(batch, device=labels.device), labels] = torch.inf
    return lower


def _collect(weights: dict[int, tuple[Box, Tensor]], box: Box, a: Tensor) -> None:
    known = weights.get(box.number)
    weights[box.number] = (box, a if known is None else known[1] + a)


def _back(part: Linear, a: Tensor, absolute: bool = False) -> Tensor:
    """A W, or |A| |W|."""
    function = part.absolute if absolute else part.function
    transposed: Any = vjp(function, torch.zeros_like(part.source.lower))[1]
    result: Tensor = vmap(lambda row: transposed(row)[0])(a.abs() if absolute else a)
    return result


def _rounding(a: Tensor, part: Linear) -> Tensor:
    """What A W may have lost in its products and sums, times the largest x."""
    unit = torch.finfo(a.dtype).eps / 2
    terms = part.terms + 2
    if terms <= 3:  # moving entries about loses nothing
        return torch.zeros(a.shape[:2], dtype=a.dtype, device=a.device)
    # Each entry of A W sums over the outputs that an input reaches: at most as many as A has.
    terms = terms + a[0, 0].numel()
    return 2 * terms * unit * _sum(_back(part, a, absolute=True) * part.source.largest)


def _through_relu(a: Tensor, before: Box) -> tuple[Tensor, Tensor]:
    """A y >= A' x + constant for y = relu(x), with y between two lines."""
    low, high = before.lower, before.upper
    on, off = low >= 0, high <= 0
    mixed = ~(on | off)
    width = torch.where(mixed, high - low, torch.ones_like(low))
    slope = torch.where(on, torch.ones_like(low), torch.where(mixed, high / width, torch.zeros_like(low)))
    unit = torch.finfo(low.dtype).eps
    lift = torch.where(mixed, -slope * low + 8 * unit * (high.abs() + low.abs()), torch.zeros_like(low))
    below = torch.where(mixed, (high > -low).to(low.dtype), slope)  # the nearer of y >= x and y >= 0
    positive, negative = a.clamp(min=0), a.clamp(max=0)
    return positive * below + negative * slope, _sum(negative * lift) - _lost(negative * lift, 2) - _slope_error(
        a, before
    )


def _slope_error(a: Tensor, before: Box) -> Tensor:
    return 4 * torch.finfo(a.dtype).eps * _sum(a.abs() * before.largest)


def _concrete(a: Tensor, box: Box) -> Tensor:
    """The least value of A x over the box, less what the sum may have lost."""
    terms = torch.minimum(a * box.lower, a * box.upper)
    return _sum(terms) - _lost(terms, 2)


def _sum(values: Tensor) -> Tensor:
    """Over all but (num_labels, batch)."""
    return values.flatten(2).sum(-1)


def _lost(values: Tensor, products: int) -> Tensor:
    """A bound on the rounding of such a sum."""
    count = values[0, 0].numel() + products
    return 2 * count * torch.finfo(values.dtype).eps * _sum(values.abs())

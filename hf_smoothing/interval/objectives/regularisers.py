"""Regularisers: of the warm-up, in which the radii grow, and of the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.trace import BoxLike


TINY = 1e-12
"""Widths below this are rounding: they keep ratios, and their gradients, finite."""


def warm_up_regularisers(first: Box, layers: Sequence[BoxLike]) -> tuple[Tensor, Tensor]:
    """L_tight and L_relu: keep the widths from exploding, and active and inactive units in balance. Means over the activations, 0 without any.

    Args:
        first: The box of pixels.
        layers: The boxes that enter the activations.

    Source: Shi et al., arXiv 2103.17268, equations 9 and 11; tolerance 0.5.
    """
    tolerance = 0.5
    if not layers:
        return first.centre.new_zeros(()), first.centre.new_zeros(())
    tight, balance = [], []
    for box in layers:
        centre, half = box.centre, box.radius
        tight.append(F.relu(tolerance - first.radius.mean() / half.mean().clamp_min(TINY)) / tolerance)
        on, off = (sign.flatten().to(centre.dtype) for sign in (box.lower > 0, box.upper < 0))
        mean = _ratio(centre.flatten() @ on, -centre.flatten() @ off)
        spread = (centre - centre.mean()).flatten().square()
        variance = _ratio(spread @ on, spread @ off)
        balance.append((F.relu(tolerance - mean) + F.relu(tolerance - variance)) / tolerance)
    return torch.stack(tight).mean(), torch.stack(balance).mean()


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """min(a / b, b / a) for two sums of one sign; 1 where both are 0, so that nothing is asked of them."""
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    return torch.where(high > 0, low / high.clamp(min=TINY), torch.ones_like(low))


def l1_norm(weights: Sequence[Tensor]) -> Tensor | float:
    """The sum of the absolute values of all weights that are trained, each once.

    Args:
        weights: The weights that a box has met, in the order of the calls: a layer that is called twice comes twice, as may a constant.
    """
    once: list[Tensor] = []
    for weight in weights:
        if weight.requires_grad and not any(_same(weight, known) for known in once):
            once.append(weight)
    return sum((weight.abs().sum() for weight in once), 0.0)


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two weights are one: a tensor or its transpose, or made in the same way of the same parameters (weight norm), at each call anew."""
    if _place(a) == _place(b):
        return True
    return a.shape == b.shape and _parameters(a) == _parameters(b) and torch.equal(a, b)


def _place(weight: Tensor) -> tuple[int, list[tuple[int, int]]]:
    """Where its entries are in memory."""
    return weight.data_ptr(), sorted(zip(weight.shape, weight.stride(), strict=True))


def _parameters(weight: Tensor) -> set[int]:
    """What a weight was computed from: the identities of the leaves of its graph."""
    if weight.grad_fn is None:
        return {id(weight)}
    found, seen, todo = set(), set(), [weight.grad_fn]
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            found.add(id(variable))
        todo += [following for following, _ in node.next_functions if following is not None]
    return found

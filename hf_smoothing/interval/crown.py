"""Backward linear bounds (CROWN-IBP): tighter margins from the same journey of a box.

Lower bounds of linear functions of the logits are sent back through the network: exactly through affine steps, by the better of two
lines through each ReLU whose interval holds 0, and by the interval itself where there is no line. Source: Zhang et al., *Efficient
Neural Network Robustness Certification with General Activation Functions*, arXiv 1811.00866 (the lines), and arXiv 1906.06316
(intervals between the layers).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp, vmap

from hf_smoothing.interval.trace import BoxLike, Linear


class _Account:
    """A lower bound that is being added up: its parts, and a bound on what rounding may have lost so far.

    Args: like: (num_labels, batch, ...): a tensor of the dtype and device.

    What is added belongs to a box: terms of shape (num_labels, *box.shape), summed over all but the labels and the box's images.
    """

    def __init__(self, like: Tensor) -> None:
        self.total = like.new_zeros(like.shape[:2])
        self.sizes, self.slack = self.total.clone(), self.total.clone()
        self.count = 0

    def add(self, terms: Tensor, box: BoxLike, operations: int = 2) -> None:
        """Add the sum of terms, each made by this number of operations."""
        part = _sum(terms, box)
        self.total = self.total + part
        self.sizes, self.count = self.sizes + part.abs(), self.count + 1
        self.lose(terms.abs(), box, terms[0].numel() // len(part[0]) + operations)

    def lose(self, sizes: Tensor, box: BoxLike, operations: int) -> None:
        """Note that numbers of these sizes went through this number of roundings."""
        self.slack = self.slack + operations * torch.finfo(sizes.dtype).eps * _sum(sizes, box)

    def lower(self) -> Tensor:
        """The bound: all parts, less twice what may have been lost (twice, since the slack itself is rounded).

        Something is always lost, so that logits that may be equal, with a bound of exactly 0, are no margin.
        """
        number = torch.finfo(self.total.dtype)
        return self.total - 2 * (self.slack + (self.count + 2) * number.eps * self.sizes + number.tiny)


def backward_margins(logits: BoxLike, labels: Tensor) -> Tensor:
    """Lower bounds of f_y - f_t over the box that the logits came from: (batch, num_labels), inf at t = y.

    Rounding: any A gives a valid bound A x if what separates it from the exact one is bounded times the largest |x|. So every step
    notes n u |A| |W| |x| for its n roundings (Higham, section 3.1), from the differences A W to the sums at branches and the constant.

    With a trace that covers the run, every step gives away |A| times what the run's rounding adds to it.

    Args:
        logits: A box whose trace kept origins.
        labels: Labels, int64 (batch,).
    """
    batch, classes = logits.shape
    chosen = torch.nn.functional.one_hot(labels, classes).to(logits.like.dtype)
    every = torch.eye(classes, dtype=logits.like.dtype, device=labels.device)[:, None]
    start = chosen[None] - every  # (num_labels, batch, classes)
    weights: dict[int, tuple[BoxLike, Tensor]] = {logits.number: (logits, start)}
    account = _Account(start)
    while weights:
        # The newest box first: all that came of it is done.
        box, a = weights.pop(max(weights))
        origin = box.origin
        if origin is None:
            account.add(torch.minimum(a * box.lower, a * box.upper), box)
        elif origin.relu is not None:
            _collect(weights, origin.relu, _through_relu(a, origin.relu, account), account)
        else:
            shift = torch.as_tensor(origin.shift, dtype=a.dtype, device=a.device)
            account.add(a * shift.expand(a.shape[1:]), box)  # a shift of another shape is an error, not a larger sum
            account.lose(a.abs() * origin.shift_sizes, box, 8)
            if origin.error is not None:  # the run may be off by so much in either direction
                account.add(-a.abs() * origin.error, box)
            for part in origin.parts:
                if part.terms > 1:  # else entries only change places
                    # Each entry of A W sums over the outputs that an input reaches: at most as many as A has.
                    sizes = _back(part, a, absolute=True) * part.source.largest
                    account.lose(sizes, part.source, part.terms + a[0].numel() // batch)
                _collect(weights, part.source, _back(part, a), account)
    lower = account.lower().T.clone()
    lower[torch.arange(batch, device=labels.device), labels] = torch.inf
    return lower


def _collect(weights: dict[int, tuple[BoxLike, Tensor]], box: BoxLike, a: Tensor, account: _Account) -> None:
    known = weights.get(box.number)
    if known is not None:  # where two branches part
        a = known[1] + a
        account.lose(a.abs() * box.largest, box, 1)
    weights[box.number] = (box, a)


def _back(part: Linear, a: Tensor, absolute: bool = False) -> Tensor:
    """A W, or |A| |W|."""
    function = part.absolute if absolute else part.function
    transposed: Any = vjp(function, torch.zeros_like(part.source.lower))[1]
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "There is a performance drop", UserWarning
        )  # where torch loops over the labels itself
        result: Tensor = vmap(lambda row: transposed(row)[0])(a.abs() if absolute else a)
    return result


def _through_relu(a: Tensor, before: BoxLike, account: _Account) -> Tensor:
    """A' with A y >= A' x + constant for y = relu(x) between two lines; the constant goes to the account."""
    low, high = before.lower, before.upper
    on, off = low >= 0, high <= 0
    mixed = ~(on | off)
    width = torch.where(mixed, high - low, torch.ones_like(low))
    slope = torch.where(on, torch.ones_like(low), torch.where(mixed, high / width, torch.zeros_like(low)))
    lift = torch.where(mixed, -slope * low, torch.zeros_like(low))
    below = torch.where(mixed, (high > -low).to(low.dtype), slope)  # the nearer of y >= x and y >= 0
    positive, negative = a.clamp(min=0), a.clamp(max=0)
    account.add(negative * lift, before)
    # The slope is off by 2 roundings and the lift by 4: near the line's ends that is 6 u |x| at most.
    account.lose(a.abs() * before.largest, before, 8)
    return positive * below + negative * slope


def _sum(values: Tensor, box: BoxLike) -> Tensor:
    """Over all but labels and images, of (num_labels, *box.shape)."""
    moved = values.movedim((box.batch or 0) + 1, 1)
    return moved.reshape(*moved.shape[:2], -1).sum(-1)

"""Backward linear bounds (CROWN): tighter margins from the same journey of a box.

Lower bounds of linear functions of the logits are sent back through the network: exactly through affine steps, by the better of two
lines through each ReLU whose interval holds 0, and by the interval itself where there is no line. Source: Zhang et al., *Efficient
Neural Network Robustness Certification with General Activation Functions*, arXiv 1811.00866 (the lines; what enters a ReLU is bounded
in the same way, `tightened`), and arXiv 1906.06316 (CROWN-IBP: by intervals).
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp, vmap

from hf_smoothing.interval.trace import BoxLike, Linear, Origin


MEMORY = 2**21
"""Entries of a matrix A at most that are sent back at once, 16 MiB in float64. A step holds about six such matrices; larger pieces are slower."""

PROBES, GAIN = 8, 0.01
"""How many entries are tried first when a box is tightened, and by which share they must become narrower for the others to be tried."""


class _Account:
    """A lower bound that is being added up: its parts, and a bound on what rounding may have lost so far.

    Args:
        a: Coefficients of the linear functions that are bounded, (rows, *box.shape).
        box: Box that they are functions of.

    What is added are products of coefficients of a box, (rows, *box.shape), and numbers that are the same for all rows, (*box.shape),
    summed over all but the rows and the images.
    """

    def __init__(self, a: Tensor, box: BoxLike) -> None:
        self.total = a.new_zeros(len(a), box.shape[box.batch or 0])
        self.sizes, self.slack = self.total.clone(), self.total.clone()
        self.count, self.unit = 0, torch.finfo(a.dtype).eps

    def add(self, a: Tensor, factors: Tensor, box: BoxLike) -> None:
        """Add a sum of products; what it may lose is noted by the caller."""
        part = _summed(a, factors, box)
        self.total = self.total + part
        self.sizes, self.count = self.sizes + part.abs(), self.count + 1

    def lose(self, sizes: Tensor, factors: Tensor, box: BoxLike) -> None:
        """Note the roundings that products of these sizes went through: the factors say how many, times how large."""
        self.slack = self.slack + self.unit * _summed(sizes, factors, box)

    def lower(self) -> Tensor:
        """The bound: all parts, less twice what may have been lost (twice, since the slack itself is rounded).

        Something is always lost, so that logits that may be equal, with a bound of exactly 0, are no margin.
        """
        number = torch.finfo(self.total.dtype)
        return self.total - 2 * (self.slack + (self.count + 2) * number.eps * self.sizes + number.tiny)


def backward_margins(logits: BoxLike, labels: Tensor) -> Tensor:
    """Lower bounds of f_y - f_t over the box that the logits came from: (batch, num_labels), inf at t = y.

    Args:
        logits: A box whose trace kept origins.
        labels: Labels, int64 (batch,).
    """
    batch, classes = logits.shape
    everyone = torch.arange(classes, device=labels.device)[:, None].expand(classes, batch)
    lower = linear_bounds(logits, margin_functions(logits, labels, everyone)).T.clone()
    lower[torch.arange(batch, device=labels.device), labels] = torch.inf
    return lower


def margin_functions(logits: BoxLike, labels: Tensor, targets: Tensor) -> Tensor:
    """The linear functions f_y - f_t of the logits, (rows, batch, num_labels), for targets t (rows, batch)."""
    one_hot, classes = torch.nn.functional.one_hot, logits.shape[1]
    return (one_hot(labels, classes)[None] - one_hot(targets, classes)).to(logits.like.dtype)


def linear_bounds(box: BoxLike, a: Tensor, slopes: dict[int, Tensor] | None = None) -> Tensor:
    """Lower bounds of linear functions of a box, over the box of pixels that it came from: (rows, batch).

    Rounding: any A gives a valid bound A x if what separates it from the exact one is bounded times the largest |x|. So every step
    notes n u |A| |W| |x| for its n roundings (Higham, section 3.1), from the differences A W to the sums at branches and the constant.

    With a trace that covers the run, every step gives away |A| times what the run's rounding adds to it.

    Args:
        box: A box whose trace kept origins.
        a: The coefficients, (rows, *box.shape).
        slopes: For each ReLU, by the number of the box before it, the slope in [0, 1] of the line below it where the interval holds 0,
            (rows, *shape): what is missing is chosen by CROWN's rule and entered as a parameter, on which the bounds depend. Without
            it, rows are bounded in pieces (`rows_at_once`).
    """
    if slopes is None:
        return torch.cat([_bounds_of_rows(box, piece, None) for piece in a.split(rows_at_once(box))])
    return _bounds_of_rows(box, a, slopes)


def _bounds_of_rows(box: BoxLike, a: Tensor, slopes: dict[int, Tensor] | None) -> Tensor:
    weights: dict[int, tuple[BoxLike, Tensor]] = {box.number: (box, a)}
    account = _Account(a, box)
    while weights:
        # The newest box first: all that came of it is done.
        box, a = weights.pop(max(weights))
        origin = box.origin
        if origin is None:
            account.add(a.clamp(min=0), box.lower, box)
            account.add(a.clamp(max=0), box.upper, box)
            account.lose(a.abs(), (_terms(a, box) + 2) * box.largest, box)
        elif origin.relu is not None:
            _collect(weights, origin.relu, _through_relu(a, origin.relu, account, slopes), account)
        else:
            _add_constants(a, box, origin, account)
            for part in origin.parts:
                _collect(weights, part.source, _back(part, a), account)
    return account.lower()


def tightened(box: Any) -> Any:
    """The box with the bounds of its entries on either side of 0 replaced by backward ones where these are tighter.

    What enters a ReLU is bounded in this way before lines are laid through it; the other entries need none. The widest entries of an
    image come first: where these gain nothing, as where one affine step follows the pixels, its other entries are left.
    """
    images = box.batch or 0
    lower, upper = (end.movedim(images, 0).reshape(box.shape[images], -1) for end in (box.lower, box.upper))
    unstable = (lower < 0) & (upper > 0)
    if not bool(unstable.any()):
        return box
    width = torch.where(unstable, upper - lower, -1.0)
    places = width.argsort(dim=1, descending=True, stable=True)[:, : int(unstable.sum(1).max())]
    useful = torch.ones_like(unstable[:, :1])  # of each image
    wide = box.like.movedim(images, 0).shape
    rows = max(1, rows_at_once(box) // 2)  # each entry takes two, for its lower and its upper end
    pieces = [places[:, :PROBES], *places[:, PROBES:].split(rows, dim=1)]
    for number, piece in enumerate(piece for piece in pieces if piece.shape[1]):
        one = lower.new_zeros(piece.shape[1], *lower.shape).scatter_(2, piece.T[..., None], 1.0)
        a = torch.cat([one, -one]).reshape(-1, *wide).movedim(1, images + 1)
        low, high = linear_bounds(box, a).T.unflatten(1, (2, -1)).unbind(1)  # (batch, rows)
        chosen = unstable.gather(1, piece) & useful  # so that an image's bounds do not depend on its neighbours
        # fmax and fmin: a bound that is nan, of an image that was given up, tells nothing
        lower = lower.scatter(1, piece, torch.fmax(lower.gather(1, piece), torch.where(chosen, low, -torch.inf)))
        upper = upper.scatter(1, piece, torch.fmin(upper.gather(1, piece), torch.where(chosen, -high, torch.inf)))
        if number == 0:
            before = torch.where(chosen, width.gather(1, piece), 0.0).sum(1)
            after = torch.where(chosen, (upper - lower).gather(1, piece), 0.0).sum(1)
            useful = (after < (1.0 - GAIN) * before)[:, None]
            if not bool(useful.any()):
                break
    result = box.make(*(end.reshape(wide).movedim(0, images) for end in (lower, upper)), box.batch)
    result.origin, result.error = box.origin, box.error
    return result


def rows_at_once(box: BoxLike) -> int:
    """How many linear functions of each image may be sent back at once so that no matrix A has more than `MEMORY` entries; at least 1."""
    images = max(1, box.shape[box.batch or 0])
    seen, todo, widest = set(), [box], 1
    while todo:
        box = todo.pop()
        if box.number in seen:
            continue
        seen.add(box.number)
        widest = max(widest, box.shape.numel() // max(1, box.shape[box.batch or 0]))
        if box.origin is not None:
            todo += [box.origin.relu] if box.origin.relu is not None else [part.source for part in box.origin.parts]
    return max(1, MEMORY // (widest * images))


def _add_constants(a: Tensor, box: BoxLike, origin: Origin, account: _Account) -> None:
    """What an affine step adds to the bound, and what it may lose."""
    shift, sizes = torch.as_tensor(origin.shift, dtype=a.dtype, device=a.device), a.abs()
    shift = shift.expand(box.shape)  # a shift of another shape is an error, not a larger sum
    account.add(a, shift, box)
    lost = (_terms(a, box) + 2) * shift.abs() + 8 * origin.shift_sizes
    if origin.error is not None:  # the run may be off by so much in either direction
        account.add(sizes, -origin.error, box)
        lost = lost + (_terms(a, box) + 2) * origin.error
    for part in origin.parts:
        if part.terms > 1:  # else entries only change places
            # Each entry of A W sums over the outputs that an input reaches: at most as many as A has. |A| |W| |x| is summed from the
            # side of |W| |x|, which is the same for all rows.
            lost = lost + (part.terms + _terms(a, box)) * part.sizes
    account.lose(sizes, lost, box)


def _collect(weights: dict[int, tuple[BoxLike, Tensor]], box: BoxLike, a: Tensor, account: _Account) -> None:
    known = weights.get(box.number)
    if known is not None:  # where two branches part
        a = known[1] + a
        account.lose(a.abs(), box.largest, box)
    weights[box.number] = (box, a)


def _back(part: Linear, a: Tensor) -> Tensor:
    """A W."""
    transposed: Any = vjp(part.function, torch.zeros_like(part.source.lower))[1]
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "There is a performance drop", UserWarning
        )  # where torch loops over the labels itself
        result: Tensor = vmap(lambda row: transposed(row)[0])(a)
    return result


def _through_relu(a: Tensor, before: BoxLike, account: _Account, slopes: dict[int, Tensor] | None) -> Tensor:
    """A' with A y >= A' x + constant for y = relu(x) between two lines; the constant goes to the account."""
    low, high = before.lower, before.upper
    on, off = low >= 0, high <= 0
    mixed = ~(on | off)
    width = torch.where(mixed, high - low, torch.ones_like(low))
    slope = torch.where(on, torch.ones_like(low), torch.where(mixed, high / width, torch.zeros_like(low)))
    lift = torch.where(mixed, -slope * low, torch.zeros_like(low))
    # Any slope in [0, 1] is a line below; by CROWN's rule the nearer of y >= x and y >= 0.
    nearer = (high > -low).to(low.dtype)
    if slopes is not None:
        nearer = slopes.setdefault(before.number, nearer.expand_as(a).clone().requires_grad_())
    below = torch.where(mixed, nearer, slope)
    account.add(a.clamp(max=0), lift, before)
    # The slope is off by 2 roundings and the lift by 4: near the line's ends that is 6 u |x| at most, and the lift is no larger than |x|.
    account.lose(a.abs(), (10 + _terms(a, before)) * before.largest, before)
    return a * torch.where(a > 0, below, slope)


def _terms(a: Tensor, box: BoxLike) -> int:
    """The number of entries that an image has."""
    return a[0].numel() // max(1, box.shape[box.batch or 0])


def _summed(a: Tensor, factors: Tensor, box: BoxLike) -> Tensor:
    """The products of coefficients (rows, *box.shape) and factors (*box.shape), summed over all but rows and images."""
    images = box.batch or 0
    count = box.shape[images]
    flat = a.movedim(images + 1, 1).reshape(len(a), count, -1)
    return torch.einsum("rbn,bn->rb", flat, factors.movedim(images, 0).reshape(count, -1))

"""How far two answers of a classifier lie apart, against what rounding may do."""

from __future__ import annotations

import torch
from torch import Tensor


Tolerance = tuple[float, float]
"""How far a logit may move, in shares of the range of the logits and of itself."""

EXACT, FINE, COARSE = (5e-5, 1e-5), (5e-3, 1e-5), (5e-2, 2e-2)
"""Kernels round otherwise for another batch. The first is that of deterministic certificates, which a vote over noise does not blur: another
processor, number of threads or memory format stays far within it."""


def answers_apart(first: Tensor, second: Tensor, tolerance: Tolerance) -> float:
    """How far the logits for an image lie apart, in units of what rounding may do: above 1 they are those of two functions.

    >>> answers_apart(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.001]), FINE) < 1
    True
    """
    both, apart = torch.stack([first, second]), (first - second).abs()
    return most(torch.where(apart > 0, apart / _allowed(both, tolerance), apart))


def rows_apart(first: Tensor, second: Tensor, tolerance: Tolerance) -> int:
    """How many images have two answers, each given as a row; all where they are not as many, or have other classes."""
    if first.shape != second.shape:
        return max(len(first), len(second))
    return sum(answers_apart(a, b, tolerance) > 1 for a, b in zip(first, second, strict=True))


def clear_class(logits: Tensor, tolerance: Tolerance) -> int | None:
    """The class of an image; None where rounding may give it to another class.

    >>> clear_class(torch.tensor([0.0, 1.0]), FINE), clear_class(torch.tensor([0.0, 1.0, 1.001]), FINE)
    (1, None)
    """
    values, classes = logits.topk(2)
    allowed = _allowed(logits[None], tolerance)[classes]
    return int(classes[0]) if values[0] - values[1] > allowed.sum() else None


def allowed_apart(tolerance: Tolerance, images: int) -> int:
    """How many of some images may have two answers: one that lies on the border of two classes goes either way by rounding."""
    return -(-images // 16) if tolerance == COARSE else 1


def _allowed(rows: Tensor, tolerance: Tolerance) -> Tensor:
    """How far rounding may move each logit. A class that is masked by a huge negative logit does not say how far logits range."""
    of_range, of_itself = tolerance
    size = rows.abs().amax(0)
    leading = rows[:, size <= 100 * torch.maximum(size[rows.amax(0).argmax()], size.median())]
    return of_range * (leading.max() - leading.min()) + of_itself * size


def without_masks(logits: Tensor) -> Tensor:
    """Logits in which masked ones (-1e9, -100) lie as near as the others: in a mixture they would drown them.

    Masked ones lie below a gap: from the leading class five times as far as the last one above it, which is the fifth or a later one, and further than
    1.5 times the leading logit, as no class does whose logits are positive. Whatever number masks them, they get the same one, so rounding of a huge
    number does not count, and which classes are masked does. It shrinks with their count: all of them together add to a mixture about as much as
    one class two ranges below the others would, so the tolerance stays a share of the range of logits that can win. Zeros, which stand for classes
    that are ruled out, add nothing, and logits without masks stay as they are.

    >>> without_masks(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, -1e9]))
    tensor([ 1.,  2.,  3.,  4.,  5., -5.])
    """
    ranked = logits[logits != 0].sort(descending=True).values
    if len(ranked) < 6:
        return logits
    below_first = ranked[0] - ranked[4:]
    gaps = (below_first[1:] > torch.maximum(5 * below_first[:-1], 1.5 * ranked[0].abs())).nonzero()
    if not len(gaps):
        return logits
    others = ranked[: 5 + int(gaps[0])]
    masked = (logits < others[-1]) & (logits != 0)
    below = 2 * (others.max() - others.min()) / masked.sum().sqrt()
    return torch.where(masked, others.mean() - below, logits)


def most(difference: Tensor) -> float:
    """The largest absolute value."""
    return float(difference.abs().max())

"""How far two answers of a classifier lie apart, against what rounding may do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_smoothing.certification.probes import FURTHER


Tolerance = tuple[float, float]
"""How far a logit may move, in shares of the range of the logits and of itself."""

EXACT, FINE, COARSE = (5e-5, 1e-5), (5e-3, 1e-5), (5e-2, 2e-2)
"""Kernels round otherwise for another batch. The first is that of deterministic certificates, which a vote over noise does not blur: another
processor, number of threads or memory format stays far within it."""


def answers_apart(first: Sequence[float], second: Sequence[float], tolerance: Tolerance) -> float:
    """How far two answers lie apart, in units of what rounding may do (`EXACT`, `FINE` or `COARSE`): above 1 they are those of two functions.

    >>> answers_apart([0.0, 1.0], [0.0, 1.001], FINE) < 1 < answers_apart([0.0, 1.0], [0.0, 1.1], FINE)
    True
    """
    if len(first) != len(second):
        return float("inf")
    both = torch.tensor([first, second], dtype=torch.float64, device="cpu")
    of_range, of_itself = tolerance
    leading = _leading(both)
    allowed = of_range * float(leading.max() - leading.min()) + of_itself * both.abs().amax(0)
    apart = (both[0] - both[1]).abs()
    return most(torch.where(apart > 0, apart / allowed, apart))


def _leading(rows: Tensor) -> Tensor:
    """The classes that say how far logits range: one that is masked by a huge negative logit is not among them."""
    size = rows.abs().amax(0)
    return rows[:, size <= 100 * max(float(size[rows.amax(0).argmax()]), float(size.median()))]


def mixture_scales(rows: Tensor, weights: Tensor) -> list[float]:
    """For the logits of each image, given as a row, what stands for their range in a mixture with these weights, as errors of single logits add up."""
    return [2.0 * float(_leading(row[None]).std(correction=0) * weights.norm()) for row in rows]


def rows_apart(first: Tensor, second: Tensor, tolerance: Tolerance) -> int:
    """How many images have two answers, each given as a row."""
    return sum(answers_apart(a, b, tolerance) > 1 for a, b in zip(first.tolist(), second.tolist(), strict=True))


def values_apart(
    first: Sequence[float], second: Sequence[float], tolerance: Tolerance, scales: Sequence[float] | None = None
) -> int:
    """How many images have two answers, each given as one number; all where they are not as many.

    Args:
        first, second: The answers.
        tolerance: What rounding may do.
        scales: For each image what stands for the range; that over all images by default.
    """
    if len(first) != len(second):
        return max(len(first), len(second))
    both = torch.tensor([first, second], dtype=torch.float64, device="cpu")
    of_range, of_itself = tolerance
    ranges = both.max() - both.min() if scales is None else torch.tensor(scales, dtype=torch.float64, device="cpu")
    allowed = of_range * ranges + of_itself * both.abs().amax(0)
    return int(((both[0] - both[1]).abs() > allowed).sum())


def allowed_apart(tolerance: Tolerance, images: int = FURTHER) -> int:
    """How many of some images may have two answers: one that lies on the border of two classes goes either way by rounding."""
    return images // 16 if tolerance == COARSE else 1


def most(difference: Tensor) -> float:
    """The largest absolute value."""
    return float(difference.abs().max())

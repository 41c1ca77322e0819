"""A claim as a VNN-LIB property: the box of pixels, and the question whether another class can win in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


STEPS = 1 << 24
"""The ends of a box are multiples of 1 / STEPS: in [0, 1] these are numbers of float32, so that decimals, float64 and float32 read the same box."""

DIGITS = 24
"""Decimals after the point of a multiple of 1 / STEPS, exactly."""


def box_inside(pixels: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """The largest box with ends on the grid of 1 / STEPS that lies within the l-infinity ball and within [0, 1].

    Args:
        pixels: Pixels of one image, float64 of any shape, values in [0, 1].
        radius: Radius in [0, 1] pixel units.

    Returns:
        The tuple (lower, upper), float64 of the shape of `pixels`; lower > upper somewhere if the ball is too small for the grid.

    >>> lower, upper = box_inside(torch.tensor([0.0, 0.1, 0.5], dtype=torch.float64), 0.25)
    >>> upper.tolist() == [0.25, 5872025 / STEPS, 0.75]  # 5872025.6 is rounded down
    True
    """
    centre, reach = (
        pixels.double() * STEPS,
        torch.tensor(radius, dtype=torch.float64) * STEPS,
    )  # exact, by a power of two
    lower, upper = _sum(centre, -reach), _sum(centre, reach)
    # A sum that was rounded onto a whole number may have come from either side of it.
    low = lower[0].ceil() + ((lower[0] == lower[0].ceil()) & (lower[1] > 0)).double()
    high = upper[0].floor() - ((upper[0] == upper[0].floor()) & (upper[1] < 0)).double()
    return low.clamp(min=0.0) / STEPS, high.clamp(max=float(STEPS)) / STEPS


def _sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The rounded sum and its error, exactly (Knuth's two-sum)."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def vnnlib_text(lower: Tensor, upper: Tensor, prediction: int, num_labels: int, remarks: Sequence[str] = ()) -> str:
    """The property in VNN-LIB 1.0: satisfiable exactly if some pixels of the box give another class at least the logit of the prediction.

    So `unsat` confirms the claim that the class of the prediction wins in the whole box.

    Args:
        lower, upper: Ends of the box, multiples of 1 / STEPS, of the shape of an image; X_i are its entries in row-major order.
        prediction: The class y of the claim.
        num_labels: Number of classes, at least 2.
        remarks: Lines of comment for the top.

    Raises:
        ValueError: If the ends are not such numbers or cross, or the prediction is no class.
    """
    ends = torch.stack([lower.double().flatten(), upper.double().flatten()])
    if not bool(((ends * STEPS == (ends * STEPS).round()) & (ends >= 0.0) & (ends <= 1.0)).all()):
        raise ValueError(f"Ends of a box must be multiples of 1/{STEPS} in [0, 1]. Take them from box_inside.")
    if bool((ends[0] > ends[1]).any()):
        raise ValueError("A box must not be empty, got lower > upper. The radius is too small to be written.")
    if num_labels < 2 or not 0 <= prediction < num_labels:
        raise ValueError(f"`prediction` must be one of at least 2 classes, got {prediction} of {num_labels}.")
    inputs, outputs = range(ends.shape[1]), range(num_labels)
    bounds = zip(*(map(_decimal, end) for end in ends.tolist()), strict=True)
    others = (f"    (and (<= Y_{prediction} Y_{other}))" for other in outputs if other != prediction)
    return "\n".join(
        [
            *(f"; {line}" for line in remarks),
            "",
            *(f"(declare-const X_{i} Real)" for i in inputs),
            *(f"(declare-const Y_{j} Real)" for j in outputs),
            "",
            *(f"(assert (>= X_{i} {low}))\n(assert (<= X_{i} {high}))" for i, (low, high) in enumerate(bounds)),
            "",
            "(assert (or",
            *others,
            "))",
            "",
        ]
    )


def _decimal(value: float) -> str:
    """All decimals of a multiple of 1 / STEPS, and at least one.

    >>> _decimal(0.5), _decimal(1 / STEPS)
    ('0.5', '0.000000059604644775390625')
    """
    whole, _, rest = f"{value:.{DIGITS}f}".partition(".")
    return f"{whole}.{rest.rstrip('0') or '0'}"

"""Each image's own certified radius: the root of a growing function, for a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hf_smoothing.units import as_number, check_whole


def certified_radii(
    violation: Callable[[Tensor, Tensor], Tensor],
    count: int,
    largest: float,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    tolerance: float = 1e-8,
    flatness: float = 1e-8,
    iterations: int = 100,
    known: Tensor | None = None,
    at_known: Tensor | None = None,
    at_largest: Tensor | None = None,
) -> Tensor:
    """The largest radius found at which each image is certified; 0 where it is not even at 0.

    Every radius returned was evaluated and certified, or known before, so it is valid whether or not `violation` is monotone and the
    search has converged. Deterministic.

    Args:
        violation: A function of (image numbers (m,), radii (m,)) -> (m,): minus the worst margin over the box; <= 0
            means certified. Images that are decided are left out of later calls.
        count: Number of images.
        largest: Radius at which to stop looking, > 0.
        device, dtype: Device and dtype of the radii.
        tolerance: Width of the bracket at which an image is decided; from `largest` on, only 0, what is known, or `largest` comes out.
        flatness: An image is decided as well once its violation is in (-flatness, 0].
        iterations: Maximum number of calls of `violation`, after those at the radii known and at `largest`.
        known: Radii (count,) known to be certified, from which the search begins; 0 by default.
        at_known, at_largest: Values of `violation` there (count,), where they are known already.

    Raises:
        ValueError: If `largest` or `tolerance` is not positive, or `iterations` is negative or no whole number.

    Source: Chandrupatla (1997), *A new hybrid quadratic/bisection algorithm for finding the zero of a nonlinear function without
    using derivatives*, Advances in Engineering Software 28(3).
    """
    largest, tolerance, iterations = check_largest(largest), check_tolerance(tolerance), check_iterations(iterations)
    radii = torch.zeros(count, device=device, dtype=dtype) if known is None else known.to(dtype=dtype, copy=True)
    open_ = torch.arange(count, device=device)[radii < largest]
    if not len(open_):
        return radii
    at_known = violation(open_, radii[open_]) if at_known is None else at_known[open_]
    begun = at_known < 0.0  # nan is not
    open_, at_known = open_[begun], at_known[begun].to(dtype)
    if not len(open_):
        return radii
    top = torch.full((len(open_),), largest, device=device, dtype=dtype)
    at_top = _known(violation(open_, top) if at_largest is None else at_largest[open_]).to(dtype)
    radii[open_[at_top <= 0.0]] = largest
    inside = (at_top > 0.0) & (top - radii[open_] > tolerance)

    # a is the newest point, b the other end of the bracket, c the point before.
    image = open_[inside]
    a, fa = radii[image], at_known[inside]
    b, fb = top[inside], at_top[inside]
    step = torch.full_like(a, 0.5)
    for _ in range(iterations):
        if not len(image):
            break
        x = a + step * (b - a)
        fx = _known(violation(image, x)).to(dtype)
        same = (fx > 0.0) == (fa > 0.0)
        c, fc = torch.where(same, a, b), torch.where(same, fa, fb)
        b, fb = torch.where(same, b, a), torch.where(same, fb, fa)
        a, fa = x, fx
        certified = torch.where(fa <= 0.0, a, b)
        radii[image] = torch.maximum(radii[image], certified)
        width = (b - a).abs()
        flat = torch.where(fa <= 0.0, fa, fb) > -flatness
        going = (width > tolerance) & ~flat
        least = 0.5 * tolerance / width.clamp(min=tolerance)
        step = _next_step(a, b, c, fa, fb, fc).clamp(least, 1.0 - least)
        image, a, b, fa, fb, step = (t[going] for t in (image, a, b, fa, fb, step))
    return radii


def _known(violation: Tensor) -> Tensor:
    """A bound that is nan certifies nothing."""
    return torch.where(violation.isnan(), torch.inf, violation)


def check_largest(largest: float) -> float:
    """Return a largest radius as a float, if it makes sense.

    Raises:
        ValueError: If it is not in (0, 1].
    """
    number = as_number(largest)
    if not 0.0 < number <= 1.0:
        cure = f" Divide steps of 0..255 by 255 ({number / 255:.3g})." if number > 1.0 else ""
        raise ValueError(f"`largest` must be above 0 and at most 1, in [0, 1] pixel units, got {largest!r}.{cure}")
    return number


def check_tolerance(tolerance: float) -> float:
    """Return the width of a bracket as a float, if it can be reached.

    Raises:
        ValueError: If it is not positive and finite.
    """
    width = as_number(tolerance)
    if not 0.0 < width < math.inf:
        raise ValueError(
            f"`tolerance` must be > 0 in [0, 1] pixel units, and finite, got {tolerance!r}. Use 1e-8, as by default."
        )
    return width


def check_iterations(iterations: int) -> int:
    """Return a number of iterations as an int.

    Raises:
        ValueError: If it is negative or no whole number.
    """
    number = check_whole(iterations, "iterations")
    if number < 0:
        raise ValueError(f"`iterations` must be at least 0, got {number}. Use 100, as by default.")
    return number


def _next_step(a: Tensor, b: Tensor, c: Tensor, fa: Tensor, fb: Tensor, fc: Tensor) -> Tensor:
    """Inverse quadratic interpolation where it can be trusted, else bisection."""
    xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
    trusted = (phi**2 < xi) & ((1.0 - phi) ** 2 < 1.0 - xi)
    quadratic = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
    return torch.where(trusted & quadratic.isfinite(), quadratic, torch.full_like(a, 0.5))

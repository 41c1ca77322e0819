"""The law of grid noise, and the tables by which it is drawn."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray


STEPS = 255
"""Grid steps in the range of a pixel."""

# Values beyond this many standard deviations have probability below 1e-16 together; they go to the last ones kept.
_REACH = 8.5
_ROUNDING = 2.0**-53


@functools.lru_cache(maxsize=64)
def grid_law(sigma: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The values k that noise of this sigma takes, and their probabilities; the tails are folded into the ends.

    Returns:
        The tuple (int64 (M,), float64 (M,)).
    """
    reach = max(1, int(np.ceil(_REACH * STEPS * sigma)))
    values = np.arange(-reach, reach + 1)
    # Only the lower half is computed, where differences of small numbers are accurate; the law is symmetric.
    edges = (2 * values[:reach] + 1) / (2 * STEPS * sigma)
    below = np.array([0.5 * math.erfc(-edge / math.sqrt(2.0)) for edge in edges])
    lower, centre = np.diff(below, prepend=0.0), 1.0 - 2.0 * below[-1]
    return values, np.concatenate([lower, [centre], lower[::-1]])


def total_variation(sigma: float, pixels: int) -> float:
    """A bound on the total variation between the noise of an image and its exact law.

    Each of the M thresholds of the sampler is within two roundings of 2^-53 of the exact one, and the tails left out are below
    2e-16 + 1e-16; distances of independent coordinates add up.

    Args:
        sigma: Noise level in [0, 1] pixel units.
        pixels: Number of coordinates of an image, channels * height * width.

    >>> total_variation(1.0, 3 * 224 * 224) < 2e-7
    True
    """
    return float(pixels * (2.0 * len(grid_law(sigma)[0]) * _ROUNDING + 3e-16))


@functools.lru_cache(maxsize=64)
def tables(sigma: float) -> tuple[NDArray[np.float32], int, NDArray[np.int64]]:
    """Splits the law into 65,536 equal slots and a rest.

    Value i fills floor(65536 p_i) slots, so that 16 random bits decide most draws with one look-up. The slots left over, at the end,
    stand for the rest of the law, p_i - floor(65536 p_i) / 65536, which 62 further bits decide by comparison with thresholds.

    Returns:
        The tuple (value of each slot, float32 (65536,); number of slots that are filled; thresholds of the rest, int64
        (M - 1,)).
    """
    values, law = grid_law(sigma)
    slots = np.floor(law * 65536.0).astype(np.int64)
    rest = np.cumsum(law - slots / 65536.0)
    table = np.zeros(65536, dtype=np.float32)
    filled = int(slots.sum())
    table[:filled] = np.repeat(values, slots)
    # With a sigma far below a grid step nothing is left over, and no draw asks for the rest.
    thresholds = np.minimum(rest[:-1] / (rest[-1] or 1.0), 1.0) * float(1 << 62)
    return table, filled, thresholds.astype(np.int64)

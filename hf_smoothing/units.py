"""Ranges and units of the numbers that people pass: what can only be a slip of the unit is refused with its cure.

No dependencies, so that every room can ask here.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, SupportsFloat


MAX_SIGMA = 4.0
"""The largest noise level that is taken for one in [0, 1] pixel units: eight times the largest standard deviation that pixels in [0, 1]
can have. Papers go up to 2; in 0..255 grey levels 5 is about the smallest that is in use."""


LEAST_SIGMA = 1e-6
"""The smallest noise level that is taken: below, float32 pixels cannot hold the noise, and radii are far below a step of 8-bit images."""

MAX_DRAWS = 524_288
"""The largest number of noisy copies of an image: the number of an image and of its copies share the 32 bits of a key (`noise.streams`)."""

LEAST_ALPHA = 1e-20
"""The smallest failure probability that is asked for: a machine fails more often, and shares of it are still far above what rounding does to a tail."""


def diameter(shape: Sequence[int]) -> float:
    """The l2 distance between opposite corners of the pixel cube: no two images are farther apart.

    Args:
        shape: Shape of an image, (channels, height, width).

    >>> round(diameter((3, 32, 32)), 2)
    55.43
    """
    return math.sqrt(math.prod(shape))


def implied_linf(radius: float, shape: Sequence[int]) -> float:
    """The l-infinity radius that an l2 radius implies: each pixel may change by so much, all of them at once; rounded down.

    Args:
        radius: l2 radius in [0, 1] pixel units.
        shape: Shape of an image, (channels, height, width).

    >>> implied_linf(0.5, (3, 32, 32)) < 0.5 / 3072**0.5, round(255 * implied_linf(0.5, (3, 32, 32)), 2)
    (True, 2.3)
    """
    # Two roundings, of the root and of the quotient, are undone by two steps down.
    return max(0.0, math.nextafter(math.nextafter(radius / diameter(shape), 0.0), 0.0))


def check_sigma(sigma: float) -> float:
    """Return `sigma` as a float if it is a noise level in [0, 1] pixel units.

    Raises:
        ValueError: If `sigma` is not positive and finite, below `LEAST_SIGMA`, or above `MAX_SIGMA`.
    """
    level = as_number(sigma)
    if not (math.isfinite(level) and level > 0.0):
        raise ValueError(
            f"`sigma` must be a positive noise standard deviation in [0, 1] pixel units, got {sigma!r}. "
            "Common values are 0.25, 0.5 and 1.0."
        )
    if level < LEAST_SIGMA:
        raise ValueError(
            f"`sigma` must be at least {LEAST_SIGMA:g} in [0, 1] pixel units, since float32 pixels hold no smaller noise, got {sigma!r}. "
            "Common values are 0.25, 0.5 and 1.0."
        )
    return check_level(level, "sigma")


def check_level(level: float, name: str) -> float:
    """Return a noise level that is at most `MAX_SIGMA`.

    Raises:
        ValueError: The message names the level in [0, 1] units.
    """
    if level > MAX_SIGMA:
        percent = f", percentages by 100 ({level / 100:.3g})" if level <= 100.0 else ""
        raise ValueError(
            f"`{name}` is in [0, 1] pixel units and must be at most {MAX_SIGMA:g}, got {level:g}. That looks like 0..255 grey levels: divide them by "
            f"255 ({level / 255:.3g}){percent}."
        )
    return level


def check_radius(radius: float, norm: str, name: str, shape: Sequence[int] | None = None) -> float:
    """Return a radius that some image within it can be at: at most 1 in l-infinity, at most the diameter of the pixel cube in l2.

    Args:
        radius: Value to check.
        norm: The norm, "l2" or "linf".
        name: Name of the argument.
        shape: Shape of an image, (channels, height, width), where it is known.

    Raises:
        ValueError: If it is negative, not finite, or larger.
    """
    length = as_number(radius)
    if not (math.isfinite(length) and length >= 0.0):
        raise ValueError(f"`{name}` must be finite and >= 0 in [0, 1] pixel units, got {radius!r}.")
    if norm == "linf" and length > 1.0:
        raise ValueError(
            f"`{name}` is in [0, 1] pixel units, at most 1 for linf, got {length:g}, which looks like steps of 0..255. Divide it by 255 "
            f"({length / 255:.3g})."
        )
    if norm == "l2" and shape is not None and length > diameter(shape):
        raise ValueError(
            f"`{name}` is in [0, 1] pixel units, and images of {'x'.join(map(str, shape))} are at most {diameter(shape):.4g} apart in l2, "
            f"got {length:g}. If it is in 0..255 grey levels, divide it by 255 ({length / 255:.3g})."
        )
    return length


def check_alpha(alpha: float, least: float = LEAST_ALPHA) -> float:
    """Return `alpha` as a float if it is a failure probability.

    Args:
        alpha: Value to check.
        least: The smallest that what is proved of bounds holds for.

    Raises:
        ValueError: If `alpha` is not at least `least`, or above 1/2, where it can only be a confidence level.
    """
    share = as_number(alpha)
    if 0.0 < share < least:
        raise ValueError(f"`alpha` must be at least {least:g}, as bounds are tested down to there, got {alpha!r}.")
    if 0.0 < share <= 0.5:
        return share
    meant = {
        f"{share:g} looks like the confidence: pass alpha={1.0 - share:.6g}.": 0.5 < share < 1.0,
        f"{share:g} looks like a confidence in percent: pass alpha={1.0 - share / 100.0:.6g}.": 50.0 <= share < 100.0,
        f"{share:g} looks like a percentage: pass alpha={share / 100.0:.6g}.": 1.0 < share < 50.0,
        "For certificates that hold with probability 99.9% pass alpha=0.001.": True,
    }
    cure = next(text for text, fits in meant.items() if fits)
    raise ValueError(f"`alpha` must be a failure probability above 0 and at most 1/2, got {alpha!r}. {cure}")


def check_confidence(confidence: float) -> float:
    """Return `confidence` as a float if it is the coverage of an interval.

    Raises:
        ValueError: If it is not strictly between 0 and 1, or below 1/2, which can only be a failure probability.
    """
    share = as_number(confidence)
    if 0.5 <= share < 1.0:
        return share
    cure = "Pass 0.95 for 95% intervals."
    if 0.0 < share < 0.5:
        cure = f"It is at least 1/2; {share:g} looks like a failure probability: pass {1.0 - share:.6g}."
    if 50.0 <= share < 100.0:
        cure = f"{share:g} looks like a percentage: pass {share / 100.0:.6g}."
    raise ValueError(f"`confidence` must be strictly between 0 and 1, got {confidence!r}. {cure}")


def check_share(share: float, name: str) -> float:
    """Return a share in [0, 1] as a float.

    Raises:
        ValueError: In any other case.
    """
    value = as_number(share)
    if not 0.0 <= value <= 1.0:
        cure = f" {value:g} looks like a percentage: pass {value / 100.0:.6g}." if 1.0 < value <= 100.0 else ""
        raise ValueError(f"`{name}` must be a share in [0, 1], got {share!r}.{cure}")
    return value


def check_seconds(seconds: float, name: str) -> float:
    """Return a length of time as a float.

    Raises:
        ValueError: If it is negative, nan or no number.
    """
    value = as_number(seconds)
    if not value >= 0.0:
        raise ValueError(f"`{name}` must be a number of seconds, at least 0, got {seconds!r}. Use 0 for no wait.")
    return value


def check_whole(value: Any, name: str) -> int:
    """Return `value` as an int if it is a whole number of a whole type: counts must not be rounded silently.

    Raises:
        ValueError: In any other case.
    """
    try:
        if is_truth_value(value):
            raise TypeError("a truth value is no number")
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError) as error:  # torch has words of its own
        cure = "Pass a count, not a share." if 0.0 < as_number(value) < 1.0 else "Write 100_000, not 1e5."
        if is_several(value):
            cure = "Pass one number."
        elif is_truth_value(value) or not isinstance(value, SupportsFloat):
            cure = "Pass the number itself, such as 100."
        raise ValueError(f"`{name}` must be a whole number, got {value!r}. {cure}") from error


def check_number(value: Any, name: str) -> float:
    """Return `value` as a float if it is a real number, or nan; a text is none, whatever it says.

    Raises:
        ValueError: In any other case.
    """
    number = as_number(value)
    if math.isnan(number) and not isinstance(value, float):
        cure = (
            "Leave the quotes out; in YAML 1e-3 is a text, and 1.0e-3 a number."
            if isinstance(value, str)
            else "Pass one number, such as 0.5."
        )
        raise ValueError(f"`{name}` must be a number, got {value!r}. {cure}")
    return number


def check_seed(seed: Any, most: int = 2**63 - 1) -> int:
    """Return the seed of a generator as an int.

    Args:
        seed: The seed.
        most: The largest one that the generator takes.

    Raises:
        ValueError: If it is no whole number, negative, or larger.
    """
    value = check_whole(seed, "seed")
    if not 0 <= value <= most:
        shown = value if len(str(value)) <= 40 else f"one of {len(str(value))} digits"
        raise ValueError(
            f"`seed` must be from 0 to 2**{(most + 1).bit_length() - 1} - 1, got {shown}. Any small number will do, such as 0."
        )
    return value


def is_truth_value(value: Any) -> bool:
    """Whether a value is True or False, of Python, numpy, pandas or torch: those can all be read as the numbers 1 and 0.

    >>> is_truth_value(True), is_truth_value(1)
    (True, False)
    """
    dtype = str(getattr(value, "dtype", "")).rpartition(".")[2]
    return isinstance(value, bool) or dtype in ("bool", "boolean")


def check_flag(value: Any, name: str) -> bool:
    """Return True or False, since "no" would count as true.

    Raises:
        TypeError: In any other case.
    """
    if not is_truth_value(value) or is_several(value):
        raise TypeError(f"`{name}` must be True or False, got {value!r}.")
    return bool(value)


def is_several(value: Any) -> bool:
    """Whether a value has a dimension, as lists, arrays and tensors have that may hold several numbers.

    >>> is_several([1, 2]), is_several(1)
    (True, False)
    """
    return isinstance(value, (list, tuple, set)) or bool(getattr(value, "shape", ()))


def as_number(value: Any) -> float:
    """nan for what is no real number, or one of hundreds of digits; a truth value is none, nor are several numbers."""
    complex_ = "complex" in str(getattr(value, "dtype", ""))  # numpy would drop the imaginary part
    if complex_ or is_truth_value(value) or not isinstance(value, SupportsFloat):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last one of torch, for tensors without content
        return math.nan


def plain_numbers(values: Any, name: str, example: str) -> tuple[float, ...]:
    """The numbers of a list, an array or a tensor as Python's; nan for what is no number.

    Args:
        values: The numbers.
        name: What they are, for the message.
        example: Such numbers.

    Raises:
        TypeError: If they are no sequence.

    >>> plain_numbers(range(2), "Radii", "(0.0, 0.01)"), plain_numbers([1, "2"], "Radii", "(0.0, 0.01)")
    ((0.0, 1.0), (1.0, nan))
    """
    single = getattr(values, "ndim", 1) == 0  # an array or a tensor, which looks iterable
    if single or isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence of numbers, such as {example}, got {values!r}.")
    return tuple(math.nan if is_several(value) else as_number(value) for value in values)

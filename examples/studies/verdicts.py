"""What an interval carries, in words: nothing that compares two measured things is written by hand."""

from __future__ import annotations

from collections.abc import Mapping

from hf_smoothing.statistics import Paired


HIGHER, LOWER, NONE, MISSING = "higher", "lower", "no significant difference", "not tested"
FEW = 30
"""Images below which an interval of Student's t is not trusted."""


def word(found: Paired | None) -> str:
    """ "higher" or "lower" where the interval excludes 0, else "no significant difference"; "not tested" without a comparison or with fewer than 30 images."""
    if found is None or found.num_images < FEW:
        return MISSING
    return HIGHER if found.low > 0.0 else LOWER if found.high < 0.0 else NONE


def interval(found: Paired, factor: float = 1.0) -> str:
    """`-5.0 [-7.8, -2.1]` in points with a factor of 100, `+0.021 [+0.010, +0.031]` otherwise."""
    digits = 1 if factor == 100.0 else 3
    return f"{factor * found.value:+.{digits}f} [{factor * found.low:+.{digits}f}, {factor * found.high:+.{digits}f}]"


def verdict(found: Paired | None, factor: float = 1.0) -> str:
    """The word with its evidence, such as `higher, +0.021 [+0.010, +0.031]`."""
    return MISSING if found is None or word(found) == MISSING else f"{word(found)}, {interval(found, factor)}"


def across(found: Mapping[str, Paired | None]) -> str:
    """One phrase for several comparisons, such as `higher at sigma 0.25; no significant difference at sigma 0.5 and sigma 1.0`.

    Args:
        found: The comparison by the place at which it was made.
    """
    places: dict[str, list[str]] = {}
    for place, one in found.items():
        places.setdefault(word(one), []).append(place)
    return "; ".join(f"{said} at {listed(names)}" for said, names in places.items())


def listed(names: list[str]) -> str:
    """`a`, `a and b`, or `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

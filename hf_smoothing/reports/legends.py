"""Telling many curves of one picture apart: short names, and styles that differ in more than colour."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from hf_smoothing.drawing import COLOURS, FILLS, LINES, MARKERS


LONGEST_NAME = 28
"""Number of characters that a legend can hold."""


def short_names(names: Sequence[str]) -> list[str]:
    """Names without the folders that all of them share at either end, and no longer than a legend can hold.

    Args:
        names: Paths or other names; equal ones stay equal.

    >>> short_names(["logs/cifar10/noise_0.25/test/log.tsv", "logs/cifar10/noise_0.50/test/log.tsv"])
    ['noise_0.25', 'noise_0.50']
    >>> short_names(["models/resnet"]), short_names(["a/x", "a/x/y"])
    (['models/resnet'], ['x', 'x/y'])
    """
    parts = [name.replace(os.sep, "/").split("/") for name in names]
    if len(set(names)) > 1:
        first = sum(1 for _ in takewhile(lambda same: len(set(same)) == 1, zip(*parts, strict=False)))
        first = min(first, min(len(part) for part in parts) - 1)
        parts = [part[first:] for part in parts]
        ends = sum(
            1 for _ in takewhile(lambda same: len(set(same)) == 1, zip(*(p[::-1] for p in parts), strict=False))
        )
        ends = min(ends, min(len(part) for part in parts) - 1)
        parts = [part[: len(part) - ends] for part in parts]
    short = ["/".join(part) for part in parts]
    cut = [_cut(name) for name in short]
    # Two names must not become one.
    return cut if len(set(cut)) == len(set(names)) else short


def _cut(name: str) -> str:
    if len(name) <= LONGEST_NAME:
        return name
    head = (LONGEST_NAME - 1) // 2
    return f"{name[:head]}…{name[-(LONGEST_NAME - 1 - head) :]}"


def styles(curves: Sequence[tuple[str, float | None]]) -> list[dict[str, Any]]:
    """Colour, line and marker of each curve, as keywords of matplotlib: any two differ in line or marker, up to 77 of a kind.

    A name keeps its colour and marker, a sigma its line and how the marker is filled; where all curves have one sigma, or one name, line and
    marker vary together.

    Args:
        curves: The pair (name, sigma) of each; sigma None if it is not known.
    """
    names = list(dict.fromkeys(name for name, _ in curves))
    sigmas = sorted({sigma for _, sigma in curves}, key=lambda sigma: (sigma is None, sigma))
    repeated = len(set(curves)) < len(curves)
    crossed = not repeated and len(names) > 1 and len(sigmas) > 1
    chosen: list[dict[str, Any]] = []
    for number, (name, sigma) in enumerate(curves):
        by_name, by_sigma = names.index(name), sigmas.index(sigma)
        if repeated:
            by_name = by_sigma = number
        elif len(sigmas) == 1:
            by_sigma = by_name
        elif len(names) == 1:
            by_name = by_sigma
        chosen.append(
            {
                "color": COLOURS[(by_sigma if len(names) == 1 else by_name) % len(COLOURS)],
                "linestyle": LINES[by_sigma % len(LINES)],
                "marker": MARKERS[by_name % len(MARKERS)],
                "fillstyle": FILLS[by_sigma % len(FILLS)] if crossed else "full",
            }
        )
    return chosen

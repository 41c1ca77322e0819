"""Numbers as the field writes them, and what may have been meant by a value that an option cannot have."""

from __future__ import annotations

import argparse
import math

from hf_smoothing.spelling import nearest


RECORDED = {"sequential": "targets", "fixed-n": "fixed"}
"""Words of records -> the values of options that lead to them."""


def number(text: str) -> float:
    """The number that a word of a command line says; pixel values may be written as fractions, as in papers.

    Args:
        text: A decimal number, or two with a slash between them.

    Raises:
        ValueError: If it is neither.

    >>> number("0.25"), number("51/255")
    (0.25, 0.2)
    """
    over, slash, under = str(text).partition("/")
    if not slash:
        return float(over)
    if float(under) == 0:
        raise ValueError(f"A number must not be divided by 0, got {text!r}.")
    return float(over) / float(under)


def cure(action: argparse.Action, given: str) -> str:
    """What to write instead of a value, or nothing where that is not clear.

    Args:
        action: The option.
        given: The value, which it cannot have.

    >>> mode = argparse.Action(["--mode"], "mode", choices=["targets", "curve"])
    >>> cure(mode, "curv"), cure(mode, "sequential"), cure(mode, "x")
    ('Did you mean curve?', 'Did you mean targets? Records call it sequential.', '')
    >>> cure(argparse.Action(["--n"], "n", type=int), "1e3")
    'Write 1000 or 1_000.'
    """
    if action.choices is not None:
        known = [str(one) for one in action.choices]
        if (meant := RECORDED.get(given)) in known:
            return f"Did you mean {meant}? Records call it {given}."
        near = nearest(given, known)
        return f"Did you mean {near}?" if near else ""
    if action.type is float:
        return "Write a number, such as 0.25 or 8/255."
    return _whole(given) if action.type is int else ""


def _whole(given: str) -> str:
    try:
        number = float(given)
    except ValueError:
        return ""
    if not math.isfinite(number) or number != int(number) or abs(number) >= 2**53:
        return "Write a whole number."
    plain, grouped = f"{int(number)}", f"{int(number):_}"
    return f"Write {plain}." if plain == grouped else f"Write {plain} or {grouped}."

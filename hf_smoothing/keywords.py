"""Keyword arguments that are left out or misspelt: what is wanted, and what was most likely meant."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from hf_smoothing.spelling import nearest


F = TypeVar("F", bound=Callable[..., Any])

SIGMA = "the standard deviation of the noise in [0, 1] pixel units, such as sigma=0.25; one that the model was trained with serves best"
LARGEST = "the largest l-infinity radius to look for in [0, 1] pixel units, such as largest=8/255"


def needs(**meanings: str) -> Callable[[F], F]:
    """Let a function explain keyword arguments that it is not given; Python's own message has nothing but their names.

    Args:
        meanings: What each of them is, with a value to begin with.
    """

    def explained(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for name, meaning in meanings.items():
                if name not in kwargs:
                    known = inspect.signature(function).parameters
                    near = nearest(name, [given for given in kwargs if given not in known])
                    got = f"`{near}`" if near else "none"
                    raise TypeError(f"{function.__name__} needs `{name}`, {meaning}; got {got}.")
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]  # it is called as the function is

    return explained


def meant(name: str, known: Iterable[str], otherwise: str = "Leave it out.") -> str:
    """The cure for a keyword that nobody knows.

    Args:
        name: The keyword.
        known: Those that there are.
        otherwise: The cure where none of them is near.

    >>> meant("alhpa", ["alpha", "n"]), meant("weather", ["alpha", "n"])
    ('Did you mean alpha?', 'Leave it out.')
    """
    near = nearest(name, known)
    return f"Did you mean {near}?" if near else otherwise


def check_not_misspelt(given: Iterable[str], own: Iterable[str], of: str) -> None:
    """Refuse further keywords of what keeps any, if one is all but spelt like one of its own: that would be passed over.

    Args:
        given: Keywords that are none of its own.
        own: Its own.
        of: Its name.

    Raises:
        TypeError: The message names both.
    """
    known = list(own)
    for name in given:
        if near := difflib.get_close_matches(name, known, n=1, cutoff=0.8):
            raise TypeError(f"`{name}` is no argument of {of}. Did you mean {near[0]}?")

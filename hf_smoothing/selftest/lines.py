"""One line of the self-test: what is checked, whether it holds, and the figure that was found."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


class CheckError(Exception):
    """Something is not as it must be; the message says what was found and what is right."""


class NotApplicable(Exception):  # noqa: N818 - no error
    """The check means nothing on this machine; the message says why."""


@dataclass(frozen=True)
class Line:
    """The outcome of one check.

    Attributes:
        name: What is checked.
        passed: Whether it holds; None where it was left out.
        says: The figure that was found, or what is wrong, or why it was left out.
        seconds: Time that it took.
    """

    name: str
    passed: bool | None
    says: str
    seconds: float

    @property
    def result(self) -> str:
        """The outcome, "ok", "FAILED" or "left out"."""
        return {True: "ok", False: "FAILED", None: "left out"}[self.passed]


def line_of(name: str, check: Callable[[str], str], device: str) -> Line:
    """Make a check on a device. Whatever it raises is its outcome, so that one broken part does not hide the others.

    Args:
        name: Name of the line.
        check: Device -> the figure that was found; raises `CheckError` or `NotApplicable`.
        device: Name of the device.
    """
    began = time.perf_counter()
    passed: bool | None = True
    try:
        says = check(device)
    except NotApplicable as reason:
        passed, says = None, str(reason)
    except CheckError as error:
        passed, says = False, str(error)
    except Exception as error:  # the unexpected is an outcome as well
        passed, says = False, f"{type(error).__name__}: {error}"
    return Line(name, passed, " ".join(says.split()), time.perf_counter() - began)

"""The self-test: a known answer for each part that a certificate rests on, on this machine."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from hf_smoothing import __version__
from hf_smoothing.certification.settings import versions_of
from hf_smoothing.selftest import bounds, certificates, draws, folders
from hf_smoothing.selftest.lines import Line, line_of
from hf_smoothing.spelling import nearest


CHECKS: dict[str, Callable[[str], str]] = {
    "golden grid draws": draws.golden_grid,
    "golden float32 draws": draws.golden_gaussian,
    "law of grid noise": draws.law_of_grid,
    "law of float32 noise": draws.law_of_gaussian,
    "binomial bounds": bounds.clopper_pearson,
    "stopping rules": bounds.stopping_rules,
    "votes of a known classifier": certificates.votes,
    "linear classifier": certificates.linear_classifier,
    "records": folders.records,
    "kill and resume": folders.killed,
    "two ranks": folders.two_ranks,
}
"""Name of each line -> its check."""


LAUNCHED = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?RANK|(LOCAL_|GROUP_|ROLE_)?WORLD_SIZE|MASTER_(ADDR|PORT)|(TORCHELASTIC|PMI|OMPI|MV2)_.*"
)
"""Environment variables by which a launcher tells a process which one of how many it is."""


@dataclass(frozen=True)
class SelfTest:
    """What the self-test found.

    Attributes:
        device: Name of the device.
        lines: One per check.
        seconds: Time that it took.
    """

    device: str
    lines: tuple[Line, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(line.passed is not False for line in self.lines)

    @property
    def bug_report(self) -> str:
        """One line that says what was found, where, and with which versions."""
        failed = ", ".join(line.name for line in self.lines if line.passed is False)
        left_out = ", ".join(line.name for line in self.lines if line.passed is None)
        held = sum(line.passed is True for line in self.lines)
        parts = [
            f"self-test: {held} of {len(self.lines)} ok in {self.seconds:.1f} s on {self.device}",
            *([f"FAILED: {failed}"] if failed else []),
            *([f"left out: {left_out}"] if left_out else []),
            f"hf_smoothing {__version__}",
            *(f"{name} {there}" for name, there in versions_of("torch", "numpy", "scipy", "accelerate").items()),
            f"Python {platform.python_version()}",
            platform.platform(),
        ]
        return "; ".join(parts)


def run_selftest(
    device: str | None = None, *, checks: Sequence[str] | None = None, progress: Callable[[Line], None] | None = None
) -> SelfTest:
    """Put draws, votes, bounds, certificates and records of this machine to known answers; a check that fails is a line, not an error.

    Args:
        device: Where noise is drawn and classifiers run, such as "cpu" or "cuda"; by default a GPU if there is one.
        checks: Names of the checks to make, see `CHECKS`; all by default.
        progress: Called with each line as it is known.

    Raises:
        ValueError: On a device that this machine has not, or an unknown check; as one of several ranks.

    >>> run_selftest(checks=["binomial bounds"]).passed
    True
    """
    if isinstance(checks, str) or (checks is not None and not checks):
        raise ValueError(
            f"`checks` must be a list of names of checks, got {checks!r}. Pass for example ['binomial bounds']."
        )
    chosen = list(CHECKS) if checks is None else list(checks)
    if unknown := [name for name in chosen if name not in CHECKS]:
        near = nearest(unknown[0], list(CHECKS))
        meant = f"Did you mean {near!r}?" if near else f"There are {', '.join(CHECKS)}."
        raise ValueError(f"`checks` must be names of checks, got {unknown[0]!r}. {meant}")
    name = check_device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    count = os.environ.get("WORLD_SIZE", "")
    if count.isdecimal() and int(count) > 1:
        raise ValueError(
            "The self-test starts its ranks itself, got a process that is one of several. Start it without a launcher."
        )
    began, lines = time.perf_counter(), []
    for check in chosen:
        with _as_in_a_fresh_process():
            lines.append(line_of(check, CHECKS[check], name))
        if progress is not None:
            progress(lines[-1])
    return SelfTest(name, tuple(lines), time.perf_counter() - began)


@contextmanager
def _as_in_a_fresh_process() -> Iterator[None]:
    """Known answers are those of tensors as torch makes them by default, and of runs that no launcher has a say in."""
    dtype, environment = torch.get_default_dtype(), dict(os.environ)
    torch.set_default_dtype(torch.float32)
    for name in filter(LAUNCHED.fullmatch, environment):
        del os.environ[name]
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)
        os.environ.update(environment)


def check_device(device: str) -> str:
    """The name of a device on which a tensor can be made.

    Raises:
        ValueError: The message names those of this machine.
    """
    try:
        float(torch.zeros(1, device=device))  # "meta" makes tensors without numbers
    except (RuntimeError, AssertionError, TypeError) as error:
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"`device` must be a device of this machine ({', '.join(there)}), got {device!r}: {reason}."
        ) from error
    return str(torch.device(device))

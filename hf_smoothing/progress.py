"""How far a long task is: a bar in a terminal or notebook, and in a log file a plain line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from tqdm.auto import tqdm


LOG_SECONDS = 30.0
"""Least time between two lines in a log file; the last line always comes."""


class Progress:
    """What is done of a task, said where standard error goes.

    Args:
        title: What is being done.
        total: Number of units in all, where that is known.
        unit: What is counted, in the singular.
        initial: Number that was done before.
        shown: False to stay silent.
    """

    def __init__(
        self, title: str, total: int | None = None, unit: str = "image", *, initial: int = 0, shown: bool = True
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self._initial = initial
        self.facts: dict[str, Any] = {}
        self._shown = shown and sys.stderr is not None
        self._began = self._said = time.monotonic()
        self._bar: tqdm[Any] | None = None
        if self._shown and bars_are_seen():
            self._bar = tqdm(total=total, desc=title, unit=unit, unit_scale=unit == "draw", initial=initial)

    def update(self, count: int = 1, *, total: int | None = None, **facts: Any) -> None:
        """Note that more is done.

        Args:
            count: Number of further units.
            total: A better estimate of the number in all.
            facts: Figures to show beside.
        """
        self.done += count
        self.total = self.total if total is None else total
        self.facts |= facts
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.set_postfix(self.facts, refresh=False)
            self._bar.update(count)
        elif self._shown and time.monotonic() - self._said >= LOG_SECONDS:
            self._say(f"{self._share()}, {duration(time.monotonic() - self._began)} so far{self._left()}")

    def close(self) -> None:
        """Say the last of it."""
        if self._bar is not None:
            self._bar.close()
        elif self._shown:
            self._say(f"{self._share()} in {duration(time.monotonic() - self._began)}")

    def _share(self) -> str:
        of = "" if self.total is None else f" of {self.total:,}"
        percent = f"{100 * self.done / self.total:.0f}%, " if self.total and self.done < self.total else ""
        return f"{percent}{self.done:,}{of} {self.unit}s"

    def _left(self) -> str:
        new = self.done - self._initial
        if self.total is None or new <= 0:
            return ""
        left = max(self.total - self.done, 0) * (time.monotonic() - self._began) / new
        return f", about {duration(left)} left"

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        facts = "".join(f", {name} {value}" for name, value in self.facts.items())
        print(f"{self.title}: {text}{facts}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_of(
    title: str, total: int | None = None, unit: str = "image", *, initial: int = 0, shown: bool = True
) -> Iterator[Progress]:
    """A `Progress` that is closed at the end; arguments as there."""
    progress = Progress(title, total, unit, initial=initial, shown=shown)
    try:
        yield progress
    finally:
        progress.close()


def bars_are_seen() -> bool:
    """Whether a bar that redraws itself is seen as one: in terminals and notebooks, not in log files."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


def duration(seconds: float) -> str:
    """A time to read.

    >>> duration(0.3), duration(75), duration(7500)
    ('0 s', '1 min 15 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

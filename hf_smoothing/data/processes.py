"""Images read by several processes, in order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def in_processes(read: Callable[[int], Any], chosen: Sequence[int], processes: int) -> Iterator[Iterator[Any]]:
    """What `read` gives for each index, in order."""
    if processes < 1:
        raise ValueError(f"`processes` must be a positive number, got {processes}.")
    if processes == 1 or "fork" not in multiprocessing.get_all_start_methods():
        yield map(read, chosen)
        return
    # What reads goes over by forking, once: as an argument of each call it would be pickled each time.
    with multiprocessing.get_context("fork").Pool(processes, _remember, (read,)) as pool:
        yield pool.imap(_read_one, chosen, 64)


_read_one_by: Callable[[int], Any]
"""In a process that decodes: what reads an image."""


def _remember(read: Callable[[int], Any]) -> None:
    global _read_one_by
    _read_one_by = read


def _read_one(index: int) -> Any:
    return _read_one_by(index)

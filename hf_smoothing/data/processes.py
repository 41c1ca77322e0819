"""Images read by several processes, in order."""

from __future__ import annotations

import multiprocessing
import warnings
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
    # What reads goes over by forking, once: as an argument of each call it would be pickled each time. From Python 3.12 on, that is warned of
    # where the process has threads, as torch and arrow start them; what is forked decodes images, and waits for none of them.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*multi-threaded, use of fork\(\)", DeprecationWarning)
        pool = multiprocessing.get_context("fork").Pool(processes, _remember, (read,))
    with pool:
        yield pool.imap(_read_one, chosen, 64)


_read_one_by: Callable[[int], Any]
"""In a process that decodes: what reads an image."""


def _remember(read: Callable[[int], Any]) -> None:
    global _read_one_by
    _read_one_by = read


def _read_one(index: int) -> Any:
    return _read_one_by(index)

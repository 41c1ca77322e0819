"""Memory that a process keeps between batches on a CPU, instead of giving it back to the system and taking it anew.

The C library of Linux gives a large block back as soon as it is freed. A network frees and takes its intermediate results in every batch, so
each batch pays for its pages again, which costs small convolutional networks much of their time, on virtual machines above all.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


# malloc.h of glibc
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4

KEEPING = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
"""No block has pages of its own, and no end of the heap is given back."""

USUAL = {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 64 << 20}
"""What glibc comes to by itself once a block of 32 MiB has been freed: mallopt tells no earlier value, and switches its rule off."""

LONG = 1.0
"""Seconds after which what a run has kept is given back at its end: to look for it takes a while, which short runs in a row would pay each time."""

_lock = threading.Lock()
_depth, _began = 0, 0.0


def _forked() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it when the process was copied


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


@contextmanager
def memory_kept() -> Iterator[None]:
    """Within it, freed memory of this process stays with it: up to the most that it needs at once, and somewhat more for gaps.

    Afterwards the C library goes by its usual thresholds again, and what a long run has kept is given back. It changes no result. Memory of a GPU is no business of the C library.
    """
    global _depth, _began
    with _lock:
        _depth += 1
        if _depth == 1:
            _began = time.monotonic()
            tell(KEEPING)
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                tell(USUAL)
                if time.monotonic() - _began > LONG:
                    give_back()


def tell(thresholds: Mapping[int, int]) -> None:
    """Give the C library these thresholds.

    Nothing happens where it is not glibc, and where the environment has settings for it (`MALLOC_...`, `GLIBC_TUNABLES`), which then hold.
    """
    if library := _glibc():
        for name, value in thresholds.items():
            library.mallopt(name, value)


def give_back() -> None:
    """Give the system what is free, also between blocks in use."""
    if library := _glibc():
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return None
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):  # on Windows, on macOS, with another C library
        return None
    return ctypes.CDLL(None) if name else None

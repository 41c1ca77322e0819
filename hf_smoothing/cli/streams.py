"""What a command prints reaches any terminal and file, whatever its encoding; a reader that leaves is no error."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import IO, Any


READER_GONE = 141
"""Exit status where the reader of a pipe has left, as that of a program ended by SIGPIPE."""


class ReaderGoneError(BrokenPipeError):
    """Nobody reads what is printed any more; other broken pipes are errors."""


def _streams() -> list[IO[Any]]:
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None and not stream.closed]


def print_anything() -> None:
    """Print "?" for what the encoding of a terminal or redirection lacks: a table must not be lost to its daggers after hours of work."""
    for stream in _streams():
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    """Write out what was printed while it can still be said that this failed; what cannot be written is thrown away, or Python would try again.

    Raises:
        ReaderGoneError: Where nobody reads what is printed any more.
        OSError: Where it cannot be written, as on a full disk.
    """
    try:
        yield
    except BrokenPipeError as error:
        if any(map(_reader_gone, _streams())):
            raise ReaderGoneError(*error.args) from error
        raise
    finally:
        for stream in _streams():
            _flush(stream)


def _reader_gone(stream: IO[Any]) -> bool:
    """Whether a stream is a pipe that nobody reads; False where the system cannot tell."""
    if not hasattr(select, "poll"):
        return False
    asked = select.poll()
    try:
        asked.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # no file of the system, as in tests
        return False
    return any(events & select.POLLERR for _, events in asked.poll(0))


def _flush(stream: IO[Any]) -> None:
    try:
        stream.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if isinstance(error, BrokenPipeError):
            raise ReaderGoneError(*error.args) from error
        raise

"""Commands that end with the kit: each runs in a group of processes of its own, which is stopped as a whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from examples.gpu.plan import ROOT


class CutOffError(Exception):
    """A command was stopped; the message says by what."""


class BusyError(Exception):
    """Another process writes to the log: the command of a kit that was killed, which still runs."""


class Commands:
    """Runs commands, several at a time from several threads, until it is closed."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = threading.Event()
        self._lock = threading.Lock()

    def run(self, command: Sequence[str], log: Path, seconds: float) -> int:
        """Run a command in the repository, its output at the end of a log, and give its status.

        Args:
            command: Its words.
            log: File that it holds as long as it, or a process that it started, runs.
            seconds: Time after which it is stopped.

        Raises:
            CutOffError: If it was stopped, because the time was over or the commands were closed.
            BusyError: If such a command still runs.
        """
        with log.open("a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the command inherits it with the file
            except BlockingIOError as error:
                raise BusyError(f"Another process writes to {log}.") from error
            file.write(f"$ {' '.join(command)}\n")
            file.flush()
            with self._lock:
                if self._closed.is_set():
                    raise CutOffError("with the kit")
                process = subprocess.Popen(
                    command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
                )
                self._running.add(process)
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired as error:
                raise CutOffError("by the budget") from error
            finally:
                with self._lock:
                    self._running.discard(process)
                    _stop(process)  # also what it left running
                process.wait()
            if self._closed.is_set() and status < 0:
                raise CutOffError("with the kit")
            return status

    def close(self) -> None:
        """Stop what runs, and start nothing more."""
        with self._lock:
            self._closed.set()
            for process in self._running:
                _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing of the group is left
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within, Ctrl-C, SIGTERM and SIGHUP raise SystemExit, so that the program can stop its commands first."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Writing a run folder: lines are appended and flushed one by one, so that a kill loses nothing but a torn last line."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from hf_smoothing.json_text import parse_json
from hf_smoothing.records.causes import causes
from hf_smoothing.records.json_files import cure_of, replace_file
from hf_smoothing.records.names import deciding
from hf_smoothing.records.reading import FORMAT, ROW_PATTERN, RUN_FILE, RunError, read_run, read_settings
from hf_smoothing.records.shape import settings_fault


class RunWriter:
    """Appends rows to a run folder, which it creates or resumes.

    One writer a rank, each with a lock. Rank 0 creates the folder; the others may open it once it stands.

    Args:
        path: The folder.
        settings: Everything that decides the result. They must equal those of an existing run, except the keys
            in `INFORMATIVE` and names of what is known by its content (see `deciding`).
        rank: Rank of this process.

    Raises:
        RunError: If the folder belongs to a run with other settings (the message names the differences), is in use by
            another process, or holds rows but no run.json.
        ValueError: If the settings could not be read again (see `shape`).
        OSError: If the folder cannot be written.

    A full disk loses nothing: `append` says so, what it had written stays valid, and the run can be resumed.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any], rank: int = 0) -> None:
        self.path = Path(path)
        self.rank = rank
        self._lock: FileLock | None = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _take_lock(self.path, rank)
            text = json.dumps(dict(settings) | {"format": FORMAT}, allow_nan=False, ensure_ascii=False)
            self._settle(parse_json(text.encode("utf-8", "replace")))  # paths may hold bytes that are no characters
            self.file = self.path / ROW_PATTERN.replace("*", str(rank))
            _drop_torn_line(self.file)
            # Unbuffered, so that a row which did not fit is not kept in memory and tried again by close().
            self._stream = open(self.file, "ab", buffering=0)  # noqa: SIM115 - closed by close()
            self._end = self._stream.seek(0, os.SEEK_END)
        except OSError as error:
            self.close()
            raise _unwritable(self.path, error) from error
        except BaseException:
            self.close()
            raise

    def _settle(self, settings: dict[str, Any]) -> None:
        file = self.path / RUN_FILE
        if file.exists():
            before = read_settings(self.path)
            if differing := causes(*deciding(before, settings, read_run(self.path).hashed_rows)):
                raise RunError(
                    f"{self.path} holds a run with other settings, so it cannot be resumed with these: "
                    f"{'; '.join(differing)}. Use the same settings, or another output folder."
                )
        elif self.rank == 0:
            if any(self.path.glob(ROW_PATTERN)):
                raise RunError(f"{self.path} holds rows but no {RUN_FILE}: it is not a run folder. Use another one.")
            if (fault := settings_fault(settings)) is not None:  # reading would refuse them, after all the draws
                raise ValueError(f"The settings of a run must be such as can be read again, but {fault}.")
            write_settings(self.path, settings)
        else:
            raise RunError(f"{self.path} has no {RUN_FILE} yet: rank 0 must open the run first.")

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row and hand it to the operating system, so that it survives a kill of this process.

        Args:
            row: A JSON object with an integer "index".

        Raises:
            OSError: If the row does not fit on the disk or cannot be written. None of it is kept, and all rows before it
                are.
            ValueError: If the row holds nan or an infinity.
        """
        line = (json.dumps(dict(row), allow_nan=False) + "\n").encode()
        try:
            self._cut()
            written = 0
            while written < len(line):  # a disk that fills up takes a part first, and refuses only the rest
                written += self._stream.write(line[written:])
            self._end += len(line)
        except BaseException as error:
            # Where even this fails, a torn last line stays: reading drops it, the next append or resumption cuts it.
            with contextlib.suppress(OSError):
                self._cut()
            if isinstance(error, OSError):
                raise self._explain(error) from error
            raise

    def _cut(self) -> None:
        """Remove what a failed append left after the last whole row."""
        if self._stream.seek(0, os.SEEK_END) > self._end:
            self._stream.truncate(self._end)

    def _explain(self, error: OSError) -> OSError:
        return OSError(
            error.errno,
            f"A row cannot be written to {self.path} ({error.strerror}). The rows so far are kept and valid: "
            f"{cure_of(error)}, and run the same command again to resume.",
        )

    def close(self) -> None:
        """Close the file and give the lock back."""
        try:
            if hasattr(self, "_stream"):
                self._stream.close()
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a run, whole or not at all; errors as `replace_file`."""
    replace_file(folder / RUN_FILE, json.dumps(settings, indent=2) + "\n")


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to a run folder.

    Raises:
        RunError: If one is doing so.
        OSError: If the folder cannot be written.
    """
    lock = _take_lock(folder, 0)
    try:
        yield
    finally:
        lock.release()


def check_writable(path: str | os.PathLike[str]) -> None:
    """Find out, without making the folder, whether a run could be written to it.

    Raises:
        OSError: If it could not, with the cure.
    """
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    trouble = errno.ENOTDIR if not place.is_dir() else None if os.access(place, os.W_OK | os.X_OK) else errno.EACCES
    if trouble is not None:
        raise OSError(
            trouble,
            f"The output folder {path} cannot be written ({os.strerror(trouble)}: {place}). Choose another one.",
        )


def _unwritable(folder: Path, error: OSError) -> OSError:
    reason = os.strerror(error.errno) if error.errno else error.strerror
    return type(error)(error.errno, f"The output folder {folder} cannot be written ({reason}). Choose another one.")


def _take_lock(folder: Path, rank: int) -> FileLock:
    # One a rank: that of rank 0 guards the folder, the others their own file against a process left over from before.
    lock = FileLock(folder / f".lock-{rank}")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(
            f"Another process is writing to {folder}. Wait for it or stop it, or use another output folder."
        ) from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    return lock


def _drop_torn_line(file: Path) -> None:
    """Cut what a kill left after the last newline, so that the next row starts on a line of its own."""
    if file.exists():
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with open(file, "r+b") as stream:
                stream.truncate(whole)

"""A folder whose disk is full after some bytes, or that cannot be written at all, however it is written to from Python."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


_open, _low_open, _mkdir = io.open, os.open, os.mkdir


class Disk:
    """Counts the bytes that are written below a folder, and is full when they are used up.

    Args:
        folder: The folder.
        room: Bytes that fit.
    """

    def __init__(self, folder: Path, room: int) -> None:
        self.folder, self.left, self.written = str(folder), room, 0

    def open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        stream = _open(file, mode, *args, **kwargs)
        here = not isinstance(file, int) and os.fspath(file).startswith(self.folder)
        return Filling(stream, self) if here and set(mode) & set("wax+") else stream


class Filling:
    """A file on such a disk: a write that does not fit writes what does, as an operating system may."""

    def __init__(self, stream: Any, disk: Disk) -> None:
        self.stream, self.disk = stream, disk

    def write(self, data: Any) -> int:
        raw = data.encode() if isinstance(data, str) else bytes(data)
        fits = min(len(raw), self.disk.left)
        self.disk.left -= fits
        self.disk.written += fits
        if fits == len(raw):
            return int(self.stream.write(data))
        self.stream.write(raw[:fits].decode(errors="ignore") if isinstance(data, str) else raw[:fits])
        self.stream.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __enter__(self) -> Filling:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def disk_of(folder: Path, room: int) -> Iterator[Disk]:
    """The folder lies on a disk with so much room."""
    disk = Disk(folder, room)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", disk.open)
        patch.setattr(io, "open", disk.open)
        yield disk


@contextmanager
def read_only(folder: Path, number: int) -> Iterator[None]:
    """Whatever would write below the folder fails with this error."""

    def refuse(file: Any) -> None:
        if not isinstance(file, int) and os.fspath(file).startswith(str(folder)):
            raise OSError(number, os.strerror(number), os.fspath(file))

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if set(mode) & set("wax+"):
            refuse(file)
        return _open(file, mode, *args, **kwargs)

    def low_opened(file: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            refuse(file)
        return _low_open(file, flags, *args, **kwargs)

    def made(file: Any, *args: Any, **kwargs: Any) -> None:
        if not os.path.isdir(file):
            refuse(file)
        _mkdir(file, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", opened)
        patch.setattr(io, "open", opened)
        patch.setattr(os, "open", low_opened)
        patch.setattr(os, "mkdir", made)
        yield

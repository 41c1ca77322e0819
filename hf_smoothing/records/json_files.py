"""JSON files, and what two of them disagree about."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def differences(before: Mapping[str, Any], now: Mapping[str, Any], said: str = "{} was {!r}, is {!r}") -> list[str]:
    """What two settings disagree about, in words.

    Args:
        before, now: The settings.
        said: What is said of a name and its two values.

    >>> differences({"epochs": 1, "noise": {"sigma": 0.5}}, {"epochs": 2, "noise": {"sigma": 0.5}})
    ['epochs was 1, is 2']
    """
    was, is_ = dict(_flat(before)), dict(_flat(now))
    keys = sorted(key for key in was | is_ if was.get(key) != is_.get(key))
    return [said.format(key, was.get(key), is_.get(key)) for key in keys]


def _flat(settings: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(settings, Mapping) and settings:
        for key, value in settings.items():
            yield from _flat(value, f"{above}.{key}".lstrip("."))
    else:
        yield above, settings


def read_json(path: Path) -> Any:
    """A JSON file, or None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_json(path: Path, value: Any) -> None:
    """A whole file or none; errors as `replace_file`."""
    replace_file(path, json.dumps(value, indent=1) + "\n")


def replace_file(file: Path, text: str) -> None:
    """Write a text in place of a file: a kill or a full disk leaves the old one or the new one.

    Raises:
        OSError: If it cannot be written, with the cure. What was written of it is removed.
    """
    draft = file.with_suffix(".tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise OSError(
            error.errno,
            f"{file} cannot be written ({error.strerror}). What stood there is kept: {cure_of(error)}, and run the same command again.",
        ) from error


def cure_of(error: OSError) -> str:
    """What to do about a file that cannot be written."""
    full = error.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
    )  # the disk, the quota of the user, or the largest file that is allowed
    return "free space there, or raise the quota or file size limit" if full else "repair that"

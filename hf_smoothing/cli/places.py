"""Where a command writes: found out before anything is loaded or drawn."""

from __future__ import annotations

import errno
import os

from hf_smoothing.data.opening import check_apart
from hf_smoothing.records import check_writable


def check_places(output_dir: str | os.PathLike[str], dataset: str | None = None) -> None:
    """Refuse an output folder that cannot be written, or that lies in the folder of the data set.

    Args:
        output_dir: The output folder, which need not exist.
        dataset: Hub id or folder of the data set.

    Raises:
        OSError: If it cannot be written.
        ValueError: If it lies in the data set. Either message has the cure.
    """
    check_writable(output_dir)
    if dataset is not None:
        check_apart(dataset, output_dir)


def trouble_of(error: BaseException) -> str:
    """What an error says, without the number that the system gives to it."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    if error.errno == errno.ENOSPC:
        where = f" for {error.filename}" if error.filename else ""
        return f"No space is left on the disk{where}. Free some, then give the same command again."
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror

"""Where a command writes: found out before anything is loaded or drawn."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from hf_smoothing.records import check_writable


def check_places(
    output_dir: str | os.PathLike[str],
    dataset: str | None = None,
    *models: str | None,
    written: Iterable[str | os.PathLike[str]] = (),
) -> None:
    """Refuse an output folder that cannot be written, lies in the folder of the data set, or would take the place of what is read.

    Args:
        output_dir: The output folder, which need not exist.
        dataset: Hub id or folder of the data set.
        models: Hub ids or folders of models that are read.
        written: Folders in it that are written or removed as a whole; none where no model is written.

    Raises:
        OSError: If it cannot be written.
        ValueError: If it lies in the data set, is a model's that is read or, where no model is written, any model's, or holds one of them where it will
            write. Each message has the cure.
    """
    from hf_smoothing.data.not_found import other_kind

    check_writable(output_dir)
    inputs = [Path(name) for name in (dataset, *models) if name is not None and Path(name).is_dir()]
    places = [Path(place) for place in (output_dir, *written)]
    if dataset is not None:
        for place in places:
            _check_apart(Path(dataset), place)
    if len(places) == 1 and other_kind(str(output_dir)) == "model":
        inputs.append(places[0])
    for one in inputs:
        if one.resolve() == Path(output_dir).resolve():
            raise ValueError(
                f"The output folder {output_dir} is that of the model {one}: files would lie among its weights, or replace them. Choose another one."
            )
        if taken := next((place for place in places[1:] if one.resolve().is_relative_to(place.resolve())), None):
            raise ValueError(
                f"The output folder {output_dir} holds {one}, which is read, where {taken} will be written: it would be replaced. Choose another one."
            )


def _check_apart(dataset: Path, output_dir: Path) -> None:
    """Refuse an output folder inside the folder of the data set, whose files would be read as data next time."""
    if dataset.is_dir() and output_dir.resolve().is_relative_to(dataset.resolve()):
        raise ValueError(
            f"The output folder {output_dir} lies in the folder of the data set, {dataset}: its files would be taken for data. Choose another one."
        )


def trouble_of(error: BaseException) -> str:
    """What an error says, without the number that the system gives to it."""
    if isinstance(error, UnicodeEncodeError):  # of a library that takes paths of characters alone
        return f"Names of files and folders must be UTF-8, got {error.object[:80]!a}. Rename what has this name."
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    if error.errno == errno.ENOSPC:
        where = f" for {error.filename}" if error.filename else ""
        return f"No space is left on the disk{where}. Free some, then give the same command again."
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror

"""What is done of a run: facts that are added to `run.json` once all images are, and taken back before more are; what is kept if it ends before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_smoothing.certification.ranks import RankError
from hf_smoothing.pixels import UnreadableImageError
from hf_smoothing.records import read_run, write_settings
from hf_smoothing.records.finished import hash_of_images
from hf_smoothing.records.reading import read_settings


READING = ("unreadable", "enlarged")
"""Facts about reading the images, which another reading replaces."""


def state_images(output_dir: str | os.PathLike[str], **facts: Any) -> None:
    """State the hash of all images of a run, and what reading them has shown.

    Args:
        output_dir: The run folder, all images of which have a row.
        facts: Facts that do not decide the rows.
    """
    run = read_run(output_dir)
    kept = {key: value for key, value in run.settings.get("informative", {}).items() if key not in READING}
    settings = {
        **run.settings,
        "dataset": {**run.settings["dataset"], "sha256": hash_of_images(run.rows)},
        "informative": {**kept, **facts},
    }
    if settings != run.settings:
        write_settings(run.path, settings)


def take_back_statement(output_dir: str | os.PathLike[str]) -> None:
    """Take back what `state_images` has stated, before a row is written that it does not count.

    A stream may have grown, and images that could not be read may be repaired. Until all is stated again the run counts as unfinished, so that a kill
    leaves no more rows than it states.

    Args:
        output_dir: The run folder.
    """
    settings = read_settings(Path(output_dir))
    if "sha256" not in settings["dataset"]:  # stated last of all
        return
    kept = {
        key: value for key, value in settings.get("informative", {}).items() if key not in ("num_images", "unreadable")
    }
    dataset = {key: value for key, value in settings["dataset"].items() if key != "sha256"}
    write_settings(Path(output_dir), {**settings, "dataset": dataset, "informative": kept})


@contextlib.contextmanager
def telling_what_is_kept(output_dir: str | os.PathLike[str], total: int | None) -> Iterator[None]:
    """Say in an interruption, at an image that cannot be read, and where another rank has failed, what is done and how to go on.

    Args:
        output_dir: The run folder.
        total: Number of images, None for all of a stream.
    """
    try:
        yield
    except KeyboardInterrupt:
        # Said by the exception itself, so that it is seen wherever it ends: a log may go nowhere.
        raise KeyboardInterrupt(f"Interrupted: {_kept(output_dir, total)}") from None
    except UnreadableImageError as error:
        raise UnreadableImageError(error.index, error.file, f"{error} {_kept(output_dir, total)}") from error
    except RankError as error:
        raise RankError(f"{error} {_kept(output_dir, total)}") from error


def _kept(output_dir: str | os.PathLike[str], total: int | None) -> str:
    of = "all" if total is None else total
    return (
        f"{len(read_run(output_dir).rows)} of {of} images are done and kept in {output_dir}. The same command resumes."
    )

"""Facts about the images that are added to `run.json` once all are done, and taken back before more are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

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

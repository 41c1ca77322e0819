"""Facts about the images that are added to `run.json` once they are read."""

from __future__ import annotations

import os
from typing import Any

from hf_smoothing.records import read_run, write_settings
from hf_smoothing.records.finished import hash_of_images


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

"""Facts about the images that are added to `run.json` once they are read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hf_smoothing.certification.images import Fingerprint
from hf_smoothing.certification.settings import selection_of
from hf_smoothing.certification.survey import BEGINNING
from hf_smoothing.records import RUN_FILE, write_settings


def state_images(output_dir: str | os.PathLike[str], read: Fingerprint, **facts: Any) -> None:
    """State the hash of all images of a run in place of that of the first, and which could be read.

    Args:
        output_dir: The run folder, all images of which have a row.
        read: What has seen all of them in the order of the run.
        facts: Further facts that do not decide the rows.
    """
    settings = _settings(output_dir)
    known = {key: value for key, value in settings["dataset"].items() if key not in BEGINNING}
    settings["dataset"] = {**known, "sha256": read.hexdigest()}
    settings["num_images"] = len(read.indices)
    _write(output_dir, settings, indices=selection_of(list(read.indices)), **facts)


def amend_informative(output_dir: str | os.PathLike[str], **facts: Any) -> None:
    """Add facts that do not decide the rows to `run.json`."""
    _write(output_dir, _settings(output_dir), **facts)


def _settings(output_dir: str | os.PathLike[str]) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((Path(output_dir) / RUN_FILE).read_text(encoding="utf-8"))
    return settings


def _write(output_dir: str | os.PathLike[str], settings: dict[str, Any], **facts: Any) -> None:
    settings["informative"] = {**settings.get("informative", {}), **facts}
    write_settings(Path(output_dir), settings)

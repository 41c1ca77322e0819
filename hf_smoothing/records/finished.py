"""Whether a run is finished: how many images it was asked for, where that is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def images_asked(settings: Mapping[str, Any], done: int) -> int | None:
    """Number of images that a run is to certify; None where it is not known, as that of a whole stream before its end was reached.

    Args:
        settings: Content of `run.json`.
        done: Number of finished rows.
    """
    informative = settings.get("informative", {})
    asked: int | None = settings.get("num_images")
    if asked is None:  # what a stream held is counted without the images that were left out
        counted: int | None = informative.get("num_images")
        return counted
    # Before all images are read a run does not know which cannot be.
    unread = not {"stream_sha256", "selection_sha256"}.isdisjoint(settings.get("dataset", {}))
    return asked - len(informative.get("unreadable", ())) if unread and asked > done else asked

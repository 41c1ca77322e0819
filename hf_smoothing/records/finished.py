"""Whether a run is finished: how many images it was asked for, where that is known; and which they are, once all are there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any


def images_asked(settings: Mapping[str, Any], rows: Mapping[int, Any]) -> int | None:
    """Number of images that a run is to certify; None where it is not known, as that of a whole stream before its end was reached.

    Args:
        settings: Content of `run.json`.
        rows: Finished rows by index.
    """
    informative = settings.get("informative", {})
    asked: int | None = settings.get("num_images")
    if asked is None:  # what a stream held is counted without the images that were left out
        counted: int | None = informative.get("num_images")
        return counted
    return asked - sum(index not in rows for index in informative.get("unreadable", ()))


def hash_of_images(rows: Mapping[int, Mapping[str, Any]]) -> str:
    """SHA-256 of the indices of rows and the hashes of their images."""
    images = "\n".join(f"{index} {rows[index]['image_sha256']}" for index in sorted(rows))
    return hashlib.sha256(images.encode()).hexdigest()

"""What is known of the images of a run before its first draw, and the hash of all of them once the last is read.

Of many images only the first are read before the first draw. Their hash and that of the selection stand in `run.json` until the hash of
all takes their place; a resumption compares each recorded image with its row before it draws.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from hf_smoothing.certification.behaviour import Answer
from hf_smoothing.certification.classes import check_class, known_labels
from hf_smoothing.certification.images import Fingerprint, check_unchanged, checked_items, image_hash, is_stream
from hf_smoothing.certification.noise_kinds import off_grid
from hf_smoothing.certification.rows import other_image
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.records import RUN_FILE, Run, RunError, read_settings
from hf_smoothing.types import Images, Item


AHEAD = 64
"""Number of images that are read before the first draw: as many as the first round has in work in any case."""

_SAME_DATASET = "Resume with the same data set and labels, or use another output folder."

BEGINNING = ("selection_sha256", "beginning_sha256")
"""What `run.json` says of a data set until all images are read."""


@dataclass(frozen=True)
class Survey:
    """What is known of the images before the first draw.

    Attributes:
        resolution: Resolution (channels, height, width).
        off_grid: What to say of the first image that is not 8-bit (see `off_grid`), None where all are that were read.
        labelled: Whether all that were read have a label.
        selection_sha256: SHA-256 of the indices that were chosen.
        read_sha256: SHA-256 of indices, pixels and labels of all that were read.
        pixels_sha256: As `read_sha256`, without labels.
        indices: Indices of the images that could be read; None where not all were tried.
        streamed: Whether it is a stream, of which the first image is read.
        facts: What the data set says of its labels, for the record.
        answer: What the classifier answered to the probe; None where it was not asked.
        hashes: `image_hash` of each image that was read: what is certified must be the same.
    """

    resolution: tuple[int, ...]
    off_grid: str | None
    labelled: bool
    selection_sha256: str
    read_sha256: str
    pixels_sha256: str
    indices: list[int] | None
    streamed: bool
    facts: Mapping[str, Any] = field(default_factory=dict)
    answer: Answer | None = None
    hashes: Mapping[int, str] = field(default_factory=dict)

    @property
    def classes(self) -> int | None:
        """Number of classes of the classifier, None where that is not known."""
        return None if self.answer is None else self.answer.classes

    def probe_facts(self) -> dict[str, Any]:
        """What a record says of the classifier's answer to the probe."""
        return {} if self.answer is None else self.answer.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """What a record says of the data set."""
        if self.streamed:
            return {**self.facts, "stream_sha256": self.selection_sha256}
        if self.indices is not None:
            return {**self.facts, "sha256": self.read_sha256}
        return {**self.facts, **dict(zip(BEGINNING, (self.selection_sha256, self.read_sha256), strict=True))}


def survey(
    dataset: Images,
    chosen: Sequence[int] | None,
    ahead: int | None = None,
    answer_of: Callable[[tuple[int, ...]], Answer] | None = None,
) -> Survey:
    """Read the images of a data set, or the first of a stream.

    Args:
        dataset, chosen: The images of the run.
        ahead: How many uint8 images to read at most; None for all. Float images are all read, since whether they are 8-bit decides the noise.
        answer_of: Shape of an image to what the classifier answers to the probe. Labels are compared with its classes: those of the images that are read, and of all chosen ones where
            that needs no image.

    Raises:
        ValueError, TypeError: As `checked_items` and `check_class`: a folder must not be left by a call that cannot succeed.
    """
    streamed, answer, classes = is_stream(dataset), None, None
    resolution, odd, labelled, whole = None, None, True, not streamed
    found, alone = Fingerprint(), Fingerprint()
    hashes: dict[int, str] = {}
    for index, item in checked_items(dataset, chosen):
        pixels, hashes[index] = item["pixel_values"], image_hash(index, item)
        if len(found.indices) == ahead and pixels.dtype == torch.uint8:
            whole = False
            break
        if resolution is None and answer_of is not None:
            answer = answer_of(tuple(pixels.shape))
            classes = answer.classes
        resolution = tuple(pixels.shape)
        check_class(item.get("labels"), index, classes)
        odd, labelled = odd or _off_grid(index, item), labelled and item.get("labels") is not None
        found.add(index, item)
        alone.add(index, item, labelled=False)
        if streamed:
            break
    if resolution is None:
        raise ValueError(f"There is no image to certify: none of those chosen can be read. {_first_reason(dataset)}")
    for index, label in known_labels(dataset, [] if streamed else chosen or []):
        check_class(label, index, classes)
    facts = dataset.facts() if hasattr(dataset, "facts") else {}
    selection = "all" if chosen is None else ",".join(map(str, chosen))
    return Survey(
        resolution, odd, labelled, hashlib.sha256(selection.encode()).hexdigest(), found.hexdigest(), alone.hexdigest(),
        list(found.indices) if whole else None, streamed, facts, answer, hashes,
    )  # fmt: skip


def images_ahead(output_dir: str | os.PathLike[str]) -> int | None:
    """How many images to read before the first draw: all (None) where the folder holds a run that states the hash of all.

    Raises:
        RunError: If its run.json is corrupt or of another format.
    """
    if not (Path(output_dir) / RUN_FILE).exists():
        return AHEAD
    return None if "sha256" in read_settings(Path(output_dir)).get("dataset", {}) else AHEAD


def read_recorded(dataset: Images, chosen: Sequence[int], before: Run, seen: dict[int, str]) -> Fingerprint:
    """Read the images up to the last that a run has recorded, in the order of the run.

    Args:
        dataset, chosen: The images of the run.
        before: What it has recorded so far.
        seen: `image_hash` of the images that were read before; those that are read here are added.

    Raises:
        RunError: If one of them is another image than its row says, or cannot be read any more; ValueError, TypeError as `checked_items` and `check_unchanged`.
    """
    recorded = before.rows | before.partials
    places = [place for place, index in enumerate(chosen) if index in recorded]
    found = Fingerprint()
    for index, item in checked_items(dataset, chosen[: places[-1] + 1] if places else []):
        found.add(index, item)
        digest = image_hash(index, item)
        check_unchanged(index, digest, seen)
        seen[index] = digest
        if index in recorded and recorded[index].get("image_sha256") != digest:
            difference = other_image(index, item, recorded[index], f"the run in {before.path}")
            raise RunError(f"Image {index} of the data set {difference}. {_SAME_DATASET}")
    if left := recorded.keys() - found.indices.keys():
        raise RunError(
            f"Image {min(left)} of the data set cannot be read any more, but the run in {before.path} has recorded it. {_SAME_DATASET}"
        )
    return found


def _first_reason(dataset: object) -> str:
    reasons: Mapping[int, str] = getattr(dataset, "unreadable", None) or {}
    return next(iter(reasons.values()), "")


def _off_grid(index: int, item: Item) -> str | None:
    pixels = cast(torch.Tensor, item["pixel_values"])
    return None if pixels.dtype == torch.uint8 else off_grid(to_unit_pixels(pixels[None]), f"image {index} lies")

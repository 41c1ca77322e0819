"""What is known of the images of a run before its first draw: the first of them, and that those which are recorded are still the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from hf_smoothing.certification.behaviour import Answer
from hf_smoothing.certification.classes import check_class, known_labels
from hf_smoothing.certification.images import Seen, checked_items, is_stream, seen_of
from hf_smoothing.certification.noise_kinds import off_grid
from hf_smoothing.certification.rows import check_same_image
from hf_smoothing.pixels import is_faint, to_unit_pixels, warn_faint
from hf_smoothing.records import Run, RunError
from hf_smoothing.types import Images, Item


AHEAD = 64
"""Number of images that are read before the first draw: as many as the first round has in work in any case."""


@dataclass(frozen=True)
class Survey:
    """What is known of the images before the first draw.

    Attributes:
        resolution: Resolution (channels, height, width).
        off_grid: What to say of the first image that is not 8-bit (see `off_grid`), None where all are that were read.
        labelled: Whether all that were read have a label.
        indices: Indices of the images that could be read; None where not all were tried.
        facts: What the data set says of its labels, for the record.
        answer: What the classifier answered to the probe; None where it was not asked.
        seen: Each image that was read, by index: what is certified must be the same.
    """

    resolution: tuple[int, ...]
    off_grid: str | None
    labelled: bool
    indices: list[int] | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    answer: Answer | None = None
    seen: Mapping[int, Seen] = field(default_factory=dict)

    @property
    def classes(self) -> int | None:
        """Number of classes of the classifier, None where that is not known."""
        return None if self.answer is None else self.answer.classes

    def probe_facts(self) -> dict[str, Any]:
        """What a record says of the classifier's answer to the probe."""
        return {} if self.answer is None else self.answer.to_dict()


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
    faint, all_dark = False, True  # whether some image is faint, and no other but those of one value
    seen: dict[int, Seen] = {}
    for index, item in checked_items(dataset, chosen):
        pixels, enough = item["pixel_values"], len(seen) == ahead
        seen[index] = seen_of(item)
        if enough and pixels.dtype == torch.uint8:
            whole = False
            break
        if resolution is None and answer_of is not None:
            answer = answer_of(tuple(pixels.shape))
            classes = answer.classes
        resolution = tuple(pixels.shape)
        check_class(item.get("labels"), index, classes)
        if all_dark:
            found = is_faint(pixels)
            faint, all_dark = faint or found, found or bool(pixels.min() == pixels.max())
        odd, labelled = odd or _off_grid(index, item), labelled and item.get("labels") is not None
        if streamed:
            break
    if faint and all_dark:
        warn_faint("dataset", stacklevel=3)
    if resolution is None:
        raise ValueError(f"There is no image to certify: none of those chosen can be read. {_first_reason(dataset)}")
    for index, label in known_labels(dataset, [] if streamed else chosen or []):
        check_class(label, index, classes)
    facts = dataset.facts() if hasattr(dataset, "facts") else {}
    return Survey(resolution, odd, labelled, list(seen) if whole else None, facts, answer, seen)


def first_images(seen: Mapping[int, Seen]) -> dict[int, Seen]:
    """At most the first `AHEAD` of the images that a survey has read."""
    return dict(itertools.islice(seen.items(), AHEAD))


def read_again(dataset: Images, chosen: Sequence[int] | None, first: Mapping[int, Seen]) -> dict[int, Seen]:
    """What another rank reads of the images up to the last of the first ones.

    Raises:
        ValueError, TypeError: As `checked_items`.
    """
    last = max(first)
    wanted = list(first) if chosen is None else [index for index in chosen if index <= last]
    return {index: seen_of(item) for index, item in checked_items(dataset, wanted)}


def check_recorded(dataset: Images, chosen: Sequence[int], before: Run, seen: dict[int, Seen]) -> None:
    """Compare the images that a run has recorded with their rows, before any draw is made.

    Args:
        dataset, chosen: The images of the run.
        before: What it has recorded so far.
        seen: The images that were read before; those that are read here are added.

    Raises:
        RunError: If one of them is another image than its row says, has another label, or cannot be read any more; ValueError, TypeError as `checked_items`.
    """
    recorded, run = before.partials | before.rows, f"the run in {before.path}"
    unread = [index for index in chosen if index in recorded and index not in seen]
    seen.update((index, seen_of(item)) for index, item in checked_items(dataset, unread))
    for index in sorted(recorded):
        if index not in seen:
            raise unreadable_now(index, "data set", run)
        check_same_image(index, seen[index], recorded[index], "data set", run)


def unreadable_now(index: int, place: str, run: str) -> RunError:
    """The error of a recorded image of a data set or stream (`place`) that is left out now."""
    return RunError(
        f"Image {index} of the {place} cannot be read any more, but {run} has recorded it. Resume with the same {place}, or use another output folder."
    )


def _first_reason(dataset: object) -> str:
    reasons: Mapping[int, str] = getattr(dataset, "unreadable", None) or {}
    return next(iter(reasons.values()), "")


def _off_grid(index: int, item: Item) -> str | None:
    pixels = cast(torch.Tensor, item["pixel_values"])
    return None if pixels.dtype == torch.uint8 else off_grid(to_unit_pixels(pixels[None]), f"image {index} lies")

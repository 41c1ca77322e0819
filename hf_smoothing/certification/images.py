"""The images of a run: which they are, each checked, from a data set or a stream."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from hf_smoothing import statistics
from hf_smoothing.certification.noise_kinds import off_grid
from hf_smoothing.noise import MAX_IMAGES
from hf_smoothing.pixels import UnreadableImageError, to_unit_pixels
from hf_smoothing.types import ImageDataset, Images, ImageStream, Item


def is_stream(dataset: object) -> bool:
    """Whether images can only be read in order, as those of a `datasets.IterableDataset`.

    Raises:
        ValueError: If they can be read only once, as those of a generator.
    """
    if isinstance(dataset, Iterator):
        raise ValueError(
            f"A stream of images must be one that can be read again, got a {type(dataset).__name__}, which is exhausted after one pass: a "
            "run looks at the first image before it starts, and a resumption at all. Pass an object whose __iter__ starts anew, such as a "
            "datasets.IterableDataset."
        )
    if isinstance(dataset, torch.utils.data.IterableDataset):
        return True
    return not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"))


def check_selection(dataset: Images, indices: Sequence[int] | None) -> list[int] | None:
    """The indices to certify, checked against the data set; None for all of a stream, whose length is not known.

    Raises:
        ValueError: If there are none, they repeat, or they lie outside the data set.
    """
    stream = is_stream(dataset)
    if stream and indices is None:
        return None
    size = MAX_IMAGES if stream else len(cast(ImageDataset, dataset))
    chosen = list(range(size)) if indices is None else whole_numbers(indices)
    if not chosen:
        raise ValueError(f"There is no image to certify: the data set has {size} and the selection is empty.")
    if max(chosen) >= MAX_IMAGES:
        raise ValueError(
            f"Indices of one run must be below {MAX_IMAGES}, got {max(chosen)}. Split the data set into runs with different seeds."
        )
    if len(set(chosen)) != len(chosen) or min(chosen) < 0 or max(chosen) >= size:
        raise ValueError(
            f"`indices` must be numbers in [0, {size}), none of them twice, got {len(chosen)} numbers from {min(chosen)} to {max(chosen)}, "
            f"{len(set(chosen))} of them different."
        )
    return chosen


def whole_numbers(indices: Sequence[int]) -> list[int]:
    """The numbers of images, as Python's integers.

    Raises:
        TypeError: If they are no sequence.
        ValueError: If they are no whole numbers.
    """
    if not isinstance(indices, Iterable):
        raise TypeError(
            f"`indices` must be a list of numbers of images, got {indices!r}. For one image pass [{indices!r}]."
        )
    return [statistics.check_whole(index, "indices") for index in indices]


def checked_items(dataset: Images, chosen: Sequence[int] | None) -> Iterator[tuple[int, Item]]:
    """(index, item) of each chosen image: in the order chosen, or that of a stream.

    Raises:
        ValueError, TypeError: On an item that is no image in [0, 1], has another size than the first, or a label that is no number; if
            a stream ends too early.
    """
    shape = None
    for index, item in _items(dataset, chosen):
        if not isinstance(item, Mapping) or "pixel_values" not in item:
            raise ValueError(
                f"`dataset[{index}]` must be a mapping with 'pixel_values', got "
                f"{sorted(item) if isinstance(item, Mapping) else type(item).__name__}. PixelDataset makes one of any image data set."
            )
        pixels = item["pixel_values"]
        to_unit_pixels(pixels[None] if isinstance(pixels, Tensor) else pixels, f"image {index}")
        if shape not in (None, tuple(pixels.shape)):
            raise ValueError(
                f"All images must have one size and channel count, got {shape} and, for image {index}, {tuple(pixels.shape)}. "
                "Resize them first: PixelDataset does."
            )
        shape = tuple(pixels.shape)
        if item.get("labels") is not None and statistics.check_whole(item["labels"], f"labels of image {index}") < 0:
            raise ValueError(
                f"Labels must be classes >= 0, got {item['labels']} for image {index}. -1 marks unlabelled splits: leave 'labels' out there."
            )
        yield index, item


def _items(dataset: Images, chosen: Sequence[int] | None) -> Iterator[tuple[int, Item]]:
    if is_stream(dataset):
        return _in_order(cast(ImageStream, dataset), chosen)
    return _by_index(cast(ImageDataset, dataset), chosen or ())


def _by_index(dataset: ImageDataset, chosen: Sequence[int]) -> Iterator[tuple[int, Item]]:
    for index in chosen:
        try:
            item = dataset[index]
        except UnreadableImageError:
            if not getattr(dataset, "skip_unreadable", False):
                raise
            continue
        yield index, item


def _in_order(dataset: ImageStream, chosen: Sequence[int] | None) -> Iterator[tuple[int, Item]]:
    wanted = None if chosen is None else set(chosen)
    position = -1
    # One that leaves out what it cannot read numbers its images itself.
    for position, item in dataset.numbered() if hasattr(dataset, "numbered") else enumerate(dataset):
        if position >= MAX_IMAGES:
            raise ValueError(
                f"A run has at most {MAX_IMAGES} images, but the stream goes on. Pass `indices`, or split it."
            )
        if wanted is not None and position > max(wanted):
            return
        if wanted is None or position in wanted:
            yield position, item
        if wanted is not None and position == max(wanted):
            return
    left_out = max(getattr(dataset, "unreadable", None) or {}, default=-1)
    if wanted is not None and left_out >= max(wanted):
        return
    if wanted is not None or position < 0:
        raise ValueError(
            f"The stream ended after {position + 1} images, "
            + (f"but image {max(wanted)} was asked for." if wanted else "so there is none to certify.")
        )


@dataclass(frozen=True)
class Survey:
    """What must be known of all images before the first draw.

    Attributes:
        resolution: Resolution (channels, height, width).
        off_grid: What to say of the first image that is not 8-bit (see `off_grid`), None where all are; of a stream, of the first.
        labelled: Whether all have a label; of a stream, whether the first has.
        sha256: SHA-256 of all indices, pixels and labels; of a stream, of the indices that were chosen from it.
        streamed: Whether it is a stream.
        pixels_sha256: SHA-256 of all indices and pixels alone; None of a stream.
        indices: Indices of the images that could be read; None of a stream.
        facts: What the data set says of its labels, for the record.
    """

    resolution: tuple[int, ...]
    off_grid: str | None
    labelled: bool
    sha256: str
    streamed: bool
    pixels_sha256: str | None = None
    indices: list[int] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """What a record says of the data set."""
        return {**self.facts, "stream_sha256" if self.streamed else "sha256": self.sha256}


def survey(dataset: Images, chosen: Sequence[int] | None) -> Survey:
    """Go through the images of a data set, or look at the first of a stream.

    Raises:
        ValueError, TypeError: As `checked_items`: a folder must not be left by a call that cannot succeed.
    """
    items = checked_items(dataset, chosen)
    first = next(items, None)
    if first is None:
        raise ValueError(f"There is no image to certify: none of those chosen can be read. {_first_reason(dataset)}")
    resolution = tuple(first[1]["pixel_values"].shape)
    facts = dataset.facts() if hasattr(dataset, "facts") else {}
    if is_stream(dataset):
        text = "all" if chosen is None else ",".join(map(str, chosen))
        digest = hashlib.sha256(text.encode()).hexdigest()
        labelled = first[1].get("labels") is not None
        return Survey(resolution, _off_grid(*first), labelled, digest, streamed=True, facts=facts)
    odd: str | None = None
    labelled, indices = True, []
    whole, alone = hashlib.sha256(), hashlib.sha256()
    for index, item in itertools.chain([first], items):
        odd, labelled = odd or _off_grid(index, item), labelled and item.get("labels") is not None
        indices.append(index)
        values = raw_bytes(item["pixel_values"])
        for digest_so_far, label in ((whole, item.get("labels")), (alone, None)):
            digest_so_far.update(_heading(index, item, label))
            digest_so_far.update(values)
    return Survey(
        resolution, odd, labelled, whole.hexdigest(), streamed=False, pixels_sha256=alone.hexdigest(), indices=indices, facts=facts,
    )  # fmt: skip


def left_out_facts(dataset: object, chosen: Sequence[int] | None) -> dict[str, Any]:
    """Which of the images a data set has left out so far since they cannot be read, for the record; empty if none."""
    unreadable: Mapping[int, str] = getattr(dataset, "unreadable", None) or {}
    found = sorted(unreadable.keys() if chosen is None else unreadable.keys() & set(chosen))
    return {"unreadable": found} if found else {}


def _first_reason(dataset: object) -> str:
    reasons: Mapping[int, str] = getattr(dataset, "unreadable", None) or {}
    return next(iter(reasons.values()), "")


def _off_grid(index: int, item: Item) -> str | None:
    pixels: Tensor = item["pixel_values"]
    if pixels.dtype == torch.uint8:
        return None
    return off_grid(to_unit_pixels(pixels[None]), f"image {index} lies")


def images_sha256(items: Iterable[tuple[int, Item]]) -> str:
    """SHA-256 of the indices, pixels and labels of data-set items, in order.

    Args:
        items: Pairs (index, mapping with "pixel_values", a tensor, and where known "labels", an integer).
    """
    digest = hashlib.sha256()
    for index, item in items:
        digest.update(_heading(index, item, item.get("labels")))
        digest.update(raw_bytes(item["pixel_values"]))
    return digest.hexdigest()


def _heading(index: int, item: Item, label: Any) -> bytes:
    pixels = item["pixel_values"]
    return f"{index} {pixels.dtype} {tuple(pixels.shape)} {label}\n".encode()


def raw_bytes(tensor: Tensor) -> bytes:
    """The bytes of a tensor's values, whatever its memory format."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""

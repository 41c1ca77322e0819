"""The images of a run: which they are, each checked, from a data set or a stream."""

from __future__ import annotations

import hashlib
import math
import operator
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from hf_smoothing import statistics
from hf_smoothing.certification.layouts import dense_parts
from hf_smoothing.noise import MAX_IMAGES
from hf_smoothing.pixels import UnreadableImageError, to_unit_pixels
from hf_smoothing.types import ImageDataset, Images, ImageStream, Item
from hf_smoothing.units import as_number, is_truth_value


def check_data_set(dataset: object) -> None:
    """Refuse what gives no single images: a path, a batch, a loader of batches, several splits, or nothing.

    Raises:
        TypeError: The message has the cure.
    """
    cures = (
        (str | os.PathLike, "Load its images: PixelDataset(datasets.load_dataset(path, split='test'), model)."),
        (torch.utils.data.DataLoader, "A run makes batches of its own: pass what is loaded, such as loader.dataset."),
        (Tensor | np.ndarray, "Make items of a batch: [{'pixel_values': image} for image in images]; or certify(classifier, images, sigma=...) without a run."),
        (Mapping, "Pass one of its splits, such as dataset['test']; of columns make a datasets.Dataset first: datasets.Dataset.from_dict(columns)."),
    )  # fmt: skip
    cure = next((cure for kind, cure in cures if isinstance(dataset, kind)), None)
    if isinstance(dataset, Mapping) and (0 in dataset or not dataset):  # images by number
        cure = None
    readable = isinstance(dataset, Iterable) or hasattr(dataset, "__getitem__")
    if cure is None and (isinstance(dataset, type | torch.nn.Module) or not readable):
        cure = "Make one of images: PixelDataset(images, model), where images are a datasets.Dataset or [{'image': image, 'label': 0}, ...]."
    if cure is not None:
        raise TypeError(
            f"`dataset` must give a mapping with 'pixel_values' for each image, as PixelDataset(dataset, model) does, got {_shown(dataset)}. {cure}"
        )


def _shown(given: object) -> str:
    return f"the path {os.fspath(given)!r}" if isinstance(given, str | os.PathLike) else f"a {type(given).__name__}"


def is_stream(dataset: object) -> bool:
    """Whether images can only be read in order, as those of a `datasets.IterableDataset`.

    Raises:
        ValueError: If they can be read only once, as those of a generator.
        TypeError: As `check_data_set`.
    """
    check_data_set(dataset)
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
    """The indices to certify, checked against the data set and sorted, since no row depends on their order; None for all of a stream, whose length is not known.

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
    if twice := sorted(index for index, count in Counter(chosen).items() if count > 1):
        raise ValueError(
            f"`indices` must name each image once, got {twice[0]} {chosen.count(twice[0])} times. Pass sorted(set(indices))."
        )
    if max(chosen) >= MAX_IMAGES:
        raise ValueError(
            f"Indices of one run must be below {MAX_IMAGES}, got {max(chosen)}. Make runs of parts of the data set, whose "
            "indices begin at 0 again, each with a seed of its own: `dataset.select(...)`, or a slice such as 'train[:10%]' for a split."
        )
    if max(chosen) >= size:
        raise ValueError(
            f"`indices` must be numbers of images of the data set, in [0, {size}), got {max(chosen)}. Images are counted from 0, so the last is {size - 1}."
        )
    return sorted(chosen)


def whole_numbers(indices: Sequence[int]) -> list[int]:
    """The numbers of images, as Python's integers.

    Raises:
        TypeError: If they are no sequence.
        ValueError: If they are no whole numbers from 0 on.
    """
    single = getattr(indices, "ndim", 1) == 0  # an array or a tensor, which looks iterable
    if single or not isinstance(indices, Iterable) or isinstance(indices, (str, bytes, Mapping)):
        one = indices.item() if hasattr(indices, "item") else indices
        cure = f"For one image pass [{one!r}]."
        if isinstance(indices, slice | str | bytes | Mapping):
            cure = "Pass range(start, stop), or the numbers themselves, such as [0, 5, 7]."
        raise TypeError(f"`indices` must be a list of numbers of images, got {indices!r}. {cure}")
    given = list(indices)
    if any(is_truth_value(index) for index in given):
        raise ValueError(
            f"`indices` must be numbers of images, got a mask of {len(given)} truth values. Pass where it is true: numpy.flatnonzero(mask)."
        )
    return [_whole_number(index) for index in given]


def _whole_number(index: Any) -> int:
    try:
        whole = statistics.check_whole(index, "indices")
    except ValueError as error:
        number = as_number(index)
        cure = (
            f"Pass {int(number)}."
            if number.is_integer()
            else "Images are counted from 0: pass numbers such as [0, 5, 7]."
        )
        raise ValueError(f"`indices` must be whole numbers, those of images, got {index!r}. {cure}") from error
    if whole < 0:
        raise ValueError(
            f"`indices` must be numbers of images, counted from 0, got {whole}. The last is len(dataset) - 1."
        )
    return whole


def checked_items(dataset: Images, chosen: Sequence[int] | None) -> Iterator[tuple[int, Item]]:
    """(index, item) of each chosen image: in the order chosen, or that of a stream.

    Raises:
        ValueError, TypeError: On an item that is no image in [0, 1], has another size than the first, or a label that is no number; if
            a stream ends too early.
    """
    shape = None
    for index, item in _items(dataset, chosen):
        pixels = pixels_in(item, index)
        to_unit_pixels(pixels[None] if isinstance(pixels, Tensor) else pixels, f"image {index}")
        if shape not in (None, tuple(pixels.shape)):
            raise ValueError(
                f"All images must have one size and channel count, got {shape} and, for image {index}, {tuple(pixels.shape)}. "
                "PixelDataset(dataset, model) resizes and crops them as the network expects."
            )
        shape = tuple(pixels.shape)
        if item.get("labels") is not None and statistics.check_whole(item["labels"], f"labels of image {index}") < 0:
            raise ValueError(
                f"Labels must be classes >= 0, got {item['labels']} for image {index}. -1 marks unlabelled splits: leave 'labels' out there."
            )
        yield index, item


def pixels_in(item: Any, index: int) -> Any:
    """The pixels of an item of a data set; their values are not checked.

    Raises:
        ValueError: If it is no mapping with pixels, or they are a batch.
    """
    if not isinstance(item, Mapping) or "pixel_values" not in item:
        got = sorted(item) if isinstance(item, Mapping) else type(item).__name__
        cure = "PixelDataset(dataset, model) makes one of any image data set, and PixelStream of a stream"
        if not isinstance(item, Mapping):
            cure += "; of images alone, PixelDataset([{'image': image} for image in images], model)"
        if isinstance(item, tuple | Tensor):
            cure = "Of a tensor and a label make one: {'pixel_values': pixels, 'labels': label}"
        raise ValueError(f"`dataset[{index}]` must be a mapping with 'pixel_values', got {got}. {cure}.")
    pixels = item["pixel_values"]
    if isinstance(pixels, Tensor) and pixels.ndim != 3:
        cure = (
            "Take the batch apart: one item per image."
            if pixels.ndim == 4
            else "Grey images have one channel: pixels[None]."
        )
        raise ValueError(
            f"`pixel_values` of `dataset[{index}]` must be one image, of shape (channels, height, width), got {tuple(pixels.shape)}. {cure}"
        )
    return pixels


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
                f"A run has at most {MAX_IMAGES} images, but the stream goes on. Pass `indices`, or a stream of a part of the data: `dataset.take(...)`."
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


def reading_facts(dataset: object, chosen: Sequence[int] | None) -> dict[str, Any]:
    """What reading the images has shown so far, for the record: names of the classes, which images cannot be read, how many were enlarged and how small
    the smallest was."""
    unreadable, enlarged = _noted(dataset, "unreadable"), _noted(dataset, "enlarged")
    few = None if chosen is None else set(chosen)
    facts: dict[str, Any] = {}
    if names := getattr(dataset, "class_names", None) or getattr(dataset, "names", None):
        facts["class_names"] = [str(name) for name in names]
    if found := sorted(unreadable.keys() if few is None else unreadable.keys() & few):
        facts["unreadable"] = found
    if sizes := [size for index, size in enlarged.items() if few is None or index in few]:
        facts["enlarged"] = {"images": len(sizes), "smallest": list(min(sizes, key=math.prod))}
    return facts


def _noted(dataset: object, name: str) -> Mapping[int, Any]:
    """What a data set has noted of its images, by index; also where it is behind a choice or a chain of torch."""
    if isinstance(dataset, torch.utils.data.Subset):
        inner = _noted(dataset.dataset, name)
        return {place: inner[index] for place, index in enumerate(map(int, dataset.indices)) if index in inner}
    if isinstance(dataset, torch.utils.data.ConcatDataset):
        starts = [0, *dataset.cumulative_sizes]
        parts = zip(starts, dataset.datasets, strict=False)
        return {start + index: noted for start, part in parts for index, noted in _noted(part, name).items()}
    return getattr(dataset, name, None) or {}


class Seen(NamedTuple):
    """What a run remembers of an image that it has read.

    Attributes:
        image_sha256: SHA-256 of the pixels, their dtype and shape; short, since it stands in every row.
        label: The label, None without one.
    """

    image_sha256: str
    label: int | None


def seen_of(item: Item) -> Seen:
    """What is remembered of an image."""
    pixels, label = item["pixel_values"], item.get("labels")
    digest = hashlib.sha256(f"{pixels.dtype} {tuple(pixels.shape)}\n".encode())
    digest.update(raw_bytes(pixels))
    return Seen(digest.hexdigest()[:16], None if label is None else operator.index(label))


def check_unchanged(index: int, now: Seen, seen: Mapping[int, Seen]) -> None:
    """Refuse an image that is another one, or has another label, than when it was read before.

    Args:
        index: Index of the image.
        now: What it is now.
        seen: What the images were that were read before.

    Raises:
        ValueError: A certificate would be for pixels that nobody has again, and the record would name others.
    """
    if seen.get(index, now) != now:
        raise ValueError(
            f"The images of a data set must stay as they are, but image {index} has other pixels or another label than when it was read before. "
            "Certify images without augmentation, shuffling or labels that are drawn: make them once, and pass what was made."
        )


def raw_bytes(tensor: Tensor) -> bytes:
    """The bytes of a tensor's values, whatever its memory format; of a sparse one those of its places and values."""
    return b"".join(_bytes(part) for part in dense_parts(tensor))


def _bytes(part: Tensor) -> bytes:
    flat = part.cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""

"""Which images of a data set are taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hf_smoothing.units import check_share, check_whole


def spread(count: int, total: int) -> list[int]:
    """At most `count` of the numbers below `total`, evenly spread: data sets are often sorted by class, so the first are no sample.

    >>> spread(4, 10)
    [0, 2, 5, 7]
    """
    if count >= total:
        return list(range(total))
    return [place * total // count for place in range(count)]


def hold_out(dataset: Any, validation_share: float, seed: int) -> tuple[Any, Any]:
    """A `datasets.Dataset` in two parts drawn at random, to train on and to validate on, each of at least one image.

    Raises:
        ValueError: If the share is none in [0, 1], or leaves one of the parts empty.
    """
    share = check_share(validation_share, "validation_share")
    images = len(dataset)
    if share == 0.0 or math.floor((1.0 - share) * images) < 1:
        raise ValueError(
            f"`validation_share` must leave images to train on and to hold out, got {share} of {images}. Take more images, or a share between 0 and 1 such as "
            "0.1."
        )
    parts = dataset.train_test_split(share, seed=seed)
    return parts["train"], parts["test"]


def select_images(total: int, *, stride: int = 1, max_images: int | None = None) -> list[int]:
    """Indices of the images to take: every `stride`-th, and of these at most `max_images`, spread over all of them.

    Raises:
        ValueError: If a number is below 1.
    """
    check_selection_options(stride, max_images)
    every = range(0, total, stride)
    return list(every) if max_images is None else [every[place] for place in spread(max_images, len(every))]


def select_from_stream(*, stride: int = 1, max_images: int | None = None) -> Sequence[int] | None:
    """As `select_images` for a stream, whose length is not known before its end: the first ones, or None for all.

    Raises:
        ValueError: If a number is below 1, or a stride has no end.
    """
    check_selection_options(stride, max_images)
    if max_images is None and stride > 1:
        raise ValueError("Of a stream, whose length is not known, `stride` needs `max_images` as well.")
    return None if max_images is None else range(0, stride * max_images, stride)


def check_selection_options(stride: int, max_images: int | None) -> None:
    """Refuse numbers below 1.

    Raises:
        ValueError: The message names the first.
    """
    for name, value in (("stride", stride), ("max_images", max_images)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")


def one_index(index: Any) -> int:
    """The number of one image, from a whole number of any type; negative ones count from the end.

    Raises:
        TypeError: On anything else: slices and lists would make an item of several images, and fractions be cut off.
    """
    try:
        return check_whole(index, "index")
    except ValueError as error:
        raise TypeError(
            f"Images are read one at a time, by a whole number, got {index!r}. Write [data[i] for i in indices] for some of them; their columns are those "
            "of an item, such as data[0]['pixel_values']."
        ) from error

"""The images of a data set, for a pipeline: one after another, and none before it is its turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import datasets
import torch

from hf_smoothing.data.columns import find_column
from hf_smoothing.data.image_reading import ImageReader


class Pictures(torch.utils.data.Dataset[Any]):
    """The images of a data set or of one of its columns, as files hold them.

    Args:
        count: Number of images.
        picture: Index -> image.
    """

    def __init__(self, count: int, picture: Callable[[int], Any]) -> None:
        self._count, self._picture = count, picture

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._picture(index)


def pictures_of(inputs: Any) -> Any:
    """What a pipeline is called with, in a form that it takes: of a data set its images, of a path its text; all else as it is.

    Raises:
        ValueError: As `find_column`, on a data set whose column of images is not clear.
    """
    if isinstance(inputs, os.PathLike):
        return os.fspath(inputs)
    if isinstance(inputs, datasets.Dataset):
        reader = ImageReader(inputs, find_column(inputs, None, "image", required=True) or "")
        return Pictures(len(inputs), lambda index: _in_mode(reader, reader.image(reader.row(index), index)))
    if isinstance(inputs, datasets.IterableDataset):
        return _streamed(inputs)
    # A column of a data set is a sequence and no list.
    if isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes | list):
        return Pictures(len(inputs), inputs.__getitem__)
    return inputs


def _streamed(inputs: datasets.IterableDataset) -> Iterator[Any]:
    reader = ImageReader(inputs, find_column(inputs, None, "image", required=True) or "")
    for index, row in enumerate(reader.rows()):
        yield _in_mode(reader, reader.image(row, index))


def _in_mode(reader: ImageReader, image: Any) -> Any:
    return reader.in_mode(image) if hasattr(image, "convert") else image

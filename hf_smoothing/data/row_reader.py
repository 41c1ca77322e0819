"""From a row of a data set or stream to pixels and a label."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from hf_smoothing.data.columns import find_column, unformatted
from hf_smoothing.data.eight_bit import image_of_array
from hf_smoothing.data.framing import enlargement
from hf_smoothing.data.image_processing import NoisyImageProcessorPil
from hf_smoothing.data.image_reading import ImageReader
from hf_smoothing.data.label_reading import LabelReader
from hf_smoothing.data.labels import Labels
from hf_smoothing.data.processors import PixelSource, framing_of, named_classes
from hf_smoothing.types import Images


class RowReader:
    """Turns the rows of a data set or stream into pixels and labels."""

    def __init__(
        self, dataset: Images, size: PixelSource, image_column: str | None, label_column: str | None,
        id2label: Mapping[int, str] | Literal["model"] | None, labels: Labels | None, label_map: Mapping[Any, Any] | None,
    ) -> None:  # fmt: skip
        dataset = unformatted(dataset)
        known = named_classes(size) if isinstance(id2label, str) else id2label
        self.labels = LabelReader(dataset, label_column, known, labels, label_map)
        self.label_column = self.labels.column
        self.framing = framing_of(size)
        self.image_column = find_column(dataset, image_column, "image", required=True)
        self.unreadable: dict[int, str] = {}
        self.images = ImageReader(dataset, str(self.image_column))
        self.enlarged: dict[int, tuple[int, int]] = {}
        self._told = False
        self._processor = NoisyImageProcessorPil(
            **self.framing.processor_settings(), do_rescale=False, do_normalize=False
        )

    def item(self, row: Mapping[str, Any], index: int) -> dict[str, Any]:
        """Pixels and, where there is one, label of a row."""
        item: dict[str, Any] = {"pixel_values": self._pixels(self.images.image(row, index), row, index)}
        if self.label_column is not None:
            item["labels"] = self.labels.label(row.get(self.label_column), index)
        return item

    def original_size(self, first: Callable[[], Mapping[str, Any]]) -> tuple[int, int] | None:
        """(height, width) of the image of the first row, None if it cannot be read."""
        self._told = True
        try:
            width, height = _as_image(self.images.image(first(), 0)).size
        except (ValueError, StopIteration):
            return None  # the error is that of reading its pixels
        return height, width

    @contextmanager
    def silent(self) -> Iterator[None]:
        """No warning of images that are enlarged, meanwhile: who reads in another process hands them back to the one that warns."""
        told, self._told = self._told, True
        try:
            yield
        finally:
            self._told = told

    def note_enlarged(self, index: int, original: tuple[int, int]) -> None:
        """Keep the (height, width) of an image if it is enlarged, and warn of the first."""
        factor = enlargement(self.framing, original)
        if factor is None:
            return
        self.enlarged[index] = original
        told, self._told = self._told, True
        if not told:
            warnings.warn(
                f"Image {index} is {original[0]} x {original[1]}, smaller than the certified resolution {self.framing.size}: it is enlarged before "
                f"the noise is added, where an l2 distance is about {factor:.2g} times larger. To certify images at their own size wrap the "
                f"network with size={min(original)}: it resizes them itself, after the noise.",
                stacklevel=4,
            )

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes in the order of the labels, those of the data set first; None without labels or names."""
        return None if self.label_column is None else self.labels.class_map.class_names()

    def facts(self) -> dict[str, Any]:
        """What a record says about the labels."""
        if self.label_column is None:
            return {}
        return {"labels": {"column": self.label_column, **self.labels.class_map.to_dict()}}

    def _pixels(self, image: object, row: Mapping[str, Any], index: int) -> Tensor:
        given = image
        try:
            image = self.images.in_mode(_as_image(image))
            values = self._processor(image)["pixel_values"][0]
        except (ValueError, TypeError) as error:
            if isinstance(given, Image):  # one file among many; arrays are all of one kind
                raise self.images.unusable(error, row, index) from error
            raise ValueError(f"Image {index} of column {self.image_column!r} cannot be read: {error}") from error
        self.note_enlarged(index, (image.height, image.width))
        return torch.from_numpy(np.ascontiguousarray(values))


def _as_image(image: object) -> Image:
    return image if isinstance(image, Image) else image_of_array(image)

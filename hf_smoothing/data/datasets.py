"""From a labelled image data set to pixels at the certified resolution."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset
from tqdm.auto import tqdm

from hf_smoothing.data.columns import find_column
from hf_smoothing.data.framing import Framing
from hf_smoothing.data.image_processing import NoisyImageProcessorPil
from hf_smoothing.data.labels import align_labels, class_names
from hf_smoothing.data.processors import framing_of


class PixelDataset(Dataset[dict[str, Any]]):
    """Images as uint8 pixels at the certified resolution, with the labels of the model: what training and certification read.

    Args:
        dataset: a `datasets.Dataset`, or any sequence of mappings, with an image column (PIL images or arrays) and maybe labels.
            Images of other kinds are converted to RGB as `transformers` does, or to grey for a network with one channel.
        size: whose pixels they are to be: a `SmoothedClassifier`, a backbone that `RobustTrainer` trained, or an image processor; images are resized
            and cropped as for it. Or a `Framing`, or the certified resolution alone, an int or (height, width), to which whole images are resized.
        image_column, label_column: names; found by their type if not given.
        id2label: the label map of the model, to check and align the data set's class names; None takes labels as they are.

    Raises:
        ValueError: on an empty data set, missing columns, or class names or numbers that do not match the model's.
    """

    def __init__(
        self,
        dataset: Any,
        size: Any,
        *,
        image_column: str | None = None,
        label_column: str | None = None,
        id2label: Mapping[int, str] | None = None,
    ) -> None:
        if len(dataset) == 0:
            raise ValueError("The data set is empty: it has no image. Check the split and any filter.")
        self.dataset = dataset
        self._reader = _Reader(dataset, size, image_column, label_column, id2label)
        self.framing = self._reader.framing
        self.size, self.image_column, self.label_column = (
            self.framing.size,
            self._reader.image_column,
            self._reader.label_column,
        )
        self.names = self._reader.names

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._reader.item(self.dataset[int(index)], int(index))

    def decode(self, progress: bool = True) -> DecodedPixels:
        """All images at once, in memory: 3 KB an image at 32 px, 150 KB at 224 px."""
        pixels = torch.empty((len(self), self.framing.channels, *self.size), dtype=torch.uint8)
        labels = torch.full((len(self),), -1, dtype=torch.int64)
        for index in tqdm(range(len(self)), desc="Decoding", unit="image", disable=not progress):
            item = self[index]
            pixels[index] = item["pixel_values"]
            labels[index] = item.get("labels", -1)
        return DecodedPixels(pixels, labels if self.label_column is not None else None, self.names, self.framing)


class PixelStream(IterableDataset[dict[str, Any]]):
    """As `PixelDataset`, for a stream: read in order and once, such as a `datasets.IterableDataset`.

    Arguments and errors as `PixelDataset`.
    """

    def __init__(
        self,
        dataset: Any,
        size: Any,
        *,
        image_column: str | None = None,
        label_column: str | None = None,
        id2label: Mapping[int, str] | None = None,
    ) -> None:
        if isinstance(dataset, Iterator):
            raise ValueError(
                f"PixelStream needs a stream that can be gone through again, got a {type(dataset).__name__}, which is used up after once. Pass "
                "a datasets.IterableDataset, e.g. IterableDataset.from_generator(function)."
            )
        self.dataset = dataset
        self._reader = _Reader(dataset, size, image_column, label_column, id2label)
        self.framing = self._reader.framing
        self.size, self.image_column, self.label_column = (
            self.framing.size,
            self._reader.image_column,
            self._reader.label_column,
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index, row in enumerate(self.dataset):
            yield self._reader.item(row, index)


class DecodedPixels(Dataset[dict[str, Any]]):
    """Pixels and labels in memory.

    Args:
        pixels: uint8 (N, channels, height, width).
        labels: int64 (N,), or None.
        names: of the classes in the order of the labels, or None where they are not known.
        framing: how images became these pixels, where that is known.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor | None = None,
        names: Sequence[str] | None = None,
        framing: Framing | None = None,
    ) -> None:
        self.pixels = pixels
        self.labels = labels
        self.names = names
        self.framing = framing

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item: dict[str, Any] = {"pixel_values": self.pixels[index]}
        if self.labels is not None:
            item["labels"] = int(self.labels[index])
        return item


class _Reader:
    """Turns the rows of a data set or stream into pixels and labels."""

    def __init__(
        self,
        dataset: Any,
        size: Any,
        image_column: str | None,
        label_column: str | None,
        id2label: Mapping[int, str] | None,
    ) -> None:
        self.framing = framing_of(size)
        self.image_column = find_column(dataset, image_column, "image", required=True)
        self.label_column = find_column(dataset, label_column, "label", required=False)
        names = class_names(dataset, self.label_column)
        self.num_labels = len(id2label) if id2label else (len(names) if names else None)
        self._to_model = align_labels(names, id2label)
        self.names = [str(id2label[k]) for k in sorted(id2label, key=int)] if id2label else names
        self._processor = NoisyImageProcessorPil(
            **self.framing.processor_settings(), do_rescale=False, do_normalize=False
        )

    def item(self, row: Mapping[str, Any], index: int) -> dict[str, Any]:
        """Pixels and, where there is one, label of a row."""
        item: dict[str, Any] = {"pixel_values": self._pixels(row[str(self.image_column)], index)}
        if self.label_column is not None:
            item["labels"] = self._label(row[self.label_column], index)
        return item

    def _pixels(self, image: Any, index: int) -> Tensor:
        # Before anything converts it: floats that happen to be whole would pass for 0..255.
        dtype = getattr(image, "dtype", None)
        if dtype is not None and str(dtype).removeprefix("torch.") != "uint8":
            raise ValueError(
                f"Image {index} must be a PIL image or a uint8 array, got values of {dtype}. "
                "Arrays of floats are not decoded here: pass tensors in [0, 1] to certify() directly."
            )
        try:
            values = self._processor(image)["pixel_values"][0]
        except (ValueError, TypeError) as error:
            raise ValueError(f"Image {index} of column {self.image_column!r} cannot be read: {error}") from error
        if values.shape[0] != 3:
            raise ValueError(
                f"Image {index} must be RGB, got an array of shape {np.shape(image)}. Pass a PIL image, which is converted, or "
                "repeat the grey channel three times."
            )
        return torch.from_numpy(np.ascontiguousarray(values))

    def _label(self, value: Any, index: int) -> int:
        try:
            label = operator.index(value)
        except TypeError as error:
            raise ValueError(
                f"Label of image {index} must be an integer class, got {value!r}. Drop unlabelled images, and map names to numbers "
                "with a ClassLabel feature (dataset.class_encode_column)."
            ) from error
        if label < 0 or (self.num_labels is not None and label >= self.num_labels):
            raise ValueError(
                f"Label of image {index} must be a class in [0, {self.num_labels}), got {label}. "
                + (
                    "-1 marks unlabelled splits: use another split."
                    if label == -1
                    else "Is this the model's data set?"
                )
            )
        return label if self._to_model is None else self._to_model[label]

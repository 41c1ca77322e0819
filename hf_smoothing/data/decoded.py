"""Pixels and labels that are in memory already, and what labels in a tensor must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from hf_smoothing.data.framing import Framing
from hf_smoothing.data.selection import one_index
from hf_smoothing.pixels import check_image_batch


UNLABELLED = -100
"""The label of an image that a cross-entropy leaves out."""

UNLABELLED_CURE = (
    "Unlabelled images cannot be trained on or measured: leave them out. To predict them leave their labels out, of all images together: "
    "dataset.remove_columns of that column, or DecodedPixels(pixels)."
)


class DecodedPixels(Dataset[dict[str, Any]]):
    """Pixels and labels in memory.

    Args:
        pixels: Pixels, uint8 (N, channels, height, width), or float as what reads them takes it.
        labels: Labels, whole numbers (N,), or None.
        names: Names of the classes in the order of the labels, or None where they are not known.
        framing: How images became these pixels, where that is known.
        enlarged: Index, in these pixels -> (height, width) of each image that was smaller than the certified resolution.

    Raises:
        TypeError: If pixels or labels are no tensor, or a part is asked for by something else than one whole number.
        ValueError: If they have another shape, or the labels are no whole numbers.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor | None = None,
        names: Sequence[str] | None = None,
        framing: Framing | None = None,
        enlarged: Mapping[int, tuple[int, int]] | None = None,
    ) -> None:
        if not isinstance(pixels, Tensor) or pixels.numel():  # a choice of no image is one
            check_image_batch(pixels, "pixels")
        if labels is not None:
            class_labels(labels, len(pixels))
        self.pixels = pixels
        self.labels = labels
        self.names = names
        self.framing = framing
        self.enlarged = dict(enlarged or {})

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = one_index(index)
        item: dict[str, Any] = {"pixel_values": self.pixels[number]}
        if self.labels is not None:
            item["labels"] = int(self.labels[number])
        return item

    def known_labels(self, indices: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(index, label) of these images; nothing without labels."""
        return iter(()) if self.labels is None else ((index, int(self.labels[index])) for index in indices)


def class_labels(labels: Tensor, images: int) -> Tensor:
    """Labels as int64 (batch,). Their values are not looked at, for which the host would wait for the device.

    Args:
        labels: One whole number for each image, of any integer type.
        images: Number of images.

    Raises:
        TypeError: If they are no tensor.
        ValueError: If they are not whole numbers, or not as many; the message says how they become so.
    """
    if not isinstance(labels, Tensor):
        raise TypeError(
            f"Labels must be a torch tensor of whole numbers of shape ({images},), got {type(labels).__name__}. Make one: torch.as_tensor(labels)."
        )
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if whole and tuple(labels.shape) == (images,):
        return labels.long()
    if labels.ndim == 2 and labels.shape[1] > 1:
        cure = (
            "These look like a probability or a mark for each class: the most probable class is labels.argmax(dim=1)."
        )
    elif labels.numel() == images:
        cure = f"Pass labels{'' if labels.ndim == 1 else '.flatten()'}{'' if whole else '.long()'}."
    else:
        cure = "Pass one for each image, in their order."
    raise ValueError(
        f"Labels must be the class of each image, whole numbers of shape ({images},), got {labels.dtype} of shape {tuple(labels.shape)}. {cure}"
    )


def check_labels(labels: Tensor, num_labels: int | None) -> None:
    """Refuse labels that are not classes; None where they are not used.

    Raises:
        ValueError: The message names one that is not in [0, num_labels).
    """
    if num_labels is None or not labels.numel():
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_labels:
        cure = (
            UNLABELLED_CURE
            if low < 0
            else "A data set with other classes needs a model with num_labels set to theirs."
        )
        raise ValueError(f"Labels must be classes in [0, {num_labels}), got {low if low < 0 else high}. {cure}")

"""From items to a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.data.decoded import UNLABELLED_CURE, check_labels
from hf_smoothing.data.label_values import class_number, refusal
from hf_smoothing.pixels import is_faint, to_unit_pixels, warn_faint


class PixelCollator:
    """Stacks items into a batch and checks labels and shapes while they are on the CPU.

    Args:
        num_labels: Number of classes; None where labels are not used.
        ready: The pixels are noisy and normalised already, so that any value is right.

    Raises:
        TypeError: On items that are no mappings.
        ValueError: On mixed shapes, labels of some images only, pixels that are neither uint8 nor in [0, 1], or labels outside the classes.
    """

    def __init__(self, num_labels: int | None, ready: bool = False) -> None:
        self.num_labels = num_labels
        self.ready = ready

    def __call__(self, items: Sequence[Mapping[str, Any]] | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch of items, mappings with "pixel_values" and maybe "labels" (or "label"); or a batch that `DevicePixels` made."""
        if isinstance(items, Mapping):
            return dict(items)
        if not items:
            raise ValueError("A batch needs at least one item, got none.")
        if strange := next((item for item in items if not isinstance(item, Mapping)), None):
            raise TypeError(
                f"Each item must be a mapping with 'pixel_values' and maybe 'labels', got {type(strange).__name__}. Of pairs as torchvision gives them make "
                "PixelDataset([{'image': image, 'label': label} for image, label in dataset], model), of tensors DecodedPixels(pixels, labels)."
            )
        if any("pixel_values" not in item for item in items):
            raise ValueError(
                f"Each item needs 'pixel_values', got {sorted(items[0])}. Use PixelDataset, or a transform that makes them."
            )
        images = [torch.as_tensor(item["pixel_values"]) for item in items]
        if len({image.shape for image in images}) > 1:
            shapes = sorted({tuple(image.shape) for image in images})
            raise ValueError(
                f"Images of a batch must have one size and channel count, got {shapes}. Use PixelDataset to resize them."
            )
        batch = {"pixel_values": torch.stack(images)}
        if batch["pixel_values"].dtype != torch.uint8 and not self.ready:
            batch["pixel_values"] = to_unit_pixels(batch["pixel_values"], "pixel_values")
            if is_faint(batch["pixel_values"]):
                warn_faint("pixel_values", stacklevel=2)
        if self.num_labels is not None and any(name in item for item in items for name in ("labels", "label")):
            labels = torch.as_tensor([_class(item) for item in items])
            check_labels(labels, self.num_labels)
            batch["labels"] = labels
        return batch


def _class(item: Mapping[str, Any]) -> int:
    value = item.get("label") if item.get("labels") is None else item["labels"]
    if value is None:
        raise ValueError(f"Where an image has a label each needs one, got one without. {UNLABELLED_CURE}")
    number = class_number(value)
    if number is None:
        raise ValueError(refusal(value, "`labels`"))
    return number


def checked_batch(made: Any) -> dict[str, Any]:
    """What a collator has made, with the labels, if there are any, as a tensor under "labels".

    Raises:
        TypeError: If it is no mapping.
        ValueError: Without pixels.
    """
    if not isinstance(made, Mapping):
        raise TypeError(
            f"A data_collator must return a mapping such as {{'pixel_values': ..., 'labels': ...}}, got {type(made).__name__}. Put the tensors under these names."
        )
    batch = dict(made)
    if batch.get("pixel_values") is None:
        raise ValueError(
            f"A batch needs its images under 'pixel_values', got {sorted(map(str, batch))}. Let the data_collator name them so, or leave it out."
        )
    label = batch.pop("label", None)
    labels = label if batch.get("labels") is None else batch["labels"]
    batch.pop("labels", None)
    return batch if labels is None else batch | {"labels": torch.as_tensor(labels)}

"""Labels on their way into a loss or an accuracy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hf_smoothing.data.decoded import UNLABELLED, check_labels, class_labels
from hf_smoothing.training.objectives import PROBABILITIES


def hard_labels(labels: Any, images: int, num_labels: int, *, look: bool = True, all_labelled: bool = False) -> Tensor:
    """The class of each image, int64 (batch,), as every evaluation and most objectives need it.

    Args:
        labels: Labels of a batch, from any collator: whole numbers (batch,); -100 for an image without one.
        images: Number of images of the batch.
        num_labels: Number of classes.
        look: Whether to look at the values, for which the host waits for a device.
        all_labelled: Whether -100 is refused as well.

    Raises:
        ValueError: If they are not.
    """
    given = torch.as_tensor(labels)
    if given.ndim == 2 and given.is_floating_point():
        raise ValueError(
            f"An evaluation, and training by most objectives, needs one class for each image, got labels of shape {tuple(given.shape)}, as probabilities of the "
            f"classes have it. Those train the objectives {', '.join(PROBABILITIES)} alone. To evaluate give whole numbers (batch,), with a RobustTrainer of "
            "its own if this data_collator mixes images; or leave mixing to the trainer, which does it in training alone: objective_args={'mixup': 0.8}."
        )
    classes = class_labels(given, images)
    if look:
        check_labels(classes if all_labelled else classes[classes != UNLABELLED], num_labels)
    return classes


def soft_labels(labels: Any, images: int, num_labels: int, *, look: bool = True) -> Tensor:
    """Labels for a plain cross-entropy: probabilities of the classes, float32 (batch, classes), or else `hard_labels`.

    Raises:
        ValueError: If they are neither.
    """
    given = torch.as_tensor(labels)
    if given.ndim != 2 or not given.is_floating_point():
        return hard_labels(given, images, num_labels, look=look)
    if tuple(given.shape) != (images, num_labels):
        raise ValueError(
            f"Probabilities of the classes must have shape (batch, classes), here ({images}, {num_labels}), got {tuple(given.shape)}."
        )
    shares: Tensor = given.float()
    sums = shares.sum(1)
    # A hundredth is what half precision leaves of the sum.
    if look and not bool(((shares >= 0.0).all(1) & ((sums - 1.0).abs() < 0.01)).all()):
        raise ValueError(
            f"Probabilities of the classes must be >= 0 and sum to 1 for each image, got values from {float(shares.min()):g} to {float(shares.max()):g} "
            f"and sums from {float(sums.min()):g} to {float(sums.max()):g}. An image of several classes is none of single-label classification."
        )
    return shares

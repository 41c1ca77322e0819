"""What every image classifier here is given and returns: images of its channels, one class for each, and logits with their loss."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from hf_smoothing.data.decoded import UNLABELLED, check_labels, class_labels
from hf_smoothing.models.configuration import input_channels


Output: TypeAlias = ImageClassifierOutput | tuple[Tensor, ...]


def classifier_output(
    model: PreTrainedModel, logits: Tensor, labels: Tensor | None, return_dict: bool | None
) -> Output:
    """The loss, if there are labels, and the logits; a tuple if that is asked for, here or in the configuration.

    Raises:
        ValueError: As `class_labels` and `check_labels`.
    """
    # Not `model.loss_function`: it guesses the kind of problem from the labels, and leaves its guess in the configuration.
    loss = None if labels is None else F.cross_entropy(logits, classes_of(model, labels, logits).to(logits.device))
    output: Any = ImageClassifierOutput(loss=loss, logits=logits)
    as_dict = model.config.return_dict if return_dict is None else return_dict
    return output if as_dict else output.to_tuple()


def classes_of(model: PreTrainedModel, labels: Tensor, logits: Tensor) -> Tensor:
    """Labels as int64 (batch,), each a class or one that the loss leaves out.

    Raises:
        ValueError: As `class_labels` and `check_labels`, the latter where the host need not wait for a device in training.
    """
    classes = class_labels(labels, len(logits))
    if (classes.device.type == "cpu" or not model.training) and not torch.compiler.is_compiling():
        check_labels(classes[classes != UNLABELLED], logits.shape[1])
    return classes


_CONVERT = {(1, 3): "pixels.expand(-1, 3, -1, -1), or image.convert('RGB')", (3, 1): "image.convert('L')"}


def check_channels(pixels: Tensor, config: PreTrainedConfig, name: str) -> None:
    """Refuse images of other channels than a network takes, where its configuration says how many.

    Args:
        pixels: Pixels (batch, channels, height, width).
        config: The network's configuration.
        name: Name of the network, for the message.

    Raises:
        ValueError: If they differ.
    """
    channels = input_channels(config)
    if channels is not None and pixels.ndim == 4 and (given := pixels.shape[1]) != channels:
        kinds = {1: "grey images, of 1 channel", 3: "colour images, of 3 channels"}
        raise ValueError(
            f"{name} takes {kinds.get(channels, f'images of {channels} channels')}, got images of shape {tuple(pixels.shape[1:])}{', of 1 channel' if given == 1 else ''}. Read them with "
            f"PixelDataset(dataset, model), which converts them, or convert them yourself: {_CONVERT.get((given, channels), 'see image.convert')}."
        )

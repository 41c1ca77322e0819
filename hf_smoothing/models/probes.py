"""One forward pass before anything is certified or trained: does the network take these pixels and answer with its labels?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hf_smoothing.data.framing import Framing
from hf_smoothing.data.probe_pictures import probe_pictures
from hf_smoothing.data.processors import frame
from hf_smoothing.models.network import evaluating


def check_forward(
    network: nn.Module, classify: Callable[[Tensor], Any], framing: Framing, num_labels: int, name: str
) -> None:
    """Refuse a network that does not give logits (batch, num_labels) for two probe images.

    Args:
        network: Network that is in eval mode meanwhile; on its device.
        classify: Float pixels in [0, 1], (batch, channels, height, width), to logits.
        framing: Framing of the pixels.
        num_labels: Number of classes that it should know.
        name: Name to call it by.

    Raises:
        ValueError: The message names what came instead.
    """
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    if device.type == "meta":
        return  # there is nothing to run yet
    pixels = frame(framing, probe_pictures(framing.size, framing.channels)).float() / 255
    try:
        with evaluating(network), torch.no_grad():
            logits = classify(pixels.to(device))
    except Exception as error:
        raise ValueError(
            f"{name} cannot classify pixels of shape {tuple(pixels.shape)}: {type(error).__name__}: {str(error).rstrip('.')}. It must take `pixel_values` (batch, "
            "channels, height, width); pass the `size` or `model_size` that it is made for, and image_mean and image_std with one value per channel, such as "
            "[0.5] * 3 for colour or [0.5] for grey."
        ) from error
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (len(pixels), num_labels):
        what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{name} must give logits of shape {(len(pixels), num_labels)} for {len(pixels)} images and its {num_labels} labels, got {what}. "
            "Load it with the head that it was trained with."
        )

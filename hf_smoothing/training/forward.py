"""The logits of a network in training, whatever its forward pass takes and returns beside them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig


def logits_of(network: nn.Module, config: PreTrainedConfig, values: Tensor, **inputs: Any) -> Tensor:
    """Logits of a model of `transformers`, which needs to know no labels for them.

    Args:
        network: The model, or what distributes it over ranks.
        config: Its configuration. Where it asks for tuples, it does not meanwhile.
        values: What goes in as `pixel_values`.
        inputs: Further inputs of the forward pass.

    Returns:
        Logits (batch, num_labels); of an autoencoder, the patches that it rebuilds.
    """
    given = config.return_dict
    try:
        if not given:
            config.return_dict = True  # of the backbone too, which a ViT asks for names
        logits: Tensor = network(pixel_values=values, **inputs).logits
    finally:
        if not given:
            config.return_dict = given
    return logits

"""The logits of a network, whatever its forward pass takes and its configuration asks it to return."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig


def logits_of(network: nn.Module, values: Tensor, config: PreTrainedConfig | None = None, **inputs: Any) -> Tensor:
    """Logits of a model of `transformers`, which needs to know no labels for them.

    Args:
        network: The model, or what distributes it over ranks.
        values: What goes in as `pixel_values`.
        config: Its configuration, which what distributes it hides. Where it asks for tuples, it does not meanwhile.
        inputs: Further inputs of the forward pass.

    Returns:
        Logits (batch, num_labels); of an autoencoder, the patches that it rebuilds; of what gives neither, whatever it gives.
    """
    asked: Any = network.config if config is None else config
    given = asked.return_dict
    try:
        if not given:
            asked.return_dict = True  # of the backbone too, which a ViT asks for names
        outputs = network(pixel_values=values, **inputs)
    finally:
        if not given:
            asked.return_dict = given
    logits: Tensor = getattr(outputs, "logits", outputs)
    return logits

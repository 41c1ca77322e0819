"""From a masked autoencoder to an image classifier."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTMAEConfig, ViTMAEForPreTraining

from hf_smoothing.keywords import meant
from hf_smoothing.models.checkpoints import checked_classes
from hf_smoothing.models.class_maps import check_numbers
from hf_smoothing.models.weights import HUB, load_whole, read_config


SHARED = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "hidden_dropout_prob",
    "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps", "image_size", "patch_size", "num_channels", "qkv_bias",
)  # fmt: skip
"""What the encoder's configuration says of the classifier's."""

IN_TRAINING = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")
"""What of that may be other: an encoder that is trained already is the same network with any."""


def is_autoencoder(model: nn.Module) -> bool:
    """Whether it rebuilds images rather than classifies them."""
    return isinstance(model, ViTMAEForPreTraining)


def classifier_from_autoencoder(
    source: str | os.PathLike[str] | ViTMAEForPreTraining, **kwargs: Any
) -> ViTForImageClassification:
    """The encoder of a masked autoencoder as a `ViTForImageClassification` with a new head.

    Args:
        source: `ViTMAEForPreTraining`, or the folder or Hub id of one.
        kwargs: Keyword arguments of `ViTConfig` that leave the encoder as it is, num_labels or id2label mostly; or which files of a checkpoint are meant: revision, subfolder and the like.

    Returns:
        In float32; it knows its pixels if the autoencoder was trained by `RobustTrainer`.

    Raises:
        ValueError: If the checkpoint is a pickle, or not whole; if the classes are not named one by one, or `label2id` is not the inverse of their
            names; or if another encoder is asked for.
        TypeError: If it is no masked autoencoder, or no checkpoint where there are arguments for one; on other arguments.
    """
    hub = {name: kwargs.pop(name) for name in HUB if name in kwargs}
    if isinstance(source, str | os.PathLike):
        kind = read_config(source, hub).model_type
        if kind != ViTMAEConfig.model_type:
            raise TypeError(f"{os.fspath(source)} is no ViTMAEForPreTraining but a {kind!r}.")
        source = load_whole(ViTMAEForPreTraining.from_pretrained, source, {"dtype": torch.float32, **hub})
    elif hub:
        raise TypeError(f"{', '.join(hub)}: only a checkpoint is loaded with these, got a {type(source).__name__}.")
    if not is_autoencoder(source):
        raise TypeError(f"Only a ViTMAEForPreTraining has an encoder to extract here, got {type(source).__name__}.")
    known = {name: getattr(source.config, name) for name in SHARED}
    _check_encoder_kept(kwargs, known)
    asked = checked_classes(kwargs)
    if asked.get("id2label") is not None and asked.get("label2id") is None:
        asked["label2id"] = {name: int(index) for index, name in asked["id2label"].items()}
    config = ViTConfig(**known | asked)
    check_numbers(asked.get("label2id") or config.label2id, config.id2label)
    model = ViTForImageClassification(config)
    encoder = source.vit.state_dict()
    model.vit.load_state_dict(encoder)  # strict: every tensor, or an error
    noted = getattr(source.config, "hf_smoothing", None)
    if noted is not None:
        model.config.hf_smoothing = noted
    return model


def _check_encoder_kept(kwargs: Mapping[str, Any], encoder: Mapping[str, Any]) -> None:
    """Refuse settings that the encoder does not have, and arguments that no classifier knows."""
    default = ViTConfig()
    if unknown := [name for name in kwargs if not (hasattr(default, name) or hasattr(default, f"_{name}"))]:
        raise TypeError(f"`{unknown[0]}` is no argument of ViTConfig. {meant(unknown[0], dir(default))}")
    for name, value in kwargs.items():
        if name in encoder and name not in IN_TRAINING and value != encoder[name]:
            raise ValueError(
                f"`{name}` must be that of the encoder, {encoder[name]!r}, whose weights are taken, got {value!r}. Leave it out."
            )

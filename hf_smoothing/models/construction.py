"""What models of this package are built of: their own configuration, not what is to be wrapped or loaded."""

from __future__ import annotations

import os
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


ANY_MODULE = (
    "Any other module of [0, 1] pixels is certified as it is: hf_smoothing.certify(module, images, sigma=...)."
)
WRAP = (
    "To wrap an image classifier, a folder, Hub id or model of transformers, use SmoothedClassifier.from_base_pretrained(classifier, sigma=...); to load a "
    "SmoothedClassifier that is saved, SmoothedClassifier.from_pretrained(path)."
)


def check_own_config(config: Any, own: type[PreTrainedConfig], model: str, cure: str) -> None:
    """Refuse to build a model of anything but its configuration.

    Args:
        config: Argument of the constructor.
        own: Configuration that it must be.
        model: Name of the model's class.
        cure: How the model is made of other things.

    Raises:
        TypeError: The message says what it is.
    """
    if not isinstance(config, own):
        raise TypeError(f"{model} is built of its {own.__name__}, got {_shown(config)}. {_with_modules(config, cure)}")


def check_base_network(network: Any) -> None:
    """Refuse to build a `SmoothedClassifier` around anything but a model of `transformers`.

    Raises:
        TypeError: The message says what it is.
    """
    if network is not None and not isinstance(network, PreTrainedModel):
        raise TypeError(f"`base_network` must be a model of transformers, got {_shown(network)}. {ANY_MODULE}")


def check_is_path(path: Any) -> None:
    """Refuse to load a `SmoothedClassifier` from anything but the folder or Hub id of one.

    Raises:
        TypeError: The message says what it is.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"Only a folder or Hub id is loaded, got {_shown(path)}. {_with_modules(path, WRAP)}")


def _shown(given: Any) -> str:
    return repr(os.fspath(given)) if isinstance(given, str | os.PathLike) else type(given).__name__


def _with_modules(given: Any, cure: str) -> str:
    alone = isinstance(given, nn.Module) and not isinstance(given, PreTrainedModel)
    return f"{cure} {ANY_MODULE}" if alone else cure

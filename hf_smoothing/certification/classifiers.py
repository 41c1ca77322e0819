"""What can be certified: a callable on pixels, or an object with a `classify` method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


Classifier = Callable[[Tensor], Tensor]
"""(batch, channels, height, width) pixels, noise already added -> (batch, num_labels) logits."""


def module_of(classifier: Any) -> nn.Module | None:
    """The module behind a classifier: itself, or the owner of a bound method; None for a plain callable."""
    owner = classifier if isinstance(classifier, nn.Module) else getattr(classifier, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def resolve_classifier(classifier: Any) -> Classifier:
    """The callable to certify: the `classify` method where there is one, else the object itself.

    Raises:
        ValueError: If a module is in train mode (dropout and batch statistics would make it another classifier each time).
        TypeError: If it is not callable.
    """
    module = module_of(classifier)
    if module is not None and any(child.training for child in module.modules()):
        raise ValueError(
            "The classifier must be in eval mode to be certified, got a module in train mode. Call model.eval() first."
        )
    resolved: Classifier = getattr(classifier, "classify", classifier)
    if not callable(resolved):
        raise TypeError(
            f"The classifier must be callable on pixels, or have a `classify` method, got {type(classifier).__name__}."
        )
    return resolved


def check_finite(classifier: nn.Module, whose: str = "Weights") -> None:
    """Refuse weights and statistics that are nan or infinite.

    Raises:
        ValueError: The message names the first.
    """
    for name, value in classifier.state_dict().items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{whose} must be finite, but {name} holds nan or inf. Did training diverge?")


def classifier_device(classifier: Any) -> torch.device:
    """The device of a module's parameters; the CPU for a plain callable or a module without any."""
    module = module_of(classifier)
    if module is not None:
        for parameter in module.parameters():
            return parameter.device
    return torch.device("cpu")

"""What can be certified: a callable on pixels, or an object with a `classify` method."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_smoothing.certification.layouts import dense_parts
from hf_smoothing.types import Classifier, Classify, classify_of, unwrapped


@dataclass(frozen=True, eq=False)
class ResolvedClassifier:
    """A classifier with what certification must know of it; itself a classifier.

    Attributes:
        classify: Noisy pixels -> logits.
        module: The module behind it; None for a plain callable.
        device: Device of the module's parameters; the CPU without any.
    """

    classify: Classify
    module: nn.Module | None
    device: torch.device

    def __call__(self, pixels: Tensor) -> Tensor:
        """As `classify`."""
        return self.classify(pixels)


def resolve_classifier(classifier: Classifier) -> ResolvedClassifier:
    """Find the callable to certify: the `classify` method where there is one, else the object itself.

    One that is resolved already is checked again and returned as it is.

    Raises:
        ValueError: If a module is in train mode (dropout and batch statistics would make it another classifier each time).
        TypeError: If it is not callable.
    """
    module = module_of(classifier)
    if module is not None and any(child.training for child in module.modules()):
        raise ValueError(
            f"The classifier must be in eval mode to be certified, got a module in train mode. {into_eval_mode(module)}"
        )
    if isinstance(classifier, ResolvedClassifier):
        return classifier
    classify = classify_of(classifier)
    if not callable(classify):
        raise TypeError(
            f"The classifier must be callable on pixels, or have a `classify` method, got {type(classifier).__name__}."
        )
    return ResolvedClassifier(classify, module, classifier_device(classifier))


def into_eval_mode(module: nn.Module) -> str:
    """What to do about a module in train mode; those that `torch.export` made refuse `eval()`, as their operations are fixed."""
    if any("eval" in vars(part) for part in module.modules()):
        return (
            "Its mode is fixed: export the network in eval mode, and set training = False on each of model.modules()."
        )
    return "Call model.eval() first."


def module_of(classifier: Classifier) -> nn.Module | None:
    """The module behind a classifier: itself, or the owner of a bound method, without what wraps it to run it; None for a plain callable."""
    if isinstance(classifier, ResolvedClassifier):
        return classifier.module
    owner = classifier if isinstance(classifier, nn.Module) else getattr(classifier, "__self__", None)
    return unwrapped(owner) if isinstance(owner, nn.Module) else None


def classifier_device(classifier: Classifier) -> torch.device:
    """The device of a module's parameters; the CPU for a plain callable or a module without any."""
    module = module_of(classifier)
    if module is not None:
        for parameter in module.parameters():
            return parameter.device
    return torch.device("cpu")


def run_dtype(module: nn.Module | None) -> torch.dtype:
    """The dtype that a network is run in, and of the pixels that it is given: that of its first matrix of weights, or else of what it has.

    Vectors, and numbers without dimensions even more so, may be of another one, such as a temperature that numpy made; parameters come before
    buffers. float32 without any.
    """
    tensors = () if module is None else (*module.parameters(), *module.buffers())
    known = sorted((t for t in tensors if t.is_floating_point()), key=lambda tensor: -min(tensor.ndim, 2))
    return known[0].dtype if known else torch.float32


def check_finite(classifier: nn.Module, whose: str = "Weights") -> None:
    """Refuse weights and statistics that are nan or infinite; what is no tensor in a `state_dict` is not looked at.

    Raises:
        ValueError: The message names the first.
    """
    trained = dict(classifier.named_parameters())
    for name, value in classifier.state_dict().items():
        parts = list(dense_parts(value))
        if all(bool(torch.isfinite(part).all()) for part in parts):
            continue
        if name not in trained and not any(bool(part.isnan().any() | part.isposinf().any()) for part in parts):
            raise ValueError(f"{whose} must be finite, but the buffer {name} holds -inf. {FINITE_MASK}")
        raise ValueError(f"{whose} must be finite, but {name} holds nan or inf. Did training diverge?")


FINITE_MASK = (
    "To mask classes add a large finite number in its place, such as -1e9: it keeps them from winning as well."
)


UNWRAPPED = "_original_forward"
"""Where accelerate, and so every Trainer with bf16=True or fp16=True, keeps the `forward` of a model whose own it replaces by one under autocast."""
OUT_OF_IT = (
    "Take it out with accelerator.unwrap_model(module, keep_fp32_wrapper=False) of the module that is named, where a Trainer's accelerator is trainer.accelerator, "
    "or load the saved model."
)


def in_mixed_precision(classifier: nn.Module) -> str:
    """What training in mixed precision has wrapped and certification calls: "the network", or the name of a part in quotes; "" if nothing.

    A `classify` of this library goes past `forward`; one of the user's may call it.
    """
    network = unwrapped(classifier)
    past = type(network).__module__.startswith(f"{__name__.partition('.')[0]}.") and hasattr(network, "classify")
    for name, module in network.named_modules():
        if UNWRAPPED in vars(module) and not (past and module is network):
            return repr(name) if name else "the network"
    return ""


def check_own_precision(resolved: ResolvedClassifier) -> None:
    """Refuse a network that runs in another dtype than a record would say.

    Raises:
        ValueError: The message has the cure.
    """
    if resolved.module is not None and (wrapped := in_mixed_precision(resolved.module)):
        raise ValueError(
            f"The dtype of a run is recorded, but training in mixed precision has left `forward` of {wrapped} under autocast. {OUT_OF_IT}"
        )

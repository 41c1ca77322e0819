"""Which layers of a network take a low-rank update, and how they get it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from torch import nn

from hf_smoothing.models.heads import head_parameters
from hf_smoothing.models.network import heads_of


def inject_lora(classifier: nn.Module, settings: dict[str, Any]) -> None:
    """The layers that `add_lora` adds, without more; none if it cannot add them all.

    Raises:
        ModuleNotFoundError: Without peft.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("LoRA needs peft: pip install hf_smoothing[peft]") from error
    known = adaptable(classifier)
    # By their whole names: peft looks at the ends of names, which containers and layers that it does not adapt have as well.
    chosen = sorted({name for wanted in settings["target_modules"] for name in called(known, wanted)})
    config = LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules="|".join(map(re.escape, chosen)),
    )
    trained = {parameter: parameter.requires_grad for parameter in classifier.parameters()}
    try:
        inject_adapter_in_model(config, classifier)
    except BaseException:
        for name, layer in list(classifier.named_modules()):
            if of_peft(layer) and hasattr(layer, "base_layer"):
                put(classifier, name, layer.base_layer)
        for parameter, requires_grad in trained.items():
            parameter.requires_grad_(requires_grad)
        raise
    finally:
        vars(classifier).pop("peft_config", None)  # it is in the configuration of the wrapper
    for name in chosen:
        layer = classifier.get_submodule(name)
        layer.train(known[name].training)  # what peft adds is in train mode, where dropout is active
        for attribute in _OF_CONVOLUTIONS:
            if isinstance(known[name], nn.Conv2d) and not hasattr(layer, attribute):
                setattr(layer, attribute, getattr(known[name], attribute))


_OF_CONVOLUTIONS = ("kernel_size", "stride", "padding", "dilation", "groups")
"""What some networks (MobileNet, EfficientNet) ask of their convolutions, and what peft puts in their place does not say."""


CANNOT = "Outside its head it has no linear layer, and no convolution without groups or holes, of torch itself."


def adaptable(network: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """By name, the layers that can be given an update that is added to their weights later: not the head, which is trained whole."""
    head = head_names(network)
    return {
        name: module
        for name, module in network.named_modules()
        if _takes_an_update(module) and f"{name}.weight" not in head
    }


def _takes_an_update(module: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """Whether what a layer computes is linear in a weight of its own, as peft takes it to be: classes made of these may do more."""
    # A weight that is no parameter is computed, as by a weight norm.
    own = type(module) in (nn.Linear, nn.Conv2d) and "weight" in module._parameters
    if own and isinstance(module, nn.Conv2d):
        return module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
    return own


def called(layers: Mapping[str, nn.Linear | nn.Conv2d], wanted: str) -> dict[str, nn.Linear | nn.Conv2d]:
    """Those whose name is this one, or ends with it."""
    return {name: layer for name, layer in layers.items() if f".{name}".endswith(f".{wanted}")}


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one of that name."""
    place, _, last = name.rpartition(".")
    setattr(model.get_submodule(place), last, module)


def head_names(model: nn.Module) -> set[str]:
    """Names of what makes logits of the backbone's features; of a network that is no backbone and head, its linear layers that do."""
    last = {id(parameter) for head in heads_of(model).values() for parameter in head.parameters()}
    return set(head_parameters(model)) or {name for name, p in model.named_parameters() if id(p) in last}


def of_peft(module: Any) -> bool:
    """Whether peft made it; said without importing that, which takes seconds."""
    return type(module).__module__.split(".")[0] == "peft"

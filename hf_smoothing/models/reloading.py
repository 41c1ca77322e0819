"""Networks and their configurations: which network one brings back, and what must not be saved since none would."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoModelForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
)


def build_network(config: PreTrainedConfig) -> PreTrainedModel:
    """A network with random weights, of the class that the configuration names in `architectures`."""
    if config.architectures is None:
        config.architectures = []  # the Auto classes look through them where a type has several classes
    network: PreTrainedModel = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    return network


def as_it_is(network: PreTrainedModel) -> PreTrainedModel:
    """The network, marked so that becoming a part of another model does not initialise it anew."""
    for module in network.modules():
        module._is_hf_initialized = True
    return network


def class_of(config: PreTrainedConfig, names: Sequence[str]) -> type[PreTrainedModel] | None:
    """The class that `build_network` takes in a fresh process for a configuration with these `architectures`, or None."""
    if config.model_type not in CONFIG_MAPPING or CONFIG_MAPPING[config.model_type] is not type(config):
        return None
    known: Any = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.get(type(config), None)
    classes = list(known) if isinstance(known, tuple | list) else [known]
    named = [found for name in names for found in classes if found is not None and found.__name__ == name]
    found: type[PreTrainedModel] | None = (named or classes)[0]
    return found


def why_not_reloadable(network: PreTrainedModel) -> str | None:
    """Why a network would not come back from its configuration, and the cure; None if it would."""
    kind = type(network).__name__
    if type(network).__module__.startswith("transformers_modules"):
        return (
            f"{kind} runs code of its own repository, which a SmoothedClassifier does not bring along. Save (and train) the plain model, and wrap it each "
            "time: SmoothedClassifier.from_base_pretrained(path, sigma=..., trust_remote_code=True)."
        )
    if getattr(network.config, "quantization_config", None) is not None:
        return (
            f"{kind} is quantized, and would come back without. Load it unquantized, or call its dequantize() first."
        )
    found = class_of(network.config, [kind])
    if found is not type(network):
        back = "would not come back" if found is None else f"would come back as {found.__name__}"
        return (
            f"{kind} of {type(network).__module__} {back}. Give it a configuration class with a model_type of its own, and register both here and wherever "
            "it is loaded: AutoConfig.register(model_type, Config) and AutoModelForImageClassification.register(Config, Model). Or save (and train) the plain "
            "model, and wrap it each time: SmoothedClassifier.from_base_pretrained(model, sigma=...)."
        )
    return None


def check_reloadable(model: PreTrainedModel, state: Mapping[str, Tensor] | None = None) -> None:
    """Refuse what could be saved but not loaded again, or only as another network.

    Args:
        model: A `SmoothedClassifier`.
        state: The tensors that are to be saved; its own by default.

    Raises:
        ValueError: The message names the network, or the tensors that differ from those that the configuration asks
            for.
    """
    for network in _networks(model):
        if reason := why_not_reloadable(network):
            raise ValueError(f"What cannot be loaded again is not saved. {reason}")
    with generators_kept(), init_empty_weights():  # saving must not change what a training draws next
        built = type(model)(copy.deepcopy(model.config)).state_dict()
    expected = {name: tuple(value.shape) for name, value in built.items()}
    found = {name: tuple(value.shape) for name, value in (model.state_dict() if state is None else state).items()}
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if differing:
        first = differing[0]
        raise ValueError(
            f"What cannot be loaded again is not saved. {len(differing)} tensors differ from those of the configuration, the first is {first}: "
            f"{found.get(first, 'none')} for {expected.get(first, 'none')}. A part that was replaced, or an adapter that was added by hand, is not in the "
            "configuration: merge adapters (merge_and_unload() or merge_lora(model)), and change parts in the configuration, before the model is made."
        )


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put the global generators back afterwards: those of torch, here and on the device, of numpy and of Python."""
    python, arrays = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


def check_unhidden(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder with a file of somebody else that would be read in place of, or on top of, what is saved there.

    Raises:
        ValueError: The message names the file. It is left where it is.
    """
    found = {name: Path(folder) / name for name in ("processor_config.json", "adapter_config.json")}
    reason = None
    if (hiding := found["processor_config.json"]).is_file() and b'"image_processor"' in hiding.read_bytes():
        reason = f"{hiding} holds an image processor, which is read in place of the one that is saved"
    elif (hiding := found["adapter_config.json"]).is_file():
        reason = f"{hiding} belongs to an adapter of peft, which is put on top of the network that is saved"
    if reason is not None:
        raise ValueError(
            f"What would be loaded as something else is not saved. {reason}. Save to another folder, or remove that file."
        )


def _networks(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The networks that `build_network` built inside."""
    for name in ("base_network", "network", "members"):
        inner = getattr(model, name, None)
        for network in [inner] if isinstance(inner, PreTrainedModel) else inner or []:
            yield network
            yield from _networks(network)

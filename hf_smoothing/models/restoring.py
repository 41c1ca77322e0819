"""The tensors of a checkpoint for a model that is there already, whatever its configuration says of its parts."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from hf_smoothing.models.weights import load_whole


def load_as(model: PreTrainedModel, path: str) -> PreTrainedModel:
    """A model with the parts of this one, the weights and the configuration of a checkpoint, and every tensor from it.

    Parts that the configuration does not know, such as a head that was replaced, or a class that is made of more than a configuration,
    are no hindrance: nothing is built. The names of tensors in files, which `transformers` changes, are still its concern.

    Args:
        model: Model that was saved there, or one like it; stays as it is.
        path: Folder of the checkpoint.

    Returns:
        A model on the CPU, in eval mode, for its `state_dict()` and `config`; what is not in a state dict has no values.

    Raises:
        ValueError: As for `load_whole`; the message names the tensors that do not fit.
    """

    def there(cls: type, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> PreTrainedModel:
        bare = _bare(model, {})
        bare.config = config
        return bare  # no instance of `cls`, so that `__init__` is not called

    kind = type(model)
    as_it_is = type(kind.__name__, (kind,), {"__new__": there, "__module__": kind.__module__})
    load = functools.partial(PreTrainedModel.from_pretrained.__func__, as_it_is)
    # Mismatched tensors are then named among the others.
    kwargs = {"dtype": _widest(model), "ignore_mismatched_sizes": True}
    loaded: PreTrainedModel = load_whole(load, path, kwargs, cure=_CURE)
    return loaded


_CURE = "Restore it into the network that was saved: the same class, classes and parts, replaced ones included."


def _widest(model: PreTrainedModel) -> torch.dtype:
    """A dtype that holds every parameter as it is."""
    widest: torch.dtype = functools.reduce(torch.promote_types, {parameter.dtype for parameter in model.parameters()})
    return widest


def _bare(module: nn.Module, made: dict[nn.Module, Any]) -> Any:
    """The modules again, of the same classes, with tensors that take no memory. Not by `copy`, which parametrised modules refuse.

    In eval mode: in train mode a module may change its buffers when it is looked at, as the spectral norm does.
    """
    if module in made:
        return made[module]
    bare = made[module] = type(module).__new__(type(module))
    bare.__dict__ = {name: value.copy() if isinstance(value, dict) else value for name, value in vars(module).items()}
    bare.training = False
    for name, parameter in module._parameters.items():
        bare._parameters[name] = None if parameter is None else nn.Parameter(_meta(parameter), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        bare._buffers[name] = None if buffer is None else _meta(buffer)
    for name, child in module._modules.items():
        bare._modules[name] = None if child is None else _bare(child, made)
    return bare


def _meta(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta", requires_grad=False)

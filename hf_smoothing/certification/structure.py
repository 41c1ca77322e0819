"""A network without what is put around it to run it, and what it says of itself beside its tensors."""

from __future__ import annotations

import hashlib
from typing import cast

from torch import nn


_COMPILED = "_orig_mod"
"""Where `torch.compile` keeps the module that it wraps; part of the names of weights then."""

_PASSING = ("training", "name_or_path")
"""Attributes that say how a network is used, or where it came from."""


def unwrapped(module: nn.Module) -> nn.Module:
    """The network in `torch.compile`, `DataParallel` and `DistributedDataParallel`, which compute the same with it."""
    while True:
        if _COMPILED in module._modules:
            module = cast(nn.Module, module._modules[_COMPILED])
        elif isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            module = module.module
        else:
            return module


def plain_name(name: str) -> str:
    """The name of a tensor or module as it is where no part of the network is compiled."""
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def attributes_of(module: nn.Module | None) -> frozenset[tuple[str, str]]:
    """Classes of all modules, what they print of themselves, and their attributes that are numbers, texts or truth values."""
    found = set()
    for name, child in () if module is None else module.named_modules():
        if _COMPILED in child._modules:
            continue
        said = {"": f"{type(child).__name__}({child.extra_repr()})"}
        for key, value in (vars(child) | said).items():
            if isinstance(value, (bool, int, float, str)) and not key.startswith("_") and key not in _PASSING:
                found.add((plain_name(f"{name}.{key}"), repr(value)))
    return frozenset(found)


def attributes_sha256(attributes: frozenset[tuple[str, str]]) -> str:
    """SHA-256 of what `attributes_of` gives."""
    return hashlib.sha256(repr(sorted(attributes)).encode()).hexdigest()

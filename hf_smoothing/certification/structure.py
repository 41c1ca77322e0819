"""What a network says of itself beside its tensors, by names that do not depend on how it is run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any, cast

from torch import nn

from hf_smoothing.certification.values import is_device, printed, told
from hf_smoothing.types import inner_name, unwrapped


CLASSES, PRINTED = "classes", "extra_repr"
"""Stand among the names of attributes for the classes of all modules, and for what those of one class print of themselves."""

_PASSING = (
    "training", "gradient_checkpointing", "local_rank", "world_size", "name_or_path", "hf_device_map", "device_map", "pretrained_cfg", "default_cfg",
    "model_tags", "loss_type", "warnings_issued", "all_tied_weights_keys", "kernel_config",
)  # fmt: skip
"""Attributes that say how a network is used, by which process, on which devices, or where it came from."""
_ADAPTERS = ("_disable_adapters", "_active_adapter")
"""Attributes of `peft` that decide in spite of their underscore."""


def plain_name(module: nn.Module, name: str) -> str:
    """The name of a tensor or module within `module` as it is where nothing wraps any part of it.

    >>> plain_name(nn.Sequential(nn.DataParallel(nn.Linear(1, 1))), "0.module.weight")
    '0.weight'
    """
    place: nn.Module | None = module
    kept = []
    for part in name.split("."):
        if place is not None and part == inner_name(place):
            place = cast(nn.Module, place._modules[part])
            continue
        kept.append(part)
        child = None if place is None else getattr(unwrapped(place), part, None)
        place = child if isinstance(child, nn.Module) else None
    return ".".join(kept)


Attributes = frozenset[tuple[str, str, str]]
"""What modules say: the name of an attribute, such as "Conv2d.stride", the place of the module, and a text for the value."""


def attributes_of(module: nn.Module | None) -> Attributes:
    """Classes of all modules, what they print of themselves, and their attributes that are numbers, texts, arrays or containers of these.

    So are buffers that are not saved. Left out is what the answers cannot depend on: addresses, devices, absolute paths, caches, and names that begin
    with an underscore.
    """
    found = set()
    for name, child in () if module is None else module.named_modules():
        if inner_name(child) is not None:
            continue
        place, kind = plain_name(module, name) if module is not None and name else "", type(child).__name__
        found.add((CLASSES, place, kind))
        if shown := _printed_by(child):
            found.add((f"{kind}.{PRINTED}", place, shown))
        for key, value in _held_by(child):
            if (text := told(value)) is not None:
                found.add((f"{kind}.{key}", place, text))
    return frozenset(found)


def _printed_by(module: nn.Module) -> str:
    try:
        return printed(module.extra_repr())
    except Exception:  # what a network prints is no part of what it computes
        return ""


def _held_by(module: nn.Module) -> Iterator[tuple[str, Any]]:
    unsaved = {key: module._buffers.get(key) for key in module._non_persistent_buffers_set}
    for key, value in (vars(module) | unsaved).items():
        passing = key.startswith("_") or key in _PASSING or "cache" in key.lower()
        if value is None or (passing and key not in _ADAPTERS):
            continue
        if isinstance(value, str) and (os.path.isabs(value) or is_device(value)):
            continue
        yield key, value


def unchanged(before: Attributes, after: Attributes) -> Attributes:
    """What is said under names that say the same before and after: what counts the passes is no part of the network."""
    moving = {name for name, _, _ in before ^ after}
    return frozenset(one for one in before if one[0] not in moving)


def values_alone(attributes: Attributes) -> Attributes:
    """The attributes without the classes of modules and what these print."""
    return frozenset(one for one in attributes if one[0] != CLASSES and not one[0].endswith(f".{PRINTED}"))


def attribute_hashes(attributes: Attributes) -> dict[str, str]:
    """For each name of an attribute a short hash of its values in all modules, so that a comparison can say which one differs."""
    named: dict[str, list[tuple[str, str]]] = {}
    for name, place, value in sorted(attributes):
        named.setdefault(name, []).append((place, value))
    return {name: short_hash(repr(values)) for name, values in named.items()}


def saved_state(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Names and values of a module's `state_dict`, in order, with the names that they have where nothing wraps a part."""
    network = unwrapped(module)
    named = [(plain_name(network, name), value) for name, value in network.state_dict().items()]
    yield from sorted(named, key=lambda one: one[0])


def saved_buffers(module: nn.Module | None) -> frozenset[tuple[str, str | None]]:
    """Names of the buffers that are part of a module's weights, each with a text for its values."""
    parts = () if module is None else module.named_modules()
    return frozenset(
        (f"{name}.{key}".lstrip("."), told(value))
        for name, child in parts
        for key, value in child._buffers.items()
        if value is not None and key not in child._non_persistent_buffers_set
    )


def short_hash(text: str) -> str:
    """The first 16 digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]

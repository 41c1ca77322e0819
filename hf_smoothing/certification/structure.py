"""What a network says of itself beside its tensors, by names that do not depend on how it is run."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

from torch import nn

from hf_smoothing.certification.values import OTHER, printed, told
from hf_smoothing.types import inner_name, unwrapped


CLASSES, PRINTED = "classes", "extra_repr"
"""Stand among the names of attributes for the classes of all modules, and for what those of one class print of themselves."""

_PASSING = (
    "training", "gradient_checkpointing", "local_rank", "world_size", "name_or_path", "hf_device_map", "device_map", "pretrained_cfg", "default_cfg",
    "model_tags", "loss_type", "warnings_issued", "all_tied_weights_keys", "kernel_config", "device", "active_adapter",
)  # fmt: skip
"""Attributes that say how a network is used, by which process, on which devices, or where it came from. Which adapter of `peft` is active is known from its layers."""
_CACHES = ("cache", "caches", "cached")
"""What the names of attributes end in that hold what a network need not compute again."""
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
Moving = Mapping[str, Collection[str]]
"""For names of attributes the places of the modules where forward passes change them."""
_WITHOUT = " without "


def attributes_of(module: nn.Module | None) -> Attributes:
    """Classes of all modules, what they print of themselves, and their attributes; those that have no text, such as functions, are one as the other.

    So are buffers that are not saved. Left out is what the answers cannot depend on: addresses, which device, which absolute path, caches, and names
    that begin with an underscore. Where there is None, a device or a path, that is said: another network may have a number there.
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
            found.add((f"{kind}.{key}", place, told(value, OTHER) or OTHER))
    return frozenset(found)


def _printed_by(module: nn.Module) -> str:
    try:
        return printed(module.extra_repr())
    except Exception:  # what a network prints is no part of what it computes
        return ""


def _held_by(module: nn.Module) -> Iterator[tuple[str, Any]]:
    unsaved = {key: module._buffers.get(key) for key in module._non_persistent_buffers_set}
    for key, value in (vars(module) | unsaved).items():
        passing = key.startswith("_") or key in _PASSING or key.lower().endswith(_CACHES)
        if key in _ADAPTERS or not passing:
            yield key, value


def moving(before: Attributes, after: Attributes) -> dict[str, set[str]]:
    """Where forward passes change what modules say: what counts the passes is no part of the network."""
    places: dict[str, set[str]] = {}
    for name, place, _ in before ^ after:
        places.setdefault(name, set()).add(place)
    return places


def values_alone(attributes: Attributes) -> Attributes:
    """The attributes without the classes of modules and what these print."""
    return frozenset(one for one in attributes if one[0] != CLASSES and not one[0].endswith(f".{PRINTED}"))


def attribute_hashes(
    attributes: Attributes, passing: Moving | None = None, recorded: Mapping[str, str] | None = None
) -> dict[str, str]:
    """For each name of an attribute a short hash of its values in all modules, so that a comparison can say which one differs.

    Args:
        attributes: What modules said before forward passes.
        passing: Where the passes change it. These places are left out of the hash and named after it, as "0123456789abcdef without blocks.0".
        recorded: What a record says. Its names alone are returned, with what it says where nothing is known of them: where this network lacks a name, as
            one built by another version of a library, or its passes change places that are in the recorded hash.
    """
    passing = passing or {}
    named: dict[str, list[tuple[str, str]]] = {}
    for name, place, value in sorted(attributes):
        named.setdefault(name, []).append((place, value))
    if recorded is None:
        hashes = {name: _hash_without(said, passing.get(name, ())) for name, said in named.items()}
        return {name: text for name, text in hashes.items() if text is not None}
    found = {}
    for name, known in recorded.items():
        _, some, places = known.partition(_WITHOUT)
        left_out = places.split(", ") if some else []  # the place of the network itself is ""
        comparable = set(passing.get(name, ())) <= set(left_out)
        mine = _hash_without(named.get(name, []), left_out) if comparable else None
        found[name] = known if mine is None else mine
    return found


def _hash_without(said: list[tuple[str, str]], places: Collection[str]) -> str | None:
    """The hash of what is said elsewhere than at some places, and these; None if nothing is."""
    kept = [one for one in said if one[0] not in places]
    if not kept:
        return None
    return short_hash(repr(kept)) + (f"{_WITHOUT}{', '.join(sorted(places))}" if places else "")


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

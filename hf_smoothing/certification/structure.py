"""What a network says of itself beside its tensors, by names that do not depend on how it is run."""

from __future__ import annotations

import hashlib
import os
import re
from typing import cast

from torch import nn

from hf_smoothing.types import inner_name, unwrapped


CLASS = "class"
"""Stands among the names of attributes for the classes of modules and what they print of themselves."""

_PASSING = ("training", "name_or_path", "gradient_checkpointing", "local_rank", "world_size")
"""Attributes that say how a network is used, by which process, or where it came from."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_DEVICE = re.compile(
    r"device\(type='\w+'(?:, index=\d+)?\)|\b(?:cpu|cuda|mps|xpu|hpu|npu|xla|meta)(?::\d+)?\b", re.IGNORECASE
)
_PATH = re.compile(r"(?<![\w./])/\w[\w.\-]*(?:/[\w.\-]*)+")


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


def attributes_of(module: nn.Module | None) -> frozenset[tuple[str, str]]:
    """Classes of all modules, what they print of themselves, and their attributes that are numbers, texts or truth values.

    Left out is what the answers cannot depend on: addresses, devices, absolute paths, and names that begin with an underscore.
    """
    found = set()
    for name, child in () if module is None else module.named_modules():
        if inner_name(child) is not None:
            continue
        place = plain_name(module, name) if module is not None and name else ""
        printed = _PATH.sub("", _DEVICE.sub("", f"{type(child).__name__}({child.extra_repr()})"))
        found.add((f"{place}.", repr(without_addresses(printed))))
        for key, value in vars(child).items():
            if key.startswith("_") or key in _PASSING or not isinstance(value, (bool, int, float, str)):
                continue
            if isinstance(value, str):
                if os.path.isabs(value) or _DEVICE.fullmatch(value):
                    continue
                value = without_addresses(value)
            found.add((f"{place}.{key}", repr(value)))
    return frozenset(found)


def attribute_hashes(attributes: frozenset[tuple[str, str]]) -> dict[str, str]:
    """For each name of an attribute a short hash of its values in all modules, so that a comparison can say which one differs."""
    named: dict[str, list[tuple[str, str]]] = {}
    for name, value in sorted(attributes):
        named.setdefault(name.rpartition(".")[2] or CLASS, []).append((name, value))
    return {name: short_hash(repr(values)) for name, values in sorted(named.items())}


def short_hash(text: str) -> str:
    """The first 16 digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def without_addresses(text: str) -> str:
    """A text without the addresses in memory that Python prints for objects.

    >>> without_addresses("<function f at 0x7f0c>")
    '<function f>'
    """
    return _ADDRESS.sub("", text)

"""Names and hashes of a network's tensors that do not depend on how it is run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from hf_smoothing.certification.images import raw_bytes
from hf_smoothing.types import inner_name, unwrapped


def unwrapped_name(module: nn.Module, name: str) -> str:
    """The name of a tensor or module within `module` as it is where nothing wraps any part of it.

    >>> unwrapped_name(nn.Sequential(nn.DataParallel(nn.Linear(1, 1))), "0.module.weight")
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


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 of a module's `state_dict`: names, dtypes, shapes, values. What is not in it shows in the answer to the probe."""
    network = unwrapped(module)
    return entries_sha256({unwrapped_name(network, name): value for name, value in network.state_dict().items()})


def entries_sha256(entries: Mapping[str, Any]) -> str:
    """SHA-256 of entries of a `state_dict`, in whatever order: names, dtypes, shapes, values."""
    digest = hashlib.sha256()
    for name, value in sorted(entries.items()):
        for content in _contents(name, value):
            digest.update(content)
    return digest.hexdigest()


def saved_buffers(module: nn.Module | None) -> dict[str, str]:
    """The buffers that are part of a module's weights, each with a hash of its values."""
    return {
        f"{place}.{name}".lstrip("."): hashlib.sha256(b"".join(_contents(name, value))).hexdigest()
        for place, child in ([] if module is None else module.named_modules())
        for name, value in child._buffers.items()
        if value is not None and name not in child._non_persistent_buffers_set
    }


def _contents(name: str, value: Any) -> Iterator[bytes]:
    """What is hashed of an entry of a `state_dict`."""
    for part in _parts(value):
        if isinstance(part, Tensor):
            yield f"{name} {part.dtype} {tuple(part.shape)}\n".encode()
            yield raw_bytes(part.dequantize() if part.is_quantized else part)
        elif isinstance(part, (str, bytes, int, float, complex, torch.dtype)):  # others may show an address
            yield f"{name} {part!r}\n".encode()


def _parts(value: Any) -> Iterator[Any]:
    """A tensor, or those in the tuples that quantised modules keep, and in whatever others keep as their extra state."""
    if isinstance(value, Mapping):
        for key, one in sorted(value.items(), key=lambda item: str(item[0])):
            yield from (str(key), *_parts(one))
    elif isinstance(value, (set, frozenset)):
        yield from sorted(map(str, value))
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _parts(one)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        yield torch.from_numpy(np.ascontiguousarray(value))
    else:
        yield value.item() if isinstance(value, np.generic) else value

"""Fingerprints by content of what a run depends on: the weights and the images, never a name or a path."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def weights_sha256(classifier: Any) -> str | None:
    """SHA-256 of a module's parameters and buffers (names, dtypes, shapes, values); None for a plain callable."""
    module = classifier if isinstance(classifier, nn.Module) else getattr(classifier, "__self__", None)
    if not isinstance(module, nn.Module):
        return None
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_raw_bytes(tensor))
    return digest.hexdigest()


def images_sha256(items: Iterable[tuple[int, Mapping[str, Any]]]) -> str:
    """SHA-256 of the indices, pixels and labels of data-set items, in order.

    Args:
        items: (index, mapping with "pixel_values", a tensor, and where known "labels", an integer).
    """
    digest = hashlib.sha256()
    for index, item in items:
        pixels = item["pixel_values"]
        digest.update(f"{index} {pixels.dtype} {tuple(pixels.shape)} {item.get('labels')}\n".encode())
        digest.update(_raw_bytes(pixels))
    return digest.hexdigest()


def _raw_bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""

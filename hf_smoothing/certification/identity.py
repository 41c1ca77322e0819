"""Fingerprints by content of what a run depends on: the weights and the images, never a name or a path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_smoothing.certification.sampling import module_of


def classifier_identity(classifier: Any) -> dict[str, Any]:
    """What makes a classifier the one it is, for `run.json`: its weights, their dtype, and its configuration if it has one."""
    module = module_of(classifier)
    if module is None:
        return {"weights_sha256": None}
    identity: dict[str, Any] = {
        "weights_sha256": weights_sha256(module),
        "weights_dtype": ", ".join(sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters()})),
    }
    config = getattr(module, "config", None)
    if config is not None and hasattr(config, "to_dict"):
        text = json.dumps(_lasting(config.to_dict()), sort_keys=True, default=str)
        identity["config_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return identity


def _lasting(config: Any) -> Any:
    """A configuration without what changes from one loading to the next."""
    if not isinstance(config, Mapping):
        return config
    passing = ("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype")
    return {str(key): _lasting(value) for key, value in config.items() if key not in passing}


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers: names, dtypes, shapes, values."""
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

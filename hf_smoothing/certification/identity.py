"""What makes a classifier the one it is: a fingerprint of its content, never a name or a path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from hf_smoothing.certification.classifiers import module_of
from hf_smoothing.certification.images import raw_bytes
from hf_smoothing.records import Run, RunError
from hf_smoothing.types import Classifier


def classifier_identity(classifier: Classifier) -> dict[str, Any]:
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


def identity_differences(classifier: Classifier, known: Mapping[str, Any]) -> str:
    """In what a classifier is another than the one whose identity is known, such as "weights_sha256"; "" if in nothing."""
    identity = classifier_identity(classifier)
    return ", ".join(key for key, value in identity.items() if known.get(key) != value)


def check_network_of_run(classifier: Classifier, run: Run) -> None:
    """Refuse another classifier than that whose certificates a run holds.

    Raises:
        RunError: The message names what differs.
    """
    if differing := identity_differences(classifier, run.settings["model"]):
        raise RunError(f"{run.path} holds the certificates of another network: {differing} differ from this one's.")


def _lasting(config: Any) -> Any:
    """A configuration without what changes from one loading to the next."""
    if not isinstance(config, Mapping):
        return config
    passing = ("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype")
    return {
        str(key): _lasting(value)
        for key, value in config.items()
        if key not in passing and not (key in _LATER and value is None)
    }


_LATER = ("lora",)
"""Settings that older records do not know: None says the same as their absence."""


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 of a module's parameters and buffers: names, dtypes, shapes, values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()

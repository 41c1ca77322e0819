"""What makes a classifier the one it is: a fingerprint of its content, never a name or a path."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hf_smoothing.certification.behaviour import ANSWERS, ATTRIBUTES, LOGITS, answer_to_probe
from hf_smoothing.certification.classifiers import ResolvedClassifier, module_of, resolve_classifier, run_dtype
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.images import raw_bytes
from hf_smoothing.certification.structure import plain_name, unwrapped
from hf_smoothing.records import RUN_FILE, Run, RunError, read_settings
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


def differences_from(
    classifier: ResolvedClassifier,
    known: Mapping[str, Any],
    shape: tuple[int, ...],
    execution: Execution,
    dtype: torch.dtype = torch.float32,
    *,
    elsewhere: bool = False,
    deterministic: bool = False,
) -> str:
    """In what a classifier is another than the one whose record is known, such as "weights_sha256"; "" if in nothing.

    Args:
        classifier: The classifier.
        known: The part "model" of a run's settings.
        shape, execution, dtype: As in `answer_to_probe`.
        elsewhere, deterministic: As in `answer_to_probe`.
    """
    identity = classifier_identity(classifier)
    differing = [key for key, value in identity.items() if known.get(key) != value]
    if LOGITS in known and not differing:
        answer = answer_to_probe(
            classifier, shape, execution, dtype, known=known, elsewhere=elsewhere, deterministic=deterministic
        )
        differing += [key for key, value in answer.to_dict().items() if known.get(key) != value]
    return ", ".join(differing)


def check_network_of_run(classifier: Classifier, run: Run) -> None:
    """Refuse another classifier than that whose certificates a run holds.

    Raises:
        RunError: The message names what differs.
    """
    resolved, settings = resolve_classifier(classifier), run.settings
    dtype, execution, deterministic = torch.float32, Execution(), bool(settings.get("deterministic"))
    if deterministic:
        dtype = run_dtype(resolved.module)
    else:
        execution = Execution(settings["dtype"], settings["channels_last"])
    shape, elsewhere = tuple(settings["resolution"]), settings.get("device_kind") != resolved.device.type
    if differing := differences_from(
        resolved, settings["model"], shape, execution, dtype, elsewhere=elsewhere, deterministic=deterministic
    ):
        raise RunError(f"{run.path} holds the certificates of another network: {differing} differ from this one's.")


def recorded_answer(output_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """What the record of a run folder says of its classifier's answer, as `Answer.to_dict`; empty where there is no run, or none that says so.

    Raises:
        RunError: If its run.json is corrupt or of another format.
    """
    if not (Path(output_dir) / RUN_FILE).exists():
        return {}
    model = read_settings(Path(output_dir)).get("model", {})
    return {key: model[key] for key in (LOGITS, ANSWERS, ATTRIBUTES) if key in model}


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
    """SHA-256 of a module's `state_dict`: names, dtypes, shapes, values. What is not in it shows in the answer to the probe."""
    digest = hashlib.sha256()
    values = {plain_name(name): value for name, value in unwrapped(module).state_dict().items()}
    for name, value in sorted(values.items()):
        for part in _parts(value):
            if isinstance(part, Tensor):
                digest.update(f"{name} {part.dtype} {tuple(part.shape)}\n".encode())
                digest.update(raw_bytes(part.dequantize() if part.is_quantized else part))
            elif isinstance(part, (str, int, float, torch.dtype)):  # others may show an address
                digest.update(f"{name} {part!r}\n".encode())
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[Any]:
    """A tensor, or those in the tuples that quantised modules keep."""
    if isinstance(value, (tuple, list)):
        for one in value:
            yield from _parts(one)
    else:
        yield value

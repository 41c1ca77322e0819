"""What makes a classifier the one it is: a fingerprint of its content, never a name or a path."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_smoothing.certification.behaviour import LOGITS, PARTS, answer_to_probe
from hf_smoothing.certification.classifiers import ResolvedClassifier, module_of, resolve_classifier, run_dtype
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.images import raw_bytes
from hf_smoothing.certification.structure import saved_state, short_hash
from hf_smoothing.certification.values import told, without_addresses
from hf_smoothing.records import RUN_FILE, Run, RunError, model_differences, network_cure, read_settings
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
    said = _configuration_of(module)
    if said is not None:
        text = json.dumps(_lasting(said), sort_keys=True, default=_text)
        identity["config_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        identity["config"] = _settings(_deciding(said))
    return identity


def _configuration_of(module: nn.Module) -> Mapping[str, Any] | None:
    """The settings in a module's `config`; None where it has none, or something else of that name."""
    config: Any = getattr(module, "config", None)
    if isinstance(config, type) or not hasattr(config, "to_dict"):
        return None
    try:
        said = config.to_dict()
    except Exception:  # the answer to the probe knows the network then
        return None
    return said if isinstance(said, Mapping) else None


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
    differing = model_differences(known, classifier_identity(classifier))
    if LOGITS in known and not differing:
        answer = answer_to_probe(
            classifier, shape, execution, dtype, known=known, elsewhere=elsewhere, deterministic=deterministic
        )
        differing = model_differences(known, answer.to_dict())
    cures = [network_cure(key) for key in differing]
    return ", ".join(differing) + (f" ({'; '.join(dict.fromkeys(cures))})" if all(cures) and cures else "")


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
    return {key: model[key] for key in PARTS if key in model}


_PASSING = (
    "transformers_version", "architectures", "name_or_path", "torch_dtype", "dtype", "attn_implementation", "experts_implementation",
    "problem_type", "use_cache", "return_dict", "output_attentions", "output_hidden_states", "gradient_checkpointing",
    "auto_map", "custom_pipelines", "torchscript", "task_specific_params", "finetuning_task", "output_dir", "id2label", "label2id",
)  # fmt: skip
"""Settings that `transformers` writes as a network is loaded, trained or asked for a loss, that say how its outputs are given, or what its classes
are called; a run states its class map, and the weights their number."""
_OF_RUNS = ("sigma", "num_samples", "n0", "n", "alpha", "noise", "noise_owner")
"""Defaults in the configuration of a `SmoothedClassifier`: a run states its own, and `classify` knows none of them."""
_OF_TRAINING = ("noise", "objective")
"""What `RobustTrainer` notes of a training, beside the pixels that the network knows."""
_DEFAULTS = {"smoothed_classifier": _OF_RUNS}
"""Type of a configuration -> its settings that decide no answer. A `sigma` of another type does: a denoiser takes out noise of that level."""


def _deciding(config: Any, inside: str = "") -> Any:
    """What of a configuration decides the answers of the network. None says the same as absence: another version may not know the setting."""
    if isinstance(config, (list, tuple)):
        return [_deciding(value) for value in config]
    if not isinstance(config, Mapping):
        return config
    left_out = {*_PASSING, *_DEFAULTS.get(str(config.get("model_type")), ())}
    left_out |= set(_OF_TRAINING if inside == "hf_smoothing" else ())
    kept = {str(key): value for key, value in config.items() if value is not None and not str(key).startswith("_")}
    found = {key: _deciding(value, key) for key, value in kept.items() if key not in left_out}
    return {key: value for key, value in found.items() if value != {}}


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Each setting as a record states it: a text that a message can show, or else a short hash."""
    found: dict[str, Any] = {}
    for key, value in sorted(config.items()):
        if isinstance(value, Mapping) and key.endswith("config"):
            found[key] = _settings(value)
            continue
        text = told(value)
        if text is None:
            text = json.dumps(value, sort_keys=True, default=_text, skipkeys=True)
        text = value if isinstance(value, str) else text
        found[key] = text if len(text) <= _SHOWN else short_hash(text)
    return found


_SHOWN = 40
"""Characters of a setting that a record states itself."""


def _text(value: Any) -> Any:
    """What stands in JSON for what it does not know."""
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    text = told(value)
    return without_addresses(str(value)) if text is None else text


def _lasting(config: Any) -> Any:
    """A configuration as it is hashed for records that do not have the hash of each setting: without what changes from one loading to the next."""
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
    for name, value in saved_state(module):
        for part in _parts(value):
            if isinstance(part, Tensor):
                digest.update(f"{name} {part.dtype} {tuple(part.shape)}\n".encode())
                digest.update(raw_bytes(part.dequantize() if part.is_quantized else part))
            elif isinstance(part, (str, bytes, int, float, complex, torch.dtype)):  # others may show an address
                digest.update(f"{name} {part!r}\n".encode())
    return digest.hexdigest()


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

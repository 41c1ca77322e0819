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

from hf_smoothing.certification.behaviour import ATTRIBUTES, LOGITS, PARTS, answer_to_probe
from hf_smoothing.certification.classifiers import ResolvedClassifier, module_of, resolve_classifier, run_dtype
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.images import raw_bytes
from hf_smoothing.certification.structure import plain_name, short_hash, without_addresses
from hf_smoothing.records import CURE_OF_ATTRIBUTES, RUN_FILE, Run, RunError, model_differences, read_settings
from hf_smoothing.types import Classifier, unwrapped


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
        said = config.to_dict()
        text = json.dumps(_lasting(said), sort_keys=True, default=str)
        identity["config_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        identity["config"] = _hashes(_deciding(said))
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
    differing = model_differences(known, classifier_identity(classifier))
    if LOGITS in known and not differing:
        answer = answer_to_probe(
            classifier, shape, execution, dtype, known=known, elsewhere=elsewhere, deterministic=deterministic
        )
        differing = model_differences(known, answer.to_dict())
    alone = differing and all(key.startswith(f"{ATTRIBUTES}.") for key in differing)
    return ", ".join(differing) + (f" ({CURE_OF_ATTRIBUTES})" if alone else "")


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
)  # fmt: skip
"""Settings that `transformers` writes as a network is loaded, trained or asked for a loss, and that say how its outputs are given."""
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


def _hashes(config: Mapping[str, Any]) -> dict[str, Any]:
    """A short hash for each setting, so that a comparison can say which one differs."""
    return {
        key: _hashes(value)
        if isinstance(value, Mapping) and key.endswith("config")
        else short_hash(json.dumps(value, sort_keys=True, default=lambda other: without_addresses(str(other))))
        for key, value in sorted(config.items())
    }


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
    network = unwrapped(module)
    values = {plain_name(network, name): value for name, value in network.state_dict().items()}
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

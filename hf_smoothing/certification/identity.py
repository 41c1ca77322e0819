"""What makes two classifiers one for a run: the same weights, and the same answers to fixed images; never a name, a path or a setting.

The configuration is recorded to say why answers differ.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_smoothing.certification.behaviour import CLASSES, LOGITS, answer_to_probe
from hf_smoothing.certification.classifiers import ResolvedClassifier, module_of, resolve_classifier, run_dtype
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.structure import weights_sha256
from hf_smoothing.records import RUN_FILE, Run, RunError, network_differences, read_settings
from hf_smoothing.types import Classifier


CLASS_NAMES = ("id2label", "label2id")
"""Settings that a record leaves out: a run states its class map, and the list may be long."""


def classifier_identity(classifier: Classifier) -> dict[str, Any]:
    """What `run.json` says of a classifier beside its answers: its weights, their dtype, and its configuration if it has one."""
    module = module_of(classifier)
    if module is None:
        return {"weights_sha256": None}
    identity: dict[str, Any] = {
        "weights_sha256": weights_sha256(module),
        "weights_dtype": ", ".join(sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters()})),
    }
    config = _configuration_of(module)
    return identity if config is None else {**identity, "config": config}


def _configuration_of(module: nn.Module) -> dict[str, Any] | None:
    """The settings in a module's `config` as JSON, but for private ones such as folders; None where it has none, or something else of that name."""
    config: Any = getattr(module, "config", None)
    if isinstance(config, type) or not hasattr(config, "to_dict"):
        return None
    try:
        text = json.dumps(config.to_dict(), default=str, skipkeys=True)
        found = json.loads(text, object_pairs_hook=_without_private, parse_constant=str)
    except Exception:  # an object of another library may raise anything, and the configuration decides nothing
        return None
    return found if isinstance(found, dict) else None


def _without_private(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in pairs if key not in CLASS_NAMES and not key.startswith("_")}


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
    """How a classifier differs from the one that a record is about, in words; "" if it is the same.

    Args:
        classifier: The classifier.
        known: The part "model" of a run's settings.
        shape, execution, dtype: As in `answer_to_probe`.
        elsewhere, deterministic: As in `answer_to_probe`.
    """
    facts, recorded = classifier_identity(classifier), answer_in(known)
    if recorded and not network_differences(known, facts | recorded):
        facts |= answer_to_probe(
            classifier, shape, execution, dtype, known=recorded, elsewhere=elsewhere, deterministic=deterministic
        ).to_dict()
    return "; ".join(network_differences(known, facts))


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
        raise RunError(
            f"{run.path} holds the certificates of another network: {differing}. Pass the network that was certified."
        )


def recorded_answer(output_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """What the record of a run folder says of its classifier's answer, as `Answer.to_dict`; empty where there is no run, or none that says so.

    Raises:
        RunError: If its run.json is corrupt or of another format.
    """
    if not (Path(output_dir) / RUN_FILE).exists():
        return {}
    return answer_in(read_settings(Path(output_dir)).get("model", {}))


def answer_in(model: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a record of a network that says what it answered."""
    return {key: model[key] for key in (LOGITS, CLASSES) if LOGITS in model and CLASSES in model}

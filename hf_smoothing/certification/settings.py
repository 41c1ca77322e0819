"""All that decides the rows of a run, checked and written down before the first draw."""

from __future__ import annotations

import datetime
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.identity import classifier_identity
from hf_smoothing.certification.noise_kinds import NoiseStream, device_name, noise_facts
from hf_smoothing.certification.rules import Rule
from hf_smoothing.certification.survey import Survey
from hf_smoothing.types import Classifier


def run_settings(
    classifier: Classifier,
    seen: Survey,
    chosen: Sequence[int] | None,
    rule: Rule,
    stream: NoiseStream,
    execution: Execution,
    *,
    description: Mapping[str, Any] | None = None,
    informative: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of `run.json` of randomized smoothing; `description` and `informative` as in `common_settings`."""
    decided = {
        "method": "randomized-smoothing",
        "norm": "l2",
        **rule.to_dict(),
        **noise_facts(stream),
        **execution.to_dict(),
        "seed": stream.seed,
    }
    facts = {"copies_per_batch": execution.copies_per_batch, **(informative or {})}
    return common_settings(
        classifier, seen, chosen, decided, device=stream.device, description=description, informative=facts
    )


def common_settings(
    classifier: Classifier,
    seen: Survey,
    chosen: Sequence[int] | None,
    decided: Mapping[str, Any],
    *,
    device: torch.device,
    description: Mapping[str, Any] | None,
    informative: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of `run.json`: all that decides the rows, and apart from it (`informative`) what does not.

    Args:
        classifier: The network.
        seen: What is known of the images.
        chosen: Indices of the images that are asked for, None for all of a stream.
        decided: Method, norm and what else decides the rows of this method.
        device: Where the network is.
        description: Further facts from the caller.
        informative: Facts of this method that decide nothing.

    Raises:
        TypeError, ValueError: As `with_description`.
    """
    settings = {
        **decided,
        "device_kind": device.type,
        "resolution": list(seen.resolution),
        "num_images": None if chosen is None else len(chosen),
        "model": classifier_identity(classifier) | seen.probe_facts(),
        "dataset": {**seen.facts, "selection": selection_of(chosen)},
        "versions": versions_of("hf_smoothing", "torch"),
        "informative": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": versions_of("transformers", "accelerate", "numpy", "scipy"),
            "device": device_name(device),
            **informative,
        },
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return with_description(settings, description)


def with_description(settings: dict[str, Any], description: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings with further facts from the caller.

    Raises:
        TypeError: If they are no mapping.
        ValueError: If they would change what the run itself decides, or are no JSON values; so too where a setting is none.
    """
    if not isinstance(description, Mapping | None):
        raise TypeError(
            f"`description` must be a mapping of names to JSON values, such as {{'model': {{'id': 'mine'}}}}, got {description!r}."
        )
    _check_json(settings, "The settings of a run")
    _check_json(description or {}, "`description`")
    for key, value in (description or {}).items():
        if key in settings and not (key in ("model", "dataset") and isinstance(value, Mapping)):
            raise ValueError(f"`description` must not set {key!r}, which the run itself decides. Use another key.")
        settings[key] = {**dict(value), **settings.get(key, {})} if isinstance(value, Mapping) else value
    return settings


def _check_json(facts: Mapping[str, Any], whose: str) -> None:
    for key, value in facts.items():
        try:
            if not isinstance(key, str):
                raise TypeError("it is no text")
            json.dumps(dict(value) if isinstance(value, Mapping) else value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{whose} must hold JSON values only under names that are text, but {key!r} holds {value!r}: {error}. Convert numbers of "
                "numpy or torch with .item()."
            ) from error


def selection_of(chosen: Sequence[int] | None) -> dict[str, list[int]] | list[int] | None:
    """Which images a run is about, short where it can be: {"range": [start, stop, step]}, else the indices; None for all of a stream.

    >>> selection_of([0, 5, 10]), selection_of([3, 1])
    ({'range': [0, 11, 5]}, [3, 1])
    """
    if chosen is None:
        return None
    step = chosen[1] - chosen[0] if len(chosen) > 1 else 1
    regular = range(chosen[0], chosen[-1] + 1, step) if step > 0 else range(0)
    return {"range": [regular.start, regular.stop, step]} if list(regular) == list(chosen) else list(chosen)


def versions_of(*names: str) -> dict[str, str | None]:
    """Versions of these packages: of what is imported, else of what is installed; None for what is neither."""
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    # A module knows more than the metadata of its package: torch its build, such as +cu130; what runs from its sources, its true version.
    loaded: str | None = getattr(sys.modules.get(name), "__version__", None)
    if loaded is not None:
        return str(loaded)
    try:
        return version(name)
    except PackageNotFoundError:
        return None

"""In what the settings of two runs differ, for a person: causes first, without what follows from them, and hashes short."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hf_smoothing.records.json_files import differences
from hf_smoothing.records.names import in_one_form


_CHOICE = ("dataset.config", "dataset.split", "dataset.stride", "dataset.max_images")
"""What is asked for of a data set; not its name, which decides nothing where there is a hash."""
_ANSWERING = ("model.weights_sha256", "model.config_sha256", "model.config", "resolution", "dtype", "device_kind")
"""What another answer to fixed images may come from."""
_ATTRIBUTES = "model.attributes."
CURE_OF_ATTRIBUTES = "begin the names of attributes that decide no answer with an underscore"
"""What to do about a module that tells its own moment or process."""
FOLLOWS = {
    "total_variation": ("sigma", "noise_kind", "resolution"),
    "noise_dtype": ("noise_kind",),
    "noise_drawn_by": ("noise_kind", "device_kind"),
    "threat_model": ("noise_kind",),
    "num_images": _CHOICE,
    "dataset.sha256": (*_CHOICE, "num_images", "resolution"),
    "dataset.stream_sha256": (*_CHOICE, "num_images"),
    "dataset.selection_sha256": (*_CHOICE, "num_images"),
    "dataset.beginning_sha256": (*_CHOICE, "num_images", "resolution", "dataset.selection_sha256"),
    "rule.looks": ("rule.n", "rule.name"),
    "model.probe_logits": _ANSWERING,
    "model.probe_noisy": (*_ANSWERING, "model.probe_logits", "model.probe_answers"),
    "model.probe_answers": (*_ANSWERING, "model.probe_logits"),
    "model.attributes": (*_ANSWERING, "model.probe_logits"),
}
"""Settings, or groups of them -> those of which one that differs explains them."""
ANSWERS = {
    "model.probe_logits": "the network's answer to a fixed image",
    "model.probe_noisy": "the network's answers to noisy images",
    "model.probe_answers": "the network's answers to further fixed images",
}
"""Settings that are long lists of numbers -> what they are."""
LONGEST = 60
"""Characters of a value that are shown."""


def causes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What decides the differences of two settings, in words.

    >>> causes({"dataset": {"sha256": "0" * 64}, "sigma": 0.5, "total_variation": 1e-9}, {"dataset": {"sha256": "1" * 64}, "sigma": 1.0})
    ['sigma was 0.5, is 1.0', 'dataset.sha256 was 00000000, is 11111111']
    """
    found = {text.partition(" was ")[0]: text for text in differences(before, now)}
    follows = dict(FOLLOWS)
    if "dataset.stream_sha256" in found and not found.keys().isdisjoint(
        ("dataset.sha256", "dataset.selection_sha256")
    ):
        # One is a stream, the other is not, which the choice of images does not say.
        for key in ("sha256", "stream_sha256", "selection_sha256"):
            del follows[f"dataset.{key}"]
    for key in found.keys() & ANSWERS.keys():
        text = found[key].removeprefix(key)
        unknown = " was not recorded when the run was made" if text.startswith(" was None") else text
        found[key] = f"{ANSWERS[key]} ({key}){unknown}"
    groups = {group for key in found for group in _groups(key)}
    deciding = [key for key in found if not any(groups & {*follows.get(one, ())} for one in _groups(key))]
    attributes = [key for key in deciding if key.startswith(_ATTRIBUTES)]
    for key in attributes:
        name = key.removeprefix(_ATTRIBUTES)
        cure = f" ({CURE_OF_ATTRIBUTES})" if key == attributes[-1] else ""
        found[key] = f"the attribute {name} of the network's modules ({key}){found[key].removeprefix(key)}{cure}"
    return [_short(found[key]) for key in sorted(deciding, key=lambda key: key.endswith("sha256"))]


def model_differences(known: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Which facts about a network differ from what a record knows of it, in their order.

    >>> model_differences({"id": "a", "config": {"size": "0"}}, {"weights_sha256": None, "config": {"size": "1"}})
    ['config.size']
    """
    before, now = in_one_form(known, facts)
    found = (differences({key: before.get(key)}, {key: value}) for key, value in now.items())
    return [text.partition(" was ")[0] for texts in found for text in texts]


def _groups(key: str) -> list[str]:
    """A setting and what it is part of.

    >>> _groups("model.config.size")
    ['model', 'model.config', 'model.config.size']
    """
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _short(text: str) -> str:
    text = re.sub(r"'([0-9a-f]{8})(?:[0-9a-f]{8}|[0-9a-f]{56})'", r"\1", text)
    return re.sub(rf"\[([^\]]{{{LONGEST}}})[^\]]+\]", r"[\1...]", text)

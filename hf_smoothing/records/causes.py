"""In what the settings of two runs differ, for a person: causes first, without what follows from them, and hashes short."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hf_smoothing.records.json_files import differences
from hf_smoothing.records.names import NETWORK, of_networks


_CHOICE = ("dataset.config", "dataset.split", "dataset.stride", "dataset.max_images")
"""What is asked for of a data set; not its name, which decides nothing where there is a hash."""
_ANSWERING = ("model.weights_sha256", "model.preprocessing", "resolution", "dtype", "device_kind")
"""What another answer to fixed images comes from."""
_CONFIG = "model.config."
"""A setting of the network's configuration. Not each decides an answer, so it explains none by itself."""
_OWN = ("image_mean", "image_std", "size", "resize", "resample", "model_size")
"""What this library's configuration says of pixels, which the command line records once more."""
FOLLOWS = {
    **{
        f"model.{place}.{name}": (f"model.preprocessing.{name}",)
        for place in ("config", "normalisation")
        for name in _OWN
    },
    "model.config.size": ("resolution",),
    "model.config.resize": ("resolution", "model.preprocessing.framing.resize"),
    "model.config.resample": ("model.preprocessing.framing.resample",),
    "model.preprocessing.framing.size": ("resolution",),
    "model.preprocessing.framing.resize": ("resolution",),
    "total_variation": ("sigma", "noise_kind", "resolution"),
    "noise_dtype": ("noise_kind",),
    "noise_drawn_by": ("noise_kind", "device_kind"),
    "threat_model": ("noise_kind",),
    "num_images": _CHOICE,
    "dataset.selection": (*_CHOICE, "num_images"),
    "rule.looks": ("rule.n", "rule.name"),
    "model.probe_logits": _ANSWERING,
    "model.probe_classes": (*_ANSWERING, "model.probe_logits"),
}
"""Settings, or groups of them -> those of which one that differs explains them."""
ANSWERS = {
    "model.probe_logits": "the network's answers to fixed images",
    "model.probe_classes": "the classes that the network gives to fixed images",
}
"""Settings that are long lists -> what they are."""
CURE = "ask the network that was recorded: with the same buffers, hooks, activations, adapters and settings, and the same function around it"
OTHER_IMAGES = "a run keeps its images: certify further ones alone into another folder"
MOST_SETTINGS = 8
"""Settings of a configuration that are named: two networks may differ in all."""
LONGEST = 60
"""Characters of a value that are shown."""


def causes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What decides the differences of two settings, in words.

    >>> causes({"dataset": {"sha256": "0" * 64}, "sigma": 0.5, "total_variation": 1e-9}, {"dataset": {"sha256": "1" * 64}, "sigma": 1.0})
    ['sigma was 0.5, is 1.0', 'dataset.sha256 was 00000000, is 11111111']
    """
    found = {text.partition(" was ")[0]: text for text in differences(before, now)}
    for key in found.keys() & ANSWERS.keys():
        first, second = (one["model"].get(key.removeprefix("model."), ()) for one in (before, now))
        found[key] = f"{ANSWERS[key]} ({key}) {_apart(first, second)} ({CURE})"
    for key in found.keys() & {"num_images", "dataset.selection"}:
        found[key] = f"{found[key]} ({OTHER_IMAGES})"
    groups = {group for key in found for group in _groups(key)}
    deciding = [key for key in found if not any(groups & {*FOLLOWS.get(one, ())} for one in _groups(key))]
    settings = sorted((key for key in deciding if key.startswith(_CONFIG)), key=lambda key: (key.count("."), key))
    for key in settings:
        found[key] = f"the setting of the network's configuration ({key}){found[key].removeprefix(key)}"
    deciding = [key for key in deciding if key not in settings[MOST_SETTINGS:]]
    deciding.sort(key=lambda key: (key in settings, key.endswith("sha256")))
    return [_short(found[key]) for key in deciding]


def _apart(before: Sequence[Any], now: Sequence[Any]) -> str:
    """How far the answers to fixed images are from one another: logits, a list for each image, or classes.

    >>> _apart([[0.0, 1.0]], [[0.0, 1.5]])
    'differ by up to 0.5'
    >>> _apart([2, None, 1], [2, 0, 0])
    'differ for 1 of 3'
    """
    if not before:
        return "were not recorded when the run was made"
    pairs = [*zip(before, now, strict=False)]
    if len(before) != len(now):
        return f"were for {len(before)} images, are for {len(now)}"
    if isinstance(before[0], list):
        return (
            f"differ by up to {max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=False)):.3g}"
        )
    return f"differ for {sum(None not in pair and pair[0] != pair[1] for pair in pairs)} of {len(pairs)}"


def network_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In what a network differs from that of a record, in words; what only says where it came from is left out.

    >>> network_differences({"id": "a", "weights_sha256": "0"}, {"weights_sha256": "1"})
    ["model.weights_sha256 was '0', is '1'"]
    """
    models = ({key: one[key] for key in (*NETWORK, "config") if key in one} for one in (before, now))
    first, second = of_networks(*models)
    return causes({"model": first}, {"model": second})


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

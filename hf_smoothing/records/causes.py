"""In what the settings of two runs differ, for a person: causes first, without what follows from them, and hashes short."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hf_smoothing.records.json_files import differences
from hf_smoothing.records.names import in_one_form


_CHOICE = ("dataset.config", "dataset.split", "dataset.stride", "dataset.max_images")
"""What is asked for of a data set; not its name, which decides nothing where there is a hash."""
_ANSWERING = ("model.weights_sha256", "model.config_sha256", "model.config", "resolution", "dtype", "device_kind")
"""What another answer to fixed images may come from."""
_ATTRIBUTES, _CONFIG = "attributes.", "config."
"""Of a network, what its modules say of themselves, and its settings."""
_OWN = ("image_mean", "image_std", "size", "resize", "resample", "model_size")
"""What this library's configuration says of pixels, which the command line records once more."""
_NOTE = "hf_smoothing"
"""What this library notes in the configuration of a network that it trains."""
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
        first, second = (one["model"].get(key.removeprefix("model."), ()) for one in (before, now))
        found[key] = f"{ANSWERS[key]} ({key}) {_apart(first, second)}"
    groups = {group for key in found for group in _groups(key)}
    deciding = [key for key in found if not any(groups & {*follows.get(one, ())} for one in _groups(key))]
    cures: dict[str, str] = {}
    for key in deciding:
        what, cure = _said_by_network(key.removeprefix("model."))
        if what:
            found[key] = f"{what} ({key}){found[key].removeprefix(key)}"
        if cure:
            cures[key] = cure
    if cures:
        found[[*cures][-1]] += f" ({'; '.join(dict.fromkeys(cures.values()))})"
    return [_short(found[key]) for key in sorted(deciding, key=lambda key: key.endswith("sha256"))]


def network_cure(key: str) -> str:
    """What to do where a network tells what decides no answer, such as its own moment or process; "" for what decides.

    Args:
        key: What differs in the part "model" of a record.

    >>> network_cure("config.created"), network_cure("config.image_mean"), network_cure("weights_sha256")
    ('begin the names of settings that decide no answer with an underscore', '', '')
    """
    return _said_by_network(key)[1]


def _said_by_network(key: str) -> tuple[str, str]:
    """What a difference of a network's configuration or attributes is about, in words, and what to do about it; "" twice for others."""
    if key.startswith(_CONFIG):
        own = key.removeprefix(_CONFIG) in _OWN or _NOTE in key.split(".")
        cure = "" if own else "begin the names of settings that decide no answer with an underscore"
        return "the setting of the network's configuration", cure
    if not key.startswith(_ATTRIBUTES):
        return "", ""
    kind, _, name = key.removeprefix(_ATTRIBUTES).rpartition(".")
    if not kind:
        return "the classes of the network's modules", "build the network of modules of the same classes"
    if name == "extra_repr":
        what = f"what modules of the class {kind} print of themselves"
        return what, f"let extra_repr of {kind} print nothing but what decides an answer"
    what = f"the attribute {name} of the network's modules of the class {kind}"
    if name.startswith("_"):
        return what, "switch the network's adapters on and off as they were"
    return what, "begin the names of attributes that decide no answer with an underscore"


def _apart(before: Sequence[float] | None, now: Sequence[float] | None) -> str:
    """How far two lists of numbers are from one another.

    >>> _apart([0.0, 1.0], [0.0, 1.5])
    'differ in 1 of 2 numbers, by up to 0.5'
    """
    if not before:
        return "was not recorded when the run was made"
    if not now or len(before) != len(now):
        return f"had {len(before)} numbers, now {len(now or ())}"
    apart = [abs(one - other) for one, other in zip(before, now, strict=True)]
    return f"differ in {sum(one > 0 for one in apart)} of {len(apart)} numbers, by up to {max(apart):.3g}"


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

"""What the settings of a run may say, key by key: whoever reads a run relies on it, and a run folder is plain text that anybody can edit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from hf_smoothing.units import LEAST_ALPHA, LEAST_SIGMA, MAX_DRAWS, MAX_SIGMA, diameter


MOST_TARGETS = 1_000
"""Of a run: each has a boundary at every look, computed again whenever the run is read."""
MOST_LOOKS = 64
MOST_SIGMAS = 6.1
"""Upper limit of a radius in units of sigma: more would take over a billion draws per image."""
LONGEST_SHOWN = 80
"""Characters of a value that a message shows."""


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is a whole number that fits into 64 bits; a truth value is none."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a finite number; a whole one must fit into 64 bits."""
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def shown(value: Any) -> str:
    """A value as a message quotes it."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _ascends(values: Any, most: int) -> bool:
    numbers = isinstance(values, list) and 0 < len(values) <= most and all(is_number(value) for value in values)
    return numbers and all(a < b for a, b in itertools.pairwise(values))


def _is_targets(value: Any) -> bool:
    return _ascends(value, MOST_TARGETS) and value[0] >= 0


def _is_looks(value: Any) -> bool:
    return _ascends(value, MOST_LOOKS) and all(is_whole(n) and 1 <= n <= MAX_DRAWS for n in value)


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(is_whole(side) and 1 <= side <= 2**20 for side in value)


def _are_logits(value: Any) -> bool:
    rows = isinstance(value, list) and all(isinstance(row, list) and all(map(is_number, row)) for row in value)
    return rows and len({len(row) for row in value}) == 1


def _are_classes(value: Any) -> bool:
    return isinstance(value, list) and all(one is None or is_whole(one) for one in value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_selection(value: Any) -> bool:
    if isinstance(value, dict):
        ends = value.get("range")
        return isinstance(ends, list) and len(ends) == 3 and all(is_whole(end) for end in ends) and ends[2] > 0
    return value is None or (isinstance(value, list) and all(is_whole(index) for index in value))


def _are_places(value: Any) -> bool:
    ascends = (
        isinstance(value, list) and all(map(is_whole, value)) and all(a < b for a, b in itertools.pairwise(value))
    )
    return ascends and (not value or value[0] >= 0)


def _is_enlarged(value: Any) -> bool:
    sizes = isinstance(value, dict) and [value.get("images"), *_two(value.get("smallest"))]
    return isinstance(sizes, list) and len(sizes) == 3 and all(is_whole(size) and size >= 1 for size in sizes)


def _two(value: Any) -> list[Any]:
    return value if isinstance(value, list) and len(value) == 2 else []


def _one_of(*values: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in values, f"one of {', '.join(values)}"


Check = tuple[Callable[[Any], bool], str]
TEXT: Check = (lambda value: isinstance(value, str), "text")
OBJECT: Check = (lambda value: isinstance(value, dict), "an object")
FLAG: Check = (lambda value: isinstance(value, bool), "true or false")
NAME: Check = (lambda value: value is None or isinstance(value, str), "text, or null")
STAGE: Check = (lambda value: is_whole(value) and 0 <= value <= MAX_DRAWS, f"a whole number up to {MAX_DRAWS:,}")

CHECKS: dict[str, Check] = {
    "method": TEXT,
    "norm": _one_of("l2", "linf"),
    "deterministic": FLAG,
    "sigma": (lambda value: is_number(value) and LEAST_SIGMA <= value <= MAX_SIGMA, f"a number from {LEAST_SIGMA:g} to {MAX_SIGMA:g}"),
    "alpha": (lambda value: is_number(value) and LEAST_ALPHA <= value <= 0.5, f"a number from {LEAST_ALPHA:g} to 1/2"),
    "bound": _one_of("one-sided", "runner-up"),
    "label_aware": FLAG,
    "noise_kind": _one_of("grid", "gaussian"),
    "noise_dtype": TEXT,
    "noise_drawn_by": TEXT,
    "threat_model": TEXT,
    "total_variation": (lambda value: is_number(value) and 0 <= value < 0.5, "a number in [0, 1/2)"),
    "dtype": TEXT,
    "channels_last": FLAG,
    "compile": FLAG,
    "seed": (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    "device_kind": TEXT,
    "resolution": (_is_shape, "channels, height and width"),
    "num_images": (lambda value: value is None or (is_whole(value) and value >= 1), "a whole number of at least 1, or null"),
    "rounding": TEXT,
    "rule": OBJECT,
    "rule.name": TEXT,
    "rule.n0": STAGE,
    "rule.n": (lambda value: is_whole(value) and 1 <= value <= MAX_DRAWS, f"a whole number from 1 to {MAX_DRAWS:,}"),
    "rule.targets": (_is_targets, f"1 to {MOST_TARGETS:,} radii in ascending order"),
    "rule.looks": (_is_looks, f"1 to {MOST_LOOKS} numbers of draws in ascending order"),
    "rule.largest": (lambda value: is_number(value) and 0 < value <= 1, "a number above 0 and at most 1"),
    "rule.covers_run": FLAG,
    "rule.tolerance": (lambda value: is_number(value) and value > 0, "a number above 0"),
    "model": OBJECT,
    "model.id": TEXT,
    "model.weights_sha256": NAME,
    "model.weights_dtype": TEXT,
    "model.config": OBJECT,
    "model.preprocessing": OBJECT,
    "model.normalisation": OBJECT,
    "model.probe_logits": (_are_logits, "lists of as many numbers each"),
    "model.probe_classes": (_are_classes, "a list of whole numbers and null"),
    "dataset": OBJECT,
    "dataset.id": TEXT,
    "dataset.config": NAME,
    "dataset.split": TEXT,
    "dataset.image_column": NAME,
    "dataset.sha256": TEXT,
    "dataset.labels": OBJECT,
    "dataset.selection": (_is_selection, 'null, indices, or {"range": [start, stop, step]}'),
    "versions": OBJECT,
    "created": TEXT,
    "informative": OBJECT,
    "informative.num_images": (lambda value: is_whole(value) and value >= 1, "a whole number of at least 1"),
    "informative.unreadable": (_are_places, "a list of whole numbers in ascending order"),
    "informative.class_names": (_are_names, "a list of texts"),
    "informative.enlarged": (_is_enlarged, 'an object {"images": a number, "smallest": [height, width]}'),
}  # fmt: skip
"""Key -> (whether a value may stand there, what it must be). Of a key that is not there nothing is asked, unless it is required."""

NULLABLE = frozenset({"sigma", "alpha", "bound", "noise_kind"})
"""Keys that may be there with null: certificates without noise have none of these."""

ALWAYS = (
    "norm", "rule", "rule.name", "dtype", "device_kind", "resolution", "num_images", "model", "dataset", "versions", "informative", "created",
)  # fmt: skip
REQUIRED = {
    "randomized-smoothing": (
        *ALWAYS, "sigma", "alpha", "bound", "label_aware", "seed", "noise_kind", "noise_dtype", "noise_drawn_by", "threat_model", "channels_last", "compile",
        "rule.n0", "rule.n",
    ),
    "interval-bounds": (*ALWAYS, "deterministic", "rule.covers_run", "rule.largest", "rule.tolerance"),
}  # fmt: skip
"""Method -> the keys that each of its runs writes, on which whoever reads one may rely."""
METHODS = tuple(REQUIRED)
"""How a run may have been certified."""


def settings_fault(settings: Mapping[str, Any]) -> str | None:
    """What no run can have written into its settings, with the key; None where nothing is wrong.

    >>> settings_fault({"sigma": "0.5"})
    "sigma is '0.5', must be a number from 1e-06 to 4"
    """
    method = settings.get("method")
    required = REQUIRED.get(method, ()) if isinstance(method, str) else ()
    for key, (right, words) in CHECKS.items():
        part, _, inner = key.rpartition(".")
        place = settings.get(part, {}) if part else settings
        if inner not in place or (place[inner] is None and key in NULLABLE):
            if key in required:
                return f"{key} is missing"
        elif not right(place[inner]):
            return f"{key} is {shown(place[inner])}, must be {words}"
    return _joint_fault(settings, method)


def _joint_fault(settings: Mapping[str, Any], method: Any) -> str | None:
    """What is wrong with keys together, each of which is right."""
    if method not in REQUIRED:
        return None
    rule, norm = settings["rule"], "l2" if method == "randomized-smoothing" else "linf"
    if bool(settings.get("deterministic")) != (norm == "linf"):
        return f"deterministic is {shown(settings.get('deterministic'))}, must be {norm == 'linf'} for {method}"
    if settings["norm"] != norm:
        return f"norm is {shown(settings['norm'])}, must be {norm} for {method}"
    if norm == "linf":
        return "rule.targets is there, which interval bounds do not have" if "targets" in rule else None
    if rule["name"] == "fixed-n":
        return "rule.targets is there, which fixed-n does not have" if "targets" in rule else None
    if not rule["name"].startswith("sequential"):
        return f"rule.name is {shown(rule['name'])}, must be fixed-n or begin with sequential"
    if (missing := next((key for key in ("targets", "looks") if key not in rule), None)) is not None:
        return f"rule.{missing} is missing"
    if rule["targets"][-1] > min(MOST_SIGMAS * settings["sigma"], diameter(settings["resolution"])):
        return f"rule.targets is {shown(rule['targets'])}, beyond what noise of sigma {settings['sigma']:g} can certify in images of this resolution"
    if rule["looks"][-1] != rule["n"]:
        return f"rule.looks is {shown(rule['looks'])}, must end with rule.n, {rule['n']}"
    return None

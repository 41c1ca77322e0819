"""Runs of parts of the images as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hf_smoothing.records.reading import Run, RunError


_SAME = (
    "method", "rule", "sigma", "alpha", "bound", "label_aware", "noise_kind", "seed", "resolution", "dtype", "channels_last", "compile",
    "largest", "backward", "covers_run", "tolerance", "model.weights_sha256", "model.preprocessing", "dataset.split",
)  # fmt: skip
"""What a row says depends on these; not on where it was computed, but for the rounding of the network there."""


def joined(runs: Sequence[Run]) -> Run:
    """Runs of one network on parts of a data set, as one run: as when a run was cut off and the images that it lacks were certified elsewhere.

    Each row stays the certificate of the network as it was run where the row was made; in half precision devices round differently.

    Args:
        runs: The runs, finished or not, with the same rule, sigma, alpha and seed; intermediate states of images are left out.

    Returns:
        One run of all rows. Its settings are those of the first; the machines are named with the number of their images.

    Raises:
        RunError: If there is no run, a setting differs that decides a row, or an image was certified twice.
    """
    if not runs:
        raise RunError("Runs of parts must be at least one, got none.")
    first, *others = runs
    rows = dict(first.rows)
    for other in others:
        for name in _SAME:
            here, there = _setting(first, name), _setting(other, name)
            if here != there:
                raise RunError(
                    f"Runs of parts must agree in {name}, got {here!r} in {first.path} and {there!r} in {other.path}."
                )
        if twice := sorted(rows.keys() & other.rows.keys()):
            raise RunError(
                f"Runs of parts must be of different images, got image {twice[0]} in {other.path} and before it."
            )
        rows |= other.rows
    machines = ", ".join(f"{_setting(run, 'informative.device')} ({len(run.rows)} images)" for run in runs)
    changes: dict[str, Any] = {"informative": first.settings.get("informative", {}) | {"device": machines}}
    if (asked := first.settings.get("num_images")) is not None:
        changes["num_images"] = max(asked, len(rows))
    return replace(first, settings=first.settings | changes, rows=rows, partials={})


def _setting(run: Run, name: str) -> Any:
    value: Any = run.settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value

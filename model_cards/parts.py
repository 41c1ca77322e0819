"""A run of a card that was cut off, and the runs that certified the images that it lacked, as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_smoothing.records import RUN_FILE, Run, RunError, read_run
from hf_smoothing.records.rows import terms_of


SAME = (
    "method", "rule", "sigma", "alpha", "bound", "label_aware", "noise_kind", "noise_drawn_by", "seed", "resolution", "dtype", "channels_last",
    "compile", "model.weights_sha256", "dataset.id", "dataset.split",
)  # fmt: skip
"""What a row depends on; not on where it was computed, but for the rounding of the network there."""


def read_parts(folder: Path) -> Run:
    """The run of a folder, or those in the folders below it as one.

    Raises:
        RunError: As `read_run` and `joined`.
    """
    if (folder / RUN_FILE).exists():
        return read_run(folder)
    return joined([read_run(file.parent) for file in sorted(folder.glob(f"*/{RUN_FILE}"))])


def joined(parts: Sequence[Run]) -> Run:
    """All rows of a run that was cut off and of those that certified the rest elsewhere.

    Each row stays the certificate of the network as it was run where the row was made. Grid noise only: an image whose draws were cut off
    gets the same ones elsewhere, so that no row has a second chance.

    Args:
        parts: The runs in any order, one of them not finished.

    Returns:
        The run that was cut off, finished; its device names all machines with the number of their images.

    Raises:
        RunError: If not exactly one is cut off, a setting differs that decides a row, or the rows are not those of its images, each once.
    """
    cut, others = [part for part in parts if not part.finished], [part for part in parts if part.finished]
    if len(cut) != 1:
        raise RunError(f"Exactly one of the parts must have been cut off, got {len(cut)} of {len(parts)}.")
    whole = cut[0]
    if setting(whole, "noise_kind") != "grid" or setting(whole, "model.weights_sha256") is None:
        raise RunError(f"{whole.path} must have grid noise and a network with weights: others cannot go on elsewhere.")
    rows = dict(whole.rows)
    for other in others:
        for name in SAME:
            here, there = setting(whole, name), setting(other, name)
            if here != there:
                raise RunError(
                    f"Parts must agree in {name}, got {here!r} in {whole.path} and {there!r} in {other.path}."
                )
        if twice := sorted(rows.keys() & other.rows.keys()):
            raise RunError(f"Parts must be of different images, got image {twice[0]} in {other.path} and before it.")
        rows |= other.rows
    selection = terms_of(whole.settings).selection
    wanted = set(range(whole.settings["num_images"]) if selection is None else selection)
    if rows.keys() != wanted:
        raise RunError(
            f"The parts must have the {len(wanted)} images of {whole.path}, got {len(rows)} of them or others."
        )
    machines = ", ".join(
        f"{setting(part, 'informative.device')} ({len(part.rows)} images)" for part in (whole, *others)
    )
    informative = whole.settings["informative"] | {"device": machines}
    return replace(whole, settings=whole.settings | {"informative": informative}, rows=rows, partials={})


def setting(run: Run, name: str) -> Any:
    """A setting by its path; None where it is not recorded."""
    value: Any = run.settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value

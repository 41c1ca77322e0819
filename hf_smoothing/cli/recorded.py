"""The model and the data set of a run again, as its record says; what a command line says goes before it."""

from __future__ import annotations

import argparse
import os
from typing import Any

from hf_smoothing.cli.options import data_choice
from hf_smoothing.data.choice import DataChoice
from hf_smoothing.records import Run, RunError, plain_name


def check_named(args: argparse.Namespace, run: Run) -> None:
    """Refuse a run whose model or data set neither its record nor the command line names.

    Raises:
        ValueError: The message names the option.
    """
    for key in ("model", "dataset"):
        if (getattr(args, key) or run.settings.get(key, {}).get("id")) is None:
            raise ValueError(f"{run.path} does not name its {key}. Pass --{key}.")


def recorded_choice(args: argparse.Namespace, run: Run) -> DataChoice:
    """Which data set to open for the images of a run; configuration and column are those of the run where the data set is its own."""
    known, choice = run.settings.get("dataset", {}), data_choice(args)
    choice.dataset = args.dataset or known.get("id")
    choice.split = args.split or known.get("split") or "test"
    if _same_place(choice.dataset, known.get("id")):
        choice.dataset_config = args.dataset_config or known.get("config")
        choice.image_column = args.image_column or known.get("image_column")
    return choice


def _same_place(one: str | None, other: str | None) -> bool:
    """Whether two names are of one data set, however a path is spelled."""
    if one is None or other is None:
        return one is other
    return plain_name(one) == plain_name(other) or os.path.realpath(one) == os.path.realpath(other)


def recorded_size(run: Run) -> int | None:
    """The certified resolution as one number, None where images are not square."""
    _, height, width = run.settings["resolution"]
    return int(height) if height == width else None


def load_recorded(path: str, run: Run, *, size: int | None = None, device: str | None = None) -> Any:
    """A classifier with the noise level and resolution of a run.

    Args:
        path: Hub id or folder.
        run: The run.
        size: The certified resolution, which is that of the run.
        device: As in `load_classifier`.

    Raises:
        RunError: If the checkpoint is certified at another resolution than the run, which no option changes.
        ValueError: If `size` is another than that of the run; as `load_classifier`.
    """
    from hf_smoothing.models.configuration import SmoothedClassifierConfig
    from hf_smoothing.models.loading import load_classifier
    from hf_smoothing.models.weights import read_config

    config, shape = read_config(path, {}), tuple(run.settings["resolution"])
    own = isinstance(config, SmoothedClassifierConfig)
    if own and (found := _shape(config)) != shape:
        recorded, other = (" x ".join(map(str, one)) for one in (shape, found))
        raise RunError(
            f"{run.path} was certified at {recorded} (channels x height x width), but {path} is certified at {other}: it is another network. Pass the "
            "network that was certified."
        )
    if size is not None and (size, size) != shape[1:]:
        raise ValueError(
            f"`size` must be that of {run.path}, {' x '.join(map(str, shape[1:]))}, got {size}. Leave it out."
        )
    # Interval bounds need no sigma, but the wrapper around a plain classifier has one.
    sigma = run.settings.get("sigma") or 0.25
    return load_classifier(
        path,
        sigma=sigma,
        size=size or recorded_size(run),
        device=device,
        **({} if own else _normalisation(config, path, run)),
    )


def _shape(config: Any) -> tuple[int, ...]:
    """The shape of the pixels that a smoothed classifier is certified on."""
    framing = config.framing()
    return (framing.channels, *framing.size)


def _normalisation(config: Any, path: str, run: Run) -> dict[str, Any]:
    """What the record says of the normalisation and a plain checkpoint does not, by whatever name that is called: its weights are compared later."""
    from hf_smoothing.models.checkpoint_pixels import pixel_settings

    recorded = run.settings.get("model", {}).get("normalisation", {})
    if not recorded:
        return {}
    said = pixel_settings(config, path, {**recorded, "size": recorded_size(run)})
    return {name: values for name, values in recorded.items() if said.get(name) is None}

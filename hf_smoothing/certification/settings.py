"""All that decides the rows of a run, checked and written down before the first draw."""

from __future__ import annotations

import datetime
import itertools
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_smoothing import statistics
from hf_smoothing.certification.identity import classifier_identity, images_sha256
from hf_smoothing.certification.rules import FixedRule
from hf_smoothing.certification.sampling import classifier_device
from hf_smoothing.noise import MAX_IMAGES
from hf_smoothing.pixels import to_unit_pixels


def check_selection(dataset: Any, indices: Sequence[int] | None) -> list[int]:
    """The indices to certify, checked against the data set.

    Raises:
        ValueError: if there are none, they repeat, or they lie outside the data set.
    """
    size = len(dataset)
    chosen = list(range(size)) if indices is None else [statistics.check_whole(index, "indices") for index in indices]
    if not chosen:
        raise ValueError(f"There is no image to certify: the data set has {size} and the selection is empty.")
    if max(chosen) >= MAX_IMAGES:
        raise ValueError(
            f"Indices of one run must be below {MAX_IMAGES}, got {max(chosen)}. Split the data set into runs with different seeds."
        )
    if len(set(chosen)) != len(chosen) or min(chosen) < 0 or max(chosen) >= size:
        raise ValueError(
            f"`indices` must be different numbers in [0, {size}), got {len(chosen)} from {min(chosen)} to {max(chosen)}."
        )
    return chosen


def run_settings(
    classifier: Any,
    dataset: Any,
    indices: Sequence[int],
    rule: FixedRule,
    *,
    seed: int,
    dtype: str,
    description: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The content of `run.json`: all that decides the rows, and apart from it (`informative`) what does not."""
    device = classifier_device(classifier)
    items = _checked_items(dataset, indices)
    first = next(items)
    resolution = list(first[1]["pixel_values"].shape)
    settings = {
        "method": "randomized-smoothing",
        "norm": "l2",
        **rule.to_dict(),
        "bound": "one-sided",
        "label_aware": False,
        "noise": {"kind": "gaussian", "dtype": "float32", "drawn_by": generator_name(device)},
        "dtype": dtype,
        "device_kind": device.type,
        "resolution": resolution,
        "seed": statistics.check_whole(seed, "seed"),
        "num_images": len(indices),
        "model": classifier_identity(classifier),
        "dataset": {"sha256": images_sha256(itertools.chain([first], items))},
        "versions": {name: _version(name) for name in ("hf_smoothing", "torch")},
        "informative": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": {name: _version(name) for name in ("transformers", "accelerate", "numpy", "scipy")},
            "device": _device_name(device),
        },
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    for key, value in (description or {}).items():
        if key in settings and not (key in ("model", "dataset") and isinstance(value, Mapping)):
            raise ValueError(f"`description` must not set {key!r}, which the run itself decides. Use another key.")
        settings[key] = {**dict(value), **settings.get(key, {})} if isinstance(value, Mapping) else value
    try:
        json.dumps(settings, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`description` must hold JSON values only: {error}.") from error
    return settings


def generator_name(device: torch.device) -> str:
    """What the draws of a stream may depend on besides its key: vector units of a CPU, number of processors of a GPU."""
    return _device_name(device) if device.type == "cuda" else f"CPU {torch.backends.cpu.get_cpu_capability()}"


def _checked_items(dataset: Any, indices: Sequence[int]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The images of a run, each checked before the run is opened: a folder must not be left by a call that cannot succeed."""
    shape = None
    for index in indices:
        item = dataset[index]
        if not isinstance(item, Mapping) or "pixel_values" not in item:
            raise ValueError(
                f"`dataset[{index}]` must be a mapping with 'pixel_values', got "
                f"{sorted(item) if isinstance(item, Mapping) else type(item).__name__}. PixelDataset makes one of any image data set."
            )
        pixels = item["pixel_values"]
        to_unit_pixels(pixels[None] if isinstance(pixels, Tensor) else pixels, f"image {index}")
        if shape not in (None, tuple(pixels.shape)):
            raise ValueError(
                f"All images must have one size and channel count, got {shape} and, for image {index}, {tuple(pixels.shape)}. "
                "Resize them first: PixelDataset does."
            )
        shape = tuple(pixels.shape)
        if item.get("labels") is not None:
            statistics.check_whole(item["labels"], f"labels of image {index}")
        yield index, item


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return f"{model}, {torch.get_num_threads()} threads"

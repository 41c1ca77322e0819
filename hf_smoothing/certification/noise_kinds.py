"""Which noise a run draws, and what its certificates then cover."""

from __future__ import annotations

import platform
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.certification.options import NoiseOptions, options_of
from hf_smoothing.noise import GaussianStream, GridStream, on_grid


NoiseStream = GaussianStream | GridStream

NOISE_KINDS = options_of(NoiseOptions)["noise_kind"].choices

THREAT_MODELS = {
    "grid": "perturbed images that are 8-bit at the certified resolution",
    "gaussian": "any perturbed image, if floating-point rounding is neglected",
}
"""Which perturbed images a certificate is about, by the kind of its noise."""


def choose_noise(kind: str, off_grid: str | None) -> str:
    """The kind of noise, "grid" or "gaussian", for images that are 8-bit or not; "auto" warns where it is not the grid.

    Args:
        kind: The kind, "grid" for whole steps of 1/255, sound in floating point; "gaussian" for float32 noise, as in
            papers; "auto" for the grid where the images are on it.
        off_grid: What is not on the grid (see `off_grid`); None where all pixels are multiples of 1/255.

    Raises:
        ValueError: On another kind, or grid noise for images off the grid.
    """
    if kind not in NOISE_KINDS:
        raise ValueError(f"`noise_kind` must be one of {', '.join(map(repr, NOISE_KINDS))}, got {kind!r}.")
    if off_grid is None or kind == "gaussian":
        return "grid" if kind != "gaussian" else "gaussian"
    cure = "Pass uint8 pixels, or round them with (255 * x).round() / 255"
    if kind == "grid":
        raise ValueError(
            f"Grid noise certifies 8-bit images, but {off_grid}. {cure}; or use noise_kind='gaussian', whose certificates neglect "
            "floating-point rounding."
        )
    warnings.warn(
        f"noise_kind='auto' draws float32 noise, whose certificates neglect floating-point rounding, since {off_grid}. {cure}; "
        "or pass noise_kind='gaussian' if float images are meant.",
        stacklevel=5,
    )
    return "gaussian"


def off_grid(pixels: Tensor, whose: str = "these images lie") -> str | None:
    """What to say of float images (batch, channels, height, width) in [0, 1] that are not 8-bit; None where all are.

    Args:
        pixels: As `to_unit_pixels` leaves them.
        whose: Subject and verb of the sentence.
    """
    if on_grid(pixels):
        return None
    steps = pixels.double() * 256
    # A flat image does not show how it was scaled.
    if bool(((steps - steps.round()).abs() < 1e-3).all()) and len(steps.unique()) > 8:
        return f"{whose} on multiples of 1/256, not of 1/255: divide 0..255 by 255"
    steps = pixels.double() * 255
    # Three in ten of pixels that are spread evenly would be that near.
    nearly = float(((steps - steps.round()).abs() < 0.15).double().mean()) > 0.9
    return f"{whose} {'near, but ' if nearly else ''}off the 1/255 grid of 8-bit images"


def make_stream(kind: str, *, seed: int, shape: tuple[int, ...], device: torch.device, sigma: float) -> NoiseStream:
    """The noise of a run: `kind` as `choose_noise` gives it, the rest as in the streams' own arguments."""
    stream = GridStream if kind == "grid" else GaussianStream
    return stream(seed, tuple(shape), device, sigma=sigma)


def noise_facts(stream: NoiseStream) -> dict[str, Any]:
    """What `run.json` says of the noise: all that decides the draws besides the seed, and which perturbations are covered."""
    if isinstance(stream, GridStream):
        return {
            "noise_kind": stream.kind,
            "noise_dtype": "whole steps of 1/255",
            "noise_drawn_by": "counters, the same on every device",
            "total_variation": stream.total_variation,
            "threat_model": THREAT_MODELS[stream.kind],
        }
    return {
        "noise_kind": stream.kind,
        "noise_dtype": "float32",
        "noise_drawn_by": generator_name(stream.device),
        "threat_model": THREAT_MODELS[stream.kind],
    }


def generator_name(device: torch.device) -> str:
    """What torch's normal draws depend on besides the seed: vector units of a CPU, number of processors of a GPU."""
    return device_name(device) if device.type == "cuda" else f"CPU {torch.backends.cpu.get_cpu_capability()}"


def device_name(device: torch.device) -> str:
    """The model of a GPU, or of the processor with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return f"{model}, {torch.get_num_threads()} threads"

"""Which noise a run draws, and what its certificates then cover."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from hf_smoothing.noise import GaussianStream, GridStream


NoiseStream = GaussianStream | GridStream

NOISE_KINDS = ("auto", "grid", "gaussian")


def choose_noise(noise: str, fits_grid: bool) -> str:
    """The kind of noise, "grid" or "gaussian", for images that are 8-bit or not.

    Args:
        noise: "grid" for whole steps of 1/255, sound in floating point; "gaussian" for float32 noise, as in papers; "auto" for the
            grid where the images are on it.
        fits_grid: whether all pixels are multiples of 1/255.

    Raises:
        ValueError: on another kind, or grid noise for images off the grid.
    """
    if noise not in NOISE_KINDS:
        raise ValueError(f"`noise` must be one of {', '.join(map(repr, NOISE_KINDS))}, got {noise!r}.")
    if noise == "grid" and not fits_grid:
        raise ValueError(
            "Grid noise certifies 8-bit images, whose pixels are multiples of 1/255, but these lie off that grid. Pass uint8 pixels, or "
            "round them with (255 * x).round() / 255; or use noise='gaussian', whose certificates neglect floating-point rounding."
        )
    return "grid" if noise != "gaussian" and fits_grid else "gaussian"


def make_stream(kind: str, *, seed: int, shape: tuple[int, ...], device: torch.device, sigma: float) -> NoiseStream:
    """The noise of a run: `kind` as `choose_noise` gives it, the rest as in the streams' own arguments."""
    stream = GridStream if kind == "grid" else GaussianStream
    return stream(seed, tuple(shape), device, sigma=sigma)


def noise_facts(stream: NoiseStream) -> dict[str, Any]:
    """What `run.json` says of the noise: all that decides the draws besides the seed, and which perturbations are covered."""
    if isinstance(stream, GridStream):
        return {
            "kind": stream.kind,
            "dtype": "whole steps of 1/255",
            "drawn_by": "counters, the same on every device",
            "total_variation": stream.total_variation,
            "threat_model": "perturbed images that are 8-bit at the certified resolution",
        }
    return {
        "kind": stream.kind,
        "dtype": "float32",
        "drawn_by": generator_name(stream.device),
        "threat_model": "any perturbed image, if floating-point rounding is neglected",
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

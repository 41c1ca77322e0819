"""Networks that take noise out of [0, 1] pixels: a small one to train here, and one step of a diffusion model."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class ResidualDenoiser(nn.Module):
    """x - g(x), g a stack of 3 x 3 convolutions with batch norm and ReLU: the network predicts the noise.

    Args:
        width: Channels inside.
        depth: Convolutions, at least 2.
        channels: Number of channels of the images.

    Raises:
        ValueError: On numbers that make no sense.

    Source: DnCNN, Zhang et al. (2017), arXiv 1608.03981, in the role it has in Salman et al. (2020), arXiv 2003.01908.
    """

    def __init__(self, width: int = 32, depth: int = 8, channels: int = 3) -> None:
        super().__init__()
        if (
            not all(isinstance(value, int) for value in (width, depth, channels))
            or min(width, channels) < 1
            or depth < 2
        ):
            raise ValueError(
                f"A denoiser needs whole numbers, positive widths and at least 2 convolutions, got width={width!r}, depth={depth!r}, channels={channels!r}."
            )
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.noise = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, pixels: Tensor, sigma: float) -> Tensor:
        """The noisy pixels (batch, channels, height, width) without their noise, not clamped; sigma is not used."""
        cleaned: Tensor = pixels - self.noise(pixels)
        return cleaned


class DiffusionDenoiser(nn.Module):
    """One step of a `diffusers` UNet2DModel that was trained to predict the noise of [-1, 1] pixels (and perhaps, in further channels, its variance).

    Args:
        unet: Configuration of the UNet2DModel.
        scheduler: Configuration of a DDPMScheduler; the linear schedule 1e-4 to .02 over 1,000 steps by default.

    Raises:
        ModuleNotFoundError: Without diffusers.
        ValueError: If it predicts something else, or requires the class of the image.

    Source: Carlini et al. (2023), arXiv 2206.10550.
    """

    def __init__(self, unet: dict[str, Any], scheduler: dict[str, Any] | None = None) -> None:
        super().__init__()
        try:
            from diffusers import DDPMScheduler, UNet2DModel
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "Diffusion denoising needs diffusers: pip install hf_smoothing[diffusion]"
            ) from error
        self.unet = UNet2DModel.from_config(unet)
        inside, outside = self.unet.config.in_channels, self.unet.config.out_channels
        if outside not in (inside, 2 * inside):
            raise ValueError(
                f"The UNet must give the noise of its {inside} channels, alone or with a variance each, got {outside} output channels."
            )
        if self.unet.class_embedding is not None:
            raise ValueError(
                "The UNet must be unconditional, got one that requires the class of the image, which is unknown. Take an unconditional model."
            )
        with torch.device("cpu"):  # from_pretrained builds models on the meta device, where numbers are lost
            made = DDPMScheduler.from_config(
                scheduler or {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
            )
        if made.config.prediction_type != "epsilon":
            raise ValueError(f"The UNet must predict the noise ('epsilon'), got {made.config.prediction_type!r}.")
        self.kept: list[float] = made.alphas_cumprod.double().tolist()

    def timestep(self, sigma: float) -> int:
        """The first step whose noise is at least that of [-1, 1] pixels with noise 2 sigma.

        Raises:
            ValueError: If the schedule never gets so noisy.
        """
        ratios = [math.sqrt((1.0 - kept) / kept) for kept in self.kept]
        found = next((t for t, ratio in enumerate(ratios) if ratio >= 2.0 * sigma), None)
        if found is None:
            raise ValueError(
                f"sigma = {sigma} is noisier than the diffusion schedule, which ends at {ratios[-1] / 2:.3g}."
            )
        return found

    def forward(self, pixels: Tensor, sigma: float) -> Tensor:
        """The estimate in [0, 1] of pixels (batch, channels, height, width) with noise of standard deviation sigma."""
        t = self.timestep(sigma)
        kept = self.kept[t]
        noisy = math.sqrt(kept) * (2.0 * pixels - 1.0)
        output: Tensor = self.unet(noisy.to(self.unet.dtype), t).sample.to(pixels.dtype)
        noise = output[:, : pixels.shape[1]]
        cleaned = (noisy - math.sqrt(1.0 - kept) * noise) / math.sqrt(kept)
        estimate: Tensor = (cleaned.clamp(-1.0, 1.0) + 1.0) / 2.0
        return estimate


DENOISERS: dict[str, type[nn.Module]] = {"residual": ResidualDenoiser, "diffusion": DiffusionDenoiser}
"""By the "kind" of a denoiser's configuration; the rest of it are the arguments."""


def make_denoiser(config: dict[str, Any]) -> nn.Module:
    """A denoiser from its configuration.

    Raises:
        ValueError: On an unknown kind or argument.
    """
    settings = dict(config)
    kind = settings.pop("kind", None)
    if kind not in DENOISERS:
        raise ValueError(f"A denoiser's 'kind' must be one of {', '.join(DENOISERS)}, got {kind!r}.")
    try:
        return DENOISERS[kind](**settings)
    except TypeError as error:
        raise ValueError(f"The denoiser {kind!r} does not take these settings: {error}.") from error


@torch.no_grad()
def diffusion_from_pretrained(path: str) -> tuple[dict[str, Any], DiffusionDenoiser]:
    """(configuration, denoiser) of a `diffusers` pipeline folder or Hub id with a UNet2DModel and a DDPM scheduler.

    Raises:
        ModuleNotFoundError: Without diffusers.
    """
    try:
        from diffusers import DDPMScheduler, UNet2DModel
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Diffusion denoising needs diffusers: pip install hf_smoothing[diffusion]"
        ) from error
    unet = UNet2DModel.from_pretrained(path, subfolder="unet", use_safetensors=True)
    scheduler = DDPMScheduler.from_pretrained(path, subfolder="scheduler")
    config = {"unet": dict(unet.config), "scheduler": dict(scheduler.config)}
    denoiser = DiffusionDenoiser(**config)
    denoiser.unet.load_state_dict(unet.state_dict())
    return {"kind": "diffusion", **config}, denoiser

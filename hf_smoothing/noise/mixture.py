"""What training draws: none, or Gaussian noise with a random sigma, for each image."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hf_smoothing.json_text import parse_json
from hf_smoothing.units import check_level, check_share, is_truth_value


Distribution = Literal["list", "uniform", "log_uniform"]


@dataclass(frozen=True)
class NoiseMixture:
    """The noise of one training image: none with probability `clean`, else Gaussian with a random sigma.

    Args:
        sigmas: With distribution "list" the noise levels, drawn with equal probability; with "uniform" and
            "log_uniform" the two ends of the interval. [0, 1] pixel units.
        clean: Share of images that stay clean, in [0, 1].
        distribution: How sigma is drawn for the other images.

    Raises:
        ValueError: On an empty list, a sigma that is negative or above `MAX_SIGMA`, an unordered interval, or a share outside [0, 1].

    Source: the mixture of clean and variously noisy images of Qiu et al., arXiv 2312.09020; half clean, half with sigma
    from a list, drawn per image, kept clean accuracy in Rusak et al. (2020), arXiv 2001.06057.

    >>> NoiseMixture(sigmas=(0.0, 1.0), clean=0.25, distribution="uniform").to_dict()
    {'sigmas': [0.0, 1.0], 'clean': 0.25, 'distribution': 'uniform'}
    >>> NoiseMixture.parse("clean") is None
    True
    """

    sigmas: tuple[float, ...]
    clean: float = 0.0
    distribution: Distribution = "list"

    def __post_init__(self) -> None:
        try:
            sigmas = tuple(_number(sigma) for sigma in self.sigmas)
        except (TypeError, OverflowError) as error:
            raise ValueError(
                f"`sigmas` must be a non-empty list of noise levels >= 0, got {self.sigmas!r}. For one level pass (0.25,)."
            ) from error
        object.__setattr__(self, "sigmas", sigmas)
        object.__setattr__(self, "clean", check_share(self.clean, "clean"))
        if not sigmas or not all(math.isfinite(s) and s >= 0.0 for s in sigmas):
            raise ValueError(
                f"`sigmas` must be a non-empty list of noise levels >= 0 in [0, 1] pixel units, got {sigmas}. "
                "To train on clean images only pass no mixture at all (noise='clean')."
            )
        check_level(max(sigmas), "sigmas")
        if self.distribution not in ("list", "uniform", "log_uniform"):
            raise ValueError(f"`distribution` must be 'list', 'uniform' or 'log_uniform', got {self.distribution!r}.")
        if self.distribution != "list":
            if len(sigmas) != 2 or sigmas[0] > sigmas[1]:
                raise ValueError(
                    f"`sigmas` must be (lowest, highest) with distribution {self.distribution!r}, got {sigmas}."
                )
            if self.distribution == "log_uniform" and sigmas[0] <= 0.0:
                raise ValueError(
                    f"A log-uniform sigma needs a positive lowest value, got {sigmas[0]}. "
                    "Use e.g. sigmas=(0.05, 1.0) and set the share of clean images with `clean`."
                )

    def sample_sigmas(self, count: int, generator: torch.Generator) -> Tensor:
        """One sigma per image, 0 for clean ones: float32 (count,) on the generator's device."""
        device = generator.device
        # Both draws are always made, so that the stream does not depend on the values.
        u = torch.rand(count, generator=generator, device=device, dtype=torch.float32)
        keep = torch.rand(count, generator=generator, device=device, dtype=torch.float32) >= self.clean
        if self.distribution == "list":
            levels = _levels(self.sigmas, device)
            sigma = levels[(u * len(self.sigmas)).long().clamp_(max=len(self.sigmas) - 1)]
        elif self.distribution == "uniform":
            sigma = self.sigmas[0] + u * (self.sigmas[1] - self.sigmas[0])
        else:
            sigma = self.sigmas[0] * (self.sigmas[1] / self.sigmas[0]) ** u
        return sigma * keep

    def add(self, pixels: Tensor, generator: torch.Generator, sigma: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noisy copies of a batch, not clamped, and the sigma of each image.

        Args:
            pixels: Pixels, float (batch, channels, height, width) in [0, 1].
            generator: Generator on the device of `pixels`; it alone decides the noise.
            sigma: Noise level, float32 (batch,), drawn before with `sample_sigmas`, e.g. to give copies of an image
                the same; drawn here by default.

        Returns:
            The tuple (pixels + noise in float32 of the same shape and memory format, sigmas float32 (batch,)).
        """
        if sigma is None:
            sigma = self.sample_sigmas(pixels.shape[0], generator)
        noise = torch.randn(pixels.shape, generator=generator, device=pixels.device, dtype=torch.float32)
        # In this order the sum takes the memory format of the pixels; the draws do not depend on it.
        return pixels.to(torch.float32) + noise.mul_(sigma[:, None, None, None]), sigma

    def to_dict(self) -> dict[str, Any]:
        """The mixture as plain JSON values; `NoiseMixture.parse` reads it back."""
        return {**asdict(self), "sigmas": list(self.sigmas)}

    @classmethod
    def parse(
        cls, value: NoiseMixture | Mapping[str, Any] | Sequence[float] | str | float | None
    ) -> NoiseMixture | None:
        """A mixture from what people write in a config or on a command line; None for no noise at all.

        Args:
            value: A mixture, its dictionary, that dictionary as JSON, one sigma, a list of sigmas, or None, "clean"
                or "none" for no noise.

        Raises:
            ValueError: If nothing of the kind can be read, or the mixture is not valid.

        >>> NoiseMixture.parse('{"sigmas": [0, 1], "clean": 0.25, "distribution": "uniform"}').clean
        0.25
        >>> NoiseMixture.parse("0.5").sigmas
        (0.5,)
        """
        if value is None or isinstance(value, NoiseMixture):
            return value
        if isinstance(value, str):
            if value.strip().lower() in ("clean", "none", "null", ""):
                return None
            try:
                value = parse_json(value)
            except ValueError as error:
                raise ValueError(
                    f"A noise mixture must be 'clean', a sigma, or JSON such as "
                    f'{{"sigmas": [0, 1], "clean": 0.25, "distribution": "uniform"}}, got {value!r}.'
                ) from error
        if isinstance(value, Mapping):
            levels = value.get("sigmas")
            if isinstance(levels, (int, float)) and not isinstance(levels, bool):
                value = {**value, "sigmas": (levels,)}
            unknown = set(value) - {"sigmas", "clean", "distribution"}
            if unknown or "sigmas" not in value:
                raise ValueError(
                    "A noise mixture has the keys 'sigmas' (required), 'clean' and 'distribution', "
                    f"got {sorted(value)}."
                )
            return cls(**value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return cls(sigmas=(value,))
        if isinstance(value, Sequence) and not isinstance(value, str):
            return cls(sigmas=tuple(value))
        raise ValueError(f"A noise mixture cannot be read from {type(value).__name__} {value!r}.")


def _number(value: Any) -> float:
    if isinstance(value, (str, bytes)) or is_truth_value(value):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


@functools.lru_cache(maxsize=32)
def _levels(sigmas: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept on the device: a copy at each step would make the host wait for it."""
    return torch.tensor(sigmas, dtype=torch.float32, device=device)

"""What an objective takes and returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hf_smoothing.models.network import Network
from hf_smoothing.noise import NoiseMixture
from hf_smoothing.units import as_number


PixelsToLogits = Callable[[Tensor], Tensor]
"""What an objective needs of a model at the least; some need a `Network`."""

LossAndLogs = tuple[Tensor, dict[str, Tensor]]
"""What an objective returns: the mean loss, and figures to log. One of the user's own may log numbers as well."""


@dataclass(frozen=True)
class Batch:
    """A training batch on the device.

    Attributes:
        pixels: Pixels, float32 (batch, channels, height, width): clean, augmented, in [0, 1], unless a model or
            processor owns the noise.
        labels: Labels, int64 (batch,); none where an autoencoder needs none. For objectives whose labels stand in a plain cross-entropy alone
            (`PROBABILITIES`) maybe probabilities of the classes, float32 (batch, classes); for one of the user's own what the collator made.
    """

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class ObjectiveState:
    """What an objective may use beyond the batch.

    Attributes:
        noise: The mixture to draw from; None trains on the pixels as they are.
        noise_owner: Who adds noise: "trainer", by this mixture; "model", within every pass; "processor", to pixels that come normalised.
        generator: The only source of randomness; its own for every forward pass and rank.
        progress: Share of the training done, in [0, 1]. Objectives that warm up need it, since without it they would never begin; None where nobody says it.
        label_smoothing: Label smoothing of the cross-entropy.

    Raises:
        ValueError: If `progress` is no number in [0, 1].
    """

    noise: NoiseMixture | None
    generator: torch.Generator
    progress: float | None = None
    label_smoothing: float = 0.0
    noise_owner: str = "trainer"

    def __post_init__(self) -> None:
        if self.progress is not None and not 0.0 <= as_number(self.progress) <= 1.0:
            raise ValueError(
                f"`progress` must be the share of the training done, in [0, 1], got {self.progress!r}. Pass progress=step / steps."
            )

    def done(self, name: str) -> float:
        """The share of the training done, for an objective that warms up.

        Args:
            name: Name of the objective, for the message.

        Raises:
            ValueError: If nobody says it.
        """
        if self.progress is None:
            raise ValueError(
                f"{name} warms up, so it must know how much of the training is done, got ObjectiveState(progress=None). Pass ObjectiveState(..., "
                "progress=step / steps), or progress=1.0 for what it is after the warm-up."
            )
        return self.progress


class Objective(Protocol):
    """A training loss."""

    def __call__(self, model: Network, batch: Batch, state: ObjectiveState) -> LossAndLogs:
        """The mean loss and the figures to log, for a `Network`, or for a function pixels -> logits where no more is needed."""
        ...


Loss = Callable[..., LossAndLogs]
"""An `Objective` whose settings are still to be filled in, by keyword."""

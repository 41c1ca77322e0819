"""What the two kinds of certificates need to be attacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from hf_smoothing.certification.classifiers import ResolvedClassifier


class Outcome(NamedTuple):
    """What an attack came to.

    Attributes:
        points: Attacked images (batch, channels, height, width).
        answers: The answer of the certified classifier at each, and the number of draws that it took.
    """

    points: Tensor
    answers: list[tuple[int, int]]


class Attacker(Protocol):
    """How certificates of one kind are attacked, chosen once for a run."""

    @property
    def classifier(self) -> ResolvedClassifier:
        """The classifier that was certified, as a run knows it."""

    def centre(self, pixels: Tensor) -> Tensor:
        """The image that was certified, in [0, 1]: the centre of the ball; of recorded pixels, both (1, channels, height, width)."""

    def attack(self, centres: Tensor, radii: Tensor, rows: Sequence[dict[str, Any]]) -> Outcome:
        """Attacked images within radii, float64 (batch,), of centres (batch, channels, height, width), whose rows are given."""

    def distances(self, points: Tensor, centres: Tensor) -> Tensor:
        """How far each attacked image is from its centre in the norm of the certificates, float64 (batch,)."""


def classes_of(rows: Sequence[dict[str, Any]], like: Tensor) -> Tensor:
    """The certified classes, int64 (batch,), on the device of a tensor."""
    return torch.tensor([row["prediction"] for row in rows], device=like.device)

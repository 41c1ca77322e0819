"""Classifiers whose smoothed version is known exactly: its class probabilities, its answer, and the radius of that answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special
from torch import Tensor, nn

from hf_smoothing.units import check_sigma


class ExactAnswer(NamedTuple):
    """What the smoothed classifier says of an image.

    Attributes:
        label: The most probable class under noise.
        radius: Exact l2 distance to the nearest point of another answer, [0, 1] pixel units; inf without one.
    """

    label: int
    radius: float


class Bands(nn.Module):
    """Class c where thresholds[c - 1] < w.x <= thresholds[c]: parallel bands, a half-space each with one threshold.

    Under N(0, sigma^2 I) noise w.x is normal with standard deviation sigma ||w||, so that everything is known in closed form. Moving
    x across the bands is the fastest way to another answer. The half-space is the worst case of randomized smoothing: its
    radius is sigma Phi^-1(p) for class probability p, no more.

    Args:
        weights: The direction w, float (channels, height, width).
        thresholds: Ends of the bands, ascending; one more class than thresholds.

    Raises:
        ValueError: If the direction is zero, or the thresholds do not ascend.
    """

    def __init__(self, weights: Tensor, thresholds: Sequence[float]) -> None:
        super().__init__()
        ends = torch.tensor([float(end) for end in thresholds], dtype=torch.float64)
        if not len(ends) or not bool((ends[1:] > ends[:-1]).all()):
            raise ValueError(f"`thresholds` must be one ascending number or more, got {list(thresholds)}.")
        if not bool(weights.any()):
            raise ValueError("`weights` must have an entry other than zero, got none.")
        self.weights = nn.Parameter(weights.detach().double(), requires_grad=False)
        self.thresholds = nn.Parameter(ends, requires_grad=False)
        self.eval()

    def score(self, pixels: Tensor) -> Tensor:
        """w.x of images (batch, channels, height, width), float64 (batch,)."""
        # Row by row and in double precision, so that a vote does not depend on the batch around it.
        return (pixels.double() * self.weights).flatten(1).sum(1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (batch, num_labels): 1 for the class, 0 for the others."""
        labels = torch.bucketize(self.score(pixels), self.thresholds)
        return nn.functional.one_hot(labels, len(self.thresholds) + 1).float()

    def probabilities(self, image: Tensor, sigma: float, shift: ArrayLike = 0.0) -> NDArray[np.float64]:
        """Probability of each class under noise, for the image moved along w.

        Args:
            image: Pixels (channels, height, width).
            sigma: Noise standard deviation in [0, 1] pixel units.
            shift: L2 lengths of the moves, any shape; negative against w.

        Returns:
            A float64 array (*shape of shift, num_labels).
        """
        norm, score = float(self.weights.norm()), float(self.score(image[None].to(self.weights.device)))
        ends = (self.thresholds.detach().cpu().numpy() - score) / norm
        z = (ends - np.asarray(shift, dtype=np.float64)[..., None]) / check_sigma(sigma)
        below, above = special.ndtr(z), special.ndtr(-z)
        # A band is taken from the side where its ends are small, so that a rare class keeps its digits.
        middle = np.where(z[..., 1:] < 0, below[..., 1:] - below[..., :-1], above[..., :-1] - above[..., 1:])
        return np.concatenate([below[..., :1], middle, above[..., -1:]], axis=-1)

    def answer(self, image: Tensor, sigma: float) -> ExactAnswer:
        """The smoothed classifier's answer and its exact radius.

        With one threshold the radius is |w.x - threshold| / ||w||; otherwise the first shift at which another class is as probable, found
        on steps of sigma / 1000 and then to 1e-12.

        Args:
            image: Pixels (channels, height, width).
            sigma: Noise standard deviation in [0, 1] pixel units.
        """
        label = int(self.probabilities(image, sigma).argmax())
        norm, score = float(self.weights.norm()), float(self.score(image[None].to(self.weights.device)))
        ends = self.thresholds.detach().cpu().numpy()
        if len(ends) == 1:
            return ExactAnswer(label, abs(score - float(ends[0])) / norm)

        def lead(shift: ArrayLike) -> NDArray[np.float64]:
            shares = self.probabilities(image, sigma, shift)
            return np.asarray(shares[..., label] - np.delete(shares, label, axis=-1).max(axis=-1))

        reach = np.abs(ends - score).max() / norm + sigma
        steps = np.arange(0.0, reach, sigma / 1000)
        found = []
        for side in (steps, -steps):
            lost = np.flatnonzero(lead(side) <= 0.0)
            if lost.size and lost[0] == 0:
                return ExactAnswer(label, 0.0)
            if lost.size:
                end = optimize.brentq(lambda shift: float(lead(shift)), side[lost[0] - 1], side[lost[0]], xtol=1e-12)
                found.append(abs(end))
        return ExactAnswer(label, min(found, default=float("inf")))

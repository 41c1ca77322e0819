"""Attacks on smoothed certificates: the soft smoothed classifier is climbed, and votes answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.attack_run.attackers import Outcome, classes_of
from hf_smoothing.attacks import distance, pgd, round_to_grid, smoothed_logits
from hf_smoothing.certification import predict
from hf_smoothing.certification.classifiers import ResolvedClassifier
from hf_smoothing.pixels import grid_to_unit, to_unit_pixels


ANSWERS = 1 << 64
"""Added to the seed of an attack for its answers: a run with the same seed has certified with the draws of that one, and an answer needs its own."""


class SmoothedAttacker:
    """An `Attacker` of l2 certificates.

    Args:
        classifier: The base classifier.
        settings: Settings of the run.
        steps, copies, n, alpha: As of `attack_run`.
        seed: Seed of the attack.
    """

    def __init__(
        self,
        classifier: ResolvedClassifier,
        settings: Mapping[str, Any],
        *,
        steps: int,
        copies: int,
        n: int,
        alpha: float,
        seed: int,
    ) -> None:
        self.classifier = classifier
        self._settings, self._steps, self._n, self._alpha, self._seed = settings, steps, n, alpha, seed
        self._generator = torch.Generator(classifier.device).manual_seed(seed % (1 << 63))
        self._soft = smoothed_logits(classifier, settings["sigma"], copies, self._generator)
        self._on_grid = settings["noise_kind"] == "grid"

    def centre(self, pixels: Tensor) -> Tensor:
        """As of `Attacker`; float32, as noise is added to it."""
        return to_unit_pixels(pixels)

    def attack(self, centres: Tensor, radii: Tensor, rows: Sequence[dict[str, Any]]) -> Outcome:
        """As of `Attacker`; 8-bit images where the noise is on the grid."""
        asked = self._settings
        # The noise is fresh at every step, so the last point is worth more than the one whose draws were luckiest.
        points = pgd(
            self._soft, centres, classes_of(rows, centres), epsilon=radii, steps=self._steps, generator=self._generator, keep="last"
        )  # fmt: skip
        points = round_to_grid(points, centres, radii, "l2") if self._on_grid else points
        answers = predict(
            self.classifier, points, sigma=asked["sigma"], n=self._n, alpha=self._alpha, noise_kind=asked["noise_kind"], dtype=asked["dtype"],
            channels_last=asked["channels_last"], compile=asked["compile"], seed=self._seed + ANSWERS, indices=[row["index"] for row in rows],
        )  # fmt: skip
        return Outcome(points, [(answer.prediction, answer.draws) for answer in answers])

    def distances(self, points: Tensor, centres: Tensor) -> Tensor:
        """As of `Attacker`; on the grid between the k / 255 themselves, not their float32 neighbours."""
        if self._on_grid:
            points, centres = (grid_to_unit((images.double() * 255).round()) for images in (points, centres))
        return distance(points, centres, "l2")

"""Attacks on deterministic certificates: the network is climbed, and the function that was certified answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hf_smoothing.attack_run.attackers import Outcome, classes_of
from hf_smoothing.attacks import distance, pgd
from hf_smoothing.attacks.ascent import climb
from hf_smoothing.attacks.losses import log_odds
from hf_smoothing.certification.classifiers import run_dtype
from hf_smoothing.interval.certificates import exact_logits
from hf_smoothing.interval.classifier import classify_function, interval_classifier
from hf_smoothing.interval.followed import logits_of_run
from hf_smoothing.interval.search import exact_pixels
from hf_smoothing.interval.trace import Trace
from hf_smoothing.pixels import check_image_batch


class DeterministicAttacker:
    """An `Attacker` of l-infinity certificates.

    Args:
        classifier: The network.
        covers_run: Whether the certificates are for runs in the network's dtype as well, not for real arithmetic alone.
        steps, restarts: As of `attack_run`.
        seed: Seed of the attack.
    """

    def __init__(self, classifier: nn.Module, *, covers_run: bool, steps: int, restarts: int, seed: int) -> None:
        self.classifier = interval_classifier(classifier)
        self._classify, self._dtype = classify_function(classifier), run_dtype(classifier)
        self._covers_run, self._steps, self._restarts = covers_run, steps, restarts
        self._generator = torch.Generator(self.classifier.device).manual_seed(seed % (1 << 63))

    def centre(self, pixels: Tensor) -> Tensor:
        """As of `Attacker`; float64, as bounds are computed around it."""
        return exact_pixels(check_image_batch(pixels)).clone()  # also of pixels that were made in inference mode

    @torch.inference_mode(False)
    def attack(self, centres: Tensor, radii: Tensor, rows: Sequence[dict[str, Any]]) -> Outcome:
        """As of `Attacker`; float64, of each image the worse of two points: the best for a run in its own dtype, and the corner uphill of it.

        In a ball below its resolution a run answers the same everywhere, but its gradient still says which corner.
        """
        claimed = classes_of(rows, centres)
        reach = radii[:, None, None, None]
        lower, upper = (centres - reach).clamp(min=0.0), (centres + reach).clamp(max=1.0)

        def point(place: Tensor) -> Tensor:
            return torch.lerp(lower, upper, place.double())

        def run(places: Tensor) -> Tensor:
            return self.classifier(point(places).to(self._dtype))

        # The ball is a cube: float32 numbers from 0 to 1 are fine enough for its places, though not for its pixels.
        best = pgd(
            run, torch.full_like(centres, 0.5, dtype=torch.float32), claimed, epsilon=0.5, norm="linf", steps=self._steps, restarts=self._restarts,
            generator=self._generator,
        )  # fmt: skip
        with torch.enable_grad():
            _, uphill = climb(lambda places: log_odds(run, places, claimed), best)
        with torch.no_grad():
            found, corner = point(best), point((best + uphill.sign()).clamp(0.0, 1.0))
            (margins, answers), (others, answers_there) = self._asked(found, claimed), self._asked(corner, claimed)
            worse = others < margins
            points = torch.where(worse[:, None, None, None], corner, found)
            return Outcome(points, [(answer, 0) for answer in torch.where(worse, answers_there, answers).tolist()])

    def distances(self, points: Tensor, centres: Tensor) -> Tensor:
        """As of `Attacker`."""
        return distance(points, centres, "linf")

    def _asked(self, points: Tensor, claimed: Tensor) -> tuple[Tensor, Tensor]:
        """By how much the claimed classes win, and the answers, (batch,) both: of the certified function and, where they are covered, of runs, the worse of the two."""
        trace = Trace(tolerant=True, real=not self._covers_run)
        logits = exact_logits(self._classify, points, self._dtype, trace)
        margins, answers = _margins(logits, claimed), logits.argmax(dim=1)
        if self._covers_run:
            logits = logits_of_run(self._classify, points.to(self._dtype), len(points))
            margins = torch.minimum(margins, _margins(logits, claimed).double())
            answers = torch.where(answers == claimed, logits.argmax(dim=1), answers)
        return margins, answers


def _margins(logits: Tensor, classes: Tensor) -> Tensor:
    column = classes[:, None]
    return logits.gather(1, column)[:, 0] - logits.scatter(1, column, -torch.inf).amax(1)

"""CERTIFY of Cohen et al. in a few lines, rules that are careless in one respect each, and how often exactly these are false."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor

from hf_smoothing import statistics
from hf_smoothing.audit import Case
from hf_smoothing.selftest.bounds import crossing


Bound = Callable[[int, int, float], float]
"""Successes, trials and alpha -> a lower bound of the success probability."""


def clopper_pearson(k: int, n: int, alpha: float) -> float:
    return float(statistics.lower_bound(k, n, alpha))


def share(k: int, n: int, alpha: float) -> float:
    """The share of votes itself, as if it were the probability."""
    return min(k / n, 1 - 1e-9)


def plain_certify(
    classifier: Any, images: Tensor, *, sigma: float, alpha: float, seed: int, n0: int = 100, n: int = 500,
    bound: Bound = clopper_pearson,
) -> tuple[list[int], list[float]]:  # fmt: skip
    """CERTIFY of arXiv 1902.02918, one image after another; with n0 = 0 the class is chosen on the draws that estimate its probability."""
    predictions, radii = [], []
    generator = torch.Generator().manual_seed(seed)
    for image in images:
        counts = votes(classifier, image, sigma, n, generator)
        top = int((votes(classifier, image, sigma, n0, generator) if n0 else counts).argmax())
        p = bound(int(counts[top]), n, alpha)
        predictions.append(top if p > 0.5 else -1)
        radii.append(sigma * float(special.ndtri(p)) if p > 0.5 else 0.0)
    return predictions, radii


LOOKS = (20, 40, 80, 160, 320, 500)


def at_every_look(
    classifier: Any, images: Tensor, *, sigma: float, alpha: float, seed: int
) -> tuple[list[int], list[float]]:
    """The largest radius of any look, each from a bound for a fixed number of draws: nothing is paid for looking six times."""
    predictions, radii = [], []
    generator = torch.Generator().manual_seed(seed)
    for image in images:
        best, answer, counts = 0.0, -1, np.zeros(1, dtype=np.int64)
        for before, look in zip((0, *LOOKS), LOOKS, strict=False):
            counts = counts + votes(classifier, image, sigma, look - before, generator)
            p = clopper_pearson(int(counts.max()), look, alpha)
            if p > 0.5 and sigma * special.ndtri(p) > best:
                best, answer = sigma * float(special.ndtri(p)), int(counts.argmax())
        predictions.append(answer)
        radii.append(best)
    return predictions, radii


def votes(classifier: Any, image: Tensor, sigma: float, n: int, generator: torch.Generator) -> np.ndarray:
    logits = classifier(image + sigma * torch.randn((n, *image.shape), generator=generator))
    return np.bincount(logits.argmax(1).numpy(), minlength=logits.shape[1])


def false_rates(cases: Sequence[Case], sigma: float, alpha: float, bound: Bound, looks: Sequence[int]) -> list[float]:
    """How often a rule that takes the top class of each look is false in each case, at least; exactly, with one look.

    With one look at most one class has a bound above 1/2, so the probabilities of the classes add up; with several, that of the class
    most often claimed falsely is a lower bound.
    """
    rates = []
    for case in cases:
        false = []
        for label, p in enumerate(case.classifier.probabilities(case.image, sigma)):
            # Wrong where another class is claimed at all, or this one beyond its radius.
            least = special.ndtr(case.radius / sigma * (1 + 1e-9)) if label == case.label else 0.5
            ends = [next((k for k in range(n // 2, n + 1) if bound(k, n, alpha) > least), n + 1) for n in looks]
            false.append(crossing(float(p), looks, ends))
        rates.append(sum(false) if len(looks) == 1 else max(false))
    return rates

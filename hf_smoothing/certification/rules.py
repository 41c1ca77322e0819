"""What is drawn for an image and what may be claimed from it: CERTIFY with a fixed number of draws.

Source: Cohen, Rosenfeld & Kolter (2019), arXiv 1902.02918, section 3.2.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_smoothing import statistics
from hf_smoothing.noise import MAX_DRAWS
from hf_smoothing.statistics import ABSTAIN


Counts = NDArray[np.int64]


@dataclass(frozen=True)
class FixedRule:
    """CERTIFY with `n0` selection and `n` estimation draws, fixed before the first one.

    Guarantee: the certificate of an image is wrong with probability at most `alpha` over its draws, whatever the classifier.

    Args:
        sigma: noise standard deviation in [0, 1] pixel units.
        n0: draws that choose the class.
        n: fresh draws that estimate its probability.
        alpha: failure probability of one certificate.

    Raises:
        ValueError: if `n` draws can decide nothing at `alpha`, or any argument is out of its range.

    Source: arXiv 1902.02918, CERTIFY, Theorem 1 and Proposition 2; one-sided bound.
    """

    sigma: float
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", statistics.check_sigma(self.sigma))
        object.__setattr__(self, "alpha", statistics.check_alpha(self.alpha))
        object.__setattr__(self, "n", statistics.check_whole(self.n, "n"))
        object.__setattr__(self, "n0", statistics.check_whole(self.n0, "n0"))
        enough = statistics.min_draws(self.alpha)
        if self.n < enough:
            raise ValueError(
                f"`n` must be at least {enough} to certify anything at alpha = {self.alpha}, got {self.n}: even unanimous "
                "votes would abstain."
            )
        if self.n0 < 1:
            raise ValueError(f"`n0` must be at least 1 to choose a class, got {self.n0}.")
        if self.n0 + self.n > MAX_DRAWS:
            raise ValueError(f"`n0` + `n` must be at most {MAX_DRAWS:,}, got {self.n0 + self.n:,}.")

    def segments(self, drawn: int) -> list[tuple[int, int]]:
        """The draws still to make after the first `drawn`, cut at the looks."""
        bounds = [0, self.n0, self.n0 + self.n]
        return [(max(a, drawn), b) for a, b in itertools.pairwise(bounds) if b > drawn]

    def decide(self, votes: Votes) -> Certificate:
        """The certificate from a complete set of votes."""
        selection, estimation = votes.looks
        top = int(selection.argmax())
        p_lower = float(statistics.lower_bound(estimation[top], self.n, self.alpha))
        certified = p_lower > 0.5
        return Certificate(
            index=votes.index,
            prediction=top if certified else ABSTAIN,
            radius=float(statistics.l2_radius(p_lower, self.sigma)) if certified else 0.0,
            p_lower=p_lower,
            sigma=self.sigma,
            alpha=self.alpha,
            draws=votes.drawn,
            looks=tuple(tuple(int(x) for x in look) for look in votes.looks),
            label=votes.label,
            seconds=votes.seconds,
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings that decide a run's result."""
        return {"rule": {"name": "fixed-n", "n0": self.n0, "n": self.n}, "sigma": self.sigma, "alpha": self.alpha}


@dataclass
class Votes:
    """The votes of one image so far.

    Attributes:
        index: of the image within the run.
        label: true class if known; it never influences a certificate.
        looks: counts of each look, int64 (num_labels,) each: selection and estimation.
        drawn: number of draws made.
        seconds: spent on them.
    """

    index: int
    label: int | None = None
    looks: list[Counts] = field(default_factory=list)
    drawn: int = 0
    seconds: float = 0.0

    def add(self, counts: Counts, start: int, stop: int, first_of_look: bool) -> None:
        """Add the counts of draws `start` to `stop` - 1, which must continue those made so far."""
        if start != self.drawn:
            raise ValueError(f"Draws of image {self.index} must continue at {self.drawn}, got draws from {start}.")
        if first_of_look:
            self.looks.append(counts.copy())
        else:
            self.looks[-1] += counts
        self.drawn = stop


@dataclass(frozen=True)
class Certificate:
    """What is guaranteed about one image: within `radius` in l2, the smoothed classifier answers `prediction`.

    Attributes:
        index: of the image within its run.
        prediction: class, or `ABSTAIN` (-1).
        radius: l2 radius in [0, 1] pixel units, 0.0 on abstention.
        p_lower: lower confidence bound of the predicted class's probability under noise.
        sigma, alpha: noise level and failure probability.
        draws: number of noisy copies classified.
        looks: votes of each class at each look: selection, then estimation.
        label: true class if known.
        seconds: spent on this image.
    """

    index: int
    prediction: int
    radius: float
    p_lower: float
    sigma: float
    alpha: float
    draws: int
    looks: tuple[tuple[int, ...], ...]
    label: int | None = None
    seconds: float = 0.0

    @property
    def abstained(self) -> bool:
        """True if nothing is claimed."""
        return self.prediction == ABSTAIN

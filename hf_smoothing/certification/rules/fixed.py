"""Certifying every radius from a fixed number of draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_smoothing import statistics
from hf_smoothing.certification.certificates import Certificate, Votes
from hf_smoothing.certification.options import RuleOptions, options_of
from hf_smoothing.certification.rules.base import check_stages


BOUNDS = options_of(RuleOptions)["bound"].choices


@dataclass(frozen=True)
class FixedRule:
    """CERTIFY with `n0` selection and `n` estimation draws: the rule of the papers.

    Guarantee: the certificate of an image is wrong with probability at most `alpha` over its draws, whatever the classifier.

    Args:
        sigma: Noise standard deviation in [0, 1] pixel units.
        n0: Number of draws that choose the class.
        n: Number of fresh draws that estimate its probability.
        alpha: Failure probability of one certificate.
        bound: "one-sided" bounds the top class from below, as papers do; "runner-up" bounds the largest other class from above
            as well, at alpha/2 each.
        slack: Total variation of the noise from its law; see `statistics.l2_radius`.
        diameter: Diameter of the pixel cube, which no radius exceeds; see `units.diameter`.

    Raises:
        ValueError: If `n` draws can decide nothing at `alpha`, or any argument is out of its range.

    Source: arXiv 1902.02918, CERTIFY, Theorem 1 and Proposition 2.
    """

    sigma: float
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001
    bound: str = "one-sided"
    slack: float = 0.0
    diameter: float = math.inf

    def __post_init__(self) -> None:
        check_stages(self)
        if self.n0 < 1:
            raise ValueError(f"`n0` must be at least 1 to choose a class, got {self.n0}.")
        if self.bound not in BOUNDS:
            raise ValueError(f"`bound` must be one of {', '.join(map(repr, BOUNDS))}, got {self.bound!r}.")
        enough = statistics.min_draws(self.alpha)
        if self.n < enough:
            raise ValueError(
                f"`n` must be at least {enough} to certify anything at alpha = {self.alpha}, got {self.n}: even unanimous "
                "votes would abstain."
            )

    @property
    def stage_ends(self) -> tuple[int, ...]:
        """Ends of the two stages."""
        return (self.n0, self.n0 + self.n)

    def wanted(self, votes: Votes) -> int:
        """All draws at once."""
        return self.n0 + self.n

    def decide(self, votes: Votes) -> Certificate:
        """The certificate from a complete set of votes."""
        selection, estimation = votes.counts_by_look
        top = int(selection.argmax())
        claims = statistics.fixed_claims(
            estimation[top], np.delete(estimation, top).max(), n=self.n, alpha=self.alpha, sigma=self.sigma, bound=self.bound,
            slack=self.slack, diameter=self.diameter,
        )  # fmt: skip
        return Certificate.of(votes, top, claims, self.sigma, self.alpha)

    def to_dict(self) -> dict[str, Any]:
        """The settings that decide a run's result."""
        return {
            "rule": {"name": "fixed-n", "n0": self.n0, "n": self.n},
            "sigma": self.sigma,
            "alpha": self.alpha,
            "bound": self.bound,
            "label_aware": False,
        }

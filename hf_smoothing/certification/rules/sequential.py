"""Certifying target radii with as few draws as each image needs."""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_smoothing import statistics
from hf_smoothing.certification.certificates import Certificate, Votes
from hf_smoothing.certification.rules.base import check_stages
from hf_smoothing.noise import MAX_DRAWS
from hf_smoothing.statistics import exact_text
from hf_smoothing.units import as_number


@dataclass(frozen=True)
class SequentialRule:
    """Draws until every target radius is certified or given up, at most `n0` + `n` times.

    Guarantee: the certificate of an image is wrong with probability at most `alpha` over its draws, whatever the classifier and
    wherever the draws stop.

    - Union bound (A): at look k the lower bound L_k is taken at alpha w_k, so all of them hold together; the radius of the largest
      is valid at any stopping time and for all radii at once (`statistics.sequential_lower_bound`).
    - Error spending (B, `spending`): exact boundaries for each target, a few percent fewer draws; the certified radius is the largest
      target such that it and all smaller ones are certified (`statistics.spending_boundaries`).
    - Selection: `n0` draws of their own choose the class. With n0 = 0 it is the class with most votes when the draws stop, and the
      level is alpha/2. Then a false claim needs a class c with p_c <= q whose own count crosses. A path that first crosses at look k
      with s votes has probability p^s (1-p)^(n_k-s); divided by p it grows up to p = (s-1)/(n_k-1), which is q or more, since s >= b_k.
      So f(p)/p grows up to q, f being the probability of crossing, and sum_c f(p_c) <= f(q)/q sum_c p_c <= 2 f(q) <= alpha.
    - Giving up can make no false certificate (`statistics.hopeless`).

    Args:
        sigma: Noise standard deviation in [0, 1] pixel units.
        targets: Target radii, ascending.
        n0: Number of draws that choose the class, or 0.
        n: Number of estimation draws at the last look.
        alpha: Failure probability of one certificate.
        spending: Use B instead of A.
        label_aware: Test the true label only. For measuring certified accuracy; it gives no certificate for deployment.
        slack: Total variation of the noise from its law; see `statistics.l2_radius`.
        diameter: Diameter of the pixel cube, which no radius exceeds; see `units.diameter`.

    Raises:
        ValueError: On targets that are unsorted, repeated, negative, above the diameter or out of reach of `n` draws; on arguments out of
            range.
    """

    sigma: float
    targets: tuple[float, ...]
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001
    spending: bool = False
    label_aware: bool = False
    slack: float = 0.0
    diameter: float = math.inf

    def __post_init__(self) -> None:
        check_stages(self)
        if self.n0 < 0 or (self.label_aware and self.n0):
            raise ValueError(f"`n0` must be at least 0, and 0 when measuring label-aware, got {self.n0}.")
        if self.n < 1 or self.ceiling <= 0.0:
            enough = next(
                n
                for n in itertools.count(max(self.n, 0) + 1)
                if statistics.sequential_ceiling(n, self.level, self.sigma) > 0.0
            )
            raise ValueError(
                f"`n` must be at least {enough} to certify anything at alpha = {self.alpha}, got {self.n}: even unanimous "
                "votes would abstain."
            )
        object.__setattr__(self, "targets", _check_targets(self.targets))
        if self.targets[-1] > self.diameter:
            raise ValueError(
                f"Target radius {exact_text(self.targets[-1])} is above {self.diameter:.4g}, the largest l2 distance between two images of this "
                f"resolution. Radii are in [0, 1] pixel units: divide grey levels of 0..255 by 255 ({self.targets[-1] / 255:.3g})."
            )
        if self.targets[-1] >= self._unbounded_ceiling:
            enough = self._enough(self.targets[-1])
            cure = f"Use n = {enough:,} or more, or smaller targets."
            if self.n0 + enough > MAX_DRAWS:
                cure = (
                    "No n reaches it; use smaller targets, in [0, 1] pixel units: grey levels of 0..255 are divided by 255 "
                    f"({self.targets[-1] / 255:.3g})."
                )
            raise ValueError(
                f"Target radius {exact_text(self.targets[-1])} is out of reach: {self.n:,} draws at alpha = {self.alpha} and sigma = "
                f"{exact_text(self.sigma)} certify less than {statistics.round_down(self._unbounded_ceiling)}. {cure}"
            )

    @property
    def level(self) -> float:
        """Failure probability of the test of one class."""
        return statistics.sequential_level(self.alpha, self.n0, self.label_aware)

    @functools.cached_property
    def looks(self) -> tuple[int, ...]:
        """Estimation draws at each look."""
        return statistics.geometric_looks(self.n)

    @functools.cached_property
    def stage_ends(self) -> tuple[int, ...]:
        """Draws, those of the selection included, at the end of each stage."""
        return ((self.n0,) if self.n0 else ()) + tuple(self.n0 + n for n in self.looks)

    @functools.cached_property
    def ceiling(self) -> float:
        """The radius certified when all draws agree."""
        return min(self._unbounded_ceiling, self.diameter)

    @functools.cached_property
    def _unbounded_ceiling(self) -> float:
        """Were there no end of the pixel cube; every target must be below."""
        return statistics.sequential_ceiling(self.n, self.level, self.sigma, self.slack) if self.n > 0 else 0.0

    def _enough(self, radius: float) -> int:
        q = float(statistics.probability_for_radius(radius, self.sigma, self.slack))
        return math.floor(math.log(self.level / 2) / math.log(q)) + 2 if q < 1.0 else MAX_DRAWS

    @functools.cached_property
    def _boundaries(self) -> NDArray[np.int64]:
        """(targets, looks)."""
        return statistics.target_boundaries(
            self.targets, self.looks, level=self.level, sigma=self.sigma, spending=self.spending, slack=self.slack
        )

    def wanted(self, votes: Votes) -> int:
        """The end of the current look; that of the next one while a target is open; no more otherwise."""
        first = self.stage_ends[1 if self.n0 else 0]
        if votes.drawn < first:
            return first
        reached = bisect.bisect_right(self.stage_ends, votes.drawn)
        if votes.drawn != self.stage_ends[reached - 1]:
            return self.stage_ends[reached]
        if reached == len(self.stage_ends) or not self._open(votes):
            return votes.drawn
        return self.stage_ends[reached]

    def _successes(self, votes: Votes) -> tuple[int, NDArray[np.int64]]:
        """The class under test, and its count S_k at each finished look."""
        estimation = votes.counts_by_look[1:] if self.n0 else votes.counts_by_look
        if self.label_aware:
            classes = len(votes.counts_by_look[0])
            if votes.label is None or not 0 <= votes.label < classes:
                raise ValueError(
                    f"Label-aware evaluation needs the true class of image {votes.index}, one of {classes}, got {votes.label}. "
                    "Use a labelled split, or leave label_aware out."
                )
            top = votes.label
        else:
            top = int((votes.counts_by_look[0] if self.n0 else np.sum(votes.counts_by_look, axis=0)).argmax())
        return top, np.cumsum([look[top] for look in estimation])

    def _open(self, votes: Votes) -> bool:
        """Whether more draws could certify another target."""
        _, successes = self._successes(votes)
        next_target = int(statistics.targets_reached(successes, self._boundaries))
        if next_target == len(self.targets):
            return False
        # Only the next target matters: with it given up, no larger one can be certified.
        drawn, final = self.looks[len(successes) - 1], self._boundaries[next_target, -1]
        return not bool(statistics.hopeless(successes[-1], drawn, self.n, final))

    def decide(self, votes: Votes) -> Certificate:
        """The certificate at the stopping time."""
        top, successes = self._successes(votes)
        claims = statistics.sequential_claims(
            successes, self._boundaries, targets=self.targets, looks=self.looks, level=self.level, sigma=self.sigma,
            spending=self.spending, slack=self.slack, diameter=self.diameter,
        )  # fmt: skip
        return Certificate.of(votes, top, claims, self.sigma, self.alpha, self.targets)

    def to_dict(self) -> dict[str, Any]:
        """The settings that decide a run's result."""
        return {
            "rule": {
                "name": "sequential, error spending" if self.spending else "sequential, union bound",
                "n0": self.n0,
                "n": self.n,
                "targets": list(self.targets),
                "looks": list(self.looks),
                "futility_quantile": statistics.FUTILITY_QUANTILE,
            },
            "sigma": self.sigma,
            "alpha": self.alpha,
            "bound": "one-sided",
            "label_aware": self.label_aware,
        }


def _check_targets(given: Any) -> tuple[float, ...]:
    try:
        # A text or bytes would be taken apart into letters and their codes.
        radii = given if isinstance(given, (str, bytes)) else list(given)
        targets = () if radii is given else tuple(as_number(radius) for radius in radii)
    except TypeError:
        radii, targets = given, ()
    if not targets or not all(math.isfinite(radius) and radius >= 0.0 for radius in targets):
        raise ValueError(
            f"`targets` must be a non-empty list of target radii >= 0 in [0, 1] pixel units, got {radii!r}. For one radius pass [0.5]."
        )
    if any(a >= b for a, b in itertools.pairwise(targets)):
        raise ValueError(
            f"`targets` must ascend without repetition, got {list(targets)}. Use targets={sorted(set(targets))}."
        )
    return targets

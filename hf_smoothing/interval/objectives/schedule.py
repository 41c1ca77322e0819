"""What all losses for certified training share: how the cap of the radii grows, and the checks of the settings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hf_smoothing.interval.radii import check_largest
from hf_smoothing.training.objectives import ObjectiveState
from hf_smoothing.training.objectives.base import clean_pixels
from hf_smoothing.units import as_number, check_share


SMALLEST = 1e-6
"""Radius that every image gets at least while the regularisers are on, whose ratio of widths would be 0/0; a smaller cap is none."""


@dataclass(frozen=True)
class Plan:
    """Settings that all losses share; see `adaptive_interval`.

    Attributes:
        largest: The cap e_max, in [0, 1] pixel units.
        kappa: Weight of the clean cross-entropy, in [0, 1].
        adaptive: Whether each image is trained at its own certified radius.
        clean_share, ramp_share: Shares of the training without a cap, and in which it grows.
        regularisation: Weight of the warm-up regularisers.
        l1: Weight of the l1 norm of the weights that are trained, each counted once.
    """

    largest: float
    kappa: float
    adaptive: bool
    clean_share: float
    ramp_share: float
    regularisation: float
    l1: float

    def check(self, state: ObjectiveState) -> None:
        """Refuse what makes no sense.

        Raises:
            ValueError: The message names it.
        """
        check_largest(self.largest)
        check_share(self.kappa, "kappa")
        shares = check_share(self.clean_share, "clean_share"), check_share(self.ramp_share, "ramp_share")
        if sum(shares) > 1.0:
            raise ValueError(
                f"`clean_share` and `ramp_share` are shares of one training, and their sum must be at most 1, got {self.clean_share} and {self.ramp_share}. "
                f"With this `clean_share` the ramp can take {max(1.0 - shares[0], 0.0):.6g}."
            )
        for name, weight in {"regularisation": self.regularisation, "l1": self.l1}.items():
            if not 0.0 <= as_number(weight) < math.inf:
                raise ValueError(
                    f"`{name}` must be a weight of a penalty, finite and >= 0, got {weight!r}. Below 0 it would reward what it is to keep small; "
                    "for none pass 0."
                )
        if self.largest < SMALLEST:
            raise ValueError(
                f"`largest` must be at least {SMALLEST:g} for training, got {self.largest}: plain cross-entropy would be left."
            )
        clean_pixels(state, "Interval bounds are trained on clean images")

    def cap(self, progress: float) -> float:
        """The cap at this share of the training; 0 below `SMALLEST`."""
        cap = cap_schedule(progress, self.largest, self.clean_share, self.ramp_share)
        return cap if cap >= SMALLEST else 0.0


def cap_schedule(progress: float, largest: float, clean_share: float, ramp_share: float) -> float:
    """The cap e_t: 0, then quartic for the first quarter of the ramp, then linear with the same slope, then `largest`.

    >>> [round(cap_schedule(p, 0.4, 0.0, 1.0), 4) for p in (0.0, 0.25, 0.5, 1.0)]
    [0.0, 0.0308, 0.1538, 0.4]
    """
    if ramp_share == 0.0:
        return largest if progress >= clean_share else 0.0
    t = (progress - clean_share) / ramp_share
    if t <= 0.0:
        return 0.0
    quarter = 0.25
    scale = largest / (quarter**3 * (quarter + 4.0 * (1.0 - quarter)))
    if t < quarter:
        return float(scale * t**4)
    return float(min(scale * quarter**3 * (quarter + 4.0 * (t - quarter)), largest))

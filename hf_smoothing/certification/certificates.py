"""What is known of an image while it is certified (`Votes`), and what is claimed of it in the end (`Certificate`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hf_smoothing.statistics import ABSTAIN, Claims


Counts = NDArray[np.int64]


@dataclass
class Votes:
    """The votes of one image so far.

    Attributes:
        index: Index of the image within the run.
        label: True class if known; only label-aware evaluation reads it.
        counts_by_look: Votes cast between one look and the next, int64 (num_labels,) each; the selection stage, if there is one, is the
            first. The last may be unfinished.
        drawn: Number of draws made.
        seconds: Time spent on them.
        image_sha256: SHA-256 of the image's pixels, where a run keeps it.
    """

    index: int
    label: int | None = None
    counts_by_look: list[Counts] = field(default_factory=list)
    drawn: int = 0
    seconds: float = 0.0
    image_sha256: str | None = None

    def add(self, counts: Counts, start: int, stop: int, opens_look: bool) -> None:
        """Add the counts of draws `start` to `stop` - 1, which must continue those made so far.

        Raises:
            ValueError: If they do not.
        """
        if start != self.drawn:
            raise ValueError(f"Draws of image {self.index} must continue at {self.drawn}, got draws from {start}.")
        if opens_look:
            self.counts_by_look.append(counts.copy())
        else:
            self.counts_by_look[-1] += counts
        self.drawn = stop


class Pending(NamedTuple):
    """An image that is not decided.

    Attributes:
        votes: Votes cast so far.
        image: Its pixels, float32 (channels, height, width) in [0, 1].
    """

    votes: Votes
    image: Tensor


@dataclass(frozen=True)
class Certificate:
    """What is guaranteed about one image: within `radius` in l2, the smoothed classifier answers `prediction`.

    Attributes:
        index: Index of the image within its run.
        prediction: Class, or `ABSTAIN` (-1).
        radius: L2 radius in [0, 1] pixel units, 0.0 on abstention.
        p_lower: Lower confidence bound of the predicted class's probability under noise.
        sigma, alpha: Noise level and failure probability.
        draws: Number of noisy copies classified.
        counts_by_look: Votes of each class between one look and the next; see `Votes`.
        certified_targets: Which of the rule's target radii are certified; empty under a rule without any.
        p_upper: Upper confidence bound of every other class's probability, where the radius rests on it.
        label: True class if known.
        seconds: Time spent on this image.
        noise_kind: The noise kind, "grid" or "gaussian", see `choose_noise`; None where a rule was asked without any
            noise.
        threat_model: Which perturbed images the radius is about, given that noise.
    """

    index: int
    prediction: int
    radius: float
    p_lower: float
    sigma: float
    alpha: float
    draws: int
    counts_by_look: tuple[tuple[int, ...], ...]
    certified_targets: tuple[float, ...] = ()
    p_upper: float | None = None
    label: int | None = None
    seconds: float = 0.0
    noise_kind: str | None = None
    threat_model: str | None = None

    @property
    def abstained(self) -> bool:
        """True if nothing is claimed."""
        return self.prediction == ABSTAIN

    @classmethod
    def of(
        cls, votes: Votes, top: int, claims: Claims, sigma: float, alpha: float, targets: tuple[float, ...] = ()
    ) -> Certificate:
        """The certificate that a rule reads off the votes.

        Args:
            votes: Votes of the image.
            top: The class under test.
            claims: Claims about this one image.
            sigma, alpha, targets: Sigma, alpha and targets of the rule.
        """
        return cls(
            index=votes.index,
            prediction=top if claims.answered else ABSTAIN,
            radius=float(claims.radius),
            p_lower=float(claims.p_lower),
            sigma=sigma,
            alpha=alpha,
            draws=votes.drawn,
            counts_by_look=tuple(tuple(int(x) for x in look) for look in votes.counts_by_look),
            certified_targets=targets[: int(claims.reached)],
            p_upper=None if claims.p_upper is None else float(claims.p_upper),
            label=votes.label,
            seconds=votes.seconds,
        )

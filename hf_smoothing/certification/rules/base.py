"""What every rule of a run is: fixed before its first draw, with stages that are checked in one place."""

from __future__ import annotations

from typing import Any, Protocol

from hf_smoothing import statistics
from hf_smoothing.certification.certificates import Certificate, Votes
from hf_smoothing.noise import MAX_DRAWS


class Rule(Protocol):
    """What certification asks of a rule.

    Attributes:
        sigma, alpha: Noise level and failure probability of one certificate.
        stage_ends: Numbers of draws at which a stage or look ends, ascending.
    """

    @property
    def sigma(self) -> float: ...  # noqa: D102
    @property
    def alpha(self) -> float: ...  # noqa: D102
    @property
    def stage_ends(self) -> tuple[int, ...]: ...  # noqa: D102

    def wanted(self, votes: Votes) -> int:
        """How many draws the image should have before it is looked at again; `votes.drawn` once it is decided."""
        ...

    def decide(self, votes: Votes) -> Certificate:
        """The certificate from votes of which no more are wanted."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The settings that decide a run's result, as in `run.json`."""
        ...


def check_stages(rule: Any) -> None:
    """Normalise and check what all rules share: sigma, alpha, n0, n."""
    object.__setattr__(rule, "sigma", statistics.check_sigma(rule.sigma))
    object.__setattr__(rule, "alpha", statistics.check_alpha(rule.alpha))
    object.__setattr__(rule, "n", statistics.check_whole(rule.n, "n"))
    object.__setattr__(rule, "n0", statistics.check_whole(rule.n0, "n0"))
    if not 0.0 <= rule.slack < 0.5 or not rule.diameter > 0.0:
        raise ValueError(f"`slack` must be in [0, 1/2) and `diameter` positive, got {rule.slack} and {rule.diameter}.")
    if rule.n0 + rule.n > MAX_DRAWS:
        raise ValueError(f"`n0` + `n` must be at most {MAX_DRAWS:,}, got {rule.n0 + rule.n:,}.")

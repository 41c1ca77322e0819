"""The rules of a run, each fixed before its first draw: how many draws an image gets, and what may be claimed from them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Unpack

import numpy as np

from hf_smoothing import statistics
from hf_smoothing.certification.certificates import Certificate, Votes
from hf_smoothing.certification.noise_kinds import NoiseStream
from hf_smoothing.certification.options import RuleOptions, RunRuleOptions, documented, filled, options_of
from hf_smoothing.certification.sequential import SequentialRule, check_stages
from hf_smoothing.units import diameter


SMALLEST_SIGMA = 1 / 255 / 4
"""About four sigma is what the usual numbers of draws can certify."""

BOUNDS = options_of(RuleOptions)["bound"].choices
MODES = options_of(RuleOptions)["mode"].choices


class Rule(Protocol):
    """What certification asks of a rule.

    Attributes:
        sigma, alpha: noise level and failure probability of one certificate.
        bounds: the numbers of draws at which a stage or look ends, ascending.
    """

    @property
    def sigma(self) -> float: ...  # noqa: D102
    @property
    def alpha(self) -> float: ...  # noqa: D102
    @property
    def bounds(self) -> tuple[int, ...]: ...  # noqa: D102

    def wanted(self, votes: Votes) -> int:
        """How many draws the image should have before it is looked at again; `votes.drawn` once it is decided."""
        ...

    def decide(self, votes: Votes) -> Certificate:
        """The certificate from votes of which no more are wanted."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The settings that decide a run's result, as in `run.json`."""
        ...


@dataclass(frozen=True)
class FixedRule:
    """CERTIFY with `n0` selection and `n` estimation draws: the rule of the papers.

    Guarantee: the certificate of an image is wrong with probability at most `alpha` over its draws, whatever the classifier.

    Args:
        sigma: noise standard deviation in [0, 1] pixel units.
        n0: draws that choose the class.
        n: fresh draws that estimate its probability.
        alpha: failure probability of one certificate.
        bound: "one-sided" bounds the top class from below, as papers do; "runner-up" bounds the largest other class from above
            as well, at alpha/2 each.
        slack: total variation of the noise from its law; see `statistics.l2_radius`.
        diameter: of the pixel cube, which no radius exceeds; see `units.diameter`.

    Raises:
        ValueError: if `n` draws can decide nothing at `alpha`, or any argument is out of its range.

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
    def bounds(self) -> tuple[int, ...]:
        """Ends of the two stages."""
        return (self.n0, self.n0 + self.n)

    def wanted(self, votes: Votes) -> int:
        """All draws at once."""
        return self.n0 + self.n

    def decide(self, votes: Votes) -> Certificate:
        """The certificate from a complete set of votes."""
        selection, estimation = votes.looks
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


@documented(RunRuleOptions)
def make_rule(sigma: float, **options: Unpack[RunRuleOptions]) -> FixedRule | SequentialRule:
    """The rule that a user asks for by a few words.

    Args:
        sigma: Noise standard deviation in [0, 1] pixel units.
        {options}

    Raises:
        TypeError: on an option that is none.
        ValueError: on options that do not belong together or are out of range.
    """
    return _rule(sigma, **filled(RunRuleOptions, options))


def _rule(
    sigma: float, mode: str, radii: Sequence[float] | None, n0: int | None, n: int, alpha: float, spending: bool, bound: str,
    label_aware: bool,
) -> FixedRule | SequentialRule:  # fmt: skip
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {', '.join(map(repr, MODES))}, got {mode!r}.")
    if mode == "fixed":
        if radii is not None or spending or label_aware:
            raise ValueError(
                "`radii`, `spending` and `label_aware` belong to the sequential rules, but mode is 'fixed', which certifies all radii "
                "from n draws. Leave them out, or use mode='targets'."
            )
        return FixedRule(sigma, 100 if n0 is None else n0, n, alpha, bound)
    if bound != "one-sided":
        raise ValueError(
            f"The bound {bound!r} is made from a fixed number of draws. Use mode='fixed', or bound='one-sided'."
        )
    if mode == "curve" and radii is not None:
        raise ValueError(
            "mode='curve' chooses the radii itself, got `radii` as well. Use mode='targets' for radii of yours."
        )
    if label_aware and n0:
        raise ValueError(
            f"Label-aware measuring selects no class, so it has no selection draws, got n0 = {n0}. Leave n0 out."
        )
    sigma = statistics.check_sigma(sigma)
    stages = (0 if label_aware else 100) if n0 is None else n0
    if radii is None:
        grid = statistics.target_grid(sigma, curve=mode == "curve")
        # With more slack than the noise of ten megapixels has, which takes a hair off the ceiling.
        probe = SequentialRule(sigma, (0.0,), stages, n, alpha, spending, label_aware, slack=1e-5)
        radii = [radius for radius in grid if radius < probe.ceiling]
    # The rule itself checks the radii and makes a tuple of them.
    return SequentialRule(sigma, radii, stages, n, alpha, spending, label_aware)  # type: ignore[arg-type]


def rule_on(rule: FixedRule | SequentialRule, stream: NoiseStream, *, chosen: bool) -> FixedRule | SequentialRule:
    """The rule as the images and their noise make it: no radius above the diameter of the pixel cube, none that the noise does not carry.

    Args:
        rule: from `make_rule`.
        stream: of the noise.
        chosen: whether the user chose the targets; default ones end at the diameter.

    Raises:
        ValueError: if a chosen target is above the diameter.
    """
    if stream.kind == "grid" and rule.sigma <= SMALLEST_SIGMA:
        warnings.warn(
            f"At sigma = {rule.sigma:.3g} no radius reaches 1/255, so certificates say nothing of any other 8-bit image. sigma is in [0, 1] pixel "
            f"units: was it divided by 255 twice ({rule.sigma * 255:.3g})?",
            stacklevel=3,
        )
    farthest = diameter(stream.shape)
    if isinstance(rule, SequentialRule) and not chosen:
        rule = replace(rule, radii=tuple(radius for radius in rule.radii if radius <= farthest))
    return replace(rule, slack=stream.total_variation, diameter=farthest)

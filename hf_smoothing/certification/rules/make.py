"""The rule that a user asks for by a few words, and as the images and their noise make it."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

from hf_smoothing import statistics
from hf_smoothing.certification.noise_kinds import NoiseStream
from hf_smoothing.certification.options import RunRuleOptions, documented, filled
from hf_smoothing.certification.rules.fixed import FixedRule
from hf_smoothing.certification.rules.sequential import SequentialRule
from hf_smoothing.units import diameter


SMALLEST_SIGMA = 1 / 255 / 4
"""About four sigma is what the usual numbers of draws can certify."""


@documented(RunRuleOptions)
def make_rule(sigma: float, **options: Unpack[RunRuleOptions]) -> FixedRule | SequentialRule:
    """The rule that a user asks for by a few words.

    Args:
        sigma: Noise standard deviation in [0, 1] pixel units.
        {options}

    Raises:
        TypeError: On an unknown option.
        ValueError: On options that do not belong together or are out of range.
    """
    return _rule(sigma, **filled(RunRuleOptions, options))


def _rule(
    sigma: float, mode: str, targets: Sequence[float] | None, n0: int | None, n: int, alpha: float, spending: bool, bound: str,
    label_aware: bool,
) -> FixedRule | SequentialRule:  # fmt: skip
    if mode == "fixed":
        if targets is not None or spending or label_aware:
            raise ValueError(
                "`targets`, `spending` and `label_aware` belong to the sequential rules, but mode is 'fixed', which certifies all radii "
                "from n draws. Leave them out, or use mode='targets'."
            )
        return FixedRule(sigma, n0=100 if n0 is None else n0, n=n, alpha=alpha, bound=bound)
    if bound != "one-sided":
        raise ValueError(
            f"The bound {bound!r} is made from a fixed number of draws. Use mode='fixed', or bound='one-sided'."
        )
    if mode == "curve" and targets is not None:
        raise ValueError(
            "mode='curve' chooses the radii itself, got `targets` as well. Use mode='targets' for radii of yours."
        )
    if label_aware and n0:
        raise ValueError(
            f"Label-aware evaluation selects no class, so it has no selection draws, got n0 = {n0}. Leave n0 out."
        )
    sigma = statistics.check_sigma(sigma)
    stages = (0 if label_aware else 100) if n0 is None else n0
    made = functools.partial(
        SequentialRule, sigma, n0=stages, n=n, alpha=alpha, spending=spending, label_aware=label_aware
    )
    if targets is None:
        checked = made(targets=(0.0,))
        targets = statistics.default_targets(sigma, n, checked.level, curve=mode == "curve")
    # The rule itself checks the targets and makes a tuple of them.
    return made(targets=targets)  # type: ignore[arg-type]


def rule_on(rule: FixedRule | SequentialRule, stream: NoiseStream, *, chosen: bool) -> FixedRule | SequentialRule:
    """The rule as the images and their noise make it: no radius above the diameter of the pixel cube, none that the noise does not carry.

    Args:
        rule: Rule from `make_rule`.
        stream: Stream of the noise.
        chosen: Whether the user chose the targets; default ones end at the diameter.

    Raises:
        ValueError: If a chosen target is above the diameter.
    """
    if stream.kind == "grid" and rule.sigma <= SMALLEST_SIGMA:
        warnings.warn(
            f"At sigma = {rule.sigma:.3g} no radius reaches 1/255, so certificates are vacuous: they cover no other 8-bit image. sigma is in [0, 1] pixel "
            f"units: was it divided by 255 twice ({rule.sigma * 255:.3g})?",
            stacklevel=4,
        )
    farthest = diameter(stream.shape)
    if isinstance(rule, SequentialRule) and not chosen:
        rule = replace(rule, targets=tuple(radius for radius in rule.targets if radius <= farthest))
    return replace(rule, slack=stream.total_variation, diameter=farthest)

"""The audit: look where a certifier is false most often, then count there again with fresh noise."""

from __future__ import annotations

import copy
import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_smoothing.audit.answers import read_answers
from hf_smoothing.audit.cases import Case, make_cases
from hf_smoothing.audit.verdict import critical_count, p_value, power_of_hunt, smallest_rate
from hf_smoothing.units import as_number, check_alpha, check_sigma, check_whole


Certifier = Callable[..., Any]
"""certifier(classifier, images, *, sigma, alpha, seed) -> certificates, as `hf_smoothing.certify`."""

ROUNDING = 1e-9
"""A radius that exceeds the exact one by this share is not called false."""


TOLD = 1_000
"""Certificates of the verdict between two calls of `progress`."""


@dataclass(frozen=True)
class CaseCounts:
    """Certificates of one case.

    Attributes:
        name: Name of the case.
        radius: Its exact radius.
        trials: Number of certificates.
        answered: How many of them name a class.
        false: How many name another class than the exact one, or a radius above the exact one.
    """

    name: str
    radius: float
    trials: int = 0
    answered: int = 0
    false: int = 0


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        sigma, alpha: What the certifier was asked for.
        searched: Certificates of each case, which choose the case that is counted again.
        confirmed: Fresh certificates of that case: the verdict rests on these alone.
        critical: Number of false ones among them that is a violation.
        false_alarm: Largest probability of a violation where no certificate is false with more than alpha.
        p_value: Probability of that many false ones at alpha.
        power: Probability of a violation where one case is false with 2 alpha and all others with alpha.
        found_rate: Rate of false certificates in the case counted again that is found with probability 0.99.
    """

    sigma: float
    alpha: float
    searched: tuple[CaseCounts, ...]
    confirmed: CaseCounts
    critical: int
    false_alarm: float
    p_value: float
    power: float
    found_rate: float

    @property
    def violated(self) -> bool:
        """Whether the certifier is false more often than alpha."""
        return self.confirmed.false >= self.critical

    @property
    def vacuous(self) -> bool:
        """Whether the certifier abstained from all, and so could not be false."""
        return not any(tally.answered for tally in (*self.searched, self.confirmed))


def audit_certifier(
    certifier: Certifier,
    *,
    sigma: float = 0.5,
    alpha: float = 0.05,
    radii: Sequence[float] | None = None,
    explore: int = 300,
    confirm: int = 4_000,
    false_alarm: float = 0.001,
    images_per_call: int = 50,
    seed: int = 0,
    progress: Callable[[CaseCounts], None] | None = None,
) -> Audit:
    """Whether a certifier's certificates are false more often than alpha, on classifiers whose exact radius is known.

    Guarantee: a certifier each of whose certificates is false with probability at most `alpha` is called violated with probability at
    most `false_alarm`. The search may look anywhere, since the verdict counts fresh certificates of a single case.

    Args:
        certifier: Called as certifier(classifier, images, sigma=, alpha=, seed=) with a module from pixels (batch, channels, height, width) in
            [0, 1] to logits, and several times the same image, float32; it must use noise of its own for each of them. It returns
            one object per image with `prediction` and `radius`, or a tuple (predictions, radii); a negative class is an abstention.
        sigma: Noise standard deviation in [0, 1] pixel units.
        alpha: Failure probability that is asked for. Small ones need many certificates to be put to the test.
        radii: Radii that the certifier may claim, such as its targets; by default 0.25 to 2 sigma, as far as they are between half a step of 8-bit pixels and 2.
        explore: Certificates per case in the search.
        confirm: Fresh certificates of the case with most false ones.
        false_alarm: Largest probability of a wrong accusation.
        images_per_call: Images per call; 1 for a certifier that uses one noise for all images of a call.
        seed: Seed from which that of each call follows.
        progress: Called with the tally of each case when it is searched, and with that of the verdict every `TOLD` certificates.

    Raises:
        ValueError: On arguments out of their range, answers of the wrong shape, or if the certifier raises anything.
        TypeError: If the certifier is not callable, or returns something else.

    >>> from hf_smoothing import certify
    >>> from functools import partial
    >>> found = audit_certifier(partial(certify, n=200, n0=10), explore=20, confirm=100)
    >>> found.violated, found.vacuous
    (False, False)
    """
    if not callable(certifier):
        raise TypeError(
            f"`certifier` must be callable as certifier(classifier, images, ...), got {type(certifier).__name__}."
        )
    sigma, alpha = check_sigma(sigma), check_alpha(alpha)
    level = _check_false_alarm(false_alarm)
    explore, confirm = check_whole(explore, "explore"), check_whole(confirm, "confirm")
    images_per_call, seed = check_whole(images_per_call, "images_per_call"), check_whole(seed, "seed")
    for name, count in (("explore", explore), ("confirm", confirm), ("images_per_call", images_per_call)):
        if count < 1:
            raise ValueError(f"`{name}` must be at least 1, got {count}.")
    cases = make_cases(sigma, radii)
    critical = critical_count(confirm, alpha, level)
    if critical > confirm:
        least = math.ceil(math.log(level) / math.log(alpha))
        raise ValueError(
            f"`confirm` must be at least {least} for a verdict at alpha = {alpha} and false_alarm = {level}, got {confirm}. 4000 is usual."
        )
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0, got {seed}.")
    seeds = _seeds(seed)

    def tally(case: Case, trials: int, every: int) -> CaseCounts:
        found = CaseCounts(case.name, case.radius)
        while found.trials < trials:
            count = min(images_per_call, trials - found.trials)
            found = _called(certifier, case, count, sigma, alpha, next(seeds), found)
            if progress is not None and (found.trials % every < count or found.trials == trials):
                progress(found)
        return found

    searched = [tally(case, explore, explore) for case in cases]
    worst = int(np.argmax([one.false for one in searched]))
    confirmed = tally(cases[worst], confirm, TOLD)
    return Audit(
        sigma=sigma, alpha=alpha, searched=tuple(searched), confirmed=confirmed, critical=critical, false_alarm=level,
        p_value=p_value(confirmed.false, confirm, alpha),
        power=power_of_hunt([*[alpha] * (len(cases) - 1), 2 * alpha], explore, confirm, critical),
        found_rate=smallest_rate(confirm, critical),
    )  # fmt: skip


def _called(
    certifier: Certifier, case: Case, images: int, sigma: float, alpha: float, seed: int, before: CaseCounts
) -> CaseCounts:  # fmt: skip
    """The tally after one more call."""
    pixels = case.image.repeat(images, 1, 1, 1)
    try:
        # A certifier may move the module, train it, or change its weights: each call is lent its own.
        returned = certifier(copy.deepcopy(case.classifier), pixels, sigma=sigma, alpha=alpha, seed=seed)
    except (Exception, SystemExit) as error:  # an exit with status 0 would pass for an acquittal
        raise ValueError(_trouble(error, images, tuple(case.image.shape))) from error
    predictions, radii = read_answers(returned, images)
    answered = predictions >= 0
    false = answered & ((predictions != case.label) | (radii > case.radius * (1 + ROUNDING)))
    return replace(
        before, trials=before.trials + images, answered=before.answered + int(answered.sum()), false=before.false + int(false.sum())
    )  # fmt: skip


def _trouble(error: BaseException, images: int, shape: tuple[int, ...]) -> str:
    """What a certifier raised and where, or how it must be called if it was not even entered."""
    frames = traceback.extract_tb(error.__traceback__)
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, TypeError) and len(frames) == 1:
        return (
            f"A certifier must take a classifier, images, and by name sigma, alpha and seed. Called with {images} images of shape {shape}, "
            f"this one raised {said}"
        )
    where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"
    return f"A certifier must give certificates for every classifier of the audit; on {images} images of shape {shape} this one raised in {where} {said}"


def _seeds(seed: int) -> Iterator[int]:
    """Different seeds of 31 bits, which every generator takes, each call its own."""
    source, seen = np.random.default_rng(seed), set()
    while True:
        one = int(source.integers(1 << 31))
        if one not in seen:
            seen.add(one)
            yield one


def _check_false_alarm(false_alarm: float) -> float:
    level = as_number(false_alarm)
    if not 0.0 < level < 0.5:
        raise ValueError(
            f"`false_alarm` must be a probability above 0 and below 1/2, got {false_alarm!r}. Pass 0.001."
        )
    return level

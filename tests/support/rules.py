"""Rules of all kinds, a walk of one along given draws, and the verdict on how often certificates are false; a careless rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hf_smoothing import statistics
from hf_smoothing.certification import FixedRule, SequentialRule, Votes, make_rule


VERDICT = 1e-3


def too_many(false: int, trials: int, alpha: float) -> bool:
    """The exact binomial verdict: this number of false certificates does not occur at a failure probability of alpha."""
    return bool(stats.binom.sf(false - 1, trials, alpha) < VERDICT)


def naive_boundaries(q: float, looks: tuple[int, ...], alpha: float) -> tuple[int, ...]:
    """What a careless rule does: the bound for a fixed n, at every look."""
    return tuple(next(b for b in range(n + 2) if b > n or statistics.lower_bound(b, n, alpha) > q) for n in looks)


def walk(
    rule: FixedRule | SequentialRule,
    classes: NDArray[np.int64],
    num_labels: int,
    *,
    label: int | None = None,
    parts: Callable[[int], int] | None = None,
) -> Votes:
    """Draws `classes` one after another as long as the rule wants more; `parts` cuts a look's draws into several additions."""
    votes = Votes(0, label)
    while (wanted := rule.wanted(votes)) > votes.drawn:
        while votes.drawn < wanted:
            end = next(bound for bound in rule.stage_ends if bound > votes.drawn)
            start = votes.drawn
            stop = min(wanted, end if parts is None else min(end, start + int(parts(end - start))))
            counts = np.bincount(classes[start:stop], minlength=num_labels).astype(np.int64)
            votes.add(counts, start, stop, opens_look=start in (0, *rule.stage_ends))
            if rule.n0 < votes.drawn < end:
                assert rule.wanted(votes) == end  # an unfinished look is finished first
    return votes


RULES = {
    "union": SequentialRule(0.5, (0.0, 0.25, 0.5, 0.75), n0=20, n=500, alpha=0.05),
    "spending": SequentialRule(0.5, (0.0, 0.25, 0.5, 0.75), n0=20, n=500, alpha=0.05, spending=True),
    "one target": SequentialRule(0.25, (0.3,), n0=10, n=1000),
    "one target, spending": SequentialRule(0.25, (0.3,), n0=10, n=1000, spending=True),
    "no selection": SequentialRule(1.0, (0.0, 0.5, 1.0, 1.5), n0=0, n=300),
    "no selection, spending": SequentialRule(1.0, (0.0, 0.5, 1.0, 1.5), n0=0, n=300, spending=True),
    "predict": SequentialRule(1.0, (0.0,), n0=0, n=400, alpha=0.01),
    "one look": SequentialRule(1.0, (0.0, 0.3), n0=5, n=20),
    "slack": SequentialRule(1.0, (0.0, 0.5), n0=5, n=200, slack=1e-4),
    "curve": make_rule(0.5, mode="curve", n0=20, n=400, alpha=0.01),
    "label-aware": SequentialRule(0.5, (0.0, 0.25, 0.5), n0=0, n=500, label_aware=True),
}

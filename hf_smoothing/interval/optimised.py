"""Backward linear bounds with the best lines below each ReLU (alpha-CROWN), found by gradient ascent.

The line below a ReLU whose interval holds 0 may have any slope in [0, 1]: every choice gives a sound bound, and which is best depends
on everything after it. Source: Xu et al., *Fast and Complete: Enabling Complete Verification with Rapid and Massively Parallel
Incomplete Verifiers*, arXiv 2011.13824. There the bounds of what enters the ReLUs have slopes of their own, which are optimised too;
here those bounds are CROWN's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_smoothing.interval.crown import linear_bounds, margin_functions, rows_at_once
from hf_smoothing.interval.trace import BoxLike


RATE, DECAY = 0.1, 0.98
"""Of Adam: step size, and its factor from step to step."""


def optimised_margins(logits: BoxLike, labels: Tensor, known: Tensor, steps: int) -> Tensor:
    """Lower bounds of f_y - f_t, (batch, num_labels): those known already, made larger where they are not positive.

    The slopes begin as CROWN's own, and the best bound seen is returned, so no entry gets smaller. Classes that are positive already are
    left as they are.

    Args:
        logits: A box whose trace kept origins.
        labels: Labels, int64 (batch,).
        known: Lower bounds (batch, num_labels), inf at t = y.
        steps: Steps of ascent at most.
    """
    open_classes = int((known <= 0).sum(1).max()) if len(known) else 0
    targets = known.argsort(dim=1)[:, :open_classes].T  # (rows, batch): every class that is open, of each image
    best = known.T.gather(0, targets)
    pieces = zip(targets.split(rows_at_once(logits)), best.split(rows_at_once(logits)), strict=True)
    found = [
        _ascended(logits, margin_functions(logits, labels, some), least, steps) for some, least in pieces if len(some)
    ]
    return known.scatter(1, targets.T, torch.cat(found).T) if found else known


def _ascended(logits: BoxLike, a: Tensor, best: Tensor, steps: int) -> Tensor:
    """The best lower bounds seen of linear functions a of the logits, (rows, batch); those that are positive are left as they are."""
    slopes: dict[int, Tensor] = {}
    with torch.enable_grad():
        bound = linear_bounds(logits, a, slopes)  # CROWN's own, which is known
    if not slopes:
        return best
    optimiser = torch.optim.Adam(slopes.values(), lr=RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, DECAY)
    for _ in range(steps):
        undecided = best <= 0
        if not bool(undecided.any()):
            break
        optimiser.zero_grad()
        with torch.enable_grad():
            (-bound[undecided].sum()).backward()
        optimiser.step()
        schedule.step()
        for slope in slopes.values():
            slope.detach().clamp_(0.0, 1.0)
        with torch.enable_grad():
            bound = linear_bounds(logits, a, slopes)
        best = torch.where(undecided, torch.fmax(best, bound.detach()), best)  # whatever its neighbours still need
    return best

"""Backward linear bounds with the best lines below each ReLU (alpha-CROWN), found by gradient ascent.

The line below a ReLU whose interval holds 0 may have any slope in [0, 1]: every choice gives a sound bound, and which is best depends
on everything after it. Source: Xu et al., *Fast and Complete: Enabling Complete Verification with Rapid and Massively Parallel
Incomplete Verifiers*, arXiv 2011.13824. There the bounds of what enters the ReLUs have slopes of their own, which are optimised too;
here those bounds are CROWN's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_smoothing.interval.crown import differences, linear_bounds
from hf_smoothing.interval.trace import BoxLike


RATE, DECAY = 0.1, 0.98
"""Of Adam: step size, and its factor from step to step."""


def optimised_margins(logits: BoxLike, labels: Tensor, known: Tensor, steps: int) -> Tensor:
    """Lower bounds of f_y - f_t, (batch, num_labels): those known already, made larger where they are not positive.

    The first bound is CROWN's own, and the best one seen is returned, so no entry gets smaller. Classes that are positive already are
    left as they are, and so is everything once all are.

    Args:
        logits: A box whose trace kept origins.
        labels: Labels, int64 (batch,).
        known: Lower bounds (batch, num_labels), inf at t = y.
        steps: Steps of ascent at most.
    """
    open_classes = int((known <= 0).sum(1).max()) if len(known) else 0
    if not open_classes:
        return known
    targets = known.argsort(dim=1)[:, :open_classes]
    best = known.gather(1, targets).T  # (rows, batch)
    start, slopes = differences(logits, labels, targets.T), dict[int, Tensor]()
    linear_bounds(logits, start, slopes)
    slopes = {number: slope.clone().requires_grad_() for number, slope in slopes.items()}
    if not slopes:
        return known
    optimiser = torch.optim.Adam(slopes.values(), lr=RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, DECAY)
    for _ in range(steps):
        with torch.enable_grad():
            bound = linear_bounds(logits, start, slopes)
            undecided = best <= 0
            best = torch.where(undecided, torch.fmax(best, bound.detach()), best)  # whatever its neighbours still need
            undecided = best <= 0
            if not bool(undecided.any()):
                break
            optimiser.zero_grad()
            (-bound[undecided].sum()).backward()
        optimiser.step()
        schedule.step()
        for slope in slopes.values():
            slope.detach().clamp_(0.0, 1.0)
    best = torch.where(best <= 0, torch.fmax(best, linear_bounds(logits, start, slopes).detach()), best)
    return known.scatter(1, targets, best.T)

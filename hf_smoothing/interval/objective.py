"""Training for deterministic l-infinity certificates, each image at its own certified radius."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.margins import Margins, box_around, margin_bounds
from hf_smoothing.interval.radii import certified_radii, check_largest
from hf_smoothing.interval.trace import BoxLike, Trace
from hf_smoothing.training.objectives import Batch, ObjectiveState
from hf_smoothing.training.objectives.signature import LossAndLogs, PixelsToLogits


SMALLEST = 1e-6
"""Radius that every image gets at least while the regularisers are on, whose ratio of widths would be 0/0; a smaller cap is none."""


TINY = 1e-12
"""Widths below this are rounding: they keep ratios, and their gradients, finite."""


def adaptive_interval(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *,
    largest: float, kappa: float = 0.25, adaptive: bool = True, clean_share: float = 0.005, ramp_share: float = 0.4,
    regularisation: float = 0.5, l1: float = 0.0,
) -> LossAndLogs:  # fmt: skip
    """(1 - kappa) L_rob + kappa L_std + (1 - e_t / e_max) w (L_tight + L_relu) + lambda sum |W|.

    L_std is the cross-entropy of the clean images. L_rob = log(1 + sum_t exp(-m_t)), m_t the lower bound of f_y - f_t over the l-infinity
    ball whose radius is the image's own certified one: 0 where it is misclassified (plain cross-entropy then), the cap e_t where it is
    certified there, and otherwise the root in between. With `adaptive` False every image is trained at the cap, as by Shi et al.

    Args:
        model, batch, state: As for every objective; the model must be made of what interval bounds know.
        largest: The cap e_max, in [0, 1] pixel units, e.g. 8.8 / 255.
        kappa: Weight of clean accuracy against robustness, in [0, 1]. It traces the tradeoff.
        adaptive: Train each image at its own radius.
        clean_share, ramp_share: Clean share and ramp share of the training: first the cap is 0, then it grows to
            e_max.
        regularisation: Weight w of the two regularisers, from when the cap begins to grow until it is e_max.
        l1: Weight lambda of the l1 norm of the weights.

    Raises:
        ValueError: On arguments out of range, or with training noise, which these bounds do not know.

    Source: Nurlanov, Schmidt and Bernard, arXiv 2307.13078 (adaptive radii); Shi et al., arXiv 2103.17268 (warm-up).
    """
    check_settings(largest, kappa, clean_share, ramp_share, state)
    cap = cap_schedule(state.progress, largest, clean_share, ramp_share)
    if cap < SMALLEST:
        cap = 0.0
    warm_up = cap < largest
    if adaptive:
        with _batches_uncounted(model):
            radii = _own_radii(model, batch, cap)
        if warm_up and cap > 0.0:
            radii = radii.clamp(min=SMALLEST)
    else:
        radii = torch.full_like(batch.labels, cap, dtype=torch.float32)
    trace = Trace()
    margins, first = _bounds(model, batch, radii, trace)
    assert margins.logits is not None
    standard = F.cross_entropy(margins.logits.float(), batch.labels, label_smoothing=state.label_smoothing)
    robust = robust_cross_entropy(margins)
    loss = (1.0 - kappa) * robust + kappa * standard
    logs = {
        "standard": standard,
        "robust": robust,
        "radius": radii.mean() / largest,
        "cap": radii.new_tensor(cap),
    }
    if warm_up and cap > 0.0 and regularisation:
        tight, balance = warm_up_regularisers(first, trace.before_activations)
        loss = loss + (1.0 - cap / largest) * regularisation * (tight + balance)
        logs |= {"tight": tight, "balance": balance}
    if l1:
        loss = loss + l1 * sum(weight.abs().sum() for weight in trace.weights)
    return loss, logs


def check_settings(largest: float, kappa: float, clean_share: float, ramp_share: float, state: ObjectiveState) -> None:
    """Refuse what makes no sense.

    Raises:
        ValueError: The message names it.
    """
    check_largest(largest)
    if not 0.0 <= kappa <= 1.0:
        raise ValueError(f"`kappa` must be in [0, 1], got {kappa}.")
    if clean_share < 0.0 or ramp_share < 0.0 or clean_share + ramp_share > 1.0:
        raise ValueError(
            f"`clean_share` and `ramp_share` must be shares of the training, got {clean_share} and {ramp_share}."
        )
    if largest < SMALLEST:
        raise ValueError(
            f"`largest` must be at least {SMALLEST:g} for training, got {largest}: plain cross-entropy would be left."
        )
    if state.noise is not None:
        raise ValueError(
            "Interval bounds are trained on clean images, but there is training noise. Set noise='clean'."
        )


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


def robust_cross_entropy(margins: Margins) -> Tensor:
    """Mean of log(1 + sum over t != y of exp(-m_t))."""
    # The margin of the label itself is inf: exp(-inf) = 0, and the 1 is its own term.
    others = torch.logsumexp(-margins.lower.float(), dim=1)
    return F.softplus(others).mean()


def warm_up_regularisers(first: Box, layers: Sequence[BoxLike]) -> tuple[Tensor, Tensor]:
    """L_tight and L_relu: keep the widths from exploding, and active and inactive units in balance. Means over the activations, 0 without any.

    Args:
        first: The box of pixels.
        layers: The boxes that enter the activations.

    Source: Shi et al., arXiv 2103.17268, equations 9 and 11; tolerance 0.5.
    """
    tolerance = 0.5
    if not layers:
        return first.centre.new_zeros(()), first.centre.new_zeros(())
    tight, balance = [], []
    for box in layers:
        centre, half = box.centre, box.radius
        tight.append(F.relu(tolerance - first.radius.mean() / half.mean().clamp_min(TINY)) / tolerance)
        on, off = (sign.flatten().to(centre.dtype) for sign in (box.lower > 0, box.upper < 0))
        mean = _ratio(centre.flatten() @ on, -centre.flatten() @ off)
        spread = (centre - centre.mean()).flatten().square()
        variance = _ratio(spread @ on, spread @ off)
        balance.append((F.relu(tolerance - mean) + F.relu(tolerance - variance)) / tolerance)
    return torch.stack(tight).mean(), torch.stack(balance).mean()


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """min(a / b, b / a) for two sums of one sign; 1 where both are 0, so that nothing is asked of them."""
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    return torch.where(high > 0, low / high.clamp(min=TINY), torch.ones_like(low))


def _bounds(model: Any, batch: Batch, radii: Tensor, trace: Trace) -> tuple[Margins, Box]:
    box = box_around(batch.pixels, radii, trace, value=True)
    first = box.frozen()  # the network may change its pixels in place
    return margin_bounds(model, box, batch.labels), first


@contextmanager
def _batches_uncounted(model: Any) -> Iterator[None]:
    """Batch norms with momentum=None average over the batches they have counted: a search must not count."""
    module = getattr(model, "module", None)
    counters = [
        norm.num_batches_tracked
        for norm in (module.modules() if isinstance(module, nn.Module) else ())
        if isinstance(norm, _BatchNorm) and norm.num_batches_tracked is not None
    ]
    counted = [counter.clone() for counter in counters]
    try:
        yield
    finally:
        for counter, count in zip(counters, counted, strict=True):
            counter.copy_(count)


@torch.no_grad()
def _own_radii(model: Any, batch: Batch, cap: float) -> Tensor:
    """The certified radius of each image up to the cap, with the statistics of the clean batch in every batch norm."""
    radii = torch.zeros(len(batch.labels), device=batch.pixels.device)
    if cap == 0.0:
        return radii
    trace = Trace(update_running=False)
    at_cap, _ = _bounds(model, batch, radii + cap, trace)
    assert at_cap.logits is not None
    own = at_cap.logits.gather(1, batch.labels[:, None])[:, 0]
    best_other = at_cap.logits.scatter(1, batch.labels[:, None], -torch.inf).amax(dim=1)

    def violation(which: Tensor, epsilon: Tensor) -> Tensor:
        box = box_around(batch.pixels[which], epsilon, Trace(statistics=trace.statistics))
        return -margin_bounds(model, box, batch.labels[which]).worst.float()

    return certified_radii(
        violation, len(radii), cap, device=radii.device, tolerance=1e-6, flatness=1e-5, iterations=10,
        at_zero=(best_other - own).float(), at_largest=-at_cap.worst.float(),
    )  # fmt: skip

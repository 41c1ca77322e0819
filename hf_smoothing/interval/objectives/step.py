"""One step of certified training: the clean pass, the radii, and what a loss may ask for at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.attacks import pgd
from hf_smoothing.interval.box import Box
from hf_smoothing.interval.margins import box_around, logits_of, margin_bounds
from hf_smoothing.interval.objectives.regularisers import l1_norm, warm_up_regularisers
from hf_smoothing.interval.objectives.schedule import SMALLEST, Plan
from hf_smoothing.interval.objectives.statistics import (
    GivenStatistics,
    NotedStatistics,
    Statistics,
    batches_uncounted,
    detached,
)
from hf_smoothing.interval.radii import certified_radii
from hf_smoothing.interval.trace import Trace
from hf_smoothing.training.objectives import Batch, ObjectiveState
from hf_smoothing.training.objectives.signature import LossAndLogs


@dataclass
class Balls:
    """A batch and the l-infinity balls at which it is trained.

    Batch norms in train mode take the statistics of the clean batch, in bounds and attacks alike, and only the clean pass has moved
    their running statistics.

    Attributes:
        model, labels, generator: As an objective gets them.
        pixels: The images, float (batch, channels, height, width) in [0, 1].
        radii: Radius of each image, (batch,).
        statistics: Those of the clean pass.
        first: The box of pixels whose bounds were taken last.
        trace: Notes of those bounds.
    """

    model: Any
    pixels: Tensor
    labels: Tensor
    radii: Tensor
    statistics: Statistics
    generator: torch.Generator | None
    first: Box | None = None
    trace: Trace = field(default_factory=Trace)

    def bounds(self, centre: Tensor, radii: Tensor) -> Tensor:
        """Lower bounds of f_y - f_t over boxes within [0, 1], (batch, num_labels); inf at t = y."""
        self.trace = Trace(statistics=self.statistics)
        box = box_around(centre, radii, self.trace)
        self.first = box.frozen()  # the network may change its pixels in place
        return margin_bounds(_alone(self.model), box, self.labels).lower

    def margins(self, points: Tensor) -> Tensor:
        """f_y - f_t at images, (batch, num_labels); inf at t = y."""
        with GivenStatistics(self.statistics):
            logits = logits_of(self.model, points.clone())
        own = self.labels[:, None]
        gaps: Tensor = logits.gather(1, own) - logits
        return gaps.scatter(1, own, torch.inf)

    def attacked(self, steps: int, step_size: float, scale: float = 1.0) -> Tensor:
        """Images in the balls, and in [0, 1], that PGD finds from a random start.

        Args:
            steps: Number of steps.
            step_size: Length of a step, in radii of the ball of the attack.
            scale: Radius of the ball of the attack, in radii.
        """
        fixed, radii = detached(self.statistics), scale * self.radii

        def classify(points: Tensor) -> Tensor:
            with GivenStatistics(fixed):
                logits: Tensor = logits_of(self.model, points.to(self.pixels.dtype, copy=True))
            return logits

        found = pgd(
            classify, self.pixels, self.labels, epsilon=radii, norm="linf", steps=steps, step_size=step_size * radii,
            generator=self.generator, keep="last",
        )  # fmt: skip
        return found.to(self.pixels.dtype)


def certified_training(
    model: Any, batch: Batch, state: ObjectiveState, plan: Plan, robust: Callable[[Balls], Tensor]
) -> LossAndLogs:
    """(1 - kappa) L_rob + kappa L_std + (1 - e_t / e_max) w (L_tight + L_relu) + lambda sum |W|.

    Args:
        model, batch, state: As for every objective.
        plan: The settings.
        robust: What a loss makes of the balls, (batch,); it takes bounds once, which the regularisers look at.

    Raises:
        ValueError: On settings out of range, with training noise, or without the progress of the training.
    """
    plan.check(state)
    warms_up = plan.clean_share > 0.0 or plan.ramp_share > 0.0
    cap = plan.cap(state.done("Training on interval bounds") if warms_up else 1.0)
    warming = 0.0 < cap < plan.largest
    noted = NotedStatistics()
    with noted:
        logits = logits_of(model, batch.pixels.clone())  # the network may change its pixels in place
    with batches_uncounted(model):
        radii = torch.full_like(logits[:, 0].detach(), cap, dtype=_at_least_float32(batch.pixels))
        if plan.adaptive:
            radii = own_radii(model, batch, cap, logits.detach(), detached(noted.statistics)).to(radii.dtype)
            radii = radii.clamp(min=SMALLEST) if warming else radii
        balls = Balls(model, batch.pixels, batch.labels, radii, noted.statistics, state.generator)
        worst = robust(balls).mean()
    assert balls.first is not None
    standard = F.cross_entropy(
        logits.to(_at_least_float32(logits)), batch.labels, label_smoothing=state.label_smoothing
    )
    loss = (1.0 - plan.kappa) * worst + plan.kappa * standard
    logs = {
        "standard": standard,
        "robust": worst,
        "radius": radii.mean() / plan.largest,
        "cap": radii.new_tensor(cap),
    }
    if warming and plan.regularisation:
        tight, balance = warm_up_regularisers(balls.first, balls.trace.before_activations)
        loss = loss + (1.0 - cap / plan.largest) * plan.regularisation * (tight + balance)
        logs |= {"tight": tight, "balance": balance}
    if plan.l1:
        loss = loss + plan.l1 * l1_norm(balls.trace.weights)
    balls.trace.forget()
    return loss, logs


def cross_entropies(margins: Tensor) -> Tensor:
    """log(1 + sum over t != y of exp(-m_t)) of each image, (batch,).

    Args:
        margins: f_y - f_t or bounds of it, (batch, num_labels); inf at t = y.
    """
    # The margin of the label itself is inf: exp(-inf) = 0, and the 1 is its own term.
    return F.softplus(torch.logsumexp(-margins.to(_at_least_float32(margins)), dim=1))


def _alone(model: Any) -> Callable[[Any], Any]:
    """The network past DistributedDataParallel, which looks in the logits of its last pass for the gradients to come: a box hides them."""
    classify: Callable[[Any], Any] = getattr(model, "alone", model)
    return classify


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


@torch.no_grad()
def own_radii(model: Any, batch: Batch, cap: float, logits: Tensor, statistics: Statistics) -> Tensor:
    """The certified radius of each image up to the cap, (batch,); 0 where it is misclassified.

    Args:
        model, batch: As an objective gets them.
        cap: The cap e_t.
        logits: Logits of the clean images.
        statistics: Those of the clean pass, for every batch norm.
    """
    radii = torch.zeros(len(batch.labels), device=batch.pixels.device)
    if cap == 0.0:
        return radii

    def violation(which: Tensor, epsilon: Tensor) -> Tensor:
        trace = Trace(statistics=statistics)
        worst = margin_bounds(
            _alone(model), box_around(batch.pixels[which], epsilon, trace), batch.labels[which]
        ).worst
        trace.forget()
        return -worst.float()

    own = logits.gather(1, batch.labels[:, None])[:, 0]
    best_other = logits.scatter(1, batch.labels[:, None], -torch.inf).amax(dim=1)
    everyone = torch.arange(len(radii), device=radii.device)
    return certified_radii(
        violation, len(radii), cap, device=radii.device, tolerance=1e-6, flatness=1e-5, iterations=10,
        at_known=(best_other - own).float(), at_largest=violation(everyone, radii + cap),
    )  # fmt: skip

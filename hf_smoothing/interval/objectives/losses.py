"""The losses of certified training, each a function of an attack and of interval bounds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hf_smoothing.interval.objectives.schedule import Plan
from hf_smoothing.interval.objectives.step import Balls, certified_training, cross_entropies
from hf_smoothing.training.objectives import Batch, ObjectiveState
from hf_smoothing.training.objectives.signature import LossAndLogs, PixelsToLogits
from hf_smoothing.units import check_radius, check_share


TINY = 1e-30
"""A cross-entropy below this is rounding: it keeps logarithms, and their gradients, finite."""


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
        l1: Weight lambda of the l1 norm of the weights that are trained, each counted once.

    Raises:
        ValueError: On arguments out of range, without the progress of the training, or with training noise, which these bounds do not know.

    Source: Nurlanov, Schmidt and Bernard, arXiv 2307.13078 (adaptive radii); Shi et al., arXiv 2103.17268 (warm-up).
    """
    plan = Plan(largest, kappa, adaptive, clean_share, ramp_share, regularisation, l1)
    return certified_training(model, batch, state, plan, _worst)


def _worst(balls: Balls) -> Tensor:
    return cross_entropies(balls.bounds(balls.pixels, balls.radii))


def sabr(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *,
    largest: float, share: float = 0.4, steps: int = 8, step_size: float = 0.5,
    kappa: float = 0.0, adaptive: bool = False, clean_share: float = 0.005, ramp_share: float = 0.4,
    regularisation: float = 0.5, l1: float = 0.0,
) -> LossAndLogs:  # fmt: skip
    """As `adaptive_interval`, with L_rob = log(1 + sum_t exp(-m_t)) of bounds m_t over a small box around an attacked image.

    In the ball of radius r the box has the half-width share * r. It is centred at the attacked image, moved so that the box lies in the ball,
    and cut off at [0, 1].

    Args:
        model, batch, state: As for every objective; the model must be made of what interval bounds know.
        largest: The cap e_max, in [0, 1] pixel units, e.g. 2 / 255.
        share: Share of the ball's radius, in [0, 1]: 1 is the whole ball, 0 the attacked image alone. It traces the tradeoff.
        steps: Number of steps of the attack, from a random start in the ball.
        step_size: Length of a step, in radii of the ball.
        kappa, clean_share, ramp_share, regularisation, l1: As in `adaptive_interval`. The regularisers look at the bounds over the small box.
        adaptive: The ball of each image has its own certified radius, that of `adaptive_interval`, which is certified over the whole ball.

    Raises:
        ValueError: On arguments out of range, without the progress of the training, or with training noise, which these bounds do not know.

    Source: Mueller et al., arXiv 2210.04871 (whose attack shortens its steps after 4 and after 7).
    """
    check_share(share, "share")
    check_attack(largest, steps, step_size)
    plan = Plan(largest, kappa, adaptive, clean_share, ramp_share, regularisation, l1)

    def robust(balls: Balls) -> Tensor:
        room = ((1.0 - share) * balls.radii).to(balls.pixels.dtype).view(-1, 1, 1, 1)
        attacked = balls.attacked(steps, step_size)
        centre = torch.minimum(torch.maximum(attacked, balls.pixels - room), balls.pixels + room)
        return cross_entropies(balls.bounds(centre, share * balls.radii))

    return certified_training(model, batch, state, plan, robust)


def mtl_ibp(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *,
    largest: float, alpha: float = 0.5, steps: int = 1, step_size: float = 10.0, attack_scale: float = 1.0,
    kappa: float = 0.0, adaptive: bool = False, clean_share: float = 0.005, ramp_share: float = 0.4,
    regularisation: float = 0.5, l1: float = 0.0,
) -> LossAndLogs:  # fmt: skip
    """As `adaptive_interval`, with L_rob = (1 - alpha) L_att + alpha L_ibp.

    L_att is the cross-entropy of an attacked image, L_ibp that of the interval bounds over the ball.

    Args:
        model, batch, state: As for every objective; the model must be made of what interval bounds know.
        largest: The cap e_max, in [0, 1] pixel units, e.g. 2 / 255.
        alpha: Weight of the bounds, in [0, 1]: 0 is adversarial training, 1 that of `adaptive_interval`. It traces the tradeoff.
        steps: Number of steps of the attack, from a random start in its ball.
        step_size: Length of a step, in radii of the ball of the attack.
        attack_scale: Radius of the ball of the attack, in radii of that of the bounds.
        kappa, clean_share, ramp_share, regularisation, l1: As in `adaptive_interval`.
        adaptive: Attack and bound each image at its own certified radius, as in `adaptive_interval`.

    Raises:
        ValueError: On arguments out of range, without the progress of the training, or with training noise, which these bounds do not know.

    Source: De Palma et al., arXiv 2305.13991, section 4.
    """

    def mix(attacked: Tensor, bounds: Tensor) -> Tensor:
        return (1.0 - alpha) * cross_entropies(attacked) + alpha * cross_entropies(bounds)

    plan = Plan(largest, kappa, adaptive, clean_share, ramp_share, regularisation, l1)
    return _mixed(model, batch, state, plan, alpha, mix, steps, step_size, attack_scale)


def cc_ibp(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *,
    largest: float, alpha: float = 0.5, steps: int = 1, step_size: float = 10.0, attack_scale: float = 1.0,
    kappa: float = 0.0, adaptive: bool = False, clean_share: float = 0.005, ramp_share: float = 0.4,
    regularisation: float = 0.5, l1: float = 0.0,
) -> LossAndLogs:  # fmt: skip
    """As `mtl_ibp`, with its arguments and errors, and L_rob the cross-entropy of (1 - alpha) times the attacked margins + alpha times the bounds.

    Source: De Palma et al., arXiv 2305.13991, section 4.
    """

    def mix(attacked: Tensor, bounds: Tensor) -> Tensor:
        both = (1.0 - alpha) * attacked + alpha * bounds
        return cross_entropies(torch.where(attacked.isinf() & bounds.isinf(), torch.inf, both))  # not 0 * inf

    plan = Plan(largest, kappa, adaptive, clean_share, ramp_share, regularisation, l1)
    return _mixed(model, batch, state, plan, alpha, mix, steps, step_size, attack_scale)


def exp_ibp(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *,
    largest: float, alpha: float = 0.5, steps: int = 1, step_size: float = 10.0, attack_scale: float = 1.0,
    kappa: float = 0.0, adaptive: bool = False, clean_share: float = 0.005, ramp_share: float = 0.4,
    regularisation: float = 0.5, l1: float = 0.0,
) -> LossAndLogs:  # fmt: skip
    """As `mtl_ibp`, with its arguments and errors, and L_rob = L_att ** (1 - alpha) * L_ibp ** alpha of each image.

    Source: De Palma et al., arXiv 2305.13991, section 4.
    """

    def mix(attacked: Tensor, bounds: Tensor) -> Tensor:
        first, second = (cross_entropies(margins).clamp_min(TINY).log() for margins in (attacked, bounds))
        return ((1.0 - alpha) * first + alpha * second).exp()

    plan = Plan(largest, kappa, adaptive, clean_share, ramp_share, regularisation, l1)
    return _mixed(model, batch, state, plan, alpha, mix, steps, step_size, attack_scale)


def _mixed(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, plan: Plan,
    alpha: float, mix: Callable[[Tensor, Tensor], Tensor], steps: int, step_size: float, attack_scale: float,
) -> LossAndLogs:  # fmt: skip
    """Train on what `mix` makes of the margins of attacked images and of their bounds."""
    check_share(alpha, "alpha")
    check_attack(plan.largest, steps, step_size, attack_scale)

    def robust(balls: Balls) -> Tensor:
        attacked = balls.attacked(steps, step_size, attack_scale)
        return mix(balls.margins(attacked), balls.bounds(balls.pixels, balls.radii))

    return certified_training(model, batch, state, plan, robust)


def check_attack(largest: float, steps: int, step_size: float, scale: float = 1.0) -> None:
    """Refuse settings of an attack that make no sense.

    Raises:
        ValueError: The message names them.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1 or not step_size > 0.0 or not scale > 0.0:
        raise ValueError(
            f"The attack needs a whole number of steps, at least 1, a `step_size` > 0 and an `attack_scale` > 0, got {steps}, {step_size} and {scale}. "
            "To train without an attack, use objective='adaptive-interval'."
        )
    check_radius(scale * largest, "linf", "attack_scale * largest")

"""Gradient ascent of any loss within a ball around images in [0, 1] pixels: what all attacks here have in common."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from hf_smoothing.attacks.balls import Norm, check_norm, inside, norms, per_image, random_delta
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.statistics import check_whole
from hf_smoothing.units import check_radius


def ascend(
    losses_of: Callable[[Tensor], Tensor],
    pixels: Tensor,
    *,
    epsilon: float | Tensor | None,
    norm: Norm,
    steps: int,
    step_size: float | Tensor | None = None,
    restarts: int = 1,
    start: Literal["uniform", "clean"] | float = "uniform",
    momentum: float = 0.0,
    generator: torch.Generator | None = None,
    keep: Literal["best", "last"] = "best",
) -> Tensor:
    """Images in [0, 1] within distance `epsilon` of `pixels`, measured in float64, that raise a loss.

    It works under `torch.no_grad()`, and leaves the `.grad` of parameters alone.

    Args:
        losses_of: A differentiable function, float32 (batch, channels, height, width) -> losses (batch,). It is given a copy.
        pixels: Pixels (batch, channels, height, width), uint8 or float in [0, 1]; floats are taken as float32.
        epsilon: Radius of the closed ball in [0, 1] pixel units, >= 0: one for all images, or (batch,). None for no ball, with a `step_size`
            and a start other than "uniform".
        norm: The norm, "l2" with steps along the normalised gradient, or "linf" with steps along its sign.
        steps: Number of steps of gradient ascent, >= 1.
        step_size: Length of a step in the norm, like `epsilon`; 2.5 * epsilon / steps by default.
        restarts: Number of ascents per image, >= 1.
        start: "uniform" in the ball, at the "clean" image, or off it by Gaussian noise of this standard deviation.
        momentum: Factor mu >= 0: steps follow g <- mu g + gradient / mean |gradient|.
        generator: Generator on any device; decides the starts. torch's global one by default.
        keep: "best" returns for each image the point with the largest loss seen over steps and restarts, "last" the last
            point of a single ascent, which saves a forward pass in training.

    Returns:
        A float32 tensor, the shape of `pixels`.

    Raises:
        TypeError: If pixels are not tensors of the right kind.
        ValueError: On pixels outside [0, 1], radii or numbers that make no sense, gradients that are nan, and losses that do
            not depend differentiably on the pixels.

    Source: Madry et al. (2018), arXiv 1706.06083, section 2.1; step size of its section 5. Momentum: Dong et al. (2018),
    arXiv 1710.06081.
    """
    if isinstance(start, str) and start not in ("uniform", "clean"):
        raise ValueError(f"`start` must be 'uniform', 'clean' or a standard deviation, got {start!r}.")
    with torch.inference_mode(False), torch.enable_grad():
        clean = to_unit_pixels(pixels, "pixels").detach()
        if not bool(((clean >= 0.0) & (clean <= 1.0)).all()):
            raise ValueError(
                "`pixels` must lie in [0, 1] without tolerance, or no point of a small ball does, got values from "
                f"{float(clean.min()):.6g} to {float(clean.max()):.6g}. Certify and attack pixels.clamp(0, 1)."
            )
        norm = check_norm(norm)
        steps, restarts = check_positive(steps, "steps"), check_positive(restarts, "restarts")
        if keep not in ("best", "last") or (keep == "last" and restarts > 1):
            raise ValueError(
                f"`keep` must be 'best', or 'last' with a single ascent, got {keep!r} with restarts={restarts}. "
                "Use keep='best' to choose among ascents."
            )
        if momentum < 0.0:
            raise ValueError(f"`momentum` must be >= 0, got {momentum}. 0 is plain gradient ascent.")
        if epsilon is None:
            if step_size is None or start == "uniform":
                raise ValueError(
                    "Without a ball (epsilon=None) the ascent needs a `step_size`, and another start than 'uniform'."
                )
            radius = torch.full((len(clean), 1, 1, 1), torch.inf, dtype=torch.float64, device=clean.device)
        else:
            radius = per_image(epsilon, clean, "epsilon")
            check_units(radius, norm, clean.shape[1:])
        stride = 2.5 * radius / steps if step_size is None else per_image(step_size, clean, "step_size")
        best, best_loss = clean, torch.full((len(clean),), -torch.inf, dtype=torch.float64, device=clean.device)
        for restart in range(restarts):
            point = inside(clean, _start(clean, radius, norm, start, generator), radius, norm)
            past = torch.zeros((), dtype=torch.float64, device=clean.device)
            for number in range(steps):
                loss, gradient = climb(losses_of, point)
                if restart == number == 0:
                    _warn_if_flat(loss, gradient)
                best, best_loss = _better(point, loss, best, best_loss)
                if momentum:
                    gradient = gradient.double()
                    past = momentum * past + gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-300)
                    gradient = past
                step = gradient.sign() if norm == "linf" else gradient / norms(gradient, norm).clamp_min(1e-300)
                point = inside(clean, point.double() - clean.double() + stride * step, radius, norm)
            if keep == "last":
                return point
            with torch.no_grad():
                best, best_loss = _better(point, losses_of(point.clone()), best, best_loss)
    return best


def _start(
    clean: Tensor,
    radius: Tensor,
    norm: Norm,
    start: Literal["uniform", "clean"] | float,
    generator: torch.Generator | None,
) -> Tensor:
    if start == "uniform":
        return random_delta(clean, radius, norm, generator)
    if start == "clean":
        return torch.zeros_like(clean).double()
    device = clean.device if generator is None else generator.device
    noise = torch.randn(clean.shape, generator=generator, device=device, dtype=torch.float64)
    return float(start) * noise.to(clean.device)


def climb(losses_of: Callable[[Tensor], Tensor], point: Tensor) -> tuple[Tensor, Tensor]:
    """The losses (batch,) and the gradient of their sum, 0 where the loss is infinite.

    Args:
        losses_of: As for `ascend`.
        point: The images to start from; an image each, or one that all have in common.

    Raises:
        ValueError: If there is no gradient, or it is nan or infinite.
    """
    point = point.requires_grad_()
    losses = losses_of(point.clone())  # a network may change its pixels in place, which a leaf of the graph forbids
    if not losses.requires_grad:
        raise ValueError(
            "The logits must depend differentiably on the pixels, got logits without a gradient: the attack would not move, "
            "and prove nothing. Call the classifier without torch.no_grad(); attack votes through smoothed_logits."
        )
    (gradient,) = torch.autograd.grad(losses.sum(), point)
    point.requires_grad_(False)
    losses = losses.detach()
    decisive = gradient[~torch.isinf(losses)] if len(gradient) == len(losses) else gradient
    if not bool(torch.isfinite(decisive).all()) or bool(torch.isnan(losses).any()):
        raise ValueError(
            "The classifier must have finite gradients, got nan or infinite ones, or a loss that is nan: the attack would not move, and prove "
            "nothing. Look for a square root or logarithm at 0, and run in float32."
        )
    # Where the loss is infinite already there is nothing left to climb.
    return losses, gradient.nan_to_num(0.0, 0.0, 0.0)


def _warn_if_flat(losses: Tensor, gradient: Tensor) -> None:
    # A loss of almost 0 may have no gradient left in floating point.
    if not bool(gradient.any()) and float(losses.abs().max()) > 1e-6:
        warnings.warn(
            "The gradient of the loss is exactly 0 for every pixel of every image, so the attack does not move, and proves nothing. Does the "
            "preprocessing round, or the network answer the same to everything?",
            stacklevel=3,
        )


def _better(point: Tensor, loss: Tensor, best: Tensor, best_loss: Tensor) -> tuple[Tensor, Tensor]:
    higher = loss > best_loss
    return torch.where(higher[:, None, None, None], point, best), torch.where(higher, loss, best_loss)


def check_units(radius: Tensor, norm: Norm, shape: Sequence[int], name: str = "epsilon") -> None:
    """Refuse radii that no two images are apart: above 1 in l-infinity, above the diameter of the pixel cube in l2.

    Args:
        radius: Radius of each image.
        norm: Norm of the radii.
        shape: Shape of an image, (channels, height, width).
        name: Name of the argument.

    Raises:
        ValueError: The message names the largest.
    """
    if radius.numel():
        check_radius(float(radius.max()), norm, name, shape)


def check_positive(value: int, name: str) -> int:
    """A whole number of at least 1."""
    number = check_whole(value, name)
    if number < 1:
        raise ValueError(f"`{name}` must be at least 1, got {number}. To attack nothing, leave the call out.")
    return number

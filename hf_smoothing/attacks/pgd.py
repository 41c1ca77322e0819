"""Projected gradient ascent within a ball of [0, 1] pixels, and the soft smoothed classifier that it may climb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hf_smoothing.attacks.balls import Norm, check_norm, inside, norms, per_image, random_delta
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.statistics import check_sigma, check_whole


def pgd(
    logits_of: Any,
    pixels: Tensor,
    labels: Tensor,
    *,
    epsilon: float | Tensor,
    norm: Norm = "l2",
    steps: int = 20,
    step_size: float | Tensor | None = None,
    restarts: int = 1,
    random_start: bool = True,
    generator: torch.Generator | None = None,
    keep: Literal["best", "last"] = "best",
) -> Tensor:
    """Images in [0, 1] within distance `epsilon` of `pixels`, measured in float64, that raise the cross entropy of `labels`.

    Modules stay in the mode they are in, and their parameters' `.grad` is left alone. It works under `torch.no_grad()`.

    Args:
        logits_of: callable (batch, channels, height, width) -> (batch, num_labels), or an object with `classify`. It must be
            differentiable; `smoothed_logits` makes one of a smoothed classifier.
        pixels: (batch, channels, height, width), uint8 or float in [0, 1]; floats are taken as float32.
        labels: whole numbers (batch,), the classes to be left.
        epsilon: radius of the closed ball in [0, 1] pixel units, >= 0: one for all images, or (batch,).
        norm: "l2" with steps along the normalised gradient, or "linf" with steps along its sign.
        steps: of gradient ascent, >= 1.
        step_size: length of a step in the norm, like `epsilon`; 2.5 * epsilon / steps by default.
        restarts: ascents an image, >= 1.
        random_start: start uniformly in the ball, else at `pixels`.
        generator: on any device; decides the starts. torch's global one by default.
        keep: "best" returns for each image the point with the largest loss seen over steps and restarts, "last" the last
            point of a single ascent, which saves a forward pass in training.

    Returns:
        float32, the shape of `pixels`.

    Raises:
        TypeError: if pixels, labels or logits are not tensors of the right kind.
        ValueError: on pixels outside [0, 1], labels, radii or numbers that make no sense, and logits that have the wrong
            shape, are nan, have nan gradients, or do not depend differentiably on the pixels.

    Source: Madry et al. (2018), arXiv 1706.06083, section 2.1; step size of its section 5.

    >>> def logits_of(x): return torch.stack([x.sum((1, 2, 3)), 2 - x.sum((1, 2, 3))], dim=1)
    >>> moved = pgd(logits_of, torch.full((1, 1, 2, 2), 0.3), torch.tensor([0]), epsilon=0.1, norm="linf")
    >>> round(float(moved.mean()), 6)
    0.2
    """
    with torch.inference_mode(False), torch.enable_grad():
        clean = to_unit_pixels(pixels, "pixels").detach()
        if not bool(((clean >= 0.0) & (clean <= 1.0)).all()):
            raise ValueError(
                "`pixels` must lie in [0, 1] without tolerance, or no point of a small ball does, got values from "
                f"{float(clean.min()):.6g} to {float(clean.max()):.6g}. Certify and attack pixels.clamp(0, 1)."
            )
        labels, norm = _check_labels(labels, clean), check_norm(norm)
        steps, restarts = _check_positive(steps, "steps"), _check_positive(restarts, "restarts")
        if keep not in ("best", "last") or (keep == "last" and restarts > 1):
            raise ValueError(
                f"`keep` must be 'best', or 'last' with a single ascent, got {keep!r} with restarts={restarts}. "
                "Use keep='best' to choose among ascents."
            )
        radius = per_image(epsilon, clean, "epsilon")
        stride = 2.5 * radius / steps if step_size is None else per_image(step_size, clean, "step_size")
        best, best_loss = clean, torch.full((len(clean),), -torch.inf, dtype=torch.float64, device=clean.device)
        for _ in range(restarts):
            delta = random_delta(clean, radius, norm, generator) if random_start else torch.zeros_like(clean).double()
            point = inside(clean, delta, radius, norm)
            for _ in range(steps):
                loss, gradient = _climb(logits_of, point, labels, norm)
                best, best_loss = _better(point, loss, best, best_loss)
                point = inside(clean, point.double() - clean.double() + stride * gradient, radius, norm)
            if keep == "last":
                return point
            with torch.no_grad():
                best, best_loss = _better(point, _losses(logits_of, point, labels), best, best_loss)
    return best


def smoothed_logits(
    classifier: Any, sigma: float, copies: int, generator: torch.Generator, *, batch_size: int | None = None
) -> Callable[[Tensor], Tensor]:
    """The soft smoothed classifier, differentiable: pixels -> log of the mean softmax over noisy copies, all finite.

    Every call draws fresh noise, so that the point `pgd` keeps as the best may owe its loss to a lucky draw: prefer keep="last",
    or many copies.

    Args:
        classifier: callable (batch, channels, height, width) -> (batch, num_labels), or an object with `classify`.
        sigma: noise level in [0, 1] pixel units.
        copies: noisy copies an image, >= 1.
        generator: on any device; it alone decides the noise, which is drawn in float32.
        batch_size: noisy copies a forward pass, all by default. With a smaller one activations are computed again for the
            gradient instead of kept, so that memory is that of one pass. It decides no noise.

    Returns:
        A callable on (batch, channels, height, width) in [0, 1]. Its result is (batch, num_labels), float32 or better; the
        cross entropy of it is the objective J.

    Raises:
        ValueError: if sigma, copies or batch_size is not positive; by the callable, as `pgd` for pixels and logits.
        TypeError: by the callable, as `pgd`.

    Source: Salman et al. (2019), arXiv 1906.04584, section 2.2, the plug-in estimate of J.

    >>> soft = smoothed_logits(lambda x: x.flatten(1), 0.5, 8, torch.Generator().manual_seed(0))
    >>> round(float(soft(torch.rand(1, 1, 2, 2)).exp().sum()), 5)
    1.0
    """
    sigma, copies = check_sigma(sigma), _check_positive(copies, "copies")
    size = None if batch_size is None else _check_positive(batch_size, "batch_size")

    def log_mean_softmax(pixels: Tensor) -> Tensor:
        pixels = to_unit_pixels(pixels, "pixels")
        shape = (len(pixels), copies, *pixels.shape[1:])
        noise = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32).to(pixels.device)
        noisy = (pixels[:, None] + sigma * noise).flatten(0, 1)
        parts = noisy.split(size or len(noisy))
        # For a single part there is nothing to save.
        rows = [
            _logits(classifier, part)
            if len(parts) == 1
            else checkpoint(_logits, classifier, part, use_reentrant=False)
            for part in parts
        ]
        logits = torch.cat(rows)
        # Sums of logarithms, since the mean itself underflows to 0 where every copy is confident.
        soft = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)
        mean: Tensor = soft.unflatten(0, (len(pixels), copies)).logsumexp(dim=1)
        return mean - torch.log(torch.tensor(float(copies), device=mean.device))

    return log_mean_softmax


def _logits(classifier: Any, pixels: Tensor) -> Tensor:
    logits = getattr(classifier, "classify", classifier)(pixels)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"The classifier must return a tensor of logits (batch, num_labels), got {type(logits).__name__}. "
            "Wrap a transformers model with SmoothedClassifier.from_base_pretrained, or return output.logits."
        )
    if logits.ndim != 2 or len(logits) != len(pixels):
        raise ValueError(
            f"The classifier must return logits of shape (batch, num_labels) = ({len(pixels)}, ...), got {tuple(logits.shape)}."
        )
    return logits


def _losses(logits_of: Any, point: Tensor, labels: Tensor) -> Tensor:
    """The cross entropy of each image; in float64, where those of a confident classifier still differ."""
    logits = _logits(logits_of, point)
    if int(labels.max()) >= logits.shape[1]:
        raise ValueError(
            f"`labels` must be below the number of classes, {logits.shape[1]}, got {int(labels.max())}. Count from 0."
        )
    losses = F.cross_entropy(logits.double(), labels.to(logits.device), reduction="none").to(point.device)
    if bool(torch.isnan(losses).any()):
        raise ValueError(
            "The classifier must return logits that are no nan, got nan in the loss: the attack would not move, and prove "
            "nothing. Check the weights, and run in float32."
        )
    return losses


def _climb(logits_of: Any, point: Tensor, labels: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """The losses (batch,) and the direction of a step of length 1 in the norm, 0 where the gradient is 0."""
    point = point.requires_grad_()
    losses = _losses(logits_of, point, labels)
    if not losses.requires_grad:
        raise ValueError(
            "The logits must depend differentiably on the pixels, got logits without a gradient: the attack would not move, "
            "and prove nothing. Call the classifier without torch.no_grad(); attack votes through smoothed_logits."
        )
    (gradient,) = torch.autograd.grad(losses.sum(), point)
    point.requires_grad_(False)
    losses = losses.detach()
    if not bool(torch.isfinite(gradient[torch.isfinite(losses)]).all()):
        raise ValueError(
            "The classifier must have finite gradients, got nan or infinite ones: the attack would not move, and prove "
            "nothing. Look for a square root or logarithm at 0, and run in float32."
        )
    # Where the loss is infinite already there is nothing left to climb.
    gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
    return losses, gradient.sign() if norm == "linf" else gradient / norms(gradient, norm).clamp_min(1e-300)


def _better(point: Tensor, loss: Tensor, best: Tensor, best_loss: Tensor) -> tuple[Tensor, Tensor]:
    higher = loss > best_loss
    return torch.where(higher[:, None, None, None], point, best), torch.where(higher, loss, best_loss)


def _check_positive(value: int, name: str) -> int:
    number = check_whole(value, name)
    if number < 1:
        raise ValueError(f"`{name}` must be at least 1, got {number}. To attack nothing, leave the call out.")
    return number


def _check_labels(labels: Tensor, images: Tensor) -> Tensor:
    """The labels as int64 on the device of the images; a copy, since a tensor made under inference_mode may not enter a graph."""
    kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
    if kind not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise TypeError(f"`labels` must be a tensor of whole numbers, got {kind}. Use torch.tensor(labels).long().")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"`labels` must have shape (batch,) = ({len(images)},), got {tuple(labels.shape)}. Pass one class an image."
        )
    if int(labels.min()) < 0:
        raise ValueError(
            f"`labels` must be classes >= 0, got {int(labels.min())}. Leave out images on which the classifier abstained."
        )
    return labels.to(images.device, torch.int64, copy=True)

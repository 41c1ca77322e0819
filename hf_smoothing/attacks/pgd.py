"""Attacks on classifiers: projected gradient ascent of the cross-entropy, and its well-known special cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from hf_smoothing.attacks.ascent import ascend
from hf_smoothing.attacks.balls import Norm, per_image
from hf_smoothing.attacks.diversity import diverse_inputs
from hf_smoothing.attacks.losses import check_labels, log_odds
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.types import Classifier


def pgd(
    logits_of: Classifier,
    pixels: Tensor,
    labels: Tensor,
    *,
    epsilon: float | Tensor,
    norm: Norm = "l2",
    steps: int = 20,
    step_size: float | Tensor | None = None,
    restarts: int = 1,
    random_start: bool = True,
    momentum: float = 0.0,
    diversity: float = 0.0,
    generator: torch.Generator | None = None,
    keep: Literal["best", "last"] = "best",
) -> Tensor:
    """Images in [0, 1] within distance `epsilon` of `pixels`, measured in float64, that raise the cross entropy of `labels`.

    The ascent is of the log-odds against the label, which has the cross entropy's direction and order, but not its vanishing gradient where
    the classifier is sure. Modules stay in the mode they are in, and their parameters' `.grad` is left alone. It works under `torch.no_grad()`.

    Args:
        logits_of: A callable (batch, channels, height, width) -> (batch, num_labels), or an object with `classify`. It
            must be differentiable; `smoothed_logits` makes one of a smoothed classifier.
        pixels: Pixels (batch, channels, height, width), uint8 or float in [0, 1]; floats are taken as float32.
        labels: Classes to be left, whole numbers (batch,).
        epsilon: Radius of the closed ball in [0, 1] pixel units, >= 0: one for all images, or (batch,).
        norm: The norm, "l2" with steps along the normalised gradient, or "linf" with steps along its sign.
        steps: Number of steps of gradient ascent, >= 1.
        step_size: Length of a step in the norm, like `epsilon`; 2.5 * epsilon / steps by default.
        restarts: Number of ascents per image, >= 1.
        random_start: Start uniformly in the ball, else at `pixels`.
        momentum: Factor mu: steps follow g <- mu g + gradient / mean |gradient| (`mi_fgsm` takes 1).
        diversity: Probability of a random resizing before each gradient (`diverse_inputs`); the last point is kept then, since
            losses at different sizes are not to be compared.
        generator: Generator on any device; decides the starts and sizes. torch's global one by default.
        keep: "best" returns for each image the point with the largest loss seen over steps and restarts, "last" the last
            point of a single ascent, which saves a forward pass in training.

    Returns:
        A float32 tensor, the shape of `pixels`.

    Raises:
        TypeError: If pixels, labels or logits are not tensors of the right kind.
        ValueError: On pixels outside [0, 1], labels, radii or numbers that make no sense, and logits that have the wrong
            shape, are nan, have nan gradients, or do not depend differentiably on the pixels.

    Source: Madry et al. (2018), arXiv 1706.06083, section 2.1; step size of its section 5.

    >>> def logits_of(x): return torch.stack([x.sum((1, 2, 3)), 2 - x.sum((1, 2, 3))], dim=1)
    >>> moved = pgd(logits_of, torch.full((1, 1, 2, 2), 0.3), torch.tensor([0]), epsilon=0.1, norm="linf")
    >>> round(float(moved.mean()), 6)
    0.2
    """
    with torch.inference_mode(False):
        clean = to_unit_pixels(pixels, "pixels").detach()
        classes = check_labels(labels, clean)
        per_image(epsilon, clean, "epsilon")  # None is no ball to `ascend`, and a mistake here
    if diversity:
        if restarts > 1:
            raise ValueError(
                f"`diversity` works with a single ascent, got restarts={restarts}: losses at different sizes are not to be compared."
            )
        logits_of, keep = diverse_inputs(logits_of, diversity, generator), "last"
    return ascend(
        lambda point: log_odds(logits_of, point, classes),
        clean,
        epsilon=epsilon,
        norm=norm,
        steps=steps,
        step_size=step_size,
        restarts=restarts,
        start="uniform" if random_start else "clean",
        momentum=momentum,
        generator=generator,
        keep=keep,
    )


def bim(
    logits_of: Classifier, pixels: Tensor, labels: Tensor, *, norm: Norm = "linf", steps: int = 10, **kwargs: Any
) -> Tensor:
    """`pgd`, with its arguments and errors, from the clean image. Source: Kurakin et al. (2017), arXiv 1607.02533."""
    return pgd(logits_of, pixels, labels, norm=norm, steps=steps, **{"random_start": False} | kwargs)


def fgsm(
    logits_of: Classifier, pixels: Tensor, labels: Tensor, *, epsilon: float | Tensor, steps: int = 1, **kwargs: Any
) -> Tensor:
    """`bim` with one step of length epsilon, whatever `steps` says; takes neither `step_size` nor `keep`. Source: Goodfellow et al. (2015), arXiv 1412.6572."""
    return bim(logits_of, pixels, labels, epsilon=epsilon, steps=1, step_size=epsilon, keep="last", **kwargs)


def mi_fgsm(logits_of: Classifier, pixels: Tensor, labels: Tensor, **kwargs: Any) -> Tensor:
    """`bim` with momentum 1, which transfers better between models; steps as in `pgd`, where the paper takes epsilon / steps.

    Source: Dong et al. (2018), arXiv 1710.06081.
    """
    return bim(logits_of, pixels, labels, **{"momentum": 1.0} | kwargs)


def di_fgsm(logits_of: Classifier, pixels: Tensor, labels: Tensor, **kwargs: Any) -> Tensor:
    """`mi_fgsm` through inputs resized at random half of the time. Source: Xie et al. (2019), arXiv 1803.06978."""
    return mi_fgsm(logits_of, pixels, labels, **{"diversity": 0.5} | kwargs)


ATTACKS: dict[str, Callable[..., Tensor]] = {
    "fgsm": fgsm,
    "bim": bim,
    "mi-fgsm": mi_fgsm,
    "di-fgsm": di_fgsm,
    "pgd": pgd,
}
"""By name; all take (logits_of, pixels, labels, epsilon=, norm=, steps=, generator=), lengths as in `pgd`."""

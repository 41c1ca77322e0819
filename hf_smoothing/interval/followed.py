"""Runs of a network beside its bounds: does a box take the way that tensors take, and each image its own?"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.classifier import run_as_covered
from hf_smoothing.interval.margins import logits_of


HALF = (0.1, 0.05)
"""How far a run in half precision, which no bound covers, may be from its bounds: in shares of the widest range of an image's logits, and of the logit."""

_IN_HALF = " In half precision its own rounding can be the cause, as where large numbers cancel: compute in float32."

_ANOTHER = (
    "so these bounds are for another function. Does the network depend on the other images of the batch, on how often it was called, on random "
    "numbers, or on whether it is given a tensor?"
)


def check_followed(
    classify: Callable[[Any], Any], images: Tensor, bounds: Box, dtype: torch.dtype, *, half: bool = False
) -> None:
    """Refuse a network whose logits of some images leave the bounds of these very images.

    It is run on all of them, in the reverse order, and on the first alone: a network that looks at the batch, counts its calls, draws
    random numbers, or treats tensors otherwise than boxes is found so.

    Args:
        classify: From pixels to logits.
        images: Images, float64 (batch, channels, height, width).
        bounds: Bounds of their logits, which cover runs in `dtype`.
        dtype: Computing dtype of the network.
        half: Whether a run has half precision somewhere, by its weights or by autocast: no bound covers it, and logits are compared coarsely (`HALF`).

    Raises:
        TypeError: If the network returns no logits.
        ValueError: If it has a single output, logits are outside their bounds, or random numbers are drawn.
    """
    if bounds.ndim != 2 or len(bounds) != len(images):
        raise TypeError(
            f"The network must return logits of shape (batch, num_labels), got {tuple(bounds.shape)} for {len(images)} images."
        )
    if bounds.shape[1] < 2:
        raise ValueError(
            f"The classifier must return logits of at least two classes, got {bounds.shape[1]}, as for regression, where no other class could ever win. For a "
            "binary problem use two logits."
        )
    everyone = torch.arange(len(images), device=images.device)
    with no_random_numbers(images.device):
        for which in (everyone, everyone.flip(0), everyone[:1]):
            logits = logits_of_run(classify, images[which].to(dtype), len(images))
            if logits.shape != (len(which), bounds.shape[1]):
                raise ValueError(
                    f"The network returns logits of shape {tuple(logits.shape)} for {len(which)} images and {tuple(bounds.shape)} for {len(images)}. Each image "
                    "must have its own logits in a batch of any size; squeeze() without a dimension is a usual cause."
                )
            if bool(outside(logits, bounds, which, half=half).any()):
                raise ValueError(
                    f"The logits of the images are outside their own bounds, {_ANOTHER}{_IN_HALF if half else ''}"
                )


def check_inside(
    classify: Callable[[Any], Any],
    points: Iterator[Tensor],
    bounds_at: Callable[[Tensor], Box],
    classes: Tensor,
    lower: Tensor,
    dtype: torch.dtype,
    *,
    covered: bool,
    half: bool = False,
) -> None:
    """Refuse a network whose logits at points of certified balls are not what its bounds promise.

    It is run at every point, and each image's point nearest to its bound is looked at: its logits must be within the bounds of that very
    point, which follow the network closely, and its margins must not be below the bounds over the ball.

    Args:
        classify: From pixels to logits.
        points: Batches (batch, channels, height, width), float64, of one point in the ball of each image.
        bounds_at: From such a batch to the bounds of its logits, which cover runs in `dtype`.
        classes: The certified classes, int64 (batch,).
        lower: Lower bounds of f_y - f_t over the balls, float64 (batch, num_labels); inf at t = y.
        dtype, half: As in `check_followed`.
        covered: Whether `lower` covers the rounding of runs; otherwise they may be off by what it can do at that point.

    Raises:
        ValueError: If the network is another function than its bounds follow, or draws random numbers.
    """
    everyone = torch.arange(len(classes), device=classes.device)
    nearest = torch.full_like(lower[:, 0], torch.inf)
    found, where = torch.zeros_like(lower), torch.zeros(0)
    with no_random_numbers(classes.device):
        for point in points:
            logits = logits_of_run(classify, point.to(dtype), len(point)).to(lower.dtype)
            gap = (logits.gather(1, classes[:, None]) - logits - lower).scatter(1, classes[:, None], torch.inf).amin(1)
            closer = ~(gap >= nearest)  # nan is
            where = torch.where(closer.view(-1, *(1,) * (point.ndim - 1)), point, where) if len(where) else point
            found = torch.where(closer[:, None], logits, found)
            nearest = torch.where(closer, gap, nearest)
    bounds = bounds_at(where)
    if bool((beyond := outside(found, bounds, everyone, half=half).any(1)).any()):
        raise ValueError(
            f"At a point of the certified ball of image {int(beyond.nonzero()[0])} of the batch the network's logits are outside their own bounds, {_ANOTHER}{_IN_HALF if half else ''}"
        )
    if not covered:
        width = bounds.upper - bounds.lower + allowed_in_half(bounds, half)
        nearest = nearest + width.gather(1, classes[:, None])[:, 0] + width.amax(1)
    if bool((nearest < 0.0).any()):
        worst = int(nearest.argmin())
        raise ValueError(
            f"At a point of the certified ball of image {worst} of the batch a margin of the network is {float(-nearest[worst]):.3g} below its bound, {_ANOTHER}{_IN_HALF if half else ''}"
        )


def outside(logits: Tensor, bounds: Box, which: Tensor, *, half: bool) -> Tensor:
    """Which logits of a run of the images `which` are outside their bounds: bool (len(which), num_labels), False for images without bounds."""
    more = allowed_in_half(bounds, half)
    found = ~((logits >= (bounds.lower - more)[which]) & (logits <= (bounds.upper + more)[which]))
    hopeless = bounds.trace.hopeless
    return found if hopeless is None else found & ~hopeless[which][:, None]


def allowed_in_half(bounds: Box, half: bool) -> Tensor:
    """How far logits of a run may be outside their bounds, of the shape of these: 0 unless it has half precision somewhere."""
    if not half:
        return torch.zeros_like(bounds.lower)
    of_range, of_itself = HALF
    spread = (bounds.upper.amax(1) - bounds.lower.amin(1)).nan_to_num(nan=0.0).amax()
    return of_range * spread + of_itself * bounds.largest


@contextmanager
def no_random_numbers(device: torch.device) -> Iterator[None]:
    """Refuse random numbers drawn meanwhile from a global generator: of torch, on the CPU or on the device, of numpy, or of Python.

    A network may multiply them by what happens to be 0 at the images, so that its logits alone do not show it.

    Raises:
        ValueError: If there were any.
    """
    before = _random_states(device)
    yield
    if _random_states(device) != before:
        raise ValueError(
            "The network draws random numbers, so it is not one function that could be certified. Call network.eval(), or take the drawing out."
        )


def _random_states(device: torch.device) -> tuple[Any, ...]:
    own = () if device.type == "cpu" else (torch.get_device_module(device).get_rng_state(device),)
    name, keys, *rest = np.random.get_state(legacy=True)
    states = tuple(state.cpu().numpy().tobytes() for state in (torch.get_rng_state(), *own))
    return (*states, name, np.asarray(keys).tobytes(), *rest, random.getstate())


def logits_of_run(classify: Callable[[Any], Any], images: Tensor, others: int) -> Tensor:
    """The logits of a run of the network, compiled by nobody and without TF32.

    Args:
        classify: From pixels to logits.
        images: Images in the dtype of the network.
        others: Number of images that the network took as a box.

    Raises:
        TypeError: If it returns no logits.
        ValueError: If it fails, which it did not with a box.
    """
    try:
        with run_as_covered():
            logits = logits_of(classify, images.clone())  # a network may change its pixels in place
    except (RuntimeError, IndexError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(
            f"The network takes a box of {others} images, but {len(images)} images themselves fail: {str(error).strip().splitlines()[0]}. Each image must have its "
            "own logits in a batch of any size."
        ) from error
    if not isinstance(logits, Tensor):
        raise TypeError(f"The network must return logits, or an output that has them, got {type(logits).__name__}.")
    return logits

"""By how much the true class provably wins within a box: lower bounds of f_y - f_t."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.crown import backward_margins
from hf_smoothing.interval.optimised import optimised_margins
from hf_smoothing.interval.refusals import UnsupportedOperationError, located
from hf_smoothing.interval.rounding import widened
from hf_smoothing.interval.trace import LinearLayer, Trace


@dataclass(frozen=True)
class Margins:
    """Bounds for a batch.

    Attributes:
        lower: (batch, num_labels), of the dtype of the box's ends: lower bound of f_y - f_t over the box; inf at t = y.
    """

    lower: Tensor

    @property
    def worst(self) -> Tensor:
        """(batch,): the smallest margin; positive where the true class provably wins."""
        return self.lower.amin(dim=1)


def box_around(
    pixels: Tensor, epsilon: Tensor | float, trace: Trace | None = None, *,
    dtype: torch.dtype | None = None, separate: bool = False,
) -> Box:  # fmt: skip
    """The l-infinity ball around each image, within [0, 1].

    Args:
        pixels: Pixels, float (batch, channels, height, width) in [0, 1].
        epsilon: Radius in [0, 1] pixel units, one number or one per image.
        trace: Trace of the run to come.
        dtype: Precision that the network computes in; by default that of the pixels.
        separate: Whether to refuse what mixes the images of a batch; always so where the trace keeps origins, since backward bounds
            add up what belongs to one image.

    Raises:
        ValueError: If an image leaves [0, 1], or a radius is negative or nan: there would be no such ball.
    """
    if not bool(((pixels >= 0.0) & (pixels <= 1.0)).all()):
        raise ValueError(
            f"A ball within [0, 1] needs an image in [0, 1], got pixels from {float(pixels.min()):.6g} to {float(pixels.max()):.6g}. Pass pixels before "
            "normalisation, divided by 255, and clamped."
        )
    radius = torch.as_tensor(epsilon, dtype=pixels.dtype, device=pixels.device)
    if not bool((radius >= 0.0).all()):
        raise ValueError(f"A radius must be >= 0, got {float(radius.min())}.")
    if radius.ndim:
        radius = radius.view(-1, *(1,) * (pixels.ndim - 1))
    lower, upper = (pixels - radius).clamp(min=0.0), (pixels + radius).clamp(max=1.0)
    return box_between(lower, upper, trace, dtype=dtype, separate=separate)


def box_between(
    lower: Tensor, upper: Tensor, trace: Trace | None = None, *,
    dtype: torch.dtype | None = None, separate: bool = False,
) -> Box:  # fmt: skip
    """A box of pixels by its ends, within [0, 1]; the rest as in `box_around`."""
    batch = 0 if separate or (trace is not None and trace.origins) else None
    box = Box(lower, upper, trace, dtype=dtype, batch=batch)
    # A run rounds the pixels of an image in the box, which need not fit its dtype.
    return widened(box, terms=2, name="pixels")


def margin_bounds(classify: Callable[[Any], Any], box: Box, labels: Tensor) -> Margins:
    """Send a box through a classifier and bound the margins of the labels: `margins_of` what comes out.

    Args:
        classify: Box -> box of logits, or an output with `logits`.
        box: Box of what it takes.
        labels: Labels, int64 (batch,).

    Raises:
        UnsupportedOperationError: The message names an operation without a bound.
        ValueError: On labels out of range.
    """
    return margins_of(logits_of(classify, box), labels)


def logits_of(classify: Callable[[Any], Any], given: Any) -> Any:
    """What a classifier makes of pixels or of a box of them: the same, of logits, also out of an output with `logits`.

    Raises:
        UnsupportedOperationError: The message names an operation without a bound for a box, and its place.
        TypeError: If a box does not come out as one.
    """
    if not isinstance(given, Box):
        return _logits_in(classify(given))
    try:
        logits = _logits_in(classify(given))
    except UnsupportedOperationError as error:
        raise located(error) from error
    except (RuntimeError, TypeError, AttributeError, IndexError, ValueError) as error:
        ours = isinstance(error, ValueError) and "Box'" not in str(error)  # a refusal of the network, or of a mode
        if ours or isinstance(error, torch.OutOfMemoryError):
            raise
        raise located(error) from error
    if given.trace.refusal is not None:  # the network has caught it
        raise located(given.trace.refusal)
    if not isinstance(logits, Box):
        raise TypeError(
            f"The network must return logits, or an output that has them, got {type(logits).__name__} for a box of pixels."
        )
    logits.memory.check(logits.version, "the logits")
    return logits


def _logits_in(output: Any) -> Any:
    """The logits of an output that has them, as an attribute or by this key; else the output itself."""
    if isinstance(output, Mapping):
        return output.get("logits", output)
    return getattr(output, "logits", output)


def margins_of(logits: Box, labels: Tensor) -> Margins:
    """Bound the margins of the labels.

    Where the logits come out of a linear layer, the differences f_y - f_t are merged into it, which is tighter than bounding both.
    With a trace that keeps origins the bounds are the better of these and backward linear ones (`crown`), entry by entry.

    Args:
        logits: Logits of a network.
        labels: Labels, int64 (batch,).

    Raises:
        ValueError: On labels out of range.
    """
    classes = logits.shape[1]
    if bool(((labels < 0) | (labels >= classes)).any()):
        raise ValueError(
            f"`labels` must be classes from 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}. Count from 0, and leave out images "
            "without a label."
        )
    chosen = torch.arange(len(labels), device=labels.device), labels
    trace, last = logits.trace, logits.trace.last_linear
    if last is not None and last.number == logits.number:
        lower = _merged(last, labels)
    else:
        gaps = logits.lower[chosen][:, None] - logits.upper
        lower = _less_rounding(gaps, gaps.abs(), 2, trace)
    lower = lower.clone()
    lower[chosen] = torch.inf
    if trace.origins:
        lower = torch.maximum(lower, backward_margins(logits, labels))
    if trace.steps:
        lower = optimised_margins(logits, labels, lower, trace.steps)
    if trace.hopeless is not None:
        lower[trace.hopeless] = -torch.inf
    return Margins(lower)


def _merged(last: LinearLayer, labels: Tensor) -> Tensor:
    box, weights, bias = last.before, last.weight, last.bias
    weight = weights[labels][:, None] - weights[None]  # (batch, num_labels, features)
    lower = torch.einsum("bkf,bf->bk", weight, box.centre) - torch.einsum("bkf,bf->bk", weight.abs(), box.radius)
    if bias is not None:
        lower = lower + bias[labels][:, None] - bias[None]
    if not box.trace.outward:
        return lower
    both = weights[labels][:, None].abs() + weights[None].abs()
    sizes = torch.einsum("bkf,bf->bk", both, box.largest)
    if bias is not None:
        sizes = sizes + bias[labels][:, None].abs() + bias[None].abs()
    if last.error is not None:  # a run rounds both logits, whose difference it never computes
        lower = lower - (last.error[torch.arange(len(labels)), labels][:, None] + last.error)
    return _less_rounding(lower, 2 * sizes, 2 * weights.shape[1] + 16, box.trace)


def _less_rounding(lower: Tensor, sizes: Tensor, terms: int, trace: Trace) -> Tensor:
    """A bound, less what the rounding of its own sum of this number of terms may have added."""
    own = Box(lower, lower, Trace(outward=trace.outward, tolerant=True), batch=0)
    return widened(own, terms=terms, sizes=sizes, name="margins").lower

"""Runs of a network beside its bounds: does a box take the way that tensors take, and each image its own?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.margins import logits_of


def check_followed(classify: Callable[[Any], Any], images: Tensor, bounds: Box, dtype: torch.dtype) -> None:
    """Refuse a network whose logits of some images leave the bounds of these very images.

    It is run on all of them, in the reverse order, and on the first alone: a network that looks at the batch, counts its calls, draws
    random numbers, or treats tensors otherwise than boxes is found so.

    Args:
        classify: From pixels to logits.
        images: Images, float64 (batch, channels, height, width).
        bounds: Bounds of their logits, which cover runs in `dtype`.
        dtype: Computing dtype of the network. In half precision the bounds cover no run, and nothing is compared.

    Raises:
        TypeError: If the network returns no logits.
        ValueError: If logits are outside their bounds, or random numbers are drawn.
    """
    if bounds.ndim != 2 or len(bounds) != len(images):
        raise TypeError(
            f"The network must return logits of shape (batch, num_labels), got {tuple(bounds.shape)} for {len(images)} images."
        )
    if torch.finfo(dtype).eps > torch.finfo(torch.float32).eps:
        return
    everyone = torch.arange(len(images), device=images.device)
    hopeless = bounds.trace.hopeless
    random_state = torch.get_rng_state()
    for which in (everyone, everyone.flip(0), everyone[:1]):
        logits = _run(classify, images[which].to(dtype), len(images))
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"The network must return logits, or an output that has them, got {type(logits).__name__}."
            )
        if logits.shape != (len(which), bounds.shape[1]):
            raise ValueError(
                f"The network returns logits of shape {tuple(logits.shape)} for {len(which)} images and {tuple(bounds.shape)} for {len(images)}. Each image "
                "must have its own logits in a batch of any size; squeeze() without a dimension is a usual cause."
            )
        outside = ~((logits >= bounds.lower[which]) & (logits <= bounds.upper[which]))
        if hopeless is not None:
            outside = outside & ~hopeless[which][:, None]
        if bool(outside.any()):
            raise ValueError(
                "The logits of the images are outside their own bounds, so these bounds are for another function. Does the network depend on the other "
                "images of the batch, on how often it was called, on random numbers, or on whether it is given a tensor?"
            )
    # It may multiply them by what happens to be 0 at the images, so that their logits alone do not show it.
    if not torch.equal(random_state, torch.get_rng_state()):
        raise ValueError(
            "The network draws random numbers, so it is not one function that could be certified. Call network.eval(), or take the drawing out."
        )


def _run(classify: Callable[[Any], Any], images: Tensor, others: int) -> Any:
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), torch.compiler.set_stance("force_eager"):
            return logits_of(classify, images)
    except (RuntimeError, IndexError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(
            f"The network takes a box of {others} images, but {len(images)} images themselves fail: {str(error).strip().splitlines()[0]}. Each image must have its "
            "own logits in a batch of any size."
        ) from error

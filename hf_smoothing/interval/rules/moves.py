"""Moving the entries of one box about: exact on both ends, and on the way back the transpose of the same map.

None of them may merge, reorder or drop the images of a batch, which is found by moving the images' numbers along
(`batches.after_move`). Whatever torch would return as a view shares the memory of its base.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.interval.batches import after_move
from hf_smoothing.interval.box import Box
from hf_smoothing.interval.refusals import refuse
from hf_smoothing.interval.registry import rule
from hf_smoothing.interval.trace import Linear


def moved(name: str, box: Box, function: Callable[[Tensor], Tensor], reach: int = 1) -> Box:
    """The box after a move.

    Args:
        reach: Equal to 1 where entries only change places; more where one may go to several, whose coefficients are added on the way back.
    """
    result = box.map(function, after_move(name, box, function))
    return result.came_from(Linear(box, function, function, reach))


def whole(name: str, *sizes: Any) -> tuple[Any, ...]:
    """Sizes or dimensions given one by one or as one sequence.

    Raises:
        UnsupportedOperationError: If one is no whole number, such as a dtype.
    """
    given = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (list, tuple, torch.Size)) else sizes
    if not all(isinstance(size, int) for size in given):
        refuse(name, f"Its bound is for whole numbers, got {given}.")
    return given


@rule("reshape", views=True)
def reshape(box: Box, *shape: Any) -> Box:
    """The same entries in the same order."""
    sizes = whole("reshape", *shape)
    return moved("reshape", box, lambda x: x.reshape(sizes))


@rule("view", views=True)
def view(box: Box, *size: Any) -> Box:
    """A reshape; another dtype, which would read the bits anew, is refused."""
    sizes = whole("view", *size)
    return moved("view", box, lambda x: x.reshape(sizes))


@rule("flatten", views=True)
def flatten(box: Box, start_dim: int = 0, end_dim: int = -1) -> Box:
    """Dimensions become one."""
    return moved("flatten", box, lambda x: x.flatten(start_dim, end_dim))


@rule("unflatten", views=True)
def unflatten(box: Box, dim: int, sizes: Any) -> Box:
    """One dimension becomes several."""
    return moved("unflatten", box, lambda x: x.unflatten(dim, sizes))


@rule("permute", views=True)
def permute(box: Box, *dims: Any) -> Box:
    """Dimensions in another order."""
    order = whole("permute", *dims)
    return moved("permute", box, lambda x: x.permute(order))


@rule("transpose", "swapaxes", "swapdims", views=True)
def transpose(box: Box, dim0: int, dim1: int) -> Box:
    """Two dimensions change places."""
    return moved("transpose", box, lambda x: x.transpose(dim0, dim1))


@rule("t", views=True)
def transposed(box: Box) -> Box:
    """A matrix transposed."""
    return moved("t", box, lambda x: x.t())


@rule("movedim", "moveaxis", views=True)
def movedim(box: Box, source: Any, destination: Any) -> Box:
    """Dimensions move to other places."""
    return moved("movedim", box, lambda x: x.movedim(source, destination))


@rule("squeeze", views=True)
def squeeze(box: Box, *dim: Any) -> Box:
    """Dimensions of one entry go."""
    return moved("squeeze", box, lambda x: x.squeeze(*dim))


@rule("unsqueeze", views=True)
def unsqueeze(box: Box, dim: int) -> Box:
    """A dimension of one entry comes."""
    return moved("unsqueeze", box, lambda x: x.unsqueeze(dim))


@rule("expand", views=True)
def expand(box: Box, *size: Any) -> Box:
    """Entries are repeated along dimensions of one."""
    shape = whole("expand", *size)
    return moved("expand", box, lambda x: x.expand(shape), 2)


@rule("view_as", boxes=("input", "other"), views=True)
def view_as(input: Any, other: Any) -> Any:
    """As another tensor is shaped."""
    return view(input, *other.shape) if isinstance(input, Box) else input.view(other.shape)


@rule("expand_as", boxes=("input", "other"), views=True)
def expand_as(input: Any, other: Any) -> Any:
    """Repeated to the shape of another tensor."""
    return expand(input, *other.shape) if isinstance(input, Box) else input.expand(other.shape)


@rule("repeat")
def repeat(box: Box, *repeats: Any) -> Box:
    """Entries are repeated."""
    counts = whole("repeat", *repeats)
    return moved("repeat", box, lambda x: x.repeat(counts), 2)


@rule("flip")
def flip(box: Box, *dims: Any) -> Box:
    """Dimensions reversed."""
    chosen = whole("flip", *dims)
    return moved("flip", box, lambda x: x.flip(chosen))


@rule("roll")
def roll(box: Box, shifts: Any, dims: Any = None) -> Box:
    """Entries move on around dimensions."""
    return moved("roll", box, lambda x: x.roll(shifts, dims))


@rule("pixel_shuffle", views=True)
def pixel_shuffle(box: Box, upscale_factor: int) -> Box:
    """Channels become places."""
    return moved("pixel_shuffle", box, lambda x: F.pixel_shuffle(x, upscale_factor))


@rule("pixel_unshuffle", views=True)
def pixel_unshuffle(box: Box, downscale_factor: int) -> Box:
    """Places become channels."""
    return moved("pixel_unshuffle", box, lambda x: F.pixel_unshuffle(x, downscale_factor))


@rule("channel_shuffle", "native_channel_shuffle", views=True)
def channel_shuffle(box: Box, groups: int) -> Box:
    """Channels in another order."""
    return moved("channel_shuffle", box, lambda x: F.channel_shuffle(x, groups))

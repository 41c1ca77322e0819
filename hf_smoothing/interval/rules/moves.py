"""Moving entries about, in one box: exact on both ends, and on the way back the transpose of the same map.

None of them may merge, reorder or drop the images of a batch, which is found by moving the images' numbers along
(`batches.after_move`). Whatever torch would return as a view shares the memory of its base.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.interval.batches import after_move
from hf_smoothing.interval.box import Box
from hf_smoothing.interval.constants import number
from hf_smoothing.interval.refusals import refuse, refuse_neighbours
from hf_smoothing.interval.rounding import widened
from hf_smoothing.interval.rules.registry import rule
from hf_smoothing.interval.trace import Linear, same


def moved(name: str, box: Box, function: Callable[[Tensor], Tensor], reach: int = 1) -> Box:
    """The box after a move.

    Args:
        reach: 1 where entries only change places; more where one may go to several, whose coefficients are added on the way back.
    """
    result = box.map(function, after_move(name, box, function))
    return result.came_from(Linear(box, function, function, reach))


def _whole(name: str, *sizes: Any) -> tuple[Any, ...]:
    """Sizes or dimensions given one by one or as one sequence.

    Raises:
        UnsupportedOperationError: if one is no whole number, such as a dtype.
    """
    given = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (list, tuple, torch.Size)) else sizes
    if not all(isinstance(size, int) for size in given):
        refuse(name, f"Its bound is for whole numbers, got {given}.")
    return given


@rule("reshape", views=True)
def reshape(box: Box, *shape: Any) -> Box:
    """The same entries in the same order."""
    sizes = _whole("reshape", *shape)
    return moved("reshape", box, lambda x: x.reshape(sizes))


@rule("view", views=True)
def view(box: Box, *size: Any) -> Box:
    """A reshape; another dtype, which would read the bits anew, is refused."""
    sizes = _whole("view", *size)
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
    order = _whole("permute", *dims)
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
def expand(box: Box, *sizes: Any) -> Box:
    """Entries are repeated along dimensions of one."""
    shape = _whole("expand", *sizes)
    return moved("expand", box, lambda x: x.expand(shape), 2)


@rule("repeat")
def repeat(box: Box, *repeats: Any) -> Box:
    """Entries are repeated."""
    counts = _whole("repeat", *repeats)
    return moved("repeat", box, lambda x: x.repeat(counts), 2)


@rule("flip")
def flip(box: Box, *dims: Any) -> Box:
    """Dimensions reversed."""
    chosen = _whole("flip", *dims)
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


@rule("__getitem__", views=True)
def index(box: Box, key: Any) -> Box:
    """Any index that keeps all images, with places that are constants; an entry may be taken twice."""
    fixed = copy.deepcopy(key)  # the network may change a tensor of places
    return moved("__getitem__", box, lambda x: x[fixed], 2)


@rule("narrow", views=True)
def narrow(box: Box, dim: int, start: int, length: int) -> Box:
    """A piece of a dimension."""
    return moved("narrow", box, lambda x: x.narrow(dim, start, length))


@rule("select", views=True)
def select(box: Box, dim: int, index: int) -> Box:
    """One place of a dimension."""
    return moved("select", box, lambda x: x.select(dim, index))


@rule("index_select")
def index_select(box: Box, dim: int, index: Tensor) -> Box:
    """Some places of a dimension; one may be taken twice."""
    places = index.clone()
    return moved("index_select", box, lambda x: x.index_select(dim, places), 2)


def _pieces(name: str, box: Box, cut: Callable[[Tensor], Any]) -> tuple[Box, ...]:
    def piece(number: int) -> Box:
        return moved(name, box, lambda x: cut(x)[number])

    return tuple(piece(number) for number in range(len(cut(box.like))))


@rule("chunk", views=True)
def chunk(box: Box, chunks: int, dim: int = 0) -> tuple[Box, ...]:
    """Pieces of a dimension."""
    return _pieces("chunk", box, lambda x: x.chunk(chunks, dim))


@rule("split", views=True)
def split(box: Box, split_size_or_sections: Any, dim: int = 0) -> tuple[Box, ...]:
    """Pieces of a dimension."""
    return _pieces("split", box, lambda x: x.split(split_size_or_sections, dim))


@rule("unbind", views=True)
def unbind(box: Box, dim: int = 0) -> tuple[Box, ...]:
    """Every place of a dimension by itself."""
    return _pieces("unbind", box, lambda x: x.unbind(dim))


@rule("pad")
def pad(box: Box, pad: Any, mode: str = "constant", value: float | None = None) -> Box:
    """Constants around the last dimensions, or entries from inside; with negative numbers entries go."""
    if mode not in ("constant", "reflect", "replicate", "circular"):
        refuse("pad", f"Its bound is for the modes constant, reflect, replicate and circular, got {mode!r}.")
    around = _whole("pad", *pad)
    if box.batch is not None and box.batch >= box.ndim - len(around) // 2:
        refuse_neighbours("pad", "It pads the images of the batch")
    fill = number(value or 0.0, box, "pad") if mode == "constant" else None

    def padded(x: Tensor) -> Tensor:
        return F.pad(x, around, mode, fill)

    def linear(x: Tensor) -> Tensor:
        return F.pad(x, around, mode, None if fill is None else 0.0)

    result = box.map(padded, box.batch)
    shift = padded(torch.zeros_like(box.like)) if box.trace.origins else 0.0
    reach = 1 if mode == "constant" else math.prod(1 + abs(edge) for edge in around)
    return result.came_from(Linear(box, linear, linear, reach), shift=shift)


# --- Nothing moves. ----------------------------------------------------------------------------------------------------------


def _unchanged(box: Box, function: Callable[[Tensor], Tensor] = same) -> Box:
    """Whatever autograd or the layout make of it, the values stay."""
    return box.map(function).came_from(Linear(box, same, same, 1))


@rule("contiguous", views=True)
def contiguous(box: Box, memory_format: Any = None) -> Box:
    """Another layout."""
    return _unchanged(box)


@rule("detach", views=True)
def detach(box: Box) -> Box:
    """Without gradients."""
    return _unchanged(box, torch.Tensor.detach)


@rule("clone")
def clone(box: Box, *, memory_format: Any = None) -> Box:
    """A copy, with memory of its own."""
    return _unchanged(box)


@rule("to", views=True)
def to(box: Box, *args: Any, non_blocking: bool = False, memory_format: Any = None, **named: Any) -> Box:
    """Another dtype or device: one rounding to a narrower dtype; the bounds keep theirs, or take a wider one."""
    given = torch.empty(0, dtype=box.dtype, device=box.device).to(*args, **named)
    if not given.dtype.is_floating_point:
        refuse("to", f"Boxes are of real numbers, got {given.dtype}.")
    ends = torch.promote_types(box.like.dtype, given.dtype)
    result = box.map(lambda x: x.to(device=given.device, dtype=ends))
    narrower = torch.finfo(given.dtype).eps > torch.finfo(box.dtype).eps
    result.dtype = given.dtype
    if narrower:
        result = widened(result, terms=2, name="to")

    def linear(x: Tensor) -> Tensor:
        return x.to(device=given.device, dtype=ends)

    return result.came_from(Linear(box, linear, linear, 1))


@rule("float", views=True)
def single(box: Box, memory_format: Any = None) -> Box:
    """To float32."""
    return to(box, torch.float32)


@rule("double", views=True)
def double(box: Box, memory_format: Any = None) -> Box:
    """To float64."""
    return to(box, torch.float64)


def _dropout(name: str) -> Callable[..., Box]:
    def dropout(box: Box, p: float = 0.5, training: bool = True, inplace: bool = False) -> Box:
        """Nothing in eval mode; random in train mode."""
        if training and p > 0.0:
            raise ValueError(
                "Dropout is random in train mode, so it has no bounds. Call model.eval(), or set its p to 0."
            )
        return _unchanged(box)

    return rule(name, views=True)(dropout)


for _name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"):
    _dropout(_name)

"""Where the images of a batch are, so that no operation lets one image's logits depend on another.

A box may know which of its dimensions counts the images (`Box.batch`). Each rule says where that dimension goes and refuses what sums
over it, reorders it, or merges it with another. Boxes of training do not know, and nothing is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.refusals import refuse, refuse_neighbours


def after_move(name: str, box: Box, function: Callable[[Tensor], Tensor]) -> int | None:
    """Where the images are after entries were moved about: found by moving their numbers in the same way.

    Raises:
        UnsupportedOperationError: If they are not one dimension in the old order any more.
    """
    if box.batch is None:
        return None
    count = box.shape[box.batch]
    moved = function(_numbers(count, box.ndim, box.batch, box).expand(box.shape))
    places = _places(moved, count, box)
    if not places:
        refuse_neighbours(name, f"It merges, reorders or drops images: {tuple(box.shape)} to {tuple(moved.shape)}")
    if len(places) == 1:
        return places[0]
    place = _of_two(box, box.batch, function)  # there is one image, and there are other dimensions of size 1
    if place is not None:
        return place
    return box.batch if box.batch in places else places[0]


def _of_two(box: Box, batch: int, function: Callable[[Tensor], Tensor]) -> int | None:
    """Where a batch of two images would be; None where the move names the size of the batch, so that it keeps its place."""
    shape = [2 if dim == batch else size for dim, size in enumerate(box.shape)]
    try:
        moved = function(_numbers(2, box.ndim, batch, box).expand(shape))
    except (RuntimeError, IndexError, ValueError):
        return None
    return next(iter(_places(moved, 2, box)), None)


def _places(moved: Tensor, count: int, box: Box) -> list[int]:
    """The dimensions along which the numbers of `count` images are in order."""
    return [
        dim
        for dim in range(moved.ndim)
        if moved.shape[dim] == count and bool((moved == _numbers(count, moved.ndim, dim, box)).all())
    ]


def _numbers(count: int, ndim: int, dim: int, box: Box) -> Tensor:
    return torch.arange(count, dtype=box.like.dtype, device=box.device).view(
        [-1 if d == dim else 1 for d in range(ndim)]
    )


def after_broadcast(name: str, parts: Sequence[Any], shape: torch.Size) -> int | None:
    """Where the images are in what boxes and constant tensors were broadcast to.

    Raises:
        UnsupportedOperationError: If boxes have them in different places, or a constant is not the same for all images.
    """
    places = {box.ndim - box.batch for box in parts if isinstance(box, Box) and box.batch is not None}
    if not places:
        return None
    if len(places) > 1:
        refuse_neighbours(name, "Two tensors have the images in different dimensions")
    place = places.pop()  # counted from the right, as dimensions are matched
    for part in parts:
        if isinstance(part, Tensor) and not isinstance(part, Box) and part.ndim >= place:
            same_for_all(name, part, part.ndim - place)
    return len(shape) - place


def same_for_all(name: str, constant: Tensor, dim: int) -> None:
    """Refuse a constant that differs between the images of a batch.

    Raises:
        UnsupportedOperationError: The message names the operation.
    """
    if constant.shape[dim] > 1 and not bool((constant == constant.narrow(dim, 0, 1)).all()):
        refuse_neighbours(name, "A constant differs between the places of the batch")


def images_first(name: str, box: Box, ndim: int | None = None) -> None:
    """Refuse a box whose images are not the first dimension, or that has not `ndim` dimensions.

    Raises:
        UnsupportedOperationError: The message names the operation.
    """
    if box.batch not in (None, 0):
        refuse_neighbours(name, f"It takes the images as dimension 0, got them as dimension {box.batch}")
    if ndim is not None and box.ndim != ndim:
        refuse(name, f"Its bound is for {ndim} dimensions with the images first, got shape {tuple(box.shape)}.")


def after_reduction(name: str, box: Box, dims: Any, keepdim: bool) -> tuple[tuple[int, ...], int | None]:
    """The dimensions that are reduced, and where the images are then.

    Args:
        dims: One dimension, several, or None for all.

    Raises:
        UnsupportedOperationError: If the images are reduced.
    """
    given = range(box.ndim) if dims is None else (dims,) if isinstance(dims, int) else tuple(dims) or range(box.ndim)
    chosen = tuple(sorted(dim % box.ndim for dim in given))
    if box.batch is None:
        return chosen, None
    if box.batch in chosen:
        refuse_neighbours(name, "It reduces over the images")
    return chosen, box.batch if keepdim else box.batch - sum(dim < box.batch for dim in chosen)

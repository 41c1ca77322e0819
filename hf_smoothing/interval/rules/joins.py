"""Several boxes and constants become one: exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.interval.batches import same_for_all
from hf_smoothing.interval.box import Box
from hf_smoothing.interval.constants import constant
from hf_smoothing.interval.refusals import refuse_neighbours
from hf_smoothing.interval.registry import rule
from hf_smoothing.interval.trace import Linear


def _joined(name: str, parts: Sequence[Any], dim: int, join: Callable[[list[Tensor], int], Tensor], added: int) -> Box:
    """The rule of `join`, torch.cat or torch.stack, which adds `added` dimensions at `dim`."""
    boxes = [part for part in parts if isinstance(part, Box)]
    first = boxes[0]
    known: list[Box] = []
    dtype = first.dtype
    for part in parts:
        exact = None if isinstance(part, Box) else constant(part, first)[0]
        dtype = torch.promote_types(dtype, part.dtype)
        known.append(part if exact is None else Box(exact, exact, first.trace))
    dim = dim % (first.ndim + added)
    batch = _batch(name, boxes, parts, dim, added)
    lower, upper = (join([end(part) for part in known], dim) for end in (_lower, _upper))
    result = first.make(lower, upper, batch, dtype)
    return result.came_from(*_parts(known, parts, dim, join), shift=_constants(known, parts, dim, join))


def _batch(name: str, boxes: list[Box], parts: Sequence[Any], dim: int, added: int) -> int | None:
    places = {box.batch for box in boxes}
    if len(places) > 1:
        refuse_neighbours(name, "The parts have the images in different dimensions")
    batch = places.pop()
    if batch is None:
        return None
    if not added and dim == batch:
        refuse_neighbours(name, "It joins along the images")
    for part in parts:
        if not isinstance(part, Box):
            same_for_all(name, part, batch)
    return batch + 1 if added and dim <= batch else batch


def _parts(
    known: list[Box], parts: Sequence[Any], dim: int, join: Callable[[list[Tensor], int], Tensor]
) -> list[Linear]:
    """One linear map for each box: it in its place, and 0 elsewhere."""

    def placed(position: int) -> Callable[[Tensor], Tensor]:
        def function(x: Tensor) -> Tensor:
            return join([x if k == position else torch.zeros_like(part.like) for k, part in enumerate(known)], dim)

        return function

    found = []
    for position, part in enumerate(parts):
        if isinstance(part, Box):
            function = placed(position)
            found.append(Linear(known[position], function, function, 1))
    return found


def _constants(
    known: list[Box], parts: Sequence[Any], dim: int, join: Callable[[list[Tensor], int], Tensor]
) -> Tensor | float:
    if not known[0].trace.origins or all(isinstance(part, Box) for part in parts):
        return 0.0
    pieces = [torch.zeros_like(k.like) if isinstance(p, Box) else k.like for k, p in zip(known, parts, strict=True)]
    return join(pieces, dim)


def _lower(box: Box) -> Tensor:
    return box.lower


def _upper(box: Box) -> Tensor:
    return box.upper


@rule("cat", "concat", "concatenate", boxes=("tensors",))
def cat(tensors: Any, dim: int = 0) -> Box:
    """Along a dimension that is not that of the images."""
    return _joined("cat", tensors, dim, torch.cat, 0)


@rule("stack", boxes=("tensors",))
def stack(tensors: Any, dim: int = 0) -> Box:
    """Along a new dimension."""
    return _joined("stack", tensors, dim, torch.stack, 1)

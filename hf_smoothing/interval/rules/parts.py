"""Parts of a box, and constants around it: moves like those of `moves`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.interval.box import Box
from hf_smoothing.interval.constants import number
from hf_smoothing.interval.refusals import refuse, refuse_neighbours
from hf_smoothing.interval.registry import rule
from hf_smoothing.interval.rules.moves import moved, whole
from hf_smoothing.interval.trace import Linear


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
    around = whole("pad", *pad)
    if mode == "circular" and any(
        edge < 0 for edge in around
    ):  # torch may then leave entries as it found them in memory
        refuse("pad", f"In mode circular its bound is for numbers >= 0, got {around}. Cut entries off by slicing.")
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

"""The dense tensors that weights consist of: of sparse ones their places and values, of quantised ones what they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


_ROWS = (torch.sparse_csr, torch.sparse_bsr)
_COLUMNS = (torch.sparse_csc, torch.sparse_bsc)


def dense_parts(value: Any) -> Iterator[Tensor]:
    """The dense tensors in an entry of a `state_dict`, which need not be a tensor: quantised modules keep tuples, others whatever they like.

    Args:
        value: A tensor, or a tuple or list of such entries; anything else has no parts.

    Raises:
        TypeError: If a tensor has a layout that has no parts known here.
    """
    if isinstance(value, (tuple, list)):
        for one in value:
            yield from dense_parts(one)
    elif isinstance(value, Tensor):
        yield from _parts_of(value.detach())


def _parts_of(tensor: Tensor) -> tuple[Tensor, ...]:
    if tensor.is_quantized:
        return (tensor.dequantize(),)
    if tensor.is_nested:
        return tuple(tensor.unbind())
    if tensor.layout is torch.strided:
        return (tensor,)
    if tensor.layout is torch.sparse_coo:
        one = tensor.coalesce()  # an order of its own, with one value for each place
        return one.indices(), one.values()
    if tensor.layout in _ROWS:
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in _COLUMNS:
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    raise TypeError(
        f"Weights must be dense, sparse, nested or quantised tensors, got one of layout {str(tensor.layout).removeprefix('torch.')}. Call to_dense() on it."
    )

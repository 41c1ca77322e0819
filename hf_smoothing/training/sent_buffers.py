"""Objectives that call the network several times in a step, where several ranks train it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def buffers_sent_once(network: nn.Module) -> Iterator[None]:
    """Rank 0 sends its buffers (the statistics of batch norm) before the first forward pass within, not before each.

    In torch 2.6, though not in 2.13, sending them counts as a change in place of what an earlier pass keeps, and the backward pass is refused.
    """
    if not (isinstance(network, DistributedDataParallel) and network.broadcast_buffers):
        yield
        return

    def stop(*_: Any) -> None:
        network.broadcast_buffers = False

    hook = network.register_forward_hook(stop)
    try:
        yield
    finally:
        hook.remove()
        network.broadcast_buffers = True

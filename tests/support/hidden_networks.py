"""A small network, and what hides that a classifier is one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


SHAPE = (1, 4, 4)


def network(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), *middle, nn.Linear(8, 3))


class Own:
    """A classifier of one's own around a network."""

    def __init__(self, inner: nn.Module) -> None:
        self.inner = inner

    def classify(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.inner(pixels)
        return found


class CallableOwn(Own):
    def __call__(self, pixels: Tensor) -> Tensor:
        return self.classify(pixels)


WRAPPED: dict[str, Callable[[nn.Module], Any]] = {
    "a lambda": lambda inner: lambda pixels: inner(pixels),
    "functools.partial": functools.partial,
    "an object with classify": Own,
    "the method of an object": lambda inner: Own(inner).classify,
    "a callable object": CallableOwn,
}


def saturated(logits: Tensor) -> Tensor:
    return (200 * logits).softmax(1)

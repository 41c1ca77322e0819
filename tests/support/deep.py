"""Tiny models of three blocks."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from tests.support.tiny import plain
from tests.support.tiny import smoothed as tiny_smoothed


RESNET: dict[str, Any] = {"hidden_sizes": [8, 16, 16], "depths": [1, 2, 1]}
BLOCKS = 3
DEPTH: dict[str, dict[str, Any]] = {"vit": {"num_hidden_layers": BLOCKS}, "resnet": RESNET}


def deep(kind: str, seed: int = 0) -> PreTrainedModel:
    """One of `KINDS`, with three blocks."""
    name = kind.removeprefix("smoothed-")
    return tiny_smoothed(name, seed, base=DEPTH[name]) if "-" in kind else plain(name, seed, **DEPTH[name])

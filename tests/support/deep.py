"""Tiny models of three blocks."""

from tests.support.tiny import plain
from tests.support.tiny import smoothed as tiny_smoothed


RESNET = {"hidden_sizes": [8, 16, 16], "depths": [1, 2, 1]}
BLOCKS = 3
DEPTH = {"vit": {"num_hidden_layers": BLOCKS}, "resnet": RESNET}


def deep(kind, seed=0):
    """One of `KINDS`, with three blocks."""
    name = kind.removeprefix("smoothed-")
    return tiny_smoothed(name, seed, base=DEPTH[name]) if "-" in kind else plain(name, seed, **DEPTH[name])

"""What each operation does to a box. All rules are sound: a point inside goes to a point inside.

A linear map sends centre c and half-width r to W c + b and |W| r; a non-decreasing function sends the two ends to the two ends
(Gowal et al., arXiv 1810.12715). A rule is a function whose parameters are the arguments that it has been proven for; `dispatch`
refuses all others. Importing this package enters all rules in the `registry`.
"""

from hf_smoothing.interval.rules import (
    arithmetic,
    elementwise,
    fresh,
    joins,
    moves,
    parts,
    pooling,
    products,
    turning,
    unchanged,
)


__all__ = [
    "arithmetic",
    "elementwise",
    "fresh",
    "joins",
    "moves",
    "parts",
    "pooling",
    "products",
    "turning",
    "unchanged",
]

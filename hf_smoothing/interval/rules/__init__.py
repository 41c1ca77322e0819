"""What each operation does to a box. All rules are sound: a point inside goes to a point inside.

A linear map sends centre c and half-width r to W c + b and |W| r; a non-decreasing function sends the two ends to the two ends
(Gowal et al., arXiv 1810.12715).
"""

from hf_smoothing.interval.rules import activations, arithmetic, layers, moves  # noqa: F401  # importing them registers their rules
from hf_smoothing.interval.rules.registry import RULES


__all__ = ["RULES"]

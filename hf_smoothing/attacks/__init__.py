"""Attacks in [0, 1] pixel units, on plain and on smoothed classifiers: what a certificate promises cannot succeed."""

from hf_smoothing.attacks.balls import Norm, distance, round_to_grid
from hf_smoothing.attacks.pgd import pgd, smoothed_logits


__all__ = [
    "Norm",
    "distance",
    "pgd",
    "round_to_grid",
    "smoothed_logits",
]

"""Robustness transfer: measuring and explaining the non-robustness that a finetuned model inherits from its pretraining."""

from hf_smoothing.robustness_transfer.frequency import frequency_curve, radial_filter
from hf_smoothing.robustness_transfer.robustness import (
    area_of_each,
    area_under_curve,
    attack_curve,
    decline_ratio,
    matched,
)
from hf_smoothing.robustness_transfer.similarity import MinibatchCKA, linear_cka, svcca


__all__ = [
    "MinibatchCKA",
    "area_of_each",
    "area_under_curve",
    "attack_curve",
    "decline_ratio",
    "frequency_curve",
    "linear_cka",
    "matched",
    "radial_filter",
    "svcca",
]

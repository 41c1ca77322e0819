"""What pretraining hands on: measuring and explaining the non-robustness that a finetuned model inherits."""

from hf_smoothing.transfer.frequency import frequency_curve, radial_filter
from hf_smoothing.transfer.robustness import area_of_each, area_under_curve, attack_curve, decline_ratio, matched
from hf_smoothing.transfer.similarity import MinibatchCKA, linear_cka, svcca


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

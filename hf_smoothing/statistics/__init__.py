"""What may be claimed from counts: bounds, radii and their aggregation. NumPy and SciPy only, never torch."""

from hf_smoothing.statistics.aggregate import (
    ABSTAIN,
    DEFAULT_RADII,
    CertifiedAccuracy,
    abstention_rate,
    average_certified_radius,
    certified_accuracy,
)
from hf_smoothing.statistics.binomial import (
    check_alpha,
    check_whole,
    interval,
    lower_bound,
    two_sided_pvalue,
    upper_bound,
)
from hf_smoothing.statistics.radius import (
    check_sigma,
    exact_text,
    l2_radius,
    max_radius,
    min_draws,
    probability_for_radius,
    round_down,
)


__all__ = [
    "ABSTAIN",
    "DEFAULT_RADII",
    "CertifiedAccuracy",
    "abstention_rate",
    "average_certified_radius",
    "certified_accuracy",
    "check_alpha",
    "check_sigma",
    "check_whole",
    "exact_text",
    "interval",
    "l2_radius",
    "lower_bound",
    "max_radius",
    "min_draws",
    "probability_for_radius",
    "round_down",
    "two_sided_pvalue",
    "upper_bound",
]

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
    interval,
    lower_bound,
    two_sided_pvalue,
    upper_bound,
)
from hf_smoothing.statistics.claims import (
    MOST_TARGETS,
    Claims,
    fixed_claims,
    sequential_ceiling,
    sequential_claims,
    sequential_level,
    target_boundaries,
    target_grid,
    targets_reached,
)
from hf_smoothing.statistics.paired import Paired, mcnemar, paired_difference, paired_ratio
from hf_smoothing.statistics.radius import (
    exact_text,
    l2_radius,
    max_radius,
    min_draws,
    probability_for_radius,
    round_down,
    runner_up_radius,
)
from hf_smoothing.statistics.sequential import (
    FUTILITY_QUANTILE,
    crossing_probabilities,
    error_shares,
    geometric_looks,
    hopeless,
    sequential_lower_bound,
    spending_boundaries,
    union_boundaries,
)
from hf_smoothing.units import check_alpha, check_sigma, check_whole


__all__ = [
    "ABSTAIN",
    "DEFAULT_RADII",
    "FUTILITY_QUANTILE",
    "MOST_TARGETS",
    "CertifiedAccuracy",
    "Claims",
    "Paired",
    "abstention_rate",
    "average_certified_radius",
    "certified_accuracy",
    "check_alpha",
    "check_sigma",
    "check_whole",
    "crossing_probabilities",
    "error_shares",
    "exact_text",
    "fixed_claims",
    "geometric_looks",
    "hopeless",
    "interval",
    "l2_radius",
    "lower_bound",
    "max_radius",
    "mcnemar",
    "min_draws",
    "paired_difference",
    "paired_ratio",
    "probability_for_radius",
    "round_down",
    "runner_up_radius",
    "sequential_ceiling",
    "sequential_claims",
    "sequential_level",
    "sequential_lower_bound",
    "spending_boundaries",
    "target_boundaries",
    "target_grid",
    "targets_reached",
    "two_sided_pvalue",
    "union_boundaries",
    "upper_bound",
]

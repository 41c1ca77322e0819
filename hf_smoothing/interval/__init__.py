"""Deterministic l-infinity certificates by interval bounds."""

from hf_smoothing.interval import rules  # noqa: F401  # so that all rules are registered, whichever module is imported
from hf_smoothing.interval.box import Box
from hf_smoothing.interval.callback import IntervalRadiusCallback
from hf_smoothing.interval.certificates import linf_certificates
from hf_smoothing.interval.classifier import classify_function
from hf_smoothing.interval.initialisation import initialise_for_intervals
from hf_smoothing.interval.margins import Margins, box_around, margin_bounds
from hf_smoothing.interval.radii import certified_radii
from hf_smoothing.interval.refusals import UnsupportedOperationError
from hf_smoothing.interval.runner import certify_dataset_linf
from hf_smoothing.interval.trace import Trace


__all__ = [
    "Box",
    "IntervalRadiusCallback",
    "Margins",
    "Trace",
    "UnsupportedOperationError",
    "box_around",
    "certified_radii",
    "certify_dataset_linf",
    "classify_function",
    "initialise_for_intervals",
    "linf_certificates",
    "margin_bounds",
]

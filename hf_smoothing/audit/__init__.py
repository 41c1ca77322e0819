"""Certifiers put to the test on classifiers whose class probabilities and radii are known."""

from __future__ import annotations

from hf_smoothing.audit.cases import Case, make_cases
from hf_smoothing.audit.hunt import Audit, CaseCounts, Certifier, audit_certifier
from hf_smoothing.audit.known import Bands, ExactAnswer
from hf_smoothing.audit.verdict import critical_count, power_of_hunt


__all__ = [
    "Audit",
    "Bands",
    "Case",
    "CaseCounts",
    "Certifier",
    "ExactAnswer",
    "audit_certifier",
    "critical_count",
    "make_cases",
    "power_of_hunt",
]

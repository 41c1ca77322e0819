"""Certifiers put to the test on classifiers whose class probabilities and radii are known."""

from __future__ import annotations

from hf_smoothing.audit.cases import Case, make_cases
from hf_smoothing.audit.hunt import Audit, Certifier, Tally, audit_certifier
from hf_smoothing.audit.known import Answer, Bands
from hf_smoothing.audit.verdict import critical_count, power_of_hunt


__all__ = [
    "Answer",
    "Audit",
    "Bands",
    "Case",
    "Certifier",
    "Tally",
    "audit_certifier",
    "critical_count",
    "make_cases",
    "power_of_hunt",
]

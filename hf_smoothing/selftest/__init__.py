"""Whether this installation keeps its word on this machine: known answers for noise, bounds, certificates and records."""

from __future__ import annotations

from hf_smoothing.selftest.battery import CHECKS, SelfTest, run_selftest
from hf_smoothing.selftest.lines import Line


__all__ = ["CHECKS", "Line", "SelfTest", "run_selftest"]

"""Trying to break the certificates of a run: an attack inside each certified radius."""

from hf_smoothing.attack_run.figures import ATTACK_FILE, Attacked, allowed_failures, summary, write_summary
from hf_smoothing.attack_run.running import attack_run


__all__ = ["ATTACK_FILE", "Attacked", "allowed_failures", "attack_run", "summary", "write_summary"]

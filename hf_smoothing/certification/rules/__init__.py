"""The rules of a run: the number of draws per image, and what may be claimed from them."""

from hf_smoothing.certification.rules.base import Rule
from hf_smoothing.certification.rules.fixed import FixedRule
from hf_smoothing.certification.rules.make import make_rule, rule_on
from hf_smoothing.certification.rules.sequential import SequentialRule


__all__ = ["FixedRule", "Rule", "SequentialRule", "make_rule", "rule_on"]

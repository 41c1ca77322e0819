"""The rules of a run: how many draws an image gets, and what may be claimed from them."""

from hf_smoothing.certification.rules.base import Rule
from hf_smoothing.certification.rules.fixed import FixedRule
from hf_smoothing.certification.rules.make import make_rule, rule_on
from hf_smoothing.certification.rules.sequential import SequentialRule


__all__ = ["FixedRule", "Rule", "SequentialRule", "make_rule", "rule_on"]

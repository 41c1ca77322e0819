"""Predict and certify with randomized smoothing, for any callable from [0, 1] images to logits."""

from hf_smoothing.certification.certificates import Certificate, Votes
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.noise_kinds import make_stream
from hf_smoothing.certification.procedures import Prediction, certify, predict
from hf_smoothing.certification.rounds import vote_in_rounds
from hf_smoothing.certification.rules import FixedRule, make_rule
from hf_smoothing.certification.runner import certify_dataset, process_state
from hf_smoothing.certification.sampling import count_votes, noisy_batches
from hf_smoothing.certification.sequential import SequentialRule
from hf_smoothing.noise import Draws


__all__ = [
    "Certificate",
    "Draws",
    "Execution",
    "FixedRule",
    "Prediction",
    "SequentialRule",
    "Votes",
    "certify",
    "certify_dataset",
    "count_votes",
    "make_rule",
    "make_stream",
    "noisy_batches",
    "predict",
    "process_state",
    "vote_in_rounds",
]

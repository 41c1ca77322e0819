"""Predict and certify with randomized smoothing, for any callable from [0, 1] images to logits."""

from hf_smoothing.certification.procedures import Prediction, certify, predict
from hf_smoothing.certification.rules import Certificate, FixedRule
from hf_smoothing.certification.runner import certify_dataset, process_state
from hf_smoothing.certification.sampling import Draws, count_votes, noisy_batches


__all__ = [
    "Certificate",
    "Draws",
    "FixedRule",
    "Prediction",
    "certify",
    "certify_dataset",
    "count_votes",
    "noisy_batches",
    "predict",
    "process_state",
]

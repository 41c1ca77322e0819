"""Predict and certify with randomized smoothing, for any callable from [0, 1] images to logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_smoothing.lazy import on_first_use


# Imported on first use: the command line reads the options of certification, which need no torch.
_CONTENTS = {
    "Certificate": "certificates",
    "Draws": "sampling",
    "Execution": "execution",
    "FixedRule": "rules",
    "Pending": "certificates",
    "Prediction": "procedures",
    "SequentialRule": "rules",
    "Votes": "certificates",
    "certify": "procedures",
    "certify_dataset": "runner",
    "count_votes": "sampling",
    "make_rule": "rules",
    "make_stream": "noise_kinds",
    "noisy_batches": "sampling",
    "predict": "procedures",
    "process_state": "ranks",
    "vote_in_rounds": "rounds",
}

__all__ = list(_CONTENTS)
__getattr__ = on_first_use(__name__, _CONTENTS)


if TYPE_CHECKING:
    from hf_smoothing.certification.certificates import Certificate as Certificate
    from hf_smoothing.certification.certificates import Pending as Pending
    from hf_smoothing.certification.certificates import Votes as Votes
    from hf_smoothing.certification.execution import Execution as Execution
    from hf_smoothing.certification.noise_kinds import make_stream as make_stream
    from hf_smoothing.certification.procedures import Prediction as Prediction
    from hf_smoothing.certification.procedures import certify as certify
    from hf_smoothing.certification.procedures import predict as predict
    from hf_smoothing.certification.ranks import process_state as process_state
    from hf_smoothing.certification.rounds import vote_in_rounds as vote_in_rounds
    from hf_smoothing.certification.rules import FixedRule as FixedRule
    from hf_smoothing.certification.rules import SequentialRule as SequentialRule
    from hf_smoothing.certification.rules import make_rule as make_rule
    from hf_smoothing.certification.runner import certify_dataset as certify_dataset
    from hf_smoothing.certification.sampling import count_votes as count_votes
    from hf_smoothing.certification.sampling import noisy_batches as noisy_batches
    from hf_smoothing.noise import Draws as Draws

"""Training for certified robustness: one `Trainer`, with an objective."""

from hf_smoothing.training.arguments import RobustTrainingArguments
from hf_smoothing.training.callbacks import CertifiedAccuracyCallback
from hf_smoothing.training.objectives import OBJECTIVES, Batch, Objective, ObjectiveState
from hf_smoothing.training.trainer import RobustTrainer


__all__ = [
    "OBJECTIVES",
    "Batch",
    "CertifiedAccuracyCallback",
    "Objective",
    "ObjectiveState",
    "RobustTrainer",
    "RobustTrainingArguments",
]

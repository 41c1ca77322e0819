"""What is minimised. An objective is a function `objective(model, batch, state) -> (loss, logs)`."""

import functools

from hf_smoothing.models.network import Network
from hf_smoothing.training.objectives.adversarial import adversarial_training, trades
from hf_smoothing.training.objectives.base import find_objective, of_intervals
from hf_smoothing.training.objectives.catrs import cat_rs
from hf_smoothing.training.objectives.consistency import consistency
from hf_smoothing.training.objectives.denoising import denoising
from hf_smoothing.training.objectives.discrepancy import discrepancy_mitigation, feature_distillation
from hf_smoothing.training.objectives.macer import macer
from hf_smoothing.training.objectives.masked import masked_denoising
from hf_smoothing.training.objectives.mixture import mixture_cross_entropy
from hf_smoothing.training.objectives.signature import Batch, Loss, Objective, ObjectiveState
from hf_smoothing.training.objectives.smoothadv import smoothadv, smoothmix
from hf_smoothing.training.objectives.stability import stability


OBJECTIVES: dict[str, Loss | str] = {
    "adaptive-interval": "hf_smoothing.interval.objectives:adaptive_interval",
    "adversarial": adversarial_training,
    "cat-rs": cat_rs,
    "cc-ibp": "hf_smoothing.interval.objectives:cc_ibp",
    "consistency": consistency,
    "denoising": denoising,
    "discrepancy-mitigation": discrepancy_mitigation,
    "exp-ibp": "hf_smoothing.interval.objectives:exp_ibp",
    "feature-distillation": feature_distillation,
    "macer": macer,
    "masked-denoising": masked_denoising,
    "mixture": mixture_cross_entropy,
    "mtl-ibp": "hf_smoothing.interval.objectives:mtl_ibp",
    "sabr": "hf_smoothing.interval.objectives:sabr",
    "smoothadv": smoothadv,
    "smoothmix": smoothmix,
    "stability": stability,
    "trades": trades,
}
"""By the name that `RobustTrainingArguments.objective` takes; a path where a room that builds on this one holds it."""
LABEL_FREE = ("denoising", "masked-denoising")
"""Those that need no labels."""
PROBABILITIES = ("discrepancy-mitigation", "feature-distillation", "mixture", "stability", "trades")
"""Those in which labels stand in a plain cross-entropy alone, so that they may be probabilities of the classes, float (batch, classes)."""


def takes_probabilities(objective: Objective) -> bool:
    """Whether labels may be probabilities: in those of `PROBABILITIES`."""
    return any(_bare(objective) is OBJECTIVES[name] for name in PROBABILITIES)


def needs_labels(objective: Objective) -> bool:
    """Whether labels must be there: in ours but those of `LABEL_FREE`; one of the user's own may do without."""
    return of_this_library(objective) and not any(_bare(objective) is OBJECTIVES[name] for name in LABEL_FREE)


def of_this_library(objective: Objective) -> bool:
    """Whether an objective is one of ours, with settings or without; one of the user's own may take any labels."""
    return getattr(_bare(objective), "__module__", "").startswith("hf_smoothing.")


def _bare(objective: Objective) -> Objective:
    while isinstance(objective, functools.partial):
        objective = objective.func
    return objective


__all__ = [
    "LABEL_FREE",
    "OBJECTIVES",
    "PROBABILITIES",
    "Batch",
    "Loss",
    "Network",
    "Objective",
    "ObjectiveState",
    "adversarial_training",
    "cat_rs",
    "consistency",
    "denoising",
    "discrepancy_mitigation",
    "feature_distillation",
    "find_objective",
    "macer",
    "masked_denoising",
    "mixture_cross_entropy",
    "needs_labels",
    "of_intervals",
    "of_this_library",
    "smoothadv",
    "smoothmix",
    "stability",
    "takes_probabilities",
    "trades",
]

"""Image classifiers whose robustness is certified, for transformers, datasets, accelerate and evaluate."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_smoothing.registration import register as _register


__version__ = "0.1.0.dev0"

# The table of contents: public name -> the module it lives in. Imported on first use, since torch and transformers
# take seconds.
_CONTENTS = {
    "ABSTAIN": "hf_smoothing.statistics",
    "Certificate": "hf_smoothing.certification",
    "CertifiedAccuracyCallback": "hf_smoothing.training",
    "CertifiedImageClassificationPipeline": "hf_smoothing.models",
    "CnnSevenConfig": "hf_smoothing.models",
    "CnnSevenForImageClassification": "hf_smoothing.models",
    "DenoisedClassifierConfig": "hf_smoothing.models",
    "DenoisedClassifierForImageClassification": "hf_smoothing.models",
    "EnsembleConfig": "hf_smoothing.models",
    "EnsembleForImageClassification": "hf_smoothing.models",
    "Framing": "hf_smoothing.data",
    "NoiseMixture": "hf_smoothing.noise",
    "NoisyImageProcessor": "hf_smoothing.models",
    "NoisyImageProcessorPil": "hf_smoothing.models",
    "PixelDataset": "hf_smoothing.data",
    "PixelStream": "hf_smoothing.data",
    "Prediction": "hf_smoothing.certification",
    "Preprocessing": "hf_smoothing.preprocessing",
    "RobustTrainer": "hf_smoothing.training",
    "RobustTrainingArguments": "hf_smoothing.training",
    "SmoothedClassifier": "hf_smoothing.models",
    "SmoothedClassifierConfig": "hf_smoothing.models",
    "certified_accuracy_path": "hf_smoothing.metrics",
    "certify": "hf_smoothing.certification",
    "certify_dataset": "hf_smoothing.certification",
    "classifier_from_autoencoder": "hf_smoothing.models",
    "denoised_classifier": "hf_smoothing.models",
    "predict": "hf_smoothing.certification",
    "read_run": "hf_smoothing.records",
    "smoothed_ensemble": "hf_smoothing.models",
}

__all__ = ["__version__", *_CONTENTS]


def __getattr__(name: str) -> Any:
    if name not in _CONTENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_CONTENTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from hf_smoothing.certification import Certificate, Prediction, certify, certify_dataset, predict
    from hf_smoothing.data import Framing, PixelDataset, PixelStream
    from hf_smoothing.metrics import certified_accuracy_path
    from hf_smoothing.models import (
        CertifiedImageClassificationPipeline,
        CnnSevenConfig,
        CnnSevenForImageClassification,
        DenoisedClassifierConfig,
        DenoisedClassifierForImageClassification,
        EnsembleConfig,
        EnsembleForImageClassification,
        NoisyImageProcessor,
        NoisyImageProcessorPil,
        SmoothedClassifier,
        SmoothedClassifierConfig,
        classifier_from_autoencoder,
        denoised_classifier,
        smoothed_ensemble,
    )
    from hf_smoothing.noise import NoiseMixture
    from hf_smoothing.preprocessing import Preprocessing
    from hf_smoothing.records import read_run
    from hf_smoothing.statistics import ABSTAIN
    from hf_smoothing.training import CertifiedAccuracyCallback, RobustTrainer, RobustTrainingArguments

_register()

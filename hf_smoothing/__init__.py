"""Certified robustness for Hugging Face image classifiers: train, certify and report, by randomized smoothing or interval bounds."""

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


if TYPE_CHECKING:  # `as`: a strict type checker takes these names for public ones
    from hf_smoothing.certification import Certificate as Certificate
    from hf_smoothing.certification import Prediction as Prediction
    from hf_smoothing.certification import certify as certify
    from hf_smoothing.certification import certify_dataset as certify_dataset
    from hf_smoothing.certification import predict as predict
    from hf_smoothing.data import Framing as Framing
    from hf_smoothing.data import PixelDataset as PixelDataset
    from hf_smoothing.data import PixelStream as PixelStream
    from hf_smoothing.metrics import certified_accuracy_path as certified_accuracy_path
    from hf_smoothing.models import CertifiedImageClassificationPipeline as CertifiedImageClassificationPipeline
    from hf_smoothing.models import CnnSevenConfig as CnnSevenConfig
    from hf_smoothing.models import CnnSevenForImageClassification as CnnSevenForImageClassification
    from hf_smoothing.models import DenoisedClassifierConfig as DenoisedClassifierConfig
    from hf_smoothing.models import (
        DenoisedClassifierForImageClassification as DenoisedClassifierForImageClassification,
    )
    from hf_smoothing.models import EnsembleConfig as EnsembleConfig
    from hf_smoothing.models import EnsembleForImageClassification as EnsembleForImageClassification
    from hf_smoothing.models import NoisyImageProcessor as NoisyImageProcessor
    from hf_smoothing.models import NoisyImageProcessorPil as NoisyImageProcessorPil
    from hf_smoothing.models import SmoothedClassifier as SmoothedClassifier
    from hf_smoothing.models import SmoothedClassifierConfig as SmoothedClassifierConfig
    from hf_smoothing.models import classifier_from_autoencoder as classifier_from_autoencoder
    from hf_smoothing.models import denoised_classifier as denoised_classifier
    from hf_smoothing.models import smoothed_ensemble as smoothed_ensemble
    from hf_smoothing.noise import NoiseMixture as NoiseMixture
    from hf_smoothing.preprocessing import Preprocessing as Preprocessing
    from hf_smoothing.records import read_run as read_run
    from hf_smoothing.statistics import ABSTAIN as ABSTAIN
    from hf_smoothing.training import CertifiedAccuracyCallback as CertifiedAccuracyCallback
    from hf_smoothing.training import RobustTrainer as RobustTrainer
    from hf_smoothing.training import RobustTrainingArguments as RobustTrainingArguments

_register()

"""`transformers` classes: the smoothed classifier, CNN-7, ensembles, denoised classifiers, and the image processor that adds noise."""

from hf_smoothing.data import NoisyImageProcessor, NoisyImageProcessorPil
from hf_smoothing.models.adapters import add_lora, load_adapters, merge_lora, save_adapters
from hf_smoothing.models.cnn_seven import CnnSevenConfig, CnnSevenForImageClassification
from hf_smoothing.models.configuration import SmoothedClassifierConfig
from hf_smoothing.models.denoised import (
    DenoisedClassifierConfig,
    DenoisedClassifierForImageClassification,
    denoised_classifier,
)
from hf_smoothing.models.ensemble import EnsembleConfig, EnsembleForImageClassification, smoothed_ensemble
from hf_smoothing.models.masked import classifier_from_autoencoder
from hf_smoothing.models.network import new_head
from hf_smoothing.models.pipeline import TASK, CertifiedImageClassificationPipeline, NoDefaultModel
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier


__all__ = [
    "CertifiedImageClassificationPipeline",
    "CnnSevenConfig",
    "CnnSevenForImageClassification",
    "DenoisedClassifierConfig",
    "DenoisedClassifierForImageClassification",
    "EnsembleConfig",
    "EnsembleForImageClassification",
    "NoisyImageProcessor",
    "NoisyImageProcessorPil",
    "SmoothedClassifier",
    "SmoothedClassifierConfig",
    "add_lora",
    "classifier_from_autoencoder",
    "denoised_classifier",
    "load_adapters",
    "merge_lora",
    "new_head",
    "save_adapters",
    "smoothed_ensemble",
]


def _register() -> None:
    # For models that are here already; `hf_smoothing.registration` has this module imported when a checkpoint asks for one.
    from transformers import AutoConfig, AutoModelForImageClassification

    # From its own module: transformers 5.11 to 5.16 offer it at the top only where torchvision is, which it does without.
    from transformers.models.auto.image_processing_auto import AutoImageProcessor
    from transformers.pipelines import PIPELINE_REGISTRY

    for model in (
        SmoothedClassifier,
        CnnSevenForImageClassification,
        EnsembleForImageClassification,
        DenoisedClassifierForImageClassification,
    ):
        AutoConfig.register(model.config_class.model_type, model.config_class, exist_ok=True)
        AutoModelForImageClassification.register(model.config_class, model, exist_ok=True)
    processors = {"pil": NoisyImageProcessorPil}
    if NoisyImageProcessor is not NoisyImageProcessorPil:
        processors["torchvision"] = NoisyImageProcessor
    AutoImageProcessor.register(SmoothedClassifierConfig, image_processor_classes=processors, exist_ok=True)
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            CertifiedImageClassificationPipeline,
            pt_model=AutoModelForImageClassification,
            default={"model": NoDefaultModel()},
            type="image",
        )


_register()

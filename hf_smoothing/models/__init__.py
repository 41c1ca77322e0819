"""`transformers` classes: the smoothed classifier, its configuration, and the image processor that adds noise."""

from hf_smoothing.models.configuration import SmoothedClassifierConfig
from hf_smoothing.models.image_processing import NoisyImageProcessor, NoisyImageProcessorPil
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier


__all__ = [
    "NoisyImageProcessor",
    "NoisyImageProcessorPil",
    "SmoothedClassifier",
    "SmoothedClassifierConfig",
    "register",
]


def register() -> None:
    """Make `AutoConfig`, `AutoModelForImageClassification` and `AutoImageProcessor` know the classes of this package.

    Runs on the first access to any model name of `hf_smoothing`; calling it again changes nothing.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

    AutoConfig.register(SmoothedClassifierConfig.model_type, SmoothedClassifierConfig, exist_ok=True)
    AutoModelForImageClassification.register(SmoothedClassifierConfig, SmoothedClassifier, exist_ok=True)
    processors = {"pil": NoisyImageProcessorPil}
    if NoisyImageProcessor is not NoisyImageProcessorPil:
        processors["torchvision"] = NoisyImageProcessor
    AutoImageProcessor.register(SmoothedClassifierConfig, image_processor_classes=processors, exist_ok=True)


register()

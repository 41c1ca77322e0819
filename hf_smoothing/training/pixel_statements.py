"""Where the resize and the normalisation of a plain backbone in training come from: one place, or several that agree."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import PreTrainedModel

from hf_smoothing.data.framing import Framing
from hf_smoothing.data.processors import ProcessorPixels, noted_pixels, read_processor
from hf_smoothing.models.checkpoint_pixels import check_same_pixels
from hf_smoothing.models.configuration import input_channels, per_channel
from hf_smoothing.models.forward import logits_of
from hf_smoothing.models.level_range import warn_of_levels
from hf_smoothing.models.masked import is_autoencoder
from hf_smoothing.models.probes import check_forward
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier
from hf_smoothing.preprocessing import Preprocessing, parse_size
from hf_smoothing.training.arguments import RobustTrainingArguments


if TYPE_CHECKING:
    from transformers import BaseImageProcessor


def find_preprocessing(
    model: PreTrainedModel, args: RobustTrainingArguments, processor: BaseImageProcessor | None
) -> Preprocessing | None:
    """Resize and normalisation of a plain backbone; None where the model or the processor does it.

    Raises:
        ValueError: If they are not known, the processor's cannot be expressed, or two disagree of the arguments, the processor and the note of an
            earlier training, of which one is saved with the model.
    """
    if isinstance(model, SmoothedClassifier):
        return None
    channels, noted = input_channels(model.config), noted_pixels(model.config)
    ready = args.noise_owner == "processor"
    known = None if processor is None or (ready and noted is None) else read_processor(processor, channels)
    note = "the note of an earlier training in model.config.hf_smoothing"
    forget = (
        "take the pixels from the note, or remove it to train on others from now on, del model.config.hf_smoothing"
    )
    if known is not None and noted is not None:
        check_same_pixels(known, noted, "The image processor", note, cure=forget)
    if ready:
        return None
    asked = None
    if args.image_mean is not None and args.image_std is not None:
        mean, std = (per_channel(values, channels) for values in (args.image_mean, args.image_std))
        if channels not in (None, len(mean)):
            raise ValueError(
                f"`image_mean` and `image_std` need one value per channel, {channels} for this {type(model).__name__}, got {len(mean)}. One value is for all."
            )
        asked = Preprocessing(tuple(mean), tuple(std), parse_size(args.model_size))
    said = known or noted
    if said is None:
        if asked is None:
            raise ValueError(
                f"The normalisation of this {type(model).__name__} is not known. Pass its image processor as processing_class, or image_mean and "
                "image_std (and model_size, if images are resized for it) in RobustTrainingArguments."
            )
        return asked
    size = parse_size(args.model_size) or said.preprocessing.model_size or said.framing.size
    used = replace(asked or said.preprocessing, model_size=size)
    whose, cure = (
        (note, forget)
        if known is None
        else ("the image processor", "leave these arguments out, or correct the processor")
    )
    check_same_pixels(ProcessorPixels(said.framing, used), said, "The arguments", whose, cure=cure)
    if known is not None:
        if asked is None:
            warn_of_levels(processor, known, f"This {type(processor).__name__}")
        if not is_autoencoder(model):
            _check_backbone(model, used, known.framing)
    return used


def processor_preprocessing(processor: Any, model: PreTrainedModel) -> Preprocessing:
    """Resize and normalisation by which an image processor makes what a plain backbone takes of [0, 1] pixels.

    Raises:
        ValueError: If there is no processor, or what it does cannot be expressed.
    """
    if processor is None:
        raise ValueError(
            "With noise_owner='processor' only the image processor knows how a plain network's pixels are made, and there is none. Pass it to the "
            "trainer as processing_class, to classify [0, 1] pixels."
        )
    known = read_processor(processor, input_channels(model.config))
    return replace(known.preprocessing, model_size=known.preprocessing.model_size or known.framing.size)


def _check_backbone(model: PreTrainedModel, preprocessing: Preprocessing, framing: Framing) -> None:
    def classify(pixels: Tensor) -> Any:
        return logits_of(model, preprocessing(pixels).to(model.dtype))

    check_forward(model, classify, framing, model.config.num_labels, type(model).__name__)

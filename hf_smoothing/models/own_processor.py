"""Whether an image processor makes the pixels that a `SmoothedClassifier` takes."""

from __future__ import annotations

from typing import Any

from hf_smoothing.data.processors import ProcessorPixels, read_processor
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier
from hf_smoothing.preprocessing import Preprocessing


def check_own_processor(processor: Any, model: SmoothedClassifier) -> None:
    """Refuse an image processor that makes other pixels of an image than `model.image_processor()`, noise apart.

    All that it does is compared: a picture that is normalised, or rescaled otherwise, may still lie in [0, 1], and be another picture.

    Raises:
        ValueError: The message says what both make.
    """
    framing = model.config.framing()
    units = Preprocessing((0.0,) * framing.channels, (1.0,) * framing.channels)
    cure = "Pass model.image_processor(), which is saved with the model."
    wanted = f"A SmoothedClassifier resizes and normalises for its network itself, and takes [0, 1] pixels made as {framing}"
    try:
        made = read_processor(processor, framing.channels)
    except ValueError as error:
        raise ValueError(
            f"{wanted}. What the image processor makes cannot be compared with that. {error} {cure}"
        ) from error
    if made != ProcessorPixels(framing, units):
        raise ValueError(
            f"{wanted}, got an image processor that makes {made.framing} with {made.preprocessing}. {cure}"
        )

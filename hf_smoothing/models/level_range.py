"""A normalisation for pixels in [0, 1] that an image processor applies to levels 0..255."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from hf_smoothing.data.processors import ProcessorPixels


if TYPE_CHECKING:
    from transformers import BaseImageProcessor


def warn_of_levels(processor: BaseImageProcessor, found: ProcessorPixels, whose: str) -> None:
    """Warn where the network sees values far beyond levels, or levels less a fraction of one: most likely a rescale to [0, 1] is left out by mistake.

    Levels as they are (0..255), and less a mean of levels, are what some networks are trained on.

    Args:
        processor: The image processor.
        found: What it does.
        whose: Whose processor it is, for the message.
    """
    ready = found.preprocessing
    ends = [((0.0 - m) / s, (1.0 - m) / s) for m, s in zip(ready.image_mean, ready.image_std, strict=True)]
    if not any(white > 256.0 or (white - black > 250.0 and -10.0 < black < -0.01) for black, white in ends):
        return
    low, high = min(black for black, _ in ends), max(white for _, white in ends)
    known = {
        name: getattr(processor, name, None) for name in ("image_mean", "image_std", "do_rescale", "rescale_factor")
    }
    mean, std, *scaling = (f"{name}={value}" for name, value in known.items())
    warnings.warn(
        f"{whose} gives the network values from {low:.4g} to {high:.4g}, as if it had been trained on levels 0..255 with {mean} and {std} "
        f"({', '.join(scaling)}). If these are for pixels in [0, 1], its answers are for other images: set do_rescale to true and rescale_factor to "
        f"{1 / 255!r} in preprocessor_config.json, or pass {mean} and {std}.",
        stacklevel=4,
    )

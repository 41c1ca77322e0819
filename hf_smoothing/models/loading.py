"""What a command line names, loaded: a classifier in eval mode on its device."""

from __future__ import annotations

from typing import Any

from hf_smoothing.certification.classifiers import check_finite
from hf_smoothing.certification.ranks import process_state
from hf_smoothing.models.configuration import SmoothedClassifierConfig
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier
from hf_smoothing.models.weights import read_config


def load_classifier(path: str, *, sigma: float, size: int | None = None, device: str | None = None) -> Any:
    """A `SmoothedClassifier` in eval mode on the device, from its own checkpoint or around a plain one.

    Raises:
        ValueError: If the checkpoint is neither, an adapter, a pickle or damaged, lacks tensors or has others than its network, or holds
            weights that are not finite.
    """
    model = _load(path, read_config(path, {}), sigma, size)
    check_finite(model, f"The weights of {path}")
    target = device or process_state().device
    try:
        return model.to(target).eval()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"The device {str(target)!r} cannot be used here ({str(error).splitlines()[0]}). Try device='cpu'."
        ) from error


def _load(path: str, config: Any, sigma: float, size: int | None) -> Any:
    if isinstance(config, SmoothedClassifierConfig):
        if size is not None and [size, size] != list(config.size):
            raise ValueError(
                f"{path} is certified at {tuple(config.size)}; leave `size` out. For another size finetune a plain classifier with it: "
                f"SmoothedClassifier.from_base_pretrained(..., size={size})."
            )
        model = SmoothedClassifier.from_pretrained(path)
        model.noise_level(sigma)  # warns where the noise is another than it is made for
        return model
    return SmoothedClassifier.from_base_pretrained(path, sigma=sigma, size=size)

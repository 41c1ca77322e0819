"""What a command line names, loaded: a classifier in eval mode on its device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_smoothing.certification.classifiers import check_finite
from hf_smoothing.certification.ranks import process_state
from hf_smoothing.models.checkpoint_pixels import pixel_settings
from hf_smoothing.models.configuration import SmoothedClassifierConfig
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier
from hf_smoothing.models.weights import read_config


def load_classifier(
    path: str,
    *,
    sigma: float,
    size: int | None = None,
    device: str | None = None,
    image_mean: Sequence[float] | None = None,
    image_std: Sequence[float] | None = None,
) -> Any:
    """A `SmoothedClassifier` in eval mode on the device, from its own checkpoint or around a plain one.

    Args:
        path: Hub id or folder.
        sigma, size, image_mean, image_std: As in `SmoothedClassifier.from_base_pretrained`; the last two only where the checkpoint does not say them.
        device: Device; by default that of this process.

    Raises:
        ValueError: If a size contradicts the checkpoint, or it states a normalisation that is given as well; if the checkpoint is neither, an adapter,
            a pickle or damaged, lacks tensors or has others than its network, or holds weights that are not finite.
    """
    given = {
        name: list(values)
        for name, values in (("image_mean", image_mean), ("image_std", image_std))
        if values is not None
    }
    model = _load(path, read_config(path, {}), sigma, size, given)
    check_finite(model, f"The weights of {path}")
    target = device or process_state().device
    try:
        return model.to(target).eval()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"The device {str(target)!r} cannot be used here ({str(error).splitlines()[0]}). Try device='cpu'."
        ) from error


def _load(path: str, config: Any, sigma: float, size: int | None, given: Mapping[str, Any]) -> Any:
    if isinstance(config, SmoothedClassifierConfig):
        if size is not None and [size, size] != list(config.size):
            raise ValueError(
                f"{path} is certified at {tuple(config.size)}; leave `size` out. For another size finetune a plain classifier with it: "
                f"SmoothedClassifier.from_base_pretrained(..., size={size})."
            )
        _check_unsaid(path, config.to_dict(), given)
        model = SmoothedClassifier.from_pretrained(path)
        model.noise_level(sigma)  # warns where the noise is another than it is made for
        return model
    wrapped = SmoothedClassifier.from_base_pretrained(path, sigma=sigma, size=size, **given)
    if given:
        settled = {**given, "size": size} if size is not None else given
        _check_unsaid(path, pixel_settings(wrapped.base_network.config, path, settled), given)
    return wrapped


def _check_unsaid(path: str, said: Mapping[str, Any], given: Mapping[str, Sequence[float]]) -> None:
    """Refuse a normalisation that a checkpoint states itself: another one would be a network that nobody trained.

    Raises:
        ValueError: The message names what is stated.
    """
    if stated := [f"{name} {list(said[name])}" for name in given if said.get(name) is not None]:
        raise ValueError(
            f"{path} says itself how its pixels are normalised ({', '.join(stated)}). Leave {' and '.join(f'`{name}`' for name in given)} out."
        )

"""What a command line names, loaded: a classifier in eval mode on its device, and a split of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import get_dataset_split_names, load_dataset
from datasets.exceptions import DatasetGenerationError
from transformers import AutoConfig

from hf_smoothing.certification.classifiers import check_finite
from hf_smoothing.certification.runner import process_state
from hf_smoothing.models import SmoothedClassifier, SmoothedClassifierConfig
from hf_smoothing.models.weights import check_no_adapter


def load_classifier(path: str, *, sigma: float, size: int | None = None, device: str | None = None) -> Any:
    """A `SmoothedClassifier` in eval mode on the device, from its own checkpoint or around a plain one.

    Raises:
        ValueError: if the checkpoint is neither, an adapter, a pickle or damaged, lacks tensors or has others than its network, or holds
            weights that are not finite.
    """
    check_no_adapter(path)
    try:
        config = AutoConfig.from_pretrained(path)
    except OSError as error:
        raise _not_found("model", path, error) from error
    model = _load(path, config, sigma, size)
    check_finite(model, f"The weights of {path}")
    target = device or process_state().device
    try:
        return model.to(target).eval()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"The device {str(target)!r} cannot be used here ({str(error).splitlines()[0]}). Try --device cpu."
        ) from error


def _load(path: str, config: Any, sigma: float, size: int | None) -> Any:
    if isinstance(config, SmoothedClassifierConfig):
        if size is not None and [size, size] != list(config.size):
            raise ValueError(f"{path} is certified at {tuple(config.size)}; leave --size out.")
        model = SmoothedClassifier.from_pretrained(path)
        model.noise_level(sigma)  # warns where the noise is another than it is made for
        return model
    return SmoothedClassifier.from_base_pretrained(path, sigma=sigma, size=size)


def load_split(path: str, split: str, streaming: bool = False) -> Any:
    """One split of a data set on the Hub or in a folder.

    Raises:
        ValueError: if there is no such split, naming those that exist.
    """
    try:
        return load_dataset(path, split=split, streaming=streaming)
    except OSError as error:
        raise _not_found("data set", path, error) from error
    except (DatasetGenerationError, RuntimeError) as error:
        raise ValueError(
            f"{path} cannot be read as a data set of images ({error}). Pass a Hub id, or a folder of images or parquet files."
        ) from error
    except ValueError as error:
        if "split" not in str(error).lower():
            raise
        raise ValueError(
            f"{path} has no split {split!r}; it has {get_dataset_split_names(path)}. Pass --split."
        ) from error


def _not_found(kind: str, path: str, error: OSError) -> ValueError:
    here = Path(path)
    place = "is a folder without one" if here.is_dir() else "is no folder here, and was not found on the Hub"
    if here.is_file():
        place = "is a file, where its folder is wanted"
    return ValueError(f"No {kind} could be read from {path!r}: it {place} ({str(error).strip().splitlines()[0]}).")

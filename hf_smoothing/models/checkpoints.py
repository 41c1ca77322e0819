"""Reading checkpoints: safetensors only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

from hf_smoothing.keywords import meant
from hf_smoothing.models.adapters import check_merged
from hf_smoothing.models.class_maps import check_names, check_numbers, inverse, numbered
from hf_smoothing.models.configuration import SmoothedClassifierConfig
from hf_smoothing.models.weights import HUB, LOADING, load_whole, read_config
from hf_smoothing.units import check_whole


def load_base_classifier(path: str | os.PathLike[str], **kwargs: Any) -> PreTrainedModel:
    """`AutoModelForImageClassification.from_pretrained`, from safetensors only, in float32 unless `dtype` is given.

    Raises:
        ValueError: See `read_config`, `load_whole` and `checked_classes`; if `label2id` is not the inverse of the names; as `check_plain`.
    """
    check_plain(path, kwargs)
    return _load(path, kwargs)


def check_plain(base: Any, loading: Mapping[str, Any]) -> None:
    """Refuse a `SmoothedClassifier` where what is to be wrapped is wanted, before its weights are read.

    Args:
        base: Folder or Hub id, a model, or anything.
        loading: Arguments of `from_pretrained`.

    Raises:
        ValueError: The message has the cure; as `read_config`.
    """
    named = isinstance(base, str | os.PathLike)
    config = read_config(base, loading) if named and "config" not in loading else getattr(base, "config", None)
    if isinstance(config, SmoothedClassifierConfig):
        raise ValueError(
            f"A plain image classifier is wanted, got {os.fspath(base) if named else 'a model'} that is a SmoothedClassifier already. Load it with "
            "SmoothedClassifier.from_pretrained(path), and train that further; for other classes or pixels pass the checkpoint that it was made from, or its "
            "base_network."
        )


def _load(path: str | os.PathLike[str], kwargs: Mapping[str, Any]) -> PreTrainedModel:
    kwargs = checked_classes(kwargs)
    if "config" not in kwargs:
        config = read_config(path, kwargs)
        asked = [kwargs.pop(name, None) for name in ("id2label", "num_labels", "label2id")]
        kwargs = _classes(config, *asked) | kwargs
    # Checkpoints are often stored in half precision; computing in it must be asked for.
    model: PreTrainedModel = load_whole(AutoModelForImageClassification.from_pretrained, path, in_float32(kwargs))
    return model


def checked_classes(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for a network, among them the classes that are asked for: `num_labels` as an int, names for each of them.

    Raises:
        ValueError: If `num_labels` is no number of classes; as `check_names`.
    """
    asked = dict(kwargs)
    if asked.get("num_labels") is not None:
        asked["num_labels"] = check_whole(asked["num_labels"], "num_labels")
        if asked["num_labels"] < 1:
            raise ValueError(
                f"`num_labels` must be the number of classes, at least 1, got {asked['num_labels']}. Pass that of the data set, such as num_labels=10."
            )
    if asked.get("id2label") is not None:
        check_names(asked["id2label"], asked.get("num_labels"))
    return asked


def _classes(config: PreTrainedConfig, id2label: Any, num_labels: int | None, label2id: Any) -> dict[str, Any]:
    """The classes that are asked for, as arguments of `from_pretrained` of which none is compared with the checkpoint's own classes: it logs a warning where
    a number differs from theirs, and keeps their numbers by name where only names by number are given.

    Args:
        config: Configuration of the checkpoint.
        id2label, num_labels, label2id: As the caller gives them.

    Raises:
        ValueError: As `check_numbers`.
    """
    if id2label is None and num_labels not in (None, config.num_labels):
        id2label = {number: f"LABEL_{number}" for number in range(num_labels)}
    if label2id is not None:
        id2label = id2label or config.id2label
        check_numbers(label2id, id2label)
    if id2label is None:
        return {} if num_labels is None else {"num_labels": num_labels}
    names = {int(number): name for number, name in id2label.items()}
    classes = {"id2label": names, "label2id": numbered(label2id) or inverse(names)}
    # A PvtConfig keeps the number beside the names.
    counted = not isinstance(getattr(type(config), "num_labels", None), property)
    return classes | ({"num_labels": len(id2label)} if counted else {})


def in_float32(loading: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `from_pretrained`, with float32 where no dtype is given, by its new or old name."""
    given = "dtype" in loading or "torch_dtype" in loading
    return dict(loading) if given else {**loading, "dtype": torch.float32}


def find_network(base: str | os.PathLike[str] | PreTrainedModel, loading: Mapping[str, Any]) -> PreTrainedModel:
    """The network itself, or the one of a checkpoint.

    Args:
        base: Folder or Hub id of an image classifier, or the model.
        loading: Arguments of `from_pretrained`, for a checkpoint.

    Raises:
        TypeError: If it is neither, a `PeftModel`, or there are arguments for a model that is there already.
        ValueError: If the checkpoint is refused, see `load_whole`, or the network has adapters, which would be lost.
    """
    check_merged(base)
    if isinstance(base, PreTrainedModel):
        if loading:
            known = {*SmoothedClassifierConfig.__annotations__, *HUB, *LOADING}
            cure = meant(
                next((name for name in loading if name not in known), ""), known, "Pass its path, or leave them out."
            )
            raise TypeError(
                f"{', '.join(loading)}: only a checkpoint is loaded with these, got a {type(base).__name__}. {cure}"
            )
        return base
    if not isinstance(base, str | os.PathLike):
        raise TypeError(
            f"What is wrapped must be a folder, a Hub id or a model of transformers, got {type(base).__name__}. Any module of [0, 1] pixels can be "
            "certified without: hf_smoothing.certify(module, images, sigma=...)."
        )
    model = _load(base, loading)
    check_merged(model)  # a folder with an adapter beside the network
    return model

"""Whether a data set has the classes that a head is for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch.utils.data import ConcatDataset, Subset
from transformers import PreTrainedModel

from hf_smoothing.spelling import differing_classes, has_names, plain


def check_classes(model: PreTrainedModel, dataset: object) -> None:
    """Refuse to train or evaluate a head on classes that it names otherwise, spelling apart; nothing is checked where either has no names.

    Args:
        model: Model whose configuration names the classes.
        dataset: A data set, a `Subset` or `ConcatDataset` of torch, several by name, or anything. What is derived from these, or holds a data set in
            another way, may number the classes anew, so it is taken as it is.

    Raises:
        ValueError: If they differ; the message shows both. Where a transform may number the classes anew it is a warning.
    """
    if isinstance(dataset, Mapping) or type(dataset) is ConcatDataset:
        for part in dataset.values() if isinstance(dataset, Mapping) else dataset.datasets:
            check_classes(model, part)
        return
    if type(dataset) is Subset:
        return check_classes(model, dataset.dataset)
    cast, features, sure = None, getattr(dataset, "features", None), True
    if hasattr(dataset, "names"):
        names = dataset.names
    elif isinstance(features, Mapping):
        column = "labels" if "labels" in features else "label"
        names = getattr(features.get(column), "names", None)
        cast = f"dataset.cast_column({column!r}, datasets.Value('int64'))"
        # A transform may make "labels" of it, which the collator would take.
        sure = column == "labels" or getattr(dataset, "format", {}).get("type") != "custom"
    else:
        return
    known = dict(model.config.id2label or {})
    own = [str(known[k]) for k in sorted(known)]
    if names is None or not has_names(own) or next(differing_classes(names, known), None) is None:
        return
    keep = "pass id2label=model.config.id2label to PixelDataset, which orders the labels as the model does."
    cure = (
        "For a new head load the model with id2label=dict(enumerate(names)), label2id={name: k for k, name in enumerate(names)} and "
        f"ignore_mismatched_sizes=True; to keep the head {keep}"
    )
    if sorted(map(plain, map(str, names))) == sorted(map(plain, own)):  # loading refuses these names in another order
        cure = (
            f"They are the same in another order: {keep[0].upper()}{keep[1:]} To train a new head draw its weights again as well: "
            "from hf_smoothing.models import new_head; new_head(model)"
        )
    if cast is not None:
        cure += f" If a transform orders the labels already, take the old names away: {cast}."
    said = f"The data set has the classes {list(names)[:4]}... ({len(names)}), but the head is for {own[:4]}... ({len(own)}). {cure}"
    if sure:
        raise ValueError(said)
    warnings.warn(said, stacklevel=4)

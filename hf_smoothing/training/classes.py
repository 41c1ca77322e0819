"""Whether a data set has the classes that a head is for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from transformers import PreTrainedModel

from hf_smoothing.spelling import differing_classes, has_names, plain


def check_classes(model: PreTrainedModel, dataset: object) -> None:
    """Refuse to train or evaluate a head on classes that it names otherwise, spelling apart; nothing is checked where either has no names.

    Args:
        model: Model whose configuration names the classes.
        dataset: A data set, a part of one or several together, such as a `Subset` or `ConcatDataset` of torch, or several by name, or anything.

    Raises:
        ValueError: If they differ; the message shows both.
    """
    parts = dataset.values() if isinstance(dataset, Mapping) else getattr(dataset, "datasets", None)
    if isinstance(parts, Iterable):
        for part in parts:
            check_classes(model, part)
        return
    if hasattr(dataset, "names"):
        names, cast = dataset.names, None
    elif getattr(dataset, "features", None):
        column, names = _label_names(dataset)
        cast = f"dataset.cast_column({column!r}, datasets.Value('int64'))"
    elif getattr(dataset, "dataset", None) is not None:
        check_classes(model, dataset.dataset)  # type: ignore[attr-defined]
        return
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
    raise ValueError(
        f"The data set has the classes {list(names)[:4]}... ({len(names)}), but the head is for {own[:4]}... ({len(own)}). {cure}"
    )


def _label_names(dataset: Any) -> tuple[str, list[str] | None]:
    """The column of a data set of `datasets` that a collator takes for the labels, and the names of its classes; None without."""
    column = "labels" if "labels" in dataset.features else "label"
    return column, getattr(dataset.features.get(column), "names", None)

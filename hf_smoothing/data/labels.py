"""Class names of a data set and the classes of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def class_names(dataset: Any, label_column: str | None) -> list[str] | None:
    """The names of a ClassLabel column in order, or None."""
    feature = (getattr(dataset, "features", None) or {}).get(label_column)
    names = getattr(feature, "names", None)
    return None if names is None else list(names)


def align_labels(names: Sequence[str] | None, id2label: Mapping[int, str] | None) -> list[int] | None:
    """For each class of a data set its number in the model, matched by name; None if no translation is needed.

    Args:
        names: class names of the data set in order, if it has any.
        id2label: the model's label map, if there is one. Maps of the kind LABEL_0, LABEL_1, ... have no names to match.

    Raises:
        ValueError: if the number of classes differs, or the names do.
    """
    if names is None or id2label is None:
        return None
    by_number = {int(index): str(name) for index, name in id2label.items()}  # JSON keeps the numbers as text
    model_names = [by_number[index] for index in sorted(by_number)]
    if len(names) != len(model_names):
        raise ValueError(
            f"The data set has {len(names)} classes and the model {len(model_names)}. "
            "Use the data set the model was finetuned on, or finetune it with num_labels set to the data set's."
        )
    if all(name == f"LABEL_{index}" for index, name in enumerate(model_names)):
        return None
    ours, theirs = [_plain(name) for name in names], [_plain(name) for name in model_names]
    if sorted(ours) != sorted(theirs) or len(set(theirs)) != len(theirs):
        missing = [name for name, plain in zip(names, ours, strict=True) if plain not in theirs]
        raise ValueError(
            f"Class names of the data set do not match the model's: {missing[:5] or names[:5]} are not among "
            f"{model_names[:5]}{'...' if len(model_names) > 5 else ''}. Rename them, or pass id2label=None to take the numbers as they are."
        )
    mapping = [theirs.index(name) for name in ours]
    return None if mapping == list(range(len(mapping))) else mapping


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", " ")

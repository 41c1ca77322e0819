"""Whether the labels of a data set are classes of the classifier: with others every answer would count as wrong."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from hf_smoothing.types import Images


def check_class(label: int | None, index: int, classes: int | None) -> None:
    """Refuse a label that is no class of the classifier.

    Args:
        label: The label of an image, None without one.
        index: Index of the image.
        classes: Number of classes of the classifier, None where that is not known.

    Raises:
        ValueError: If it is beyond the classes.
    """
    if label is not None and classes is not None and operator.index(label) >= classes:
        raise ValueError(
            f"Labels must be classes of the classifier, in [0, {classes}), got {operator.index(label)} for image {index}. Is this the model's data set? Pass PixelDataset "
            "the model in place of a size, to match classes by name; for labels that begin at 1 pass it id2label=model.config.id2label and "
            "label_map={1: 0, 2: 1, ...}."
        )


def known_labels(dataset: Images, chosen: Sequence[int]) -> Iterable[tuple[int, int]]:
    """(index, label) of the chosen images of a data set that knows its labels without reading images; nothing of others."""
    known: Any = getattr(dataset, "known_labels", None)
    return known(chosen) if callable(known) else ()

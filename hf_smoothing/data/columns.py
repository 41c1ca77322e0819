"""Which columns of a data set hold the images and the labels."""

from __future__ import annotations

from typing import Any


def find_column(dataset: Any, name: str | None, kind: str, required: bool) -> str | None:
    """The column of a data set that holds the images or the labels.

    Args:
        dataset: a `datasets.Dataset`, or an iterable of mappings.
        name: the column, where the caller names it.
        kind: "image" or "label".
        required: whether None is no answer.

    Raises:
        ValueError: if there is no such column, several fit, or none fits where one is required.
    """
    columns: list[str] = list(getattr(dataset, "column_names", None) or next(iter(dataset), {}).keys())
    if not columns:
        raise ValueError("The data set is empty: it has no image. Check the split and any filter.")
    if name is not None:
        if name not in columns:
            raise ValueError(f"The data set has no column {name!r}; it has {columns}. Pass {kind}_column=...")
        return name
    if kind in columns:
        return kind
    features = getattr(dataset, "features", None) or {}
    wanted = {"image": "Image", "label": "ClassLabel"}[kind]
    found: list[str] = [column for column in columns if type(features.get(column)).__name__ == wanted]
    if len(found) == 1:
        return found[0]
    if required or found:
        raise ValueError(
            f"The {kind} column is not clear: the data set has {columns}, of which {found or 'none'} hold {wanted} data. "
            f"Pass {kind}_column=..."
        )
    return None

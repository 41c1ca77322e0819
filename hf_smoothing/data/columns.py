"""Which columns of a data set hold the images and the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_smoothing.types import Images
from hf_smoothing.units import is_truth_value


USUAL = {
    "image": ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp"),
    "label": ("label", "labels", "target", "targets", "class", "cls", "category"),
}
"""Names that columns of a kind usually have; the first is taken whatever it holds."""

TYPES = {"image": "Image", "label": "ClassLabel"}


def find_column(dataset: Images, name: str | None, kind: str, required: bool) -> str | None:
    """The column of a data set that holds the images or the labels.

    By its type; otherwise, or where several are of the type, by a usual name. Labels may be whole numbers or text.

    Args:
        dataset: A `datasets.Dataset`, or an iterable of mappings.
        name: The column, where the caller names it.
        kind: The kind, "image" or "label".
        required: Whether None is no answer.

    Raises:
        ValueError: If there is no such column, several fit, or none fits where one is required; if it is no data set of mappings.
    """
    columns = column_names(dataset)
    if name is not None:
        if name not in columns:
            raise ValueError(f"The data set has no column {name!r}; it has {columns}. Pass {kind}_column=...")
        return name
    usual = [column for column in columns if str(column).lower() in USUAL[kind]]
    if kind in columns:
        return kind
    features = getattr(dataset, "features", None) or {}
    typed = [column for column in columns if type(features.get(column)).__name__ == TYPES[kind]]
    # Whole numbers, truth values and text may be labels, images, sequences and fractions are none.
    named = usual if kind == "image" or not features else [c for c in columns if _may_be_label(c, features.get(c))]
    found: list[str] = typed or named
    if len(found) > 1:
        found = [column for column in found if column in usual] or found
    if len(found) == 1:
        return found[0]
    if "pixel_values" in columns and not found and kind == "image":
        raise ValueError(
            "The data set holds 'pixel_values' already. Use it as it is: PixelDataset makes pixels of images."
        )
    if kind == "label" and required and len(columns) == 1:
        raise ValueError(
            f"Labels are needed, but the data set has the column {columns[0]!r} alone. Where it is a folder, sort the images into one sub-folder "
            "per class, at least two, with all images at one depth; or name the classes in a metadata.csv with the columns file_name and label."
        )
    if required or found:
        raise ValueError(
            f"The {kind} column is not clear: the data set has {columns}, of which {found or 'none'} may be it. "
            f"Pass {kind}_column=..."
        )
    return None


def _may_be_label(column: str, feature: Any) -> bool:
    name = str(column).lower()
    dtype = str(getattr(feature, "dtype", ""))
    return (name in USUAL["label"] or name.endswith("label")) and (
        dtype.startswith(("int", "uint")) or dtype in ("string", "large_string", "bool")
    )


def column_names(dataset: Images) -> list[str]:
    """The columns of a data set, or the keys of its first row.

    Raises:
        ValueError: If it is empty, several splits together, or its rows are no mappings.
    """
    if isinstance(dataset, Mapping):
        splits = [str(key) for key, value in dataset.items() if hasattr(value, "column_names")]
        if splits:
            raise ValueError(
                f"A split of the data set is needed, got {type(dataset).__name__} with all of them. Choose one of {splits}: dataset[{splits[0]!r}]."
            )
        raise ValueError(
            f"A data set must be a sequence of rows, got {type(dataset).__name__} with the keys {list(dataset)[:5]}. If these are columns, use "
            "datasets.Dataset.from_dict(...)."
        )
    columns = getattr(dataset, "column_names", None)
    if columns:
        return list(columns)
    first = _first_row(dataset)
    if not isinstance(first, Mapping):
        raise ValueError(
            f"Rows of a data set must be mappings such as {{'image': ..., 'label': ...}}, got {type(first).__name__}. Of pairs (image, label) make "
            "[{'image': image, 'label': label} for image, label in dataset]."
        )
    return list(first)


def _first_row(dataset: Images) -> object:
    try:
        return next(iter(dataset))
    except StopIteration:
        raise ValueError("The data set is empty: it has no image. Check the split and any filter.") from None
    except (TypeError, NotImplementedError) as error:
        raise ValueError(
            f"A data set must be a sequence of mappings, or a stream of them, got {type(dataset).__name__}. Pass e.g. "
            "datasets.load_dataset(path, split='test')."
        ) from error


def column_values(dataset: Images, column: str | None) -> list[Any] | None:
    """All values of a column without reading images, or None where that takes more: for streams and data sets of others.

    Args:
        dataset: Whatever `find_column` takes.
        column: The numbers or texts.
    """
    if column is None:
        return None
    if isinstance(dataset, list | tuple):
        return [row.get(column) for row in dataset]
    listed = all(hasattr(dataset, name) for name in ("select_columns", "with_format", "__len__"))
    if not listed or transformed(dataset):
        return None
    table: Any = dataset  # a `datasets.Dataset`
    values: list[Any] = table.select_columns([column]).with_format("arrow")[:][column].to_pylist()
    return values


def transformed(dataset: object) -> bool:
    """Whether rows are not what the columns hold, but what a function of the user makes of them: `with_transform`, `set_transform`."""
    return _format_of(dataset) == "custom"


def unformatted(dataset: Any) -> Any:
    """The data set without a format such as "torch", "numpy" or "pandas"; one with a transform as it is.

    A format turns images into arrays of whatever their files hold. Of those nobody can tell the indices of a palette from grey levels, or inks
    from transparency, while the columns still say that they are images.
    """
    return dataset if _format_of(dataset) in (None, "custom") else dataset.with_format(None)


def _format_of(dataset: object) -> str | None:
    kind = getattr(dataset, "format", None)
    if isinstance(kind, dict):  # of a `datasets.Dataset`
        return kind.get("type")
    return getattr(getattr(dataset, "_formatting", None), "format_type", None)  # of a `datasets.IterableDataset`


def holds_text(dataset: Images, column: str) -> bool:
    """Whether a column holds text, by its type or, where that is not known, the first row."""
    dtype = _dtype_of(dataset, column)
    return isinstance(_first_value(dataset, column), str) if dtype is None else dtype in ("string", "large_string")


def holds_truth_values(dataset: Images, column: str) -> bool:
    """Whether a column holds True and False, by its type or, where that is not known, the first row."""
    dtype = _dtype_of(dataset, column)
    return is_truth_value(_first_value(dataset, column)) if dtype is None else dtype == "bool"


def _dtype_of(dataset: Images, column: str) -> str | None:
    feature = (getattr(dataset, "features", None) or {}).get(column)
    return None if feature is None else str(getattr(feature, "dtype", ""))


def _first_value(dataset: Images, column: str) -> Any:
    first = _first_row(dataset)
    return first.get(column) if isinstance(first, Mapping) else None

"""From a `DataChoice` to its data set: one way for the command line and the examples."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from datasets import get_dataset_config_names, get_dataset_split_names, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError

from hf_smoothing.data.choice import DataChoice
from hf_smoothing.data.columns import column_names, column_values, find_column
from hf_smoothing.data.datasets import PixelDataset, PixelStream
from hf_smoothing.data.folders import (
    check_merged,
    how_to_rename,
    innermost,
    missed_splits,
    split_of,
    why_unlabelled,
    without_file_names,
)
from hf_smoothing.data.label_values import class_number, is_missing
from hf_smoothing.data.labels import class_names
from hf_smoothing.data.not_found import not_found, swapped
from hf_smoothing.data.processors import PixelSource
from hf_smoothing.data.selection import check_selection_options, select_from_stream, select_images
from hf_smoothing.spelling import nearest


UNNAMED = ("train", "validation", "test", "all")
"""What one saved data set that does not know its split may be called."""

LAYOUTS = (
    "Folders that can be read: test/CLASS/IMAGE.png, with train or validation for test; CLASS/IMAGE.png, which is the split 'train' whatever the folder is "
    "called; test-*.parquet with a column of images."
)


def load_split(path: str, split: str, *, dataset_config: str | None = None, streaming: bool = False) -> Any:
    """One split of a data set on the Hub or in a folder.

    Args:
        path: Hub id or folder.
        split: Its name; slices such as "test[:10%]" work as well.
        dataset_config: Which configuration, where the data set has several.
        streaming: Read it as a stream.

    Raises:
        ValueError: If there is no such data set, configuration or split, naming those that exist; if a folder holds images to train on and to test
            on that would be read as one split.
    """
    if (Path(path) / "state.json").is_file():
        return _saved_split(path, split, streaming)
    if (mistake := swapped("data set", path)) is not None:
        raise mistake
    # A bare name such as "eval" or "csv" is one of the readers of datasets, also where a folder is called so.
    place = os.path.join(os.curdir, path) if Path(path).is_dir() else path
    try:
        dataset = load_dataset(place, dataset_config, split=split, streaming=streaming)
    except OSError as error:
        missing = not_found("data set", path, error)
        raise (ValueError(f"{missing} {LAYOUTS}") if Path(path).is_dir() else missing) from error
    except (DatasetGenerationError, RuntimeError) as error:
        why = " ".join(str(error.__cause__ or error).split())[:200]
        raise ValueError(
            f"{path} cannot be read as a data set of images ({why}). Pass a Hub id, or a folder. {LAYOUTS}"
        ) from error
    except ValueError as error:
        text = str(error)
        if text.startswith(("Config name is missing", "BuilderConfig")):
            what = "several configurations" if dataset_config is None else f"no configuration {dataset_config!r}"
            known = get_dataset_config_names(place)
            raise ValueError(f"{path} has {what}; choose one of {known}: dataset_config={known[0]!r}.") from error
        if "file_name" in text and (said := without_file_names(path)) is not None:
            raise ValueError(said) from error
        if "split" not in text.lower() and "instruction" not in text.lower():
            raise
        known = get_dataset_split_names(place, dataset_config)
        raise ValueError(_no_split(path, split, known, streaming, text)) from error
    if (doubt := check_merged(path, split)) is not None:
        warnings.warn(doubt, stacklevel=2)
    return dataset


def _no_split(path: str, split: str, known: Sequence[str], streaming: bool, text: str) -> str:
    """Why a data set has nothing to read under a split, and what to pass instead.

    Args:
        path, split, streaming: As in `load_split`.
        known: Splits that there are.
        text: What `datasets` says.
    """
    parts = [part.partition("[")[0].strip() for part in split.split("+")]
    if unknown := [part for part in parts if part not in known]:
        near = nearest(unknown[0], known)
        cure = f"Pass split={near or known[0]!r}{' or another' if len(known) > 1 and near is None else ''}."
        cure += _caution(unknown[0], [near or known[0]])
        if missed := missed_splits(path):
            cure = how_to_rename(path, missed) + ("" if any(missed.values()) else f" To read all together: {cure}")
        elif list(known) == ["train"] and Path(path).is_dir():
            cure += " A folder of images is 'train' unless folders in it are called as splits."
        return f"{path} has no split {unknown[0]!r}; it has {list(known)}. {cure}"
    if streaming and "[" in split:
        return (
            f"A stream has no part of a split, got split={split!r}. Pass split={parts[0]!r} with max_images=..., which takes the first ones, or read it "
            "without streaming."
        )
    if "corresponds to no data" in text:
        others = [name for name in known if name not in parts]
        cure = f"another of {others}" if others else "another data set"
        cure = f"more of it, or {cure}" if "[" in split else cure
        return f"The split {split!r} of {path} is empty: it has no image. Pass {cure}.{_caution(parts[0], others)}"
    return f"The split {split!r} of {path} cannot be read ({text}). Its splits are {list(known)}; a part of one is written {parts[0] + '[:10%]'!r}."


def _caution(asked: str, offered: Sequence[str]) -> str:
    """What goes with the advice to read another kind of split than was asked for."""
    if split_of(asked) is None or all(split_of(name) == split_of(asked) for name in offered):
        return ""
    return " Accuracy counts only on images by which nothing was trained or chosen."


def _saved_split(path: str, split: str, streaming: bool) -> Any:
    """What `Dataset.save_to_disk` has left, which is one split and mostly knows which."""
    dataset = load_from_disk(path)
    if dataset.split is not None and str(dataset.split) != split:
        raise ValueError(
            f"{path} has no split {split!r}; it has [{str(dataset.split)!r}]. Pass split={str(dataset.split)!r}."
            f"{_caution(split, [str(dataset.split)])}"
        )
    if dataset.split is None and split not in UNNAMED:
        raise ValueError(
            f"{path} has no split {split!r}: it is one data set, saved without the name of a split, and is read whole. Pass split='test' or split='train', "
            "whichever it is."
        )
    return dataset.to_iterable_dataset() if streaming else dataset


@overload
def open_pixels(
    choice: DataChoice, size: PixelSource, id2label: Mapping[int, str] | None = None, *, streaming: Literal[False] = False, labelled: bool = True
) -> PixelDataset: ...  # fmt: skip


@overload
def open_pixels(
    choice: DataChoice, size: PixelSource, id2label: Mapping[int, str] | None = None, *, streaming: bool, labelled: bool = True
) -> PixelDataset | PixelStream: ...  # fmt: skip


def open_pixels(
    choice: DataChoice,
    size: PixelSource,
    id2label: Mapping[int, str] | None = None,
    *,
    streaming: bool = False,
    labelled: bool = True,
) -> PixelDataset | PixelStream:
    """The images of the chosen split, its labels read and matched as far as that needs no image.

    Args:
        choice: Data set to open.
        size, id2label: As in `PixelDataset`.
        streaming: Read it as a stream.
        labelled: Read labels; otherwise there may be any, or none.

    Raises:
        ValueError: As `load_split` and `PixelDataset`; naming the first image whose label is no class of the model.
    """
    check_selection_options(choice.stride, choice.max_images)
    options = choice.pixel_options()  # before anything is loaded
    dataset = load_split(choice.dataset, choice.split, dataset_config=choice.dataset_config, streaming=streaming)
    if not labelled:
        dataset = dataset.select_columns([find_column(dataset, choice.image_column, "image", required=True)])
    if streaming:
        return PixelStream(dataset, size, id2label=id2label, **options)
    try:
        pixels = PixelDataset(dataset, size, id2label=id2label, **options)
    except ValueError as error:
        if "do not match the model's" in str(error) and (said := innermost(choice.dataset)):
            raise ValueError(f"{error} {said}") from error
        raise
    pixels.check_labels()
    return pixels


def chosen_images(choice: DataChoice, pixels: PixelDataset | PixelStream) -> Sequence[int] | None:
    """The indices to take: spread over a data set, the first of a stream; None for all of a stream.

    Raises:
        ValueError: If a number is below 1, or a stream is to be taken by a stride without an end.
    """
    how = {"stride": choice.stride, "max_images": choice.max_images}
    return select_from_stream(**how) if isinstance(pixels, PixelStream) else select_images(len(pixels), **how)  # type: ignore[arg-type]


def choice_text(choice: DataChoice, pixels: PixelDataset | PixelStream, indices: Sequence[int] | None) -> str:
    """What a person should know before the first draw: which images, which labels, which class is which."""
    of = f"{choice.dataset}{f' ({choice.dataset_config})' if choice.dataset_config else ''} {choice.split}"
    if isinstance(pixels, PixelStream):
        images = (
            f"all images of {of}, a stream"
            if indices is None
            else f"the first {len(indices)} images of {of}, a stream"
        )
        if indices is not None and choice.stride > 1:
            images = f"{len(indices)} images of {of}, a stream, every {choice.stride}th from the first"
    else:
        taken = len(indices or ())
        images = (
            f"{taken} images of {of}"
            if taken == len(pixels)
            else f"{taken} of {len(pixels)} images of {of}, evenly spread"
        )
    if pixels.label_column is not None:
        return f"Data: {images}; labels in {pixels.label_column!r}.\n{pixels.class_map.describe()}"
    columns = column_names(pixels.dataset)
    why = f"none of {columns} is clearly a column of labels"
    later = "a later call with labels (label_column=...)"
    if len(columns) == 1:  # so no other column can be named
        why += f"; {why_unlabelled(choice.dataset) or 'where they lie in a folder, sort the images into one sub-folder per class'}"
        later = "a later call with labels"
    if pixels.unlabelled_column is not None:
        why = f"{pixels.unlabelled_column!r} is empty or -1 for all, which marks unlabelled splits"
    return f"Data: {images}; no labels: {why}. Accuracy cannot be measured then; {later} adds them to the finished run without a draw."


def training_split(choice: DataChoice) -> tuple[Any, dict[int, str]]:
    """The chosen images of a split to train on, and the names of the classes that a model for them has.

    Classes of a ClassLabel column keep their names and numbers; text is sorted; whole numbers are their own names.

    Raises:
        ValueError: As `load_split`; if there is no clear label column, no label in it, or what it holds are no classes.
    """
    check_selection_options(choice.stride, choice.max_images)
    dataset = load_split(choice.dataset, choice.split, dataset_config=choice.dataset_config)
    column = str(find_column(dataset, choice.label_column, "label", required=True))
    every = [value for value in column_values(dataset, column) or () if not is_missing(value)]
    values = [number if (number := class_number(value)) is not None else value for value in every]
    values = [value for value in values if value != -1]
    if not values:
        raise ValueError(f"Column {column!r} of {choice.dataset} has no label to train on. Pass label_column=...")
    names = class_names(dataset, column) or _names_of_values(
        values, f"Column {column!r} of {choice.dataset}", len(dataset)
    )
    if choice.stride > 1 or choice.max_images is not None:
        dataset = dataset.select(select_images(len(dataset), stride=choice.stride, max_images=choice.max_images))
    return dataset, dict(enumerate(names))


def _names_of_values(values: Sequence[Any], column: str, images: int) -> list[str]:
    """Names for the classes of a column that has none.

    Raises:
        ValueError: If its values are neither text nor whole numbers, or numbers that count something else than classes.
    """
    kinds = [str if isinstance(value, str) else int for value in values if isinstance(value, str | int)]
    if len(kinds) < len(values) or len(set(kinds)) > 1:
        odd = next((value for value in values if not isinstance(value, str | int)), values[0])
        raise ValueError(
            f"{column} must hold one class per image, as text or a whole number from 0 on, got {odd!r}. Several classes per image and measured values "
            "cannot be used: pass label_column=..., or make classes of it: dataset.class_encode_column(column)."
        )
    if kinds[0] is str:
        return sorted(set(values))
    smallest, largest = min(values), max(values)
    if smallest < 0 or largest >= images:
        # A network with more classes than there are images learns nothing of most; a year or an id as a class would be millions.
        raise ValueError(
            f"{column} must hold the numbers of classes from 0 on, fewer than there are images ({images}), got {smallest if smallest < 0 else largest}. If they "
            "are something else pass label_column=...; if they are classes give them names: dataset.class_encode_column(column)."
        )
    return [str(number) for number in range(largest + 1)]

"""`DataChoice`: which images of which data set, with which labels, as a command line or an example asks for them. One definition for all."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_smoothing.json_text import parse_json


@dataclass
class DataChoice:
    """A split of a data set, its columns, how its classes are those of a model, and how many images are taken.

    Each field has its help and choices in its metadata, as `HfArgumentParser` and the command line read them.
    """

    dataset: str = field(metadata={"help": "Hub id or folder of an image data set"})
    dataset_config: str | None = field(
        default=None, metadata={"help": "configuration of the data set, where it has several"}
    )
    split: str = field(default="test", metadata={"help": "split of the data set (%(default)s)"})
    image_column: str | None = field(
        default=None, metadata={"help": "column of the images; by default the one of type Image, or with a usual name"}
    )
    label_column: str | None = field(
        default=None,
        metadata={"help": "column of the labels; by default the one of type ClassLabel, or with a usual name"},
    )
    labels: str | None = field(
        default=None,
        metadata={
            "help": "match the classes of data set and model by their names or by their numbers; by default by name where the model has names",
            "choices": ["by-name", "by-number"],
        },
    )
    label_map: str | None = field(
        default=None,
        metadata={
            "help": "JSON file with classes matched by hand: {class name or number of the data set: class name or number of the model}"
        },
    )
    skip_unreadable: bool = field(
        default=False, metadata={"help": "leave damaged and missing images out, and count them, instead of stopping"}
    )
    max_images: int | None = field(
        default=None, metadata={"help": "maximum number of images, spread evenly over the split"}
    )
    stride: int = field(default=1, metadata={"help": "every k-th image (%(default)s)"})

    def pixel_options(self) -> dict[str, Any]:
        """The keyword arguments of `PixelDataset` and `PixelStream` that are chosen here.

        Raises:
            ValueError: If the file of the label map is none.
        """
        return {
            "image_column": self.image_column,
            "label_column": self.label_column,
            "labels": self.labels,
            "label_map": None if self.label_map is None else read_label_map(self.label_map),
            "skip_unreadable": self.skip_unreadable,
        }

    def to_dict(self) -> dict[str, Any]:
        """What a record says of the choice; what was left to itself is not there."""
        told = {"config": self.dataset_config, "image_column": self.image_column, "max_images": self.max_images}
        facts = {"id": self.dataset, "split": self.split, "stride": self.stride}
        return facts | {key: value for key, value in told.items() if value is not None}


def read_label_map(path: str) -> dict[str, Any]:
    """A label map from a JSON file.

    Raises:
        ValueError: If it is no JSON object of names and numbers.
    """
    try:
        return label_map_of(Path(path).read_bytes(), path)
    except OSError as error:
        raise ValueError(
            f"The label map {path} cannot be read ({error.strerror}). Pass the path of a JSON file."
        ) from error


def label_map_of(content: bytes, path: str) -> dict[str, Any]:
    """The label map in the bytes of a file, as `read_label_map`."""
    try:
        found = parse_json(content)
    except ValueError as error:
        raise ValueError(
            f'The label map {path} cannot be read as JSON ({error}). It must hold an object such as {{"crane": 134}}.'
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, str | int) for value in found.values()):
        raise ValueError(
            f'The label map {path} must hold one JSON object, class of the data set -> class of the model, such as {{"crane": 134}}.'
        )
    return found

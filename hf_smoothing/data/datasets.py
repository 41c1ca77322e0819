"""From a labelled image data set to pixels at the certified resolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from hf_smoothing.data.decoded import DecodedPixels
from hf_smoothing.data.labels import Labels
from hf_smoothing.data.processes import in_processes
from hf_smoothing.data.processors import PixelSource
from hf_smoothing.data.row_reader import RowReader
from hf_smoothing.data.selection import one_index
from hf_smoothing.pixels import UnreadableImageError
from hf_smoothing.progress import progress_of
from hf_smoothing.types import ImageDataset, ImageStream


class PixelDataset(Dataset[dict[str, Any]]):
    """Images as uint8 pixels at the certified resolution, with the labels of the model: what training and certification read.

    Args:
        dataset: A `datasets.Dataset`, or any sequence of mappings, with an image column (PIL images or arrays) and maybe labels.
            Images of other kinds are converted to RGB as `transformers` does, or to grey for a network with one channel.
        size: Whose pixels they are to be: a `SmoothedClassifier`, a backbone that `RobustTrainer` trained, or an image processor; images are resized
            and cropped as for it. Or a `Framing`, or the certified resolution alone, an int or (height, width), to which whole images are resized.
        image_column, label_column: Names; found by their type, or a usual name, if not given.
        id2label: The label map of the model, to check and align the data set's class names. By default that of the model, or configuration, given
            as `size`, if its classes have names; None takes labels as they are.
        labels, label_map: How classes are matched, as in `class_map`.
        skip_unreadable: Leave damaged and missing images out where the data set is read as a whole; otherwise they are errors.

    Attributes:
        class_map: Which class of the model each class of the data set is.
        unreadable: Index -> message of each image that could not be read so far.
        enlarged: Index -> (height, width) of each image read so far that was smaller than the certified resolution. The first is warned of.
        unlabelled_column: A label column that was found but marks every image as unlabelled, or None.

    Raises:
        ValueError: On an empty data set, several splits together, missing columns, or class names or numbers that do not match the model's.
        UnreadableImageError: On reading an image that is damaged or missing.
    """

    def __init__(
        self, dataset: ImageDataset, size: PixelSource, *, image_column: str | None = None, label_column: str | None = None,
        id2label: Mapping[int, str] | Literal["model"] | None = "model", labels: Labels | None = None, label_map: Mapping[Any, Any] | None = None,
        skip_unreadable: bool = False,
    ) -> None:  # fmt: skip
        given: object = dataset
        if isinstance(given, str) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise ValueError(
                f"PixelDataset reads images by their index, got {type(dataset).__name__}. Pass PixelStream a stream such as a datasets.IterableDataset, "
                "and for a path load it first: datasets.load_dataset(path, split='test')."
            )
        if not isinstance(dataset, Mapping) and len(dataset) == 0:
            raise ValueError("The data set is empty: it has no image. Check the split and any filter.")
        reader = self._reader = RowReader(dataset, size, image_column, label_column, id2label, labels, label_map)
        self.dataset, self.framing, self.size = dataset, reader.framing, reader.framing.size
        self.image_column, self.label_column = reader.image_column, reader.label_column
        self.class_map, self.unlabelled_column = reader.labels.class_map, reader.labels.unlabelled_column
        self.skip_unreadable, self.unreadable, self.enlarged = skip_unreadable, reader.unreadable, reader.enlarged
        self.names, self.class_names = reader.labels.names, reader.class_names

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = one_index(index)
        try:
            return self._reader.item(self._reader.images.row(number), number)
        except UnreadableImageError as error:
            self.unreadable[error.index] = str(error)
            raise

    def facts(self) -> dict[str, Any]:
        """What a record says about the labels, as plain JSON values; empty without labels."""
        return self._reader.facts()

    def check_labels(self) -> None:
        """Read all labels, where that needs no image.

        Raises:
            ValueError: The message names the first image whose label is no class of the model.
        """
        self._reader.labels.check()

    def known_labels(self, indices: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(index, label) of these images, where that needs no image; nothing otherwise.

        Raises:
            ValueError: The message names the first image whose label is no class of the model.
        """
        return self._reader.labels.known(indices)

    def original_size(self) -> tuple[int, int] | None:
        """(height, width) of the first image as it comes, None if it cannot be read. Who has asked is not warned if images are enlarged, and looks at `enlarged`."""
        return self._reader.original_size(lambda: self._reader.images.row(0))

    def decode(self, progress: bool = True, indices: Sequence[int] | None = None, processes: int = 1) -> DecodedPixels:
        """Images at once, in memory: 3 KB per image at 32 px, 150 KB at 224 px.

        Args:
            progress: Show progress: a bar, or in a log file a line every 30 seconds.
            indices: Which images, in which order; all by default.
            processes: Number of processes that decode side by side, where the system can fork; the result is the same.

        Raises:
            UnreadableImageError: On an image that is damaged or missing, unless these are left out; if there is no other.
        """
        chosen = range(len(self)) if indices is None else indices
        pixels = torch.empty((len(chosen), self.framing.channels, *self.size), dtype=torch.uint8, device="cpu")
        labels = torch.full((len(chosen),), -1, dtype=torch.int64, device="cpu")
        enlarged: dict[int, tuple[int, int]] = {}
        count = 0
        with (
            progress_of("Decoding", len(chosen), shown=progress) as bar,
            in_processes(self._decoded, chosen, processes) as read,
        ):
            for place, found in enumerate(read):
                bar.update()
                if isinstance(found, UnreadableImageError):
                    self.unreadable[found.index] = str(found)
                    if not self.skip_unreadable or (count == 0 and place == len(chosen) - 1):
                        raise found
                    continue
                pixels[count], labels[count] = torch.from_numpy(found[0]), found[1]
                if found[2] is not None:
                    self._reader.note_enlarged(int(chosen[place]), found[2])
                    enlarged[count] = found[2]
                count += 1
        known = labels[:count] if self.label_column is not None else None
        return DecodedPixels(pixels[:count], known, self.names, self.framing, enlarged)

    def _decoded(self, index: int) -> tuple[np.ndarray, int, tuple[int, int] | None] | UnreadableImageError:
        """Pixels, label and, if it was enlarged, original size of an image: what another process notes would be lost with it."""
        try:
            with self._reader.silent():
                item = self[index]
        except UnreadableImageError as error:
            return error
        return item["pixel_values"].numpy(), int(item.get("labels", -1)), self.enlarged.get(int(index))


class PixelStream(IterableDataset[dict[str, Any]]):
    """As `PixelDataset`, for a stream: read in order and once, such as a `datasets.IterableDataset`.

    Arguments and errors as `PixelDataset`. Workers of a `torch.utils.data.DataLoader` share the rows out, each decoding every k-th of k workers.
    A `torch.utils.data.IterableDataset` does that itself, as torch has it: one that does not ask `get_worker_info` gives all its rows to each worker.
    """

    def __init__(
        self, dataset: ImageStream, size: PixelSource, *, image_column: str | None = None, label_column: str | None = None,
        id2label: Mapping[int, str] | Literal["model"] | None = "model", labels: Labels | None = None, label_map: Mapping[Any, Any] | None = None,
        skip_unreadable: bool = False,
    ) -> None:  # fmt: skip
        if isinstance(dataset, Iterator):
            raise ValueError(
                f"PixelStream needs a stream that can be read again, got a {type(dataset).__name__}, which is exhausted after one pass. Pass "
                "a datasets.IterableDataset, e.g. IterableDataset.from_generator(function)."
            )
        reader = self._reader = RowReader(dataset, size, image_column, label_column, id2label, labels, label_map)
        self.dataset, self.framing, self.size = dataset, reader.framing, reader.framing.size
        self.image_column, self.label_column = reader.image_column, reader.label_column
        self.class_map, self.unlabelled_column = reader.labels.class_map, reader.labels.unlabelled_column
        self.skip_unreadable, self.unreadable, self.enlarged = skip_unreadable, reader.unreadable, reader.enlarged
        self.names, self.class_names = reader.labels.names, reader.class_names

    def original_size(self) -> tuple[int, int] | None:
        """As that of `PixelDataset`; reads the first image of the stream."""
        return self._reader.original_size(lambda: next(self._reader.images.rows()))

    def set_epoch(self, epoch: int) -> None:
        """Read the rows in the order of an epoch, where the stream is shuffled: that of its seed and this number. Trainers say it."""
        self._reader.images.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (item for _, item in self.numbered())

    def numbered(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(index, item) of the images in order. One that is left out as unreadable keeps its number."""
        worker, workers = self._worker()
        for index, row in enumerate(self._reader.images.rows()):
            if index % workers != worker:
                continue
            try:
                item = self._reader.item(row, index)
            except UnreadableImageError as error:
                self.unreadable[index] = str(error)
                if not self.skip_unreadable:
                    raise
                continue
            yield index, item

    def _worker(self) -> tuple[int, int]:
        """Which worker of a DataLoader this is, of how many among which the rows are still to be shared out."""
        info = get_worker_info()
        # What is shared out already, as `datasets` does it, would lose rows if it were shared out once more.
        return (0, 1) if info is None or isinstance(self.dataset, IterableDataset) else (info.id, info.num_workers)

    def facts(self) -> dict[str, Any]:
        """What a record says about the labels, as plain JSON values; empty without labels."""
        return self._reader.facts()

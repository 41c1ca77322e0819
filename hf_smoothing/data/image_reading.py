"""`ImageReader`: the images of a data set one by one, so that one which cannot be read is named."""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import datasets
import PIL.Image

from hf_smoothing.data.columns import transformed
from hf_smoothing.data.eight_bit import eight_bit_image
from hf_smoothing.pixels import UnreadableImageError
from hf_smoothing.types import Images


class ImageReader:
    """Reads rows of a data set, and decodes their images itself where the data set would do it on reading a row.

    Args:
        dataset: As in `PixelDataset`.
        column: Column of the images.
    """

    def __init__(self, dataset: Images, column: str) -> None:
        self.column = column
        rows: Any = dataset
        self._feature = datasets.Image()
        self._mode: str | None = None
        feature = (getattr(dataset, "features", None) or {}).get(column)
        if isinstance(feature, datasets.Image) and not transformed(dataset):
            self._mode = feature.mode
            if feature.decode:
                rows = rows.cast_column(column, datasets.Image(decode=False))
        self._rows = rows
        # Images of private repositories are fetched when they are decoded.
        self._tokens = getattr(dataset, "_token_per_repo_id", None)

    def row(self, index: int) -> Mapping[str, Any]:
        """A row, with its image as it is kept.

        Raises:
            IndexError: Outside the data set.
            UnreadableImageError: If the data set decodes images itself and cannot.
        """
        try:
            row: Mapping[str, Any] = self._rows[index]
        except (OSError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            if (named := _named(error, index, None, self.column)) is None:
                raise
            raise named from error
        return row

    def set_epoch(self, epoch: int) -> None:
        """Tell a stream the number of the epoch, by which it may be shuffled."""
        if hasattr(self._rows, "set_epoch"):
            self._rows.set_epoch(epoch)

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """All rows in order."""
        return iter(self._rows)

    def image(self, row: Mapping[str, Any], index: int) -> Any:
        """The image of a row: a PIL image that is decoded, or whatever else the data set holds.

        Raises:
            UnreadableImageError: If it is missing or damaged.
            ValueError: If the row has no such column, or text in it.
        """
        if self.column not in row:
            raise ValueError(
                f"Row {index} of the data set has no {self.column!r}, only {list(row)}: a transform leaves it out. Pass the data set without the "
                "transform, or image_column=..."
            )
        value = row[self.column]
        if isinstance(value, str):
            raise ValueError(
                f"Image {index} of column {self.column!r} is the text {value[:80]!r}. If these are paths, read them with "
                f"dataset.cast_column({self.column!r}, datasets.Image())."
            )
        try:
            if value is None:
                raise ValueError("there is none (None)")
            if isinstance(value, Mapping) and {"bytes", "path"} & value.keys():
                whole = {"bytes": value.get("bytes"), "path": value.get("path")}
                return self._feature.decode_example(whole, token_per_repo_id=self._tokens)
            if isinstance(value, bytes):
                value = PIL.Image.open(io.BytesIO(value))
            if isinstance(value, PIL.Image.Image):
                value.load()
        except Exception as error:  # decoders raise whatever comes first
            if (named := _named(error, index, self._file(row), self.column)) is None:
                raise
            raise named from error
        return value

    def _file(self, row: Mapping[str, Any]) -> str | None:
        """The file of a row's image, where it is known."""
        value = row.get(self.column)
        file = value.get("path") if isinstance(value, Mapping) else getattr(value, "filename", None)
        return str(file) if file else None

    def unusable(self, error: Exception, row: Mapping[str, Any], index: int) -> UnreadableImageError:
        """The error that names an image which can be decoded and is none to certify, as one of 16 bits."""
        return _unreadable(error, index, self._file(row), self.column)

    def in_mode(self, image: PIL.Image.Image) -> PIL.Image.Image:
        """The image in the mode that the column asks for, `datasets.Image(mode=...)`, where it does.

        Raises:
            ValueError: As `eight_bit_image`, which goes first: `datasets` would make 16-bit grey white and drop transparency.
        """
        if self._mode is None:
            return image
        return eight_bit_image(image, grey=self._mode == "L").convert(self._mode)


def _named(error: Exception, index: int, file: str | None, column: str) -> UnreadableImageError | None:
    """The error that names the image where that is damaged, or None where the machine or the network failed."""
    if not _is_damage(error):
        return None
    return _unreadable(error, index, file, column)


def _unreadable(error: Exception, index: int, file: str | None, column: str) -> UnreadableImageError:
    where = f" ({file})" if file else ""
    return UnreadableImageError(
        index, file,
        f"Image {index}{where} of column {column!r} cannot be read: {why(error)}. Repair or remove it, or pass skip_unreadable=True to leave such images "
        "out and count them.",
    )  # fmt: skip


def why(error: Exception) -> str:
    """What a decoder says, without the address of an object in memory, which stands for the file."""
    return re.sub(r" <[^<>]* object at 0x[0-9a-f]+>", "", str(error)).strip().rstrip(".") or type(error).__name__


def _is_damage(error: Exception) -> bool:
    # Of PIL, of the modules it decodes with, or a missing file. A lost connection or too many open files are no fault of an image.
    if type(error).__module__.split(".")[0] not in ("builtins", "PIL", "struct", "zlib"):
        return False
    if isinstance(error, ConnectionError | TimeoutError | MemoryError | NotImplementedError):
        return False
    if isinstance(error, OSError):
        return error.errno in (None, errno.ENOENT, errno.EISDIR, errno.EINVAL)
    return True

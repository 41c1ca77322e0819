"""What a user hands over, for type checkers: a classifier, and images by index or in a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, cast

from torch import Tensor


Classify = Callable[[Tensor], Tensor]
"""(batch, channels, height, width) pixels -> (batch, num_labels) logits."""


class HasClassify(Protocol):
    """An object whose method `classify` is what gets certified, such as a `SmoothedClassifier`."""

    def classify(self, pixels: Tensor, /) -> Tensor:
        """(batch, channels, height, width) pixels -> (batch, num_labels) logits."""
        ...


Classifier = Classify | HasClassify
"""What can be certified and attacked: a module or any other callable on pixels, or an object with `classify`."""


def classify_of(classifier: Classifier) -> Classify:
    """The method `classify` where there is one, else the object itself; nothing is checked."""
    classify: Any = getattr(classifier, "classify", classifier)
    return cast(Classify, classify)


Item = Mapping[str, Any]
"""One image of a data set: "pixel_values" or an image column, and where it is known a label."""


class ImageDataset(Protocol):
    """Images by index: a list of mappings, a `datasets.Dataset`, a `PixelDataset`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Item: ...


ImageStream = Iterable[Item]
"""Images in order, from the start at each reading: a `datasets.IterableDataset`, a `PixelStream`."""

Images = ImageDataset | ImageStream
"""A data set of images."""

"""What a user hands over, for type checkers: a classifier, and images by index or in a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, cast

from torch import Tensor, nn


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
    """The method `classify` where there is one, else the object itself; nothing is checked.

    What only runs a network may hide its method: that of the network is taken, since `forward` of `DataParallel` would ask another function.
    """
    within = unwrapped(classifier) if isinstance(classifier, nn.Module) else classifier
    classify: Any = getattr(classifier, "classify", None) or getattr(within, "classify", classifier)
    return cast(Classify, classify)


_KEPT_AS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""Where `torch.compile`, activation checkpointing and FSDP keep the module that they wrap; part of the names of weights then."""


def inner_name(module: nn.Module) -> str | None:
    """The name under which a module that only runs another one keeps it; None for a module that computes something itself."""
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return "module"
    return next((name for name in _KEPT_AS if name in module._modules), None)


def unwrapped(module: nn.Module) -> nn.Module:
    """The network in `torch.compile`, `DataParallel`, `DistributedDataParallel` and the like, which compute the same with it."""
    while (name := inner_name(module)) is not None:
        module = cast(nn.Module, module._modules[name])
    return module


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

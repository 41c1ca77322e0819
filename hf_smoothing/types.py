"""What a user hands over, for type checkers: a classifier, and images by index or in a stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, cast

import torch
import torch.utils.checkpoint
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
    if isinstance(within, nn.Module) and _kept_as(within) and not _has_own(within, "classify"):
        return cast(Classify, classifier)  # it does more than to run another, whose `classify` torch may hand on
    return cast(Classify, getattr(within, "classify", classifier))


_RUNNING = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.CheckpointWrapper": "_checkpoint_wrapped_module",
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": "_fsdp_wrapped_module",
}
"""Classes of torch that run another module -> the name under which they keep it. By name: to import them takes seconds."""


def inner_name(module: nn.Module) -> str | None:
    """The name under which a module that only runs another one keeps it; None for a module that computes something itself.

    A subclass may compute anything, and so may hooks, another `forward`, parts or tensors of its own, another dtype, and a function of the user's that
    runs the checkpoint.
    """
    name = _RUNNING.get(_path_of(type(module)))
    if name is None or module._parameters or module._buffers or module._modules.keys() != {name}:
        return None
    if module._forward_hooks or module._forward_pre_hooks or "classify" in vars(module):
        return None
    if "forward" in vars(module) and not _by_compiler(vars(module)["forward"], module._modules[name]):
        return None
    return name if _as_it_is(module) else None


def unwrapped(module: nn.Module) -> nn.Module:
    """The network in `torch.compile`, `DataParallel`, `DistributedDataParallel` and the like, which compute the same with it."""
    while (name := inner_name(module)) is not None:
        module = cast(nn.Module, module._modules[name])
    return module


def _path_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _kept_as(module: nn.Module) -> str | None:
    """As `inner_name`, also for subclasses and those that do more."""
    return next((_RUNNING[path] for path in map(_path_of, type(module).__mro__) if path in _RUNNING), None)


def _has_own(module: nn.Module, name: str) -> bool:
    """Whether a module has an attribute itself, not by asking the module in it."""
    return name in vars(module) or hasattr(type(module), name)


def _by_compiler(forward: Any, inner: nn.Module | None) -> bool:
    """Whether `torch.compile` made this `forward` for the module; a copy of its attributes by `functools.wraps` is no sign of that."""
    asked = getattr(forward, "_torchdynamo_orig_callable", None)
    asked = getattr(asked, "__wrapped__", asked)
    file = getattr(getattr(forward, "__code__", None), "co_filename", "").replace(os.sep, "/")
    return inner is not None and "/torch/_dynamo/" in file and inner in (asked, getattr(asked, "__self__", None))


def _as_it_is(module: nn.Module) -> bool:
    """Whether a runner neither computes in another dtype, nor divides anything but the batch, nor calls through a function of the user."""
    mixed, run = getattr(module, "mixed_precision", None), vars(module).get("checkpoint_fn")
    dtypes = [getattr(mixed, key, None) for key in ("param_dtype", "buffer_dtype")]
    by_torch = run is None or (
        getattr(run, "func", None) is torch.utils.checkpoint.checkpoint and "context_fn" not in run.keywords
    )
    return by_torch and vars(module).get("dim", 0) == 0 and dtypes == [None, None]


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

"""How the network is run: in which dtype and memory format, compiled or not, and how many images at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hf_smoothing import statistics
from hf_smoothing.allocator import memory_kept
from hf_smoothing.certification.classifiers import ResolvedClassifier, resolve_classifier
from hf_smoothing.types import Classifier, Classify


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Execution:
    """How the network is run. All but the batch size belongs to what is certified: other kernels round otherwise.

    Args:
        dtype: Computing dtype of the network: "float32", or by autocast "bfloat16" or "float16". The noise does not
            depend on it.
        channels_last: Memory format for convolutional networks, faster in half precision.
        compile: Run the network through `torch.compile`.
        copies_per_batch: Number of images per forward pass; the device's default if None.

    Raises:
        ValueError: On any other dtype, or a batch size below 1.
    """

    dtype: str = "float32"
    channels_last: bool = False
    compile: bool = False
    copies_per_batch: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"`dtype` of the network must be one of {', '.join(_DTYPES)}, got {self.dtype!r}.")
        if self.copies_per_batch is not None:
            copies = statistics.check_whole(self.copies_per_batch, "copies_per_batch")
            if copies < 1:
                raise ValueError(f"`copies_per_batch` must be at least 1, got {copies}.")
            object.__setattr__(self, "copies_per_batch", copies)

    def size_on(self, device: torch.device) -> int:
        """The batch size. Small batches stay in a CPU's cache; a GPU needs large ones."""
        return self.copies_per_batch or (128 if device.type == "cpu" else 1024)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which the network runs. Noise is added before it."""
        return torch.autocast(device.type, dtype=_DTYPES[self.dtype], enabled=self.dtype != "float32")

    @contextlib.contextmanager
    def prepare(self, classifier: Classifier) -> Iterator[ResolvedClassifier]:
        """The classifier in this memory format, compiled if asked for; the module is left as it was found."""
        resolved = resolve_classifier(classifier)
        parameters = () if resolved.module is None or not self.channels_last else resolved.module.parameters()
        weights = [weight for weight in parameters if weight.ndim == 4 and weight.layout is torch.strided]
        before = [weight.data for weight in weights]
        for weight in weights:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        if self.compile:  # every batch has one size, see `count_votes`, so one compilation serves them all
            resolved = replace(resolved, classify=torch.compile(resolved.classify, dynamic=False))
        try:
            with memory_kept():
                yield resolved
        finally:
            for weight, data in zip(weights, before, strict=True):
                weight.data = data

    def to_dict(self) -> dict[str, Any]:
        """What belongs to a run's settings."""
        return {"dtype": self.dtype, "channels_last": self.channels_last, "compile": self.compile}


@torch.inference_mode(False)  # as `count_votes`
@torch.no_grad()
def probe_batch_size(
    classifier: Classifier, shape: tuple[int, ...], execution: Execution, seconds: float = 0.2
) -> tuple[Execution, dict[str, int]]:
    """Find the fastest batch size by a short trial; nothing is tried if it is given, or if each size would be compiled anew.

    Args:
        classifier: As in `certify`.
        shape: Shape of one image, (channels, height, width).
        execution: How the network will be run.
        seconds: Time spent on each size that is tried.

    Returns:
        The execution with a batch size, and the images per second at each size that was tried.
    """
    resolved = resolve_classifier(classifier)
    device = resolved.device
    if execution.copies_per_batch is not None or execution.compile:
        return replace(execution, copies_per_batch=execution.size_on(device)), {}
    speeds: dict[int, float] = {}
    with execution.prepare(resolved) as classify:
        for size in (16, 32, 64, 128, 256) if device.type == "cpu" else (16, 64, 256, 512, 1024, 2048, 4096, 8192):
            batch = torch.full((size, *shape), 0.5, dtype=torch.float32, device=device)
            try:
                _forward(classify, batch, execution)  # a first pass sets up kernels and caches
                count, began = 0, time.perf_counter()
                while count < 2 or time.perf_counter() - began < seconds:
                    _forward(classify, batch, execution)
                    count += 1
            except torch.OutOfMemoryError as error:
                if not speeds:
                    raise ValueError(
                        f"The device's memory must hold a batch of {size} images of shape {shape}, and does not. Pass a smaller copies_per_batch, "
                        "or dtype='bfloat16'."
                    ) from error
                break
            speeds[size] = count * size / (time.perf_counter() - began)
            slow = size / speeds[size] > 10 * seconds  # so much work per pass that a larger batch gains nothing
            if slow or speeds[size] < 0.8 * max(speeds.values()):
                break
    # The smallest of those that are practically as fast as the fastest: it wastes least at the end.
    best = min(size for size, speed in speeds.items() if speed > 0.97 * max(speeds.values()))
    return replace(execution, copies_per_batch=best), {str(size): round(speed) for size, speed in speeds.items()}


def _forward(classify: Classify, batch: Tensor, execution: Execution) -> None:
    images = batch.clone()  # a network may change its pixels in place
    if execution.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with execution.autocast(batch.device):
        logits = classify(images)
    if batch.device.type != "cpu":
        torch.accelerator.synchronize(batch.device)
    del logits

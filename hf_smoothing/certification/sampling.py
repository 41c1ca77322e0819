"""Counting the votes of a classifier under noise: noisy copies of many images, packed into full batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.noise_kinds import NoiseStream
from hf_smoothing.noise import Draws
from hf_smoothing.types import Classifier


def noisy_batches(
    images: Tensor, requests: Sequence[Draws], *, stream: NoiseStream, copies_per_batch: int
) -> Iterator[tuple[Tensor, list[tuple[int, int, int]]]]:
    """Lay all requested noisy copies end to end and cut them into full batches; only the last may be shorter.

    One buffer of `copies_per_batch` images is reused, so a batch is valid until the next one is asked for.

    Args:
        images: Images, float32 (slots, channels, height, width), clean pixels on the stream's device.
        requests: Draws to make.
        stream: Source of the noise.
        copies_per_batch: Number of images per batch.

    Yields:
        The tuple (float32 (b, channels, height, width), [(request number, first row, last row + 1), ...]).
    """
    total = sum(request.stop - request.start for request in requests)
    buffer = torch.empty(
        (min(copies_per_batch, max(total, 1)), *images.shape[1:]), dtype=torch.float32, device=images.device
    )
    filled, draws, pieces = 0, [], []
    for number, request in enumerate(requests):
        position = request.start
        while position < request.stop:
            take = min(request.stop - position, len(buffer) - filled)
            draws.append(request._replace(start=position, stop=position + take))
            pieces.append((number, filled, filled + take))
            position += take
            filled += take
            if filled == len(buffer):
                stream.noisy_copies(buffer, images, draws)
                yield buffer, pieces
                filled, draws, pieces = 0, [], []
    if filled:
        stream.noisy_copies(buffer[:filled], images, draws)
        yield buffer[:filled], pieces


@torch.inference_mode(False)  # a network may take gradients on its way, as guided purification does
@torch.no_grad()
def count_votes(
    classifier: Classifier,
    images: Tensor,
    requests: Sequence[Draws],
    *,
    stream: NoiseStream,
    execution: Execution | None = None,
) -> NDArray[np.int64]:
    """How often each class wins among the requested noisy copies.

    The host waits for the device once, at the end. Memory: one batch of noisy images, whatever the number of draws.

    Args:
        classifier: Callable on pixels, or an object with a `classify` method.
        images, requests, stream: As in `noisy_batches`.
        execution: How the network is run.

    Returns:
        An int64 array (requests, num_labels); row r sums to requests[r].stop - requests[r].start.

    Raises:
        ValueError: On a module in train mode, logits of the wrong shape, a single class, nan logits, or infinite ones of which none is the
            largest. Equal finite logits are a vote for the lowest of their classes.
        TypeError: If the images are not float32, or the classifier does not return a tensor.
    """
    classify = resolve_classifier(classifier)
    execution = execution or Execution()
    copies_per_batch = execution.size_on(images.device)
    if images.dtype != torch.float32:
        raise TypeError(f"`images` must be float32 in [0, 1], got {images.dtype}. Divide uint8 pixels by 255.")
    counts = broken = None
    for batch, pieces in noisy_batches(images, requests, stream=stream, copies_per_batch=copies_per_batch):
        rows = len(batch)
        if (
            execution.compile and rows < copies_per_batch
        ):  # one shape for the compiler; the rows of padding are not counted
            batch = torch.cat([batch, batch.new_zeros(copies_per_batch - rows, *batch.shape[1:])])
        if execution.channels_last:
            batch = batch.contiguous(memory_format=torch.channels_last)
        with execution.autocast(images.device):
            logits = check_logits(classify(batch), len(batch), None if counts is None else counts.shape[1])[:rows]
        if counts is None or broken is None:
            counts = torch.zeros((len(requests), logits.shape[1]), dtype=torch.int64, device=logits.device)
            broken = torch.zeros(len(requests), dtype=torch.uint8, device=logits.device)
        top = logits.argmax(dim=1, keepdim=True)
        winners = torch.nn.functional.one_hot(top[:, 0], counts.shape[1])
        faults = _faults(logits, logits.gather(1, top)[:, 0])
        for number, first, last in pieces:
            counts[number] += winners[first:last].sum(dim=0)
            broken[number] = torch.maximum(broken[number], faults[first:last].max())
    if counts is None or broken is None:
        raise ValueError("`requests` must ask for at least one draw, got none.")
    if bool(broken.any()):
        number = int(broken.nonzero()[0])
        what = (
            "nan logits for noisy copies of image {}; votes on nan mean nothing"
            if broken[number] >= NAN
            else "infinite logits for noisy copies of image {}, of which none is the largest: several are inf, or all -inf"
        )
        raise ValueError(
            f"The classifier returned {what.format(requests[number].image)}. Check the weights, and try dtype='float32' if the network ran in half precision."
        )
    result: NDArray[np.int64] = counts.cpu().numpy()
    return result


NAN = 2
"""Added to the fault of logits that are nan."""


def _faults(logits: Tensor, largest: Tensor) -> Tensor:
    """Which rows have no winner: uint8 (batch,), 0 if it has one, 1 if several are inf or all -inf, and `NAN` more where one is nan.

    Args:
        logits: (batch, classes).
        largest: That of each row, (batch,), as argmax finds it.
    """
    several = torch.isposinf(largest)
    # A CPU can be asked without a wait, and counts slowly; an accelerator the other way round.
    if logits.device.type != "cpu" or bool(several.any()):
        several = several & (torch.isposinf(logits).sum(dim=1) > 1)
    endless = several | torch.isneginf(largest)
    exact = logits.device.type in ("cpu", "cuda")  # where argmax is known to find nan
    nan = torch.isnan(largest) if exact else torch.isnan(logits).any(dim=1)
    return torch.add(endless.to(torch.uint8), nan, alpha=NAN)


_COMPARED = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
)  # fmt: skip
"""Dtypes whose largest value torch finds."""


def check_logits(logits: object, batch: int, classes: int | None = None) -> Tensor:
    """The answer to a batch of that many images, if it is logits of at least two classes, as many as before where that is known.

    Raises:
        TypeError, ValueError: The message says what came instead.
    """
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"The classifier must return a tensor of logits (batch, num_labels), got {type(logits).__name__}. "
            "Wrap a transformers model with SmoothedClassifier.from_base_pretrained, or return output.logits."
        )
    if logits.layout != torch.strided or logits.is_nested or logits.dtype not in _COMPARED:
        kind = "nested" if logits.is_nested else str(logits.layout).removeprefix("torch.")
        raise TypeError(
            f"The classifier must return a dense tensor of real logits, such as float32, got {str(logits.dtype).removeprefix('torch.')} ({kind}). "
            "Return .to_dense() of sparse logits, .real of complex ones, and .float() of any others."
        )
    if logits.ndim != 2 or logits.shape[0] != batch:
        raise ValueError(
            f"The classifier must return logits of shape (batch, num_labels) = ({batch}, ...), got {tuple(logits.shape)}."
        )
    if classes not in (None, logits.shape[1]):
        raise ValueError(
            f"The classifier must always have the same classes, got {classes} and then {logits.shape[1]} logits."
        )
    if logits.shape[1] < 2:
        raise ValueError(
            "The classifier has a single output, as for regression; certification needs logits of at least two classes. "
            "For a binary problem use two logits."
        )
    return logits

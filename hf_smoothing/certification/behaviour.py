"""What a classifier answers to one fixed image: the same each time and whatever else is in the batch, or it is not certified.

A certificate is about a function of one image, and a run that goes on must ask the same function. Batch norm without running statistics,
dropout behind a plain function and the like make the votes depend on what shares a batch; no look at modules finds them all, a few forward
passes do. The answer also tells classifiers with the same weights from one another: other buffers, hooks, activations, adapters that are
switched off, or no weights that could be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hf_smoothing.certification.classifiers import ResolvedClassifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.sampling import check_logits


KEPT = 16
"""Logits that are recorded as they are, and mixtures of all of them that are recorded where there are more."""

EXACT, FINE, COARSE = (5e-5, 1e-5), (5e-3, 1e-5), (5e-2, 2e-2)
"""How far a logit may move, in shares of the range of the logits and of itself: kernels round otherwise for another batch. The first of deterministic
certificates, which a vote over noise does not blur: another processor, number of threads or memory format stays far within it."""


@dataclass(frozen=True)
class Answer:
    """What a classifier answered to the probe.

    Attributes:
        logits: The first `KEPT` logits, and if there are more as many mixtures of all: what a record keeps.
        classes: Number of classes.
    """

    logits: list[float]
    classes: int


@torch.no_grad()  # not inference mode: what a network makes once and keeps must serve gradients later
def answer_to_probe(
    classifier: ResolvedClassifier,
    shape: tuple[int, ...],
    execution: Execution | None = None,
    dtype: torch.dtype = torch.float32,
) -> Answer:
    """The answer to a fixed image, checked to be a function of that image alone.

    Args:
        classifier: The classifier, on its device.
        shape: Shape of an image, (channels, height, width).
        execution: How the network is run.
        dtype: Dtype of the pixels.

    Raises:
        ValueError: If it changes from one pass to the next, or with the other images of the batch.
        TypeError: If it is no logits.
    """
    execution = execution or Execution()
    image, dark, bright = probe_images(shape).to(classifier.device, dtype)
    tolerance = COARSE if _coarse(classifier, execution) else FINE

    def logits(*images: Tensor) -> Tensor:
        with execution.autocast(classifier.device):
            found = check_logits(classifier(torch.stack(images)), len(images))
        # Minus infinity stands for a class that is ruled out; nan is refused where votes are counted.
        return torch.nan_to_num(found.cpu().double(), nan=0.0, posinf=0.0, neginf=0.0)

    try:
        beside_dark, again, beside_bright = logits(dark, image)[1], logits(dark, image)[1], logits(image, bright)[0]
    except Exception as error:
        error.add_note(
            "This came for two images, before any draw: a classifier must take batches of any size. See certification.md."
        )
        raise
    try:
        alone = logits(image)[0]
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(
            f"The classifier must judge each image by itself, but one image alone gives {type(error).__name__}: {error} {_CURE}"
        ) from error
    if answers_apart(beside_dark.tolist(), again.tolist(), tolerance) > 1:
        raise ValueError(
            f"The classifier must answer to an image alike each time, but its logits for the same batch differ by {_most(beside_dark - again):.3g} between two passes. "
            "Call eval() on the network in it, and let it draw no random numbers."
        )
    for other in (beside_bright, alone):
        if answers_apart(beside_dark.tolist(), other.tolist(), tolerance) > 1:
            raise ValueError(
                "The classifier must judge each image by itself, but its logits for an image change by "
                f"{_most(beside_dark - other):.3g} with the other images of the batch. {_CURE}"
            )
    return Answer(_kept(alone), len(alone))


def same_answer(
    classifier: ResolvedClassifier,
    execution: Execution,
    known: Sequence[float],
    now: Sequence[float],
    *,
    elsewhere: bool = False,
    deterministic: bool = False,
) -> bool:
    """Whether two records of an answer are those of one classifier, up to rounding.

    Args:
        classifier, execution: As in `answer_to_probe`.
        known, now: The logits of both.
        elsewhere: Whether one was made on another kind of device.
        deterministic: Whether both are the answers of exact certificates, made in the network's own dtype and without TF32.
    """
    if deterministic:
        tolerance = COARSE if elsewhere or _in_half(classifier, execution) else EXACT
    else:
        tolerance = COARSE if elsewhere or _coarse(classifier, execution) else FINE
    return answers_apart(known, now, tolerance) <= 1


def as_recorded(
    answer: Answer,
    recorded: Sequence[float] | None,
    classifier: ResolvedClassifier,
    execution: Execution,
    *,
    deterministic: bool = False,
) -> Answer:
    """The answer, with the logits of a record where they are the same up to rounding, so that records can be compared as they stand."""
    if recorded is not None and same_answer(
        classifier, execution, recorded, answer.logits, deterministic=deterministic
    ):
        return replace(answer, logits=list(recorded))
    return answer


def answers_apart(first: Sequence[float], second: Sequence[float], tolerance: tuple[float, float]) -> float:
    """How far two answers lie apart, in units of what rounding may do (`EXACT`, `FINE` or `COARSE`): above 1 they are those of two functions.

    >>> answers_apart([0.0, 1.0], [0.0, 1.001], FINE) < 1 < answers_apart([0.0, 1.0], [0.0, 1.1], FINE)
    True
    """
    if len(first) != len(second):
        return float("inf")
    both = torch.tensor([first, second], dtype=torch.float64)
    of_range, of_itself = tolerance
    size = both.abs().amax(0)
    # A class that is masked by a huge negative logit is not part of the range.
    leading = both[:, size <= 100 * max(float(size[both.amax(0).argmax()]), float(size.median()))]
    allowed = of_range * float(leading.max() - leading.min()) + of_itself * size
    apart = (both[0] - both[1]).abs()
    return _most(torch.where(apart > 0, apart / allowed, apart))


def probe_images(shape: tuple[int, ...]) -> Tensor:
    """A noisy image, a dark and a bright one; the same on every machine. The others reach beyond the image, as noisy copies do."""
    image, dark, bright = torch.rand((3, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    return torch.stack([image, dark - 2, bright + 2])


def _kept(logits: Tensor) -> list[float]:
    found = logits[:KEPT]
    if len(logits) > KEPT:
        generator = torch.Generator().manual_seed(0)
        signs = 2.0 * torch.randint(0, 2, (KEPT, len(logits)), generator=generator) - 1
        found = torch.cat([found, signs.double() @ logits / len(logits) ** 0.5])
    return [float(f"{value:.6g}") for value in found.tolist()]


def _coarse(classifier: ResolvedClassifier, execution: Execution) -> bool:
    """Whether it may round as half precision does. An accelerator may choose another kernel for another batch, and TF32 for float32."""
    return classifier.device.type != "cpu" or _in_half(classifier, execution)


def _in_half(classifier: ResolvedClassifier, execution: Execution) -> bool:
    """Whether half precision is asked for, or in the weights."""
    weights = () if classifier.module is None else classifier.module.parameters()
    return execution.dtype != "float32" or any(
        weight.dtype.is_floating_point and weight.dtype.itemsize < 4 for weight in weights
    )


def _most(difference: Tensor) -> float:
    return float(difference.abs().max())


_CURE = (
    "Call eval() on the network in it; batch norm needs running statistics (track_running_stats=True), quantisation a scale that is "
    "not taken from the batch."
)

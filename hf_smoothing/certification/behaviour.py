"""What a classifier answers to fixed images: the same each time and whatever else is in the batch, or it is not certified.

A certificate is about a function of one image, and a run that goes on must ask the same function. Batch norm without running statistics,
dropout behind a plain function and the like make the votes depend on what shares a batch; no look at modules finds them all, a few forward
passes do. The answer also tells classifiers with the same weights from one another: other buffers, hooks, activations, adapters that are
switched off, or no weights that could be seen.

One answer says much where logits follow the image in small steps. Hard votes and saturated probabilities stay as they are until another class
wins, so where near images have one answer, many further images are asked about.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.certification.classifiers import ResolvedClassifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.probes import FURTHER, GOLDEN, further_images, probe_images
from hf_smoothing.certification.sampling import check_logits
from hf_smoothing.certification.structure import attributes_of, attributes_sha256


KEPT = 16
"""Logits that are recorded as they are, and mixtures of all of them that are recorded where there are more."""

EXACT, FINE, COARSE = (5e-5, 1e-5), (5e-3, 1e-5), (5e-2, 2e-2)
"""How far a logit may move, in shares of the range of the logits and of itself: kernels round otherwise for another batch. The first of deterministic
certificates, which a vote over noise does not blur: another processor, number of threads or memory format stays far within it."""


LOGITS, ANSWERS, ATTRIBUTES = "probe_logits", "probe_answers", "attributes_sha256"
"""The names of an answer's parts in a record."""


@dataclass(frozen=True)
class Answer:
    """What a classifier answered to the fixed images: what a record keeps.

    Attributes:
        logits: For the first image the first `KEPT` logits, and if there are more as many mixtures of all.
        classes: Number of classes.
        further: For each of the further images one mixture of all logits; None where near images had answers of their own, so that `logits` tell
            enough.
        attributes: SHA-256 of what the module says of itself beside its tensors; None as `further`, and without a module.
    """

    logits: list[float]
    classes: int
    further: list[float] | None = None
    attributes: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """What a record says of it."""
        said = {LOGITS: self.logits, ANSWERS: self.further, ATTRIBUTES: self.attributes}
        return {key: value for key, value in said.items() if value is not None}


@torch.no_grad()  # not inference mode: what a network makes once and keeps must serve gradients later
def answer_to_probe(
    classifier: ResolvedClassifier,
    shape: tuple[int, ...],
    execution: Execution | None = None,
    dtype: torch.dtype = torch.float32,
    *,
    known: Mapping[str, Any] | None = None,
    elsewhere: bool = False,
    deterministic: bool = False,
) -> Answer:
    """The answer to fixed images, checked to be a function of each image alone.

    Args:
        classifier: The classifier, on its device.
        shape: Shape of an image, (channels, height, width).
        execution: How the network is run.
        dtype: Dtype of the pixels.
        known: What a record says of the answer: its numbers are given where they are the same up to rounding, so that records can be compared as
            they stand, and nothing that it does not know.
        elsewhere: Whether the record was made on another kind of device.
        deterministic: Whether it is that of exact certificates, made in the network's own dtype and without TF32.

    Raises:
        ValueError: If it changes from one pass to the next, or with the other images of the batch.
        TypeError: If it is no logits.
    """
    execution, known = execution or Execution(), known or {}
    image, *near, dark, bright = probe_images(shape).to(classifier.device, dtype)
    coarse = _coarse(classifier, execution)
    tolerance = COARSE if coarse else FINE

    def logits(*images: Tensor) -> Tensor:
        with execution.autocast(classifier.device):
            found = check_logits(classifier(torch.stack(images)), len(images))
        # Minus infinity stands for a class that is ruled out; nan is refused where votes are counted.
        return torch.nan_to_num(found.cpu().double(), nan=0.0, posinf=0.0, neginf=0.0)

    try:
        first, again = logits(dark, bright, image, *near)[2:], logits(dark, bright, image, *near)[2:]
        beside = logits(image, *near, bright)[:-1]
    except Exception as error:
        error.add_note(
            f"This came for {len(near) + 3} images, before any draw: a classifier must take batches of any size. See certification.md."
        )
        raise
    try:
        alone = logits(image)
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(
            f"The classifier must judge each image by itself, but one image alone gives {type(error).__name__}: {error} {_CURE}"
        ) from error
    if _rows_apart(first, again, tolerance):
        raise _other_each_time(first, again)
    for other in (beside, alone):
        if _rows_apart(first[: len(other)], other, tolerance):
            raise _other_in_company(first[: len(other)], other)

    def about_further(*others: Tensor, regrouped: bool = False) -> Tensor:
        found = first.new_empty((FURTHER, first.shape[1]))
        for numbers, images in further_images(shape, regrouped=regrouped):
            found[numbers] = logits(*others, *images.to(classifier.device, dtype))[len(others) :]
        return found

    further = attributes = None
    said = attributes_of(classifier.module)
    # By the finer tolerance: half precision rounds graded answers, but leaves hard ones alike.
    if ANSWERS in known or any(not _rows_apart(a[None], b[None], FINE) for a, b in itertools.combinations(first, 2)):
        here, again = about_further(image), about_further(image)
        if _rows_apart(here, again, tolerance) > (_allowed(tolerance) if coarse else 0):
            raise _other_each_time(here, again)
        there = about_further(dark, image, regrouped=True)
        if _rows_apart(here, there, tolerance) > _allowed(tolerance):
            raise _other_in_company(here, there)
        weights = torch.arange(1, here.shape[1] + 1, dtype=torch.float64, device="cpu") * GOLDEN % 1.0
        further = _rounded(here @ weights)
        # What counts the passes is no part of the network.
        kept = said & attributes_of(classifier.module)
        attributes = attributes_sha256(kept) if kept else None
    answer = Answer(_kept(alone[0]), alone.shape[1], further, attributes)
    if not known:
        return answer
    if deterministic:
        tolerance = COARSE if elsewhere or _in_half(classifier, execution) else EXACT
    else:
        tolerance = COARSE if elsewhere or coarse else FINE
    return _as_recorded(answer, known, tolerance, classifier)


def _as_recorded(
    answer: Answer, known: Mapping[str, Any], tolerance: tuple[float, float], classifier: ResolvedClassifier
) -> Answer:
    logits, further = answer.logits, answer.further
    if LOGITS in known and answers_apart(known[LOGITS], logits, tolerance) <= 1:
        logits = known[LOGITS]
    if further is None or ANSWERS not in known:
        return Answer(logits, answer.classes)
    if _values_apart(known[ANSWERS], further, tolerance) <= _allowed(tolerance):
        further = known[ANSWERS]
        if len(set(further)) == 1 and logits == known.get(LOGITS) and classifier.module is None:
            warnings.warn(
                f"The classifier is a function that gives one answer to all of {FURTHER} fixed images, so nothing shows whether it is the one that "
                "was recorded. Make sure that it is, or use another output folder.",
                stacklevel=4,
            )
    return Answer(logits, answer.classes, further, answer.attributes if ATTRIBUTES in known else None)


def answers_apart(first: Sequence[float], second: Sequence[float], tolerance: tuple[float, float]) -> float:
    """How far two answers lie apart, in units of what rounding may do (`EXACT`, `FINE` or `COARSE`): above 1 they are those of two functions.

    >>> answers_apart([0.0, 1.0], [0.0, 1.001], FINE) < 1 < answers_apart([0.0, 1.0], [0.0, 1.1], FINE)
    True
    """
    if len(first) != len(second):
        return float("inf")
    both = torch.tensor([first, second], dtype=torch.float64, device="cpu")
    of_range, of_itself = tolerance
    size = both.abs().amax(0)
    # A class that is masked by a huge negative logit is not part of the range.
    leading = both[:, size <= 100 * max(float(size[both.amax(0).argmax()]), float(size.median()))]
    allowed = of_range * float(leading.max() - leading.min()) + of_itself * size
    apart = (both[0] - both[1]).abs()
    return _most(torch.where(apart > 0, apart / allowed, apart))


def _rows_apart(first: Tensor, second: Tensor, tolerance: tuple[float, float]) -> int:
    """How many images have two answers, each given as a row."""
    return sum(answers_apart(a, b, tolerance) > 1 for a, b in zip(first.tolist(), second.tolist(), strict=True))


def _values_apart(first: Sequence[float], second: Sequence[float], tolerance: tuple[float, float]) -> int:
    """How many images have two answers, each given as one number; all where they are not as many."""
    if len(first) != len(second):
        return max(len(first), len(second))
    both = torch.tensor([first, second], dtype=torch.float64, device="cpu")
    of_range, of_itself = tolerance
    allowed = of_range * (both.max() - both.min()) + of_itself * both.abs().amax(0)
    return int(((both[0] - both[1]).abs() > allowed).sum())


def _allowed(tolerance: tuple[float, float]) -> int:
    """How many of the further images may have two answers: one that lies on the border of two classes goes either way by rounding."""
    return FURTHER // 16 if tolerance == COARSE else 1


def _other_each_time(first: Tensor, again: Tensor) -> ValueError:
    return ValueError(
        f"The classifier must answer to an image alike each time, but its logits for the same batch differ by {_most(first - again):.3g} between two passes. "
        "Call eval() on the network in it, and let it draw no random numbers."
    )


def _other_in_company(first: Tensor, other: Tensor) -> ValueError:
    return ValueError(
        "The classifier must judge each image by itself, but its logits for an image change by "
        f"{_most(first - other):.3g} with the other images of the batch. {_CURE}"
    )


def _kept(logits: Tensor) -> list[float]:
    found = logits[:KEPT]
    if len(logits) > KEPT:
        generator = torch.Generator("cpu").manual_seed(0)
        signs = 2.0 * torch.randint(0, 2, (KEPT, len(logits)), generator=generator, device="cpu") - 1
        found = torch.cat([found, signs.double() @ logits / len(logits) ** 0.5])
    return _rounded(found)


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


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

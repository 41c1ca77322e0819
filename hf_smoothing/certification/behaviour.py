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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.certification.classifiers import ResolvedClassifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.probes import FURTHER, GOLDEN, further_images, probe_images
from hf_smoothing.certification.sampling import check_logits
from hf_smoothing.certification.structure import attributes_of, attributes_sha256
from hf_smoothing.certification.tolerance import (
    COARSE,
    EXACT,
    FINE,
    Tolerance,
    allowed_apart,
    answers_apart,
    most,
    rows_apart,
    values_apart,
)


KEPT = 16
"""Logits that are recorded as they are, and mixtures of all of them that are recorded where there are more."""

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
    asking = _Asking(classifier, shape, execution, dtype)
    near, alone = asking.about_near()
    further = attributes = None
    said = attributes_of(classifier.module)
    # By the finer tolerance: half precision rounds graded answers, but leaves hard ones alike.
    if ANSWERS in known or any(not rows_apart(a[None], b[None], FINE) for a, b in itertools.combinations(near, 2)):
        found = asking.about_further()
        weights = torch.arange(1, found.shape[1] + 1, dtype=torch.float64, device="cpu") * GOLDEN % 1.0
        further = _rounded(found @ weights)
        # What counts the passes is no part of the network.
        kept = said & attributes_of(classifier.module)
        attributes = attributes_sha256(kept) if kept else None
    answer = Answer(_kept(alone), len(alone), further, attributes)
    if not known:
        return answer
    if deterministic:
        tolerance = COARSE if elsewhere or _in_half(classifier, execution) else EXACT
    else:
        tolerance = COARSE if elsewhere or asking.coarse else FINE
    return _as_recorded(answer, known, tolerance, classifier)


class _Asking:
    """Forward passes of a classifier over the fixed images, which must agree with one another."""

    def __init__(
        self, classifier: ResolvedClassifier, shape: tuple[int, ...], execution: Execution, dtype: torch.dtype
    ):
        self.classifier, self.shape, self.execution, self.dtype = classifier, shape, execution, dtype
        self.image, *self.near, self.dark, self.bright = probe_images(shape).to(classifier.device, dtype)
        self.coarse = _coarse(classifier, execution)
        self.tolerance = COARSE if self.coarse else FINE

    def logits(self, *images: Tensor) -> Tensor:
        with self.execution.autocast(self.classifier.device):
            found = check_logits(self.classifier(torch.stack(images)), len(images))
        # Minus infinity stands for a class that is ruled out; nan is refused where votes are counted.
        return torch.nan_to_num(found.cpu().double(), nan=0.0, posinf=0.0, neginf=0.0)

    def about_near(self) -> tuple[Tensor, Tensor]:
        """Logits of the noisy image and of its copies of less contrast, and those of the noisy image alone."""
        images = (self.image, *self.near)
        try:
            found, again = (self.logits(self.dark, self.bright, *images)[2:] for _ in range(2))
            beside = self.logits(*images, self.bright)[:-1]
        except Exception as error:
            error.add_note(
                f"This came for {len(images) + 2} images, before any draw: a classifier must take batches of any size. See certification.md."
            )
            raise
        try:
            alone = self.logits(self.image)
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ValueError(
                f"The classifier must judge each image by itself, but one image alone gives {type(error).__name__}: {error} {_CURE}"
            ) from error
        if rows_apart(found, again, self.tolerance):
            raise _other_each_time(found, again)
        for other in (beside, alone):
            if rows_apart(found[: len(other)], other, self.tolerance):
                raise _other_in_company(found[: len(other)], other)
        return found, alone[0]

    def about_further(self) -> Tensor:
        """Logits of the further images."""
        found, again = self._further(self.image), self._further(self.image)
        # Where nothing rounds coarsely, the same batches give the same answers.
        if rows_apart(found, again, self.tolerance) > (allowed_apart(self.tolerance) if self.coarse else 0):
            raise _other_each_time(found, again)
        regrouped = self._further(self.dark, self.image, regrouped=True)
        if rows_apart(found, regrouped, self.tolerance) > allowed_apart(self.tolerance):
            raise _other_in_company(found, regrouped)
        return found

    def _further(self, *others: Tensor, regrouped: bool = False) -> Tensor:
        rows: dict[int, Tensor] = {}
        for numbers, images in further_images(self.shape, regrouped=regrouped):
            found = self.logits(*others, *images.to(self.classifier.device, self.dtype))[len(others) :]
            rows.update(zip(numbers, found, strict=True))
        return torch.stack([rows[number] for number in range(FURTHER)])


def _as_recorded(
    answer: Answer, known: Mapping[str, Any], tolerance: Tolerance, classifier: ResolvedClassifier
) -> Answer:
    logits, further = answer.logits, answer.further
    if LOGITS in known and answers_apart(known[LOGITS], logits, tolerance) <= 1:
        logits = known[LOGITS]
    if further is None or ANSWERS not in known:
        return Answer(logits, answer.classes)
    if values_apart(known[ANSWERS], further, tolerance) <= allowed_apart(tolerance):
        further = known[ANSWERS]
        if len(set(further)) == 1 and logits == known.get(LOGITS) and classifier.module is None:
            warnings.warn(
                f"The classifier is a function that gives one answer to all of {FURTHER} fixed images, so nothing shows whether it is the one that "
                "was recorded. Make sure that it is, or use another output folder.",
                stacklevel=4,
            )
    return Answer(logits, answer.classes, further, answer.attributes if ATTRIBUTES in known else None)


def _other_each_time(first: Tensor, again: Tensor) -> ValueError:
    return ValueError(
        f"The classifier must answer to an image alike each time, but its logits for the same batch differ by {most(first - again):.3g} between two passes. "
        "Call eval() on the network in it, and let it draw no random numbers."
    )


def _other_in_company(first: Tensor, other: Tensor) -> ValueError:
    return ValueError(
        "The classifier must judge each image by itself, but its logits for an image change by "
        f"{most(first - other):.3g} with the other images of the batch. {_CURE}"
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


_CURE = (
    "Call eval() on the network in it; batch norm needs running statistics (track_running_stats=True), quantisation a scale that is "
    "not taken from the batch."
)

"""What a classifier answers to fixed images: the same each time and whatever else is in the batch, or it is not certified.

A certificate is about a function of one image, and a run that goes on must ask the same function. Batch norm without running statistics,
dropout behind a plain function and the like make the votes depend on what shares a batch; no look at modules finds them all, a few forward
passes do. The answer also tells classifiers with the same weights from one another: other buffers, hooks, activations, adapters that are
switched off, or no weights that could be seen. What gives the same answers is the same classifier, whatever its modules say of themselves.

One answer says much where logits follow the image in small steps. Hard votes and saturated probabilities stay as they are until another class
wins, so where near images have one answer, many further images are asked about.

Votes are for noisy images, most of whose pixels may lie outside [0, 1]. A network that clamps its pixels is another function there alone, so
noisy images are asked about as well, and a dark and a bright one. A deterministic certificate is about images within [0, 1], and so are its
bounds: networks that differ outside are the same for it.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.certification.asking import Asking, in_half
from hf_smoothing.certification.classifiers import ResolvedClassifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.structure import saved_buffers
from hf_smoothing.certification.tolerance import (
    COARSE,
    EXACT,
    FINE,
    Tolerance,
    allowed_apart,
    clear_class,
    rows_apart,
    without_masks,
)


KEPT = 16
"""Numbers that are recorded of the logits for an image."""

LOGITS, CLASSES = "probe_logits", "probe_classes"
"""The names of an answer's parts in a record."""


@dataclass(frozen=True)
class Answer:
    """What a classifier answers to the fixed images: what a record keeps.

    Attributes:
        logits: For each of the first images (one, a dark, a bright and some noisy ones; the one alone for deterministic certificates) its logits, or
            `KEPT` mixtures of them where there are more.
        labels: The class of each of these images and, where near images have one answer, of many further ones; None where rounding may give it to another
            class.
        classes: Number of classes.
    """

    logits: list[list[float]]
    labels: list[int | None]
    classes: int

    def to_dict(self) -> dict[str, Any]:
        """What a record says of it."""
        return {LOGITS: self.logits, CLASSES: self.labels}


@torch.inference_mode(False)  # as `count_votes`
@torch.no_grad()
def check_one_image(classifier: ResolvedClassifier, shape: tuple[int, ...], execution: Execution) -> None:
    """Refuse what is no function of one image, where nothing of its answer is kept: with few images, since each call would ask about all again.

    Raises:
        ValueError, TypeError: As `answer_to_probe`.
    """
    asking = Asking(classifier, shape, execution, torch.float32)
    near, *_ = asking.about_near(noisy=False)
    if _alike(near):
        asking.about_some()


@torch.inference_mode(False)  # as `count_votes`
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
        known: What a record says of the answer: its logits and its classes are given where they are the same up to rounding, so that records can be
            compared as they stand.
        elsewhere: Whether the record was made on another kind of device.
        deterministic: Whether it is that of exact certificates, made in the network's own dtype and without TF32.

    Raises:
        ValueError: If it changes from one pass to the next, or with the other images of the batch.
        TypeError: If it is no logits.
    """
    execution = execution or Execution()
    asking = Asking(classifier, shape, execution, dtype)
    saved = saved_buffers(classifier.module)
    near, alone, beyond = asking.about_near(noisy=not deterministic)
    first = alone if deterministic else torch.cat([alone, beyond])
    alike = _alike(near)
    hard = len(known[CLASSES]) > len(known[LOGITS]) if known else alike
    further = asking.about_further() if alike or hard else None
    rows = first
    if hard and further is not None:
        rows = torch.cat([first, further] if deterministic else [first, further, asking.about_noisy()])
    changed = [name for name, value in saved_buffers(classifier.module).items() if saved.get(name) != value]
    if changed:
        warnings.warn(
            f"Forward passes change {', '.join(sorted(changed)[:5])} of the network. These buffers are part of its weights, so a run may not be resumed "
            "with it. Register them with persistent=False if no answer depends on them.",
            stacklevel=3,
        )
    if deterministic:
        tolerance = COARSE if elsewhere or in_half(classifier, execution) else EXACT
    else:
        tolerance = COARSE if elsewhere or asking.coarse else FINE
    answer = Answer(_kept(first), [clear_class(row, tolerance) for row in rows], rows.shape[1])
    if not known:
        return answer
    found = _as_recorded(answer, known, tolerance, hard)
    weights = classifier.module is not None and next(classifier.module.parameters(), None) is not None
    if hard and not weights and found.to_dict() == known and len({*found.labels} - {None}) < 2:
        warnings.warn(
            f"The classifier has no weights and gives one answer to all of {len(found.labels)} fixed images, so nothing shows whether it is the one "
            "that was recorded. Make sure that it is, or use another output folder.",
            stacklevel=3,
        )
    return found


def _alike(near: Tensor) -> bool:
    """Whether near images have one answer, by the finer tolerance: half precision rounds graded answers, but leaves hard ones alike."""
    return any(not rows_apart(a[None], b[None], FINE) for a, b in itertools.combinations(near, 2))


def _as_recorded(answer: Answer, known: Mapping[str, Any], tolerance: Tolerance, hard: bool) -> Answer:
    """The answer with those parts of the record that are the same: no image has another clear class, none other logits."""
    logits, labels = known[LOGITS], known[CLASSES]
    recorded, found = (torch.tensor(one, dtype=torch.float64, device="cpu") for one in (logits, answer.logits))
    others = sum(
        None not in pair and pair[0] != pair[1] for pair in itertools.zip_longest(labels, answer.labels, fillvalue=-1)
    )
    # A vote on the border of two classes goes either way where rounding is coarse; graded logits do not.
    borders = hard and tolerance == COARSE
    same = rows_apart(recorded, found, tolerance) <= (allowed_apart(tolerance, len(logits)) if borders else 0)
    same_labels = others <= (allowed_apart(tolerance, len(labels)) if borders else 0)
    return replace(answer, logits=logits if same else answer.logits, labels=labels if same_labels else answer.labels)


def _kept(rows: Tensor) -> list[list[float]]:
    if rows.shape[1] > KEPT:
        generator = torch.Generator("cpu").manual_seed(0)
        signs = 2.0 * torch.randint(0, 2, (rows.shape[1], KEPT), generator=generator, device="cpu") - 1
        rows = torch.stack([without_masks(row) for row in rows])
        # Where fewer than five classes are left there is no telling a mask from a clear answer.
        rows = rows.maximum(rows.amax(1, keepdim=True) - 1e4) @ signs.double() / rows.shape[1] ** 0.5
    return [[float(f"{value:.6g}") for value in row] for row in rows.tolist()]

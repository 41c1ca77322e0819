"""What a classifier answers to fixed images: the same each time and whatever else is in the batch, or it is not certified.

A certificate is about a function of one image, and a run that goes on must ask the same function. Batch norm without running statistics,
dropout behind a plain function and the like make the votes depend on what shares a batch; no look at modules finds them all, a few forward
passes do. The answer also tells classifiers with the same weights from one another: other buffers, hooks, activations, adapters that are
switched off, or no weights that could be seen.

One answer says much where logits follow the image in small steps. Hard votes and saturated probabilities stay as they are until another class
wins, so where near images have one answer, many further images are asked about.

Votes are for noisy images, most of whose pixels may lie outside [0, 1]. A network that clamps its pixels is another function there alone, so
noisy images are asked about as well, and a dark and a bright one. A deterministic certificate is about images within [0, 1], and so are its
bounds: networks that differ outside are the same for it.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.certification.asking import Asking, in_half
from hf_smoothing.certification.classifiers import ResolvedClassifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.probes import FURTHER, GOLDEN
from hf_smoothing.certification.structure import (
    attribute_hashes,
    attributes_of,
    moving,
    saved_buffers,
    values_alone,
)
from hf_smoothing.certification.tolerance import (
    COARSE,
    EXACT,
    FINE,
    Tolerance,
    allowed_apart,
    answers_apart,
    mixture_scales,
    rows_apart,
    values_apart,
)


KEPT = 16
"""Logits that are recorded as they are, and mixtures of all of them that are recorded where there are more."""

LOGITS, NOISE, ANSWERS, ATTRIBUTES = "probe_logits", "probe_noisy", "probe_answers", "attributes"
"""The names of an answer's parts in a record."""
PARTS = (LOGITS, NOISE, ANSWERS, ATTRIBUTES)


@dataclass(frozen=True)
class Answer:
    """What a classifier answered to the fixed images: what a record keeps.

    Attributes:
        logits: For the first image the first `KEPT` logits, and if there are more as many mixtures of all.
        classes: Number of classes.
        noisy: For a dark, a bright and some noisy images one mixture of all logits each; None for deterministic certificates.
        further: For each of the further images one mixture of all logits; None where near images had answers of their own, so that `logits` tell
            enough.
        attributes: For each name of an attribute a short hash of what the modules say; None without a module.
    """

    logits: list[float]
    classes: int
    noisy: list[float] | None = None
    further: list[float] | None = None
    attributes: dict[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What a record says of it."""
        said = zip(PARTS, (self.logits, self.noisy, self.further, self.attributes), strict=True)
        return {key: value for key, value in said if value is not None}


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
        known: What a record says of the answer: its numbers are given where they are the same up to rounding, so that records can be compared as
            they stand, and nothing that it does not know.
        elsewhere: Whether the record was made on another kind of device.
        deterministic: Whether it is that of exact certificates, made in the network's own dtype and without TF32.

    Raises:
        ValueError: If it changes from one pass to the next, or with the other images of the batch.
        TypeError: If it is no logits.
    """
    execution, known = execution or Execution(), known or {}
    asking = Asking(classifier, shape, execution, dtype)
    said, saved = attributes_of(classifier.module), saved_buffers(classifier.module)
    near, alone, beyond = asking.about_near(noisy=not deterministic)
    alike = _alike(near)
    further = asking.about_further() if ANSWERS in known or alike else None
    hard = ANSWERS in known if known else alike
    if hard and not deterministic and (not known or NOISE in known):
        beyond = torch.cat([beyond, asking.about_noisy()])
    answer = Answer(_kept(alone), len(alone), noisy=None if deterministic else _mixtures(beyond))
    if hard and further is not None:
        answer = replace(answer, further=_mixtures(further))
    if classifier.module is not None:
        passing = moving(said, attributes_of(classifier.module))
        # Graded answers show other classes of modules, of which several may compute the same function.
        found = said if hard else values_alone(said)
        answer = replace(answer, attributes=attribute_hashes(found, passing, known.get(ATTRIBUTES)))
        _warn_of_counting({name for name, _ in saved ^ saved_buffers(classifier.module)})
    if not known:
        return answer
    if deterministic:
        tolerance = COARSE if elsewhere or in_half(classifier, execution) else EXACT
    else:
        tolerance = COARSE if elsewhere or asking.coarse else FINE
    scales = None if hard else mixture_scales(beyond, _weights(len(alone)))
    return _as_recorded(answer, known, tolerance, scales, classifier)


def _alike(near: Tensor) -> bool:
    """Whether near images have one answer, by the finer tolerance: half precision rounds graded answers, but leaves hard ones alike."""
    return any(not rows_apart(a[None], b[None], FINE) for a, b in itertools.combinations(near, 2))


def _warn_of_counting(changed: set[str]) -> None:
    if changed:
        warnings.warn(
            f"Forward passes change {', '.join(sorted(changed)[:5])} of the network. These buffers are part of its weights, so a run may not be resumed "
            "with it. Register them with persistent=False if no answer depends on them.",
            stacklevel=4,
        )


def _as_recorded(
    answer: Answer,
    known: Mapping[str, Any],
    tolerance: Tolerance,
    scales: Sequence[float] | None,
    classifier: ResolvedClassifier,
) -> Answer:
    logits, noisy, further = answer.logits, answer.noisy, answer.further
    if LOGITS in known and answers_apart(known[LOGITS], logits, tolerance) <= 1:
        logits = known[LOGITS]
    if noisy is not None and NOISE in known:
        # A vote on the border of two classes goes either way by rounding, graded logits do not.
        most = 0 if further is None else allowed_apart(tolerance, len(noisy))
        if values_apart(known[NOISE], noisy, tolerance, scales) <= most:
            noisy = known[NOISE]
    if further is not None and values_apart(known[ANSWERS], further, tolerance) <= allowed_apart(tolerance):
        further = known[ANSWERS]
        if len(set(further)) == 1 and logits == known.get(LOGITS) and classifier.module is None:
            warnings.warn(
                f"The classifier is a function that gives one answer to all of {FURTHER} fixed images, so nothing shows whether it is the one that "
                "was recorded. Make sure that it is, or use another output folder.",
                stacklevel=4,
            )
    found = replace(answer, logits=logits, noisy=noisy, further=further)
    fields = dict(zip(PARTS, ("logits", "noisy", "further", "attributes"), strict=True))
    unknown = {field: None for key, field in fields.items() if key not in known and key != LOGITS}
    return replace(found, **unknown)  # type: ignore[arg-type]  # no part but the logits is required


def _kept(logits: Tensor) -> list[float]:
    found = logits[:KEPT]
    if len(logits) > KEPT:
        generator = torch.Generator("cpu").manual_seed(0)
        signs = 2.0 * torch.randint(0, 2, (KEPT, len(logits)), generator=generator, device="cpu") - 1
        found = torch.cat([found, signs.double() @ logits / len(logits) ** 0.5])
    return _rounded(found)


def _mixtures(rows: Tensor) -> list[float]:
    return _rounded(rows @ _weights(rows.shape[1]))


def _weights(classes: int) -> Tensor:
    return torch.arange(1, classes + 1, dtype=torch.float64, device="cpu") * GOLDEN % 1.0


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]

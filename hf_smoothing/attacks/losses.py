"""Losses that attacks climb, one per image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.types import Classifier, classify_of


def logits_of_batch(classifier: Classifier, pixels: Tensor) -> Tensor:
    """The logits of a callable, or of an object with `classify`, checked; the pixels stay as they are, whatever it does with them in place.

    Raises:
        TypeError, ValueError: If they are no (batch, num_labels) tensor.
    """
    logits = classify_of(classifier)(pixels.clone())
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"The classifier must return a tensor of logits (batch, num_labels), got {type(logits).__name__}. "
            "Wrap a transformers model with SmoothedClassifier.from_base_pretrained, or return output.logits."
        )
    if logits.ndim != 2 or len(logits) != len(pixels):
        raise ValueError(
            f"The classifier must return logits of shape (batch, num_labels) = ({len(pixels)}, ...), got {tuple(logits.shape)}."
        )
    return logits


def cross_entropies(logits_of: Classifier, point: Tensor, labels: Tensor) -> Tensor:
    """The cross entropy of each image; in float64, where those of a confident classifier still differ."""
    logits = logits_of_batch(logits_of, point)
    _check_below(labels, logits.shape[1])
    return _no_nan(F.cross_entropy(logits.double(), labels.to(logits.device), reduction="none").to(point.device))


def _no_nan(losses: Tensor) -> Tensor:
    if bool(torch.isnan(losses).any()):
        raise ValueError(
            "The classifier must return logits that are no nan, got nan in the loss: the attack would not move, and prove "
            "nothing. Check the weights, and run in float32."
        )
    return losses


def log_odds(logits_of: Classifier, point: Tensor, labels: Tensor) -> Tensor:
    """log((1 - p_y) / p_y) of each image, in float64.

    It grows with the cross-entropy log(1 / p_y), and its gradient points the same way, but does not vanish where the classifier is sure:
    steps along the sign or the normalised gradient are those of the cross-entropy, whatever the scale of the logits.
    """
    logits = logits_of_batch(logits_of, point).double()
    _check_below(labels, logits.shape[1])
    classes = labels.to(logits.device)[:, None]
    # Not -inf: a table of a single class would have no gradient but nan.
    others = logits.scatter(1, classes, torch.finfo(torch.float64).min).logsumexp(1)
    return _no_nan((others - logits.gather(1, classes)[:, 0]).to(point.device))


def check_answers(logits: Tensor, labels: Tensor) -> None:
    """Refuse logits that are nan, which would count as wrong answers, and labels that no answer can be.

    Raises:
        ValueError: The message names the values.
    """
    _check_below(labels, logits.shape[1])
    if bool(torch.isnan(logits).any()):
        raise ValueError("The classifier must return logits that are no nan. Check the weights, and run in float32.")


def _check_below(labels: Tensor, classes: int) -> None:
    if int(labels.max()) >= classes:
        raise ValueError(
            f"`labels` must be below the number of classes, {classes}, got {int(labels.max())}. Count from 0."
        )


def log_mean_softmax(logits: Tensor, dim: int = 0) -> Tensor:
    """Log of the mean softmax over noisy copies, all finite: the soft smoothed classifier.

    Args:
        logits: Logits (..., classes).
        dim: Dimension of the copies, which it loses; not the last.

    Returns:
        A float32 tensor or better. Sums of logarithms, since the mean itself underflows to 0 where every copy is
        confident.
    """
    log_p = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    return torch.logsumexp(log_p, dim=dim) - math.log(logits.shape[dim])


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of tables of log-probabilities (..., classes), without their last axis; they are broadcast."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def check_labels(labels: Tensor, images: Tensor) -> Tensor:
    """The labels as int64 on the device of the images; a copy, since a tensor made under inference_mode may not enter a graph."""
    kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
    if kind not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise TypeError(f"`labels` must be a tensor of whole numbers, got {kind}. Use torch.tensor(labels).long().")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"`labels` must have shape (batch,) = ({len(images)},), got {tuple(labels.shape)}. Pass one class per image."
        )
    if int(labels.min()) < 0:
        raise ValueError(
            f"`labels` must be classes >= 0, got {int(labels.min())}. Leave out images on which the classifier abstained."
        )
    return labels.to(images.device, torch.int64, copy=True)

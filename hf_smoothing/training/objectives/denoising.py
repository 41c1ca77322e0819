"""Training a denoiser before a frozen classifier."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.models.forward import logits_of
from hf_smoothing.models.network import Network, recorded
from hf_smoothing.training.objectives.base import network_of, no_smoothing, noisy_copies
from hf_smoothing.training.objectives.signature import Batch, LossAndLogs, ObjectiveState, PixelsToLogits


def denoising(
    model: PixelsToLogits, batch: Batch, state: ObjectiveState, *, mse: float = 1.0, stability: float = 0.0
) -> LossAndLogs:
    """mse * mean (D(P(x + d)) - P(x))^2 + stability * CE(f(D(P(x + d))), argmax f(P(x))), D the denoiser and f the classifier behind it.

    P is what comes before the denoiser: nothing, unless the classifier is certified at another size than that of the denoiser, which then sees
    images and their noise resized, as in a certificate.

    The stability loss needs no labels: the classifier's own answers to clean images are what the denoiser should keep.

    Args:
        model, batch, state: As for every objective; the model is a `Network` around a classifier with a denoiser (`denoised_classifier`).
        mse: Weight of the squared error. Zero (with stability 1) trains for the classifier alone.
        stability: Weight of the stability loss.

    Raises:
        ValueError: Without noise, on weights out of range, on pixels that are not at the certified resolution, or with a stability loss and a classifier that is not frozen.
        TypeError: If the model has no denoiser.

    Source: Salman et al. (2020), arXiv 2003.01908, section 3.
    """
    if not mse >= 0.0 or not stability >= 0.0 or mse + stability == 0.0:
        raise ValueError(
            f"Denoising needs weights >= 0, one of them positive, got mse={mse} and stability={stability}."
        )
    network = network_of(model, "Denoising")
    no_smoothing(state, "Denoising")
    module: Any = network.module
    inner = getattr(module, "base_network", module)
    if not hasattr(inner, "denoise"):
        raise TypeError(
            f"Denoising trains a classifier with a denoiser, got {type(inner).__name__}. Make one with denoised_classifier(path, sigma=...)."
        )
    if stability and any(p.requires_grad for p in inner.network.parameters()):
        # Its own answers are the target, so a constant classifier would be the best one.
        raise ValueError(
            "The stability loss needs a frozen classifier behind the denoiser, got one that is trained too. Set trainable=['denoiser'] in "
            "RobustTrainingArguments, or freeze it: model.base_network.network.requires_grad_(False)."
        )
    noise, _ = noisy_copies(batch, state, 1, "Denoising")
    noisy, clean = batch.pixels + noise[0], _before(network, inner, batch.pixels)
    if stability or ranks() > 1:
        inner.network.eval()  # it is what it was, batch-norm statistics included
        # Through the whole model, which is what shares gradients between ranks.
        with recorded({"cleaned": inner.denoiser}) as seen:
            logits = network(noisy)
        cleaned = seen["cleaned"]
    else:
        with network.precision():
            cleaned = inner.denoise(_before(network, inner, noisy).to(inner.dtype))
    error = F.mse_loss(cleaned.float(), clean.float())
    loss, logs = mse * error, {"mse": error}
    if stability:
        with torch.no_grad(), network.precision():
            prepared = inner.config.preprocessing()(clean).to(inner.network.dtype)
            answers = logits_of(inner.network, prepared, return_dict=True).argmax(1)
        stable = F.cross_entropy(logits.float(), answers)
        loss, logs = loss + stability * stable, logs | {"stability": stable}
    return loss, logs


def _before(network: Network, inner: Any, pixels: Tensor) -> Tensor:
    """What the denoiser is given of pixels: a wrapper may resize, a trainer may normalise what is not wrapped."""
    module: Any = network.module
    given = network.prepare(pixels)
    return given if module is inner else module.prepare(given)


def ranks() -> int:
    """How many processes train together."""
    known = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if known else 1

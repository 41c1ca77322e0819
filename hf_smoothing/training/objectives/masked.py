"""Pretraining without labels: rebuild clean images from few noisy patches."""

from __future__ import annotations

from typing import Any

import torch

from hf_smoothing.models.masked import is_autoencoder
from hf_smoothing.training.objectives.base import network_of, no_smoothing
from hf_smoothing.training.objectives.signature import Batch, LossAndLogs, ObjectiveState, PixelsToLogits


def masked_denoising(model: PixelsToLogits, batch: Batch, state: ObjectiveState) -> LossAndLogs:
    """Mean over all patches, masked or not, of the squared error of the patch rebuilt from the visible patches of the noisy image.

    The target is the clean image as the network takes it, resized and normalised; each patch of it is standardised if the
    autoencoder's `norm_pix_loss` says so. Its `mask_ratio` decides how much is hidden.

    Args:
        model, batch, state: As for every objective; the model is a `Network` around a `ViTMAEForPreTraining`. Labels are not used.

    Raises:
        TypeError: If it is not.

    Source: DMAE, Wu et al. (2023), arXiv 2210.06983, equation 5; He et al. (2022), arXiv 2111.06377.
    """
    network = network_of(model, "Masked denoising")
    no_smoothing(state, "Masked denoising")
    autoencoder: Any = network.module
    if not is_autoencoder(autoencoder):
        raise TypeError(
            f"Masked denoising trains a ViTMAEForPreTraining, got {type(autoencoder).__name__}. Hand its encoder on with "
            "classifier_from_autoencoder, and finetune that with another objective."
        )
    clean = network.prepare(batch.pixels)
    noisy = batch.pixels if state.noise is None else state.noise.add(batch.pixels, state.generator)[0]
    patches = autoencoder.vit.embeddings.patch_embeddings.num_patches
    order = torch.rand(len(noisy), patches, generator=state.generator, device=noisy.device)
    rebuilt = network(noisy, noise=order).float()
    target = autoencoder.patchify(clean).float()
    if autoencoder.config.norm_pix_loss:
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
    return (rebuilt - target).square().mean(), {}

"""Cross-entropy on a mixture of clean and noisy images."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from hf_smoothing.training.objectives.base import Batch, ObjectiveState


def mixture_cross_entropy(
    model: Callable[[Tensor], Tensor], batch: Batch, state: ObjectiveState
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross-entropy of one noisy (or clean) copy of each image.

    With one sigma and no clean share it is Gaussian augmentation (Cohen et al., arXiv 1902.02918); with a mixture, the pretraining
    of Qiu et al., arXiv 2312.09020; without noise, ordinary training.
    """
    pixels = batch.pixels
    if state.noise is not None:
        pixels, _ = state.noise.add(pixels, state.generator)
    return F.cross_entropy(model(pixels), batch.labels, label_smoothing=state.label_smoothing), {}

"""Networks, norms and pixels that tests of the attacks share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor


SHAPE = (1, 4, 4)
NORMS = ("l2", "linf")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def waves(pixels: Tensor) -> Tensor:
    """Smooth, not monotone, with four classes and gradients everywhere."""
    weight = torch.randn(16, 4, generator=generator(5), dtype=torch.float64)
    return torch.sin(3 * pixels.double().flatten(1) @ weight)


def loss(logits_of: Callable[[Tensor], Tensor], pixels: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits_of(pixels).double(), labels, reduction="none")


def exact_norms(a: Tensor, b: Tensor, norm: str) -> NDArray[np.float64]:
    """The slow twin of `distance`, in NumPy."""
    delta = (a.numpy().astype(np.float64) - b.numpy().astype(np.float64)).reshape(len(a), -1)
    norms: NDArray[np.float64] = np.sqrt((delta**2).sum(1)) if norm == "l2" else np.abs(delta).max(1)
    return norms


# Pixels on the border, halfway, tiny, and anything between.
levels = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 1e-30, 1 - 2**-24]), st.floats(0, 1, width=32))
radii = st.one_of(st.sampled_from([0.0, 1e-9, 1e-7, 8 / 255]), st.floats(0, 5))

"""Time one image with ART's randomized smoothing. Runs in an environment of its own: certification.py makes it."""

import sys
import time

import numpy as np
import torch
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

from hf_smoothing import SmoothedClassifier


path, n, sigma, alpha = sys.argv[1], *map(float, sys.argv[2:])
model = SmoothedClassifier.from_pretrained(path).eval()


class Base(torch.nn.Module):
    """The base classifier as a plain module."""

    def __init__(self) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[0, 1] pixels -> logits."""
        return model.classify(x)


smoothed = PyTorchRandomizedSmoothing(
    model=Base(), loss=torch.nn.CrossEntropyLoss(), input_shape=(3, 32, 32), nb_classes=10, clip_values=(0.0, 1.0),
    sample_size=100, scale=sigma, alpha=alpha, device_type="gpu" if torch.cuda.is_available() else "cpu",
)  # fmt: skip
image = np.full((1, 3, 32, 32), 0.5, dtype=np.float32)


def seconds(draws: int, batch_size: int) -> float:
    """For one image."""
    began = time.perf_counter()
    smoothed.certify(image, n=draws, batch_size=batch_size)
    return time.perf_counter() - began


best = min((32, 400), key=lambda size: seconds(4_000, size))
print(best, seconds(int(n), best))

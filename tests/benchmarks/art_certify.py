"""Time ART's randomized smoothing on real images, one after another. Runs in an environment of its own: certification_speedup.py makes it."""

import json
import sys
import time

import numpy as np
import torch
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

from hf_smoothing import SmoothedClassifier


SELECTION = 100
"""Copies by which the class is chosen, beside those that are asked for."""

path, file, copies, sigma, alpha, *sizes = sys.argv[1:]
model = SmoothedClassifier.from_pretrained(path).eval()
images = np.load(file).astype(np.float32)


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
    sample_size=SELECTION, scale=float(sigma), alpha=float(alpha), device_type="gpu" if torch.cuda.is_available() else "cpu",
)  # fmt: skip


def seconds_per_copy(image: np.ndarray, draws: int, batch_size: int) -> float:
    """Of one image."""
    began = time.perf_counter()
    smoothed.certify(image[None], n=draws, batch_size=batch_size)
    return (time.perf_counter() - began) / (SELECTION + draws)


trial = {size: seconds_per_copy(images[0], 4_000, size) for size in map(int, sizes)}
best = min(trial, key=trial.__getitem__)
print(json.dumps({"batch_size": best, "seconds_per_copy": [seconds_per_copy(x, int(copies), best) for x in images]}))

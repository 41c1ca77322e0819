"""Classifiers whose answer under noise is known exactly, and wrappers that watch or break one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.certification.probes import probe_images
from hf_smoothing.records import Run


Classify = Callable[[Tensor], Tensor]
"""Pixels to logits: what is certified."""


RUN: dict[str, Any] = {"mode": "fixed", "sigma": 0.5, "n0": 10, "n": 300, "copies_per_batch": 16, "progress": False}
"""The arguments of the runs over data sets that are compared with one another."""

SEQUENTIAL: dict[str, Any] = {**RUN, "mode": "targets", "targets": [0.0, 0.25, 0.5]}
"""The same, drawing only until the targets are decided."""


class Linear:
    """Class 1 where w.x + b > 0, else class 0: its smoothed version is itself, with exact radius |w.x + b| / ||w||."""

    def __init__(self, shape: tuple[int, ...] = (1, 4, 4), seed: int = 0) -> None:
        self.weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        self.bias = -0.5 * float(self.weight.sum())

    def score(self, pixels: Tensor) -> Tensor:
        # In double precision and row by row, so that a vote does not depend on the batch around it.
        return (pixels.double() * self.weight.double()).flatten(1).sum(1) + self.bias

    def __call__(self, pixels: Tensor) -> Tensor:
        score = self.score(pixels)
        return torch.stack([-score, score], dim=1)

    def exact_radius(self, image: Tensor) -> float:
        return abs(float(self.score(image[None]))) / float(self.weight.double().norm())

    def label(self, image: Tensor) -> int:
        return int(self.score(image[None]) > 0)

    def image_at(self, distance: float) -> Tensor:
        """An image at this signed distance from the boundary: grey, moved along the weights."""
        moved: Tensor = 0.5 + distance * self.weight / self.weight.norm()
        return moved


class Ranges:
    """`num_labels` classes by the fractional part of a weighted sum: every class wins some of the votes of any image."""

    def __init__(self, num_labels: int = 5) -> None:
        self.num_labels = num_labels

    def __call__(self, pixels: Tensor) -> Tensor:
        sums = pixels.double().flatten(1).sum(1)
        labels = ((sums - sums.floor()) * self.num_labels).long().clamp_(0, self.num_labels - 1)
        return torch.nn.functional.one_hot(labels, self.num_labels).double()


class Constant:
    def __init__(self, label: int = 1, num_labels: int = 3) -> None:
        self.logits = torch.nn.functional.one_hot(torch.tensor(label), num_labels).float()

    def __call__(self, pixels: Tensor) -> Tensor:
        return self.logits.expand(len(pixels), -1)


KINDS: dict[str, tuple[Classify, dict[str, Any]]] = {
    "fixed": (Ranges(), RUN),
    "targets": (Linear(), SEQUENTIAL),
    "spending": (Linear(), {**SEQUENTIAL, "spending": True}),
}
"""Classifiers and rules of the runs that are compared with one another."""


def coin(pixels: Tensor) -> Tensor:
    """Heads or tails with probability 1/2 for any image whose first pixel is 1/2."""
    heads = (pixels[:, 0, 0, 0] > 0.5).double()
    return torch.stack([heads, 1 - heads], dim=1)


def is_probe(pixels: Tensor) -> bool:
    """Whether a batch holds the fixed image to which every classifier is asked for its answer before the first draw."""
    image = probe_images(tuple(pixels.shape[1:]))[0].to(pixels)
    return bool((pixels == image).flatten(1).all(1).any())


class Watched:
    """Passes pixels on, keeping copies of the batches it saw but for those of the probe."""

    def __init__(self, classifier: Classify) -> None:
        self.classifier = classifier
        self.batches: list[Tensor] = []

    def __call__(self, pixels: Tensor) -> Tensor:
        if not is_probe(pixels):
            self.batches.append(pixels.clone())
        return self.classifier(pixels)

    @property
    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]


class Failing:
    """Works for the probe and a number of batches, then raises."""

    def __init__(self, classifier: Classify, batches: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.classifier, self.left, self.error = classifier, batches, error

    def __call__(self, pixels: Tensor) -> Tensor:
        if is_probe(pixels):
            return self.classifier(pixels)
        if self.left == 0:
            raise self.error
        self.left -= 1
        return self.classifier(pixels)


def random_images(count: int, shape: tuple[int, ...] = (1, 4, 4), seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def bytes_of(images: Tensor) -> Tensor:
    """Images in [0, 1] as whole steps of 1/255."""
    return (images * 255).to(torch.uint8)


def random_dataset(
    count: int, shape: tuple[int, ...] = (1, 4, 4), seed: int = 0, num_labels: int = 2
) -> list[dict[str, Any]]:
    pixels = (random_images(count, shape, seed) * 255).to(torch.uint8)
    return [{"pixel_values": image, "labels": index % num_labels} for index, image in enumerate(pixels)]


def results(run: Run) -> dict[int, dict[str, Any]]:
    """The rows of a run without the one thing that may differ between two of them."""
    return {index: {**row, "seconds": None} for index, row in run.rows.items()}

"""Watching accuracy and deterministic radii while a model trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from hf_smoothing.certification.classifiers import run_dtype
from hf_smoothing.interval.classifier import classify_function, in_own_precision, run_as_covered
from hf_smoothing.interval.margins import logits_of
from hf_smoothing.interval.radii import check_largest
from hf_smoothing.interval.search import found_radii
from hf_smoothing.models.network import evaluating
from hf_smoothing.pixels import without_tolerance
from hf_smoothing.statistics import average_certified_radius
from hf_smoothing.training.callbacks import labelled_images, number_of_classes
from hf_smoothing.training.classes import check_classes
from hf_smoothing.training.figures import FiguresCallback
from hf_smoothing.types import ImageDataset


class IntervalRadiusCallback(FiguresCallback):
    """At every evaluation: accuracy, average certified l-infinity radius, and what a checkpoint is chosen by, on images of its own.

    The figures join those of the evaluation as `eval_watched_accuracy`, `eval_average_certified_radius_linf` and `eval_tradeoff`: with
    metric_for_best_model="tradeoff" the best checkpoint is that with the largest sqrt(accuracy * ACR / largest). Choose on images held out of
    training, never on test.

    The radii are for choosing, not certificates: bounds in real arithmetic as the network's dtype computes them, which `linf_certificates`
    rounds outward and checks against runs, at several times the price. In mixed precision they are those of the weights in their own dtype.

    Args:
        trainer: The trainer to watch; add the callback with `trainer.add_callback`.
        dataset: As for `certify_dataset_linf`, with labels; pixels are clamped to [0, 1] as there.
        largest: As in `linf_certificates`.
        indices: Which images; by default 500, spread over the data set.
        batch_size: Images bounded at once.
        name: Stands in the names of the figures, as in `eval_NAME_tradeoff`, where a training has several such callbacks.

    Raises:
        TypeError: If the images are no data set, several, or a stream without `indices`.
        ValueError: If `largest` is not in (0, 1], an image has no label or one that is no class of the model, or the data set names the classes otherwise than
            the model does.

    Source of the criterion: arXiv 2307.13078 (which applied it to test images).
    """

    def __init__(
        self,
        trainer: Trainer,
        dataset: ImageDataset,
        *,
        largest: float,
        indices: Sequence[int] | None = None,
        batch_size: int = 128,
        name: str | None = None,
    ) -> None:
        self.largest, self.batch_size = check_largest(largest), batch_size
        check_classes(trainer.model, dataset)
        super().__init__(trainer, name)
        self._bounds_checked = False
        self.pixels, labels = labelled_images(dataset, indices, number_of_classes(trainer.model), most=500)
        self.pixels, self.labels = without_tolerance(self.pixels), torch.tensor(labels)

    def keys(self) -> list[str]:
        """Names of the figures, without `eval` before them and the name of the callback."""
        return ["watched_accuracy", "average_certified_radius_linf", "tradeoff"]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """As every callback with figures."""
        super().on_train_begin(args, state, control, **kwargs)
        self._bounds_checked = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Bound one image after the first step, so that a network without bounds is refused before hours of training.

        Raises:
            UnsupportedOperationError: If the network has an operation without bounds.
        """
        if not self._bounds_checked:
            self._bounded(self.pixels[:1].to(args.device), None)
            self._bounds_checked = True

    def measured(self, args: Any) -> dict[str, float]:
        """The figures, by their keys."""
        predictions: list[int] = []
        radii: list[float] = []
        for pixels, labels in zip(self.pixels.split(self.batch_size), self.labels.split(self.batch_size), strict=True):
            classes, found = self._bounded(pixels.to(args.device), labels.to(args.device))
            predictions += classes.tolist()
            radii += found.tolist()
        labels = self.labels.tolist()
        accuracy = sum(p == y for p, y in zip(predictions, labels, strict=True)) / len(labels)
        average = average_certified_radius(predictions, labels, radii)
        values = (accuracy, average, math.sqrt(accuracy * average / self.largest))
        return dict(zip(self.keys(), values, strict=True))

    @torch.no_grad()
    def _bounded(self, pixels: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Predictions and radii, without labels of every image; the model is left in its mode."""
        model = self.trainer.model
        with evaluating(model), in_own_precision(model):
            # The trainer's own normalisation: what the configuration says may be of an earlier training, and is not there before the first batch.
            plain = not hasattr(model, "classify") and hasattr(self.trainer, "classify")
            classify, dtype = self.trainer.classify if plain else classify_function(model), run_dtype(model)
            with run_as_covered():
                # A network may change its pixels in place.
                logits = logits_of(classify, pixels.to(dtype, copy=True))
            found = found_radii(
                classify, pixels.to(torch.promote_types(dtype, torch.float32)), logits, dtype, largest=self.largest, backward="none",
                steps=0, cover_run=False, tolerance=1e-6, labels=labels,
            )  # fmt: skip
        return logits.argmax(dim=1), found.radii

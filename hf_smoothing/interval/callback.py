"""Watching accuracy and deterministic radii while a model trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from transformers import Trainer, TrainerCallback

from hf_smoothing.data.selection import spread
from hf_smoothing.interval.certificates import linf_certificates
from hf_smoothing.interval.radii import check_largest
from hf_smoothing.statistics import average_certified_radius
from hf_smoothing.training.callbacks import labelled_images
from hf_smoothing.types import ImageDataset


class IntervalRadiusCallback(TrainerCallback):
    """At every evaluation: accuracy, average certified l-infinity radius, and what a checkpoint is chosen by.

    The figures join those of the evaluation: with metric_for_best_model="tradeoff" the best checkpoint is that with the largest
    sqrt(accuracy * ACR / largest). Choose on images held out of training, never on test.

    Args:
        trainer: The trainer to watch; add the callback with `trainer.add_callback`.
        dataset: As for `certify_dataset_linf`, with labels.
        largest: As in `linf_certificates`.
        indices: Which images; by default 500, spread over the data set.
        batch_size: Images bounded at once.

    Raises:
        ValueError: If `largest` is not in (0, 1], or an image has no label.

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
    ) -> None:
        check_largest(largest)
        self.trainer, self.largest, self.batch_size = trainer, largest, batch_size
        self.pixels, self.labels = labelled_images(dataset, spread(500, len(dataset)) if indices is None else indices)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Measure, and add the figures to `metrics`."""
        model = self.trainer.model
        was_training = model.training
        model.eval()
        predictions: list[int] = []
        radii: list[float] = []
        for pixels in self.pixels.split(self.batch_size):
            classes, found = linf_certificates(model, pixels.to(args.device), largest=self.largest, tolerance=1e-6)
            predictions += classes.tolist()
            radii += found.tolist()
        model.train(was_training)
        accuracy = sum(p == y for p, y in zip(predictions, self.labels, strict=True)) / len(self.labels)
        average = average_certified_radius(predictions, self.labels, radii)
        figures = {
            "eval_accuracy": accuracy,
            "eval_average_certified_radius_linf": average,
            "eval_tradeoff": math.sqrt(accuracy * average / self.largest),
        }
        if metrics is not None:
            metrics.update(figures)
        self.trainer.log(figures)

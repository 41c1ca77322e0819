"""A callback that watches certified accuracy while a model trains."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hf_smoothing import statistics
from hf_smoothing.certification import FixedRule, certify
from hf_smoothing.certification.classes import check_class
from hf_smoothing.certification.images import check_selection, checked_items
from hf_smoothing.data.selection import spread
from hf_smoothing.models.network import evaluating
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.statistics import exact_text
from hf_smoothing.training.classes import check_classes
from hf_smoothing.training.figures import FiguresCallback
from hf_smoothing.types import ImageDataset
from hf_smoothing.units import check_radius, plain_numbers


if TYPE_CHECKING:
    from hf_smoothing.training.trainer import RobustTrainer


class CertifiedAccuracyCallback(FiguresCallback):
    """Certifies a few validation images at every evaluation, with few draws.

    The figures join those of the evaluation, so that e.g. metric_for_best_model="certified_accuracy_sigma0.25_r0.25" works. With
    few draws they are low (the radius cannot exceed `max_radius(n, alpha, sigma)`) and only comparable with each other.

    Args:
        trainer: The trainer to watch; add the callback with `trainer.add_callback`.
        dataset: As for `certify_dataset`: [0, 1] or uint8 pixels at the certified resolution, with "labels", which are classes of the model.
        sigmas: Noise levels.
        thresholds: Radii at which to measure certified accuracy.
        indices: Which images; by default 100, spread over the data set.
        n0, n, alpha: As in `certify`.
        seed: Seed of the noise generator: the same at every evaluation.
        name: Stands in the names of the figures, as in `eval_NAME_certified_accuracy_sigma0.25_r0`, where a training has several such callbacks.

    Raises:
        TypeError: If noise levels or radii are no sequence, or the images are no data set, several, or a stream without `indices`.
        ValueError: If there are no noise levels or radii, the draws decide nothing, a radius is negative or above the diameter of the pixel cube, an image has no label or one
            that is no class of the model, the data set names the classes otherwise than the model does, or [0, 1] pixels cannot be classified by it.
    """

    def __init__(
        self,
        trainer: RobustTrainer,
        dataset: ImageDataset,
        *,
        sigmas: Sequence[float] = (0.25,),
        thresholds: Sequence[float] = (0.0, 0.25),
        indices: Sequence[int] | None = None,
        n0: int = 20,
        n: int = 100,
        alpha: float = 0.001,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        check_classes(trainer.model, dataset)
        super().__init__(trainer, name)
        levels = plain_numbers(sigmas, "`sigmas`", "(0.25,)")
        self.sigmas = [FixedRule(sigma=sigma, n0=n0, n=n, alpha=alpha).sigma for sigma in levels]
        self.thresholds = list(plain_numbers(thresholds, "`thresholds`", "(0.0, 0.25)"))
        if not self.sigmas or not self.thresholds:
            raise ValueError(
                f"`sigmas` and `thresholds` must each have at least one number, got {self.sigmas} and {self.thresholds}. Leave out what is to be as usual."
            )
        self.draws = {"mode": "fixed", "n0": n0, "n": n, "alpha": alpha, "seed": seed}
        self.pixels, self.labels = labelled_images(dataset, indices, number_of_classes(trainer.model), most=100)
        for radius in self.thresholds:
            check_radius(radius, "l2", "thresholds", self.pixels.shape[1:])
        with evaluated(trainer) as classifier, torch.no_grad():
            classifier.classify(
                self.pixels[:1].to(trainer.args.device, copy=True)
            )  # refuse now, not after the first hours

    def keys(self) -> list[str]:
        """Names of the figures, without `eval` before them and the name of the callback."""
        return [key for sigma in self.sigmas for key in (*self._accuracies(sigma), _average(sigma))]

    def measured(self, args: Any) -> dict[str, float]:
        """The figures, by their keys."""
        figures: dict[str, float] = {}
        for sigma in self.sigmas:
            with evaluated(self.trainer) as classifier:
                certificates = certify(
                    classifier, self.pixels.to(args.device), sigma=sigma, **self.draws  # type: ignore[arg-type]
                )  # fmt: skip
            columns = ([c.prediction for c in certificates], self.labels, [c.radius for c in certificates])
            found = statistics.certified_accuracy(*columns, thresholds=self.thresholds)
            figures |= dict(zip(self._accuracies(sigma), map(float, found.accuracy), strict=True))
            figures[_average(sigma)] = statistics.average_certified_radius(*columns)
        return figures

    def _accuracies(self, sigma: float) -> list[str]:
        return [f"certified_accuracy_sigma{exact_text(sigma)}_r{exact_text(radius)}" for radius in self.thresholds]


def _average(sigma: float) -> str:
    return f"average_certified_radius_sigma{exact_text(sigma)}"


class _BaseClassifier(nn.Module):
    """The trainer's model as a classifier of [0, 1] pixels; a module, so that its device and mode are known."""

    def __init__(self, trainer: RobustTrainer) -> None:
        super().__init__()
        self.model = trainer.model
        self.classify = trainer.classify


@contextmanager
def evaluated(trainer: RobustTrainer) -> Iterator[_BaseClassifier]:
    """The base classifier of a trainer, in eval mode meanwhile."""
    classifier = _BaseClassifier(trainer)
    with evaluating(classifier):
        yield classifier


def number_of_classes(model: nn.Module) -> int | None:
    """Number of classes of a model, None where it does not say."""
    return getattr(getattr(model, "config", None), "num_labels", None)


def labelled_images(
    dataset: ImageDataset, indices: Sequence[int] | None, num_labels: int | None, most: int
) -> tuple[torch.Tensor, list[int]]:
    """Images of a data set in memory, [0, 1] pixels (count, channels, height, width), and their labels, read as `certify_dataset` reads them.

    Args:
        dataset, indices: Data set and selection; by default `most` images, spread over the data set.
        num_labels: Number of classes of the model, None where it is not known.

    Raises:
        ValueError, TypeError: If it is no data set, or a stream of which nothing is selected; if an image has no label, or one that is no class, if
            items are no images, or the selection is not one of the data set.
    """
    if isinstance(dataset, Mapping):
        raise TypeError(
            f"The images to watch must be one data set, got several by name, {list(map(str, dataset))[:5]}. Make a callback of each, with name=..."
        )
    if indices is None:
        if not hasattr(dataset, "__len__"):
            raise TypeError(
                f"The images to watch are spread over a data set that has a length, got {type(dataset).__name__}. Of a stream pass indices=range({most}) "
                "for its first ones."
            )
        indices = spread(most, len(dataset))
    chosen = check_selection(dataset, indices)
    pixels, labels = list[torch.Tensor](), list[int]()
    for index, item in checked_items(dataset, chosen):
        label = item.get("labels")
        if label is None:
            cure = "Rename its 'label'." if "label" in item else "Use a labelled split."
            raise ValueError(f"Certified accuracy needs labels, but image {index} has none under 'labels'. {cure}")
        check_class(label, index, num_labels)
        pixels.append(to_unit_pixels(item["pixel_values"][None]))
        labels.append(operator.index(label))
    if not labels:
        raise ValueError("Certified accuracy needs images, but none of those chosen can be read.")
    return torch.cat(pixels), labels

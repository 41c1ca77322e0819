"""From per-image certificates to the figures of a table: certified accuracy, average certified radius, abstention.

Source: arXiv 1902.02918, section 4 (certified accuracy at radius r); Zhai et al., *MACER* (2020), arXiv 2001.02378
(average certified radius).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_smoothing.statistics.binomial import interval
from hf_smoothing.statistics.radius import max_radius


ABSTAIN = -1
"""The predicted class of an image on which the smoothed classifier gives no answer."""


DEFAULT_RADII = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where certified accuracy is usually tabulated."""


@dataclass(frozen=True)
class CertifiedAccuracy:
    """Certified accuracy at a list of radii, with exact binomial intervals over the images.

    Attributes:
        thresholds: Radii r, float64 (T,).
        accuracy: Share of images that are correct, not abstained and certified at r or more, float64 (T,).
        lower, upper: The Clopper-Pearson interval of `accuracy` at `confidence`, float64 (T,).
        num_images: Number of images.
        confidence: Coverage of each interval.
    """

    thresholds: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    num_images: int
    confidence: float


def _check_columns(
    predictions: ArrayLike, references: ArrayLike, radii: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    raw = [np.asarray(column) for column in (predictions, references, radii)]
    shapes = [column.shape for column in raw]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1:
        raise ValueError(
            "`predictions`, `references` and `radii` must be one-dimensional and of equal length, got shapes "
            f"{shapes[0]}, {shapes[1]} and {shapes[2]}. Pass one entry per image in each."
        )
    if raw[0].size == 0:
        raise ValueError("At least one image is needed to measure an accuracy, got none. Is the data set empty?")
    predicted, labels = check_classes(raw[0], "predictions"), check_classes(raw[1], "references")
    if np.any(labels < 0):
        raise ValueError(
            f"`references` must be classes >= 0, got {labels.min()}. Images without a label cannot be scored: drop them."
        )
    try:
        r = raw[2].astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"`radii` must be numbers, got dtype {raw[2].dtype}.") from error
    if not np.all((r >= 0.0) & np.isfinite(r)):
        raise ValueError(
            f"`radii` must be >= 0 and not nan or infinite, got {r[~((r >= 0.0) & np.isfinite(r))][0]}. An abstention has radius 0.0; no two images are "
            "farther apart than the diameter of the pixel cube."
        )
    if np.any(r[predicted == ABSTAIN] > 0.0):
        raise ValueError("An image on which the classifier abstains must have radius 0.0, got a positive radius.")
    return predicted, labels, r


def check_classes(column: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Return a column of classes as int64.

    Args:
        column: Classes.
        name: Its name, "predictions" or "references".

    Raises:
        ValueError: If they are no integers, negative other than an abstention, or what an abstention is in an unsigned dtype.
    """
    if column.dtype.kind not in "iu":
        raise ValueError(f"`{name}` must be integer class indices, got dtype {column.dtype}.")
    if column.dtype.kind == "u" and np.any(column == (top := np.iinfo(column.dtype).max)):
        raise ValueError(
            f"`{name}` must be of a signed dtype, got {top} as {column.dtype}, which is what {ABSTAIN} becomes in it. Keep the column as it was before, "
            "such as int64; if it is a class pass column.astype('int64')."
        )
    classes = column.astype(np.int64)
    if name == "predictions" and np.any(classes < ABSTAIN):
        raise ValueError(f"`predictions` must be classes >= 0 or {ABSTAIN} for abstention, got {classes.min()}.")
    return classes


def check_reach(radii: ArrayLike, sigma: float, n: int | None = None, alpha: float | None = None) -> None:
    """Refuse radii that no certificate at this noise level has.

    Args:
        radii: L2 radii in [0, 1] pixel units.
        sigma: Noise level.
        n: Number of estimation draws; 10^9 where that is not known, more than any run makes.
        alpha: Failure probability; 1/2 where that is not known.

    Raises:
        ValueError: The message names the first that is above.

    >>> check_reach([0.9], sigma=0.25)
    >>> check_reach([3.7], sigma=0.25)
    Traceback (most recent call last):
    ...
    ValueError: A radius of 3.7 is above 1.51427, the largest that sigma = 0.25 can certify. Are radii and sigma in [0, 1] pixel units?
    """
    largest = float(max_radius(n or 10**9, alpha or 0.5, sigma))
    values = np.atleast_1d(np.asarray(radii, dtype=np.float64))
    beyond = values[~(values <= largest * (1.0 + 1e-9))]
    if beyond.size:
        raise ValueError(
            f"A radius of {beyond[0]:g} is above {largest:.6g}, the largest that sigma = {sigma:g}{f' and n = {n:,}' if n else ''} can certify. "
            "Are radii and sigma in [0, 1] pixel units?"
        )


def certified_accuracy(
    predictions: ArrayLike,
    references: ArrayLike,
    radii: ArrayLike,
    thresholds: ArrayLike,
    confidence: float = 0.95,
) -> CertifiedAccuracy:
    """The share of images that are correct and certified at each radius, with its exact interval.

    Args:
        predictions: Predicted classes, integers (N,), `ABSTAIN` (-1) on abstention.
        references: True classes, integers (N,).
        radii: Certified radii, (N,), 0.0 on abstention. Compared without tolerance in double precision.
        thresholds: Radii r >= 0 at which to measure, (T,).
        confidence: Coverage of each interval, in (0, 1).

    Raises:
        ValueError: On unequal lengths, no images, non-integer classes, labels below 0, or radii that are negative, nan,
            or positive on an abstention.

    Source: arXiv 1902.02918, section 4.

    >>> result = certified_accuracy([3, 3, -1, 5], [3, 3, 3, 3], [0.5, 0.2, 0.0, 0.9], thresholds=[0.0, 0.25])
    >>> result.accuracy.tolist()
    [0.5, 0.25]
    """
    predicted, labels, r = _check_columns(predictions, references, radii)
    grid = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    if grid.ndim != 1 or grid.size == 0 or not np.all((grid >= 0.0) & np.isfinite(grid)):
        raise ValueError(
            f"`thresholds` must be a non-empty list of radii >= 0, not nan or infinite, got {thresholds!r}."
        )
    correct = predicted == labels  # an abstention (-1) is never equal to a label
    hits = (correct[None, :] & (r[None, :] >= grid[:, None])).sum(axis=1)
    lower, upper = interval(hits, predicted.size, confidence)
    return CertifiedAccuracy(grid, hits / predicted.size, lower, upper, predicted.size, confidence)


def average_certified_radius(predictions: ArrayLike, references: ArrayLike, radii: ArrayLike) -> float:
    """Mean over images of the radius, counted as 0 where the prediction is wrong or abstained.

    It is the area under the certified accuracy curve. It depends on the number of draws, so print it beside `n`.

    Arguments and errors as `certified_accuracy`.

    >>> average_certified_radius([3, 4], [3, 3], [0.5, 0.9])
    0.25
    """
    predicted, labels, r = _check_columns(predictions, references, radii)
    return float(np.where(predicted == labels, r, 0.0).mean())


class Outcomes(NamedTuple):
    """How many images came out how.

    Attributes:
        images: Number of images.
        answered: Images with a predicted class; the others are abstentions.
        certified: Images with a predicted class and a radius above 0.
        abstained: Images without a predicted class.
    """

    images: int
    answered: int
    certified: int
    abstained: int


def outcomes(predictions: Sequence[int], radii: Sequence[float]) -> Outcomes:
    """Count images by what is claimed of them, whatever their labels.

    A class may be answered with radius 0: a certified target of 0, or a deterministic bound that proves no radius.

    Args:
        predictions: Predicted classes, `ABSTAIN` (-1) on abstention.
        radii: Certified radii, 0.0 on abstention.

    >>> outcomes([3, 2, -1], [0.5, 0.0, 0.0])
    Outcomes(images=3, answered=2, certified=1, abstained=1)
    """
    abstained = sum(prediction == ABSTAIN for prediction in predictions)
    certified = sum(
        prediction != ABSTAIN and radius > 0.0 for prediction, radius in zip(predictions, radii, strict=True)
    )
    return Outcomes(len(predictions), len(predictions) - abstained, certified, abstained)


def abstention_rate(predictions: ArrayLike) -> float:
    """Share of images on which the classifier abstains.

    >>> abstention_rate([3, -1, -1, 2])
    0.5
    """
    predicted = np.asarray(predictions)
    if predicted.size == 0:
        raise ValueError("At least one prediction is needed to measure abstention, got none.")
    check_classes(predicted, "predictions")
    return float((predicted == ABSTAIN).mean())

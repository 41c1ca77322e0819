"""Certified accuracy for `evaluate`: a thin script over `hf_smoothing.statistics`."""

import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import datasets
import evaluate
import numpy as np

from hf_smoothing.statistics import (
    DEFAULT_RADII,
    abstention_rate,
    average_certified_radius,
    certified_accuracy,
    check_alpha,
    check_classes,
    check_reach,
    check_whole,
)


_DESCRIPTION = """
The share of images that a randomized classifier classifies correctly *and* certifiably within an l2 radius, at each of a list of radii,
with its exact (Clopper-Pearson) interval; the average certified radius; the abstention rate.
"""

_CITATION = """
@inproceedings{cohen2019certified,
  title={Certified Adversarial Robustness via Randomized Smoothing},
  author={Cohen, Jeremy and Rosenfeld, Elan and Kolter, J. Zico},
  booktitle={ICML}, year={2019}
}
"""

_INPUTS = """
Args:
    predictions: certified classes, -1 where the classifier abstains.
    references: true classes.
    radii: certified radii in double precision, 0.0 where the classifier abstains.
    thresholds: radii at which to measure (default 0, 0.25, 0.5, 0.75, 1.0).
    n: number of estimation draws behind each certificate. The average certified radius depends on it, so it is returned beside it.
    confidence: coverage of the intervals (default 0.95).
    sigma, alpha: noise level and failure probability of the certificates, if known: radii that they cannot certify are refused.
    num_labels: number of classes, if known: classes beyond are refused.

Returns:
    certified_accuracy, lower, upper: lists, one entry per threshold; thresholds; smoothed_accuracy (correct and not abstained, which is the
    certified accuracy at radius 0); average_certified_radius; n; abstention_rate; num_images; confidence.
"""


_KINDS = {
    "predictions": ("iu", "integer class indices"),
    "references": ("iu", "integer class indices"),
    "radii": ("iuf", "numbers"),
}


def _plain_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns as arrays and lists, which are indexed by place: a filtered column of pandas and a generator are not.

    Raises:
        ValueError: On a column with several numbers for an image, or none for each.
    """
    found = {
        name: np.asarray(column)
        if hasattr(column, "index") and hasattr(column, "iloc")
        else (list(column) if isinstance(column, Iterable) and not hasattr(column, "__getitem__") else column)
        for name, column in columns.items()
    }
    for name, column in found.items():
        shape = () if isinstance(column, numbers.Number) else getattr(column, "shape", None)
        if shape is None and isinstance(column, list | tuple) and column:
            first = column[0]
            shape = (
                len(column),
                *(getattr(first, "shape", None) or ((len(first),) if isinstance(first, list | tuple) else ())),
            )
        if name in _KINDS and shape is not None and len(shape) != 1:
            raise ValueError(
                f"`{name}` must have one entry for each image, got some of shape {tuple(shape)}. Pass one column, such as array[:, 0]."
            )
    return found


def _check_complete(columns: Mapping[str, Any]) -> None:
    """Refuse columns that are missing or of different lengths, which `evaluate` would not name, or drop.

    Raises:
        ValueError: The message names them.
    """
    if missing := [name for name in _KINDS if columns.get(name) is None]:
        raise ValueError(
            f"Certified accuracy needs `predictions`, `references` and `radii`, got none for {' and '.join(f'`{name}`' for name in missing)}. Pass "
            "certified classes, true classes and certified radii, one of each for each image."
        )
    lengths = {name: len(columns[name]) for name in _KINDS}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise ValueError(
            f"The columns must have one entry for each image, got {counts}. Pass those of the same images."
        )


def _check_kinds(columns: Mapping[str, Any]) -> None:
    for name, (kinds, meaning) in _KINDS.items():
        column = _on_host(columns[name])
        if not len(column):
            continue
        if np.asarray(column).dtype.kind not in kinds:
            odd = next((value for value in column if np.asarray(value).dtype.kind not in kinds), column)
            raise ValueError(
                f"`{name}` must be {meaning}, got {odd!r}. Pass predictions=classes (-1 for abstention), references=true classes and radii=certified "
                "radii. Class indices that are floats or text, but whole numbers, are converted by numpy.asarray(column).astype(int)."
            )
        if name != "radii":
            check_classes(np.asarray(column), name)
        else:
            _check_precision(columns[name])


def _check_precision(radii: Any) -> None:
    """Refuse radii that were rounded so far that they may have been rounded over a threshold."""
    for one in (radii, *(radii if isinstance(radii, list | tuple) else ())):
        dtype = str(getattr(one, "dtype", "")).removeprefix("torch.")
        if dtype.startswith(("float16", "bfloat16", "float8")):
            raise ValueError(
                f"`radii` must be in double precision, at least float32, got {dtype}, which rounds 0.49995 up to 0.5. Pass the radii of the certificates."
            )


def _on_host(column: Any) -> Any:
    """A column without tensors, which may be on any device and of any dtype."""
    if hasattr(column, "detach"):
        values = column.detach().cpu()
        return values.tolist() if values.is_floating_point() else values.numpy()  # integers keep their dtype
    return [_on_host(value) for value in column] if isinstance(column, list | tuple) else column


class CertifiedAccuracyMetric(evaluate.Metric):
    """`evaluate.load(certified_accuracy_path())`, or imported directly: `CertifiedAccuracyMetric().compute(...)`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("int64"),
                    "references": datasets.Value("int64"),
                    "radii": datasets.Value("float64"),
                }
            ),
            reference_urls=["https://arxiv.org/abs/1902.02918"],
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """As that of `evaluate.Metric`; `compute` adds its columns by it.

        Raises:
            ValueError: On columns that are missing, of different lengths, or not of the kind of the metric's: `evaluate` would make them so, and cut
                fractions off.
        """
        columns = _plain_columns({"predictions": predictions, "references": references, **kwargs})
        _check_complete(columns)
        _check_kinds(columns)
        super().add_batch(**columns)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """As that of `evaluate.Metric`, for one image.

        Raises:
            ValueError: As `add_batch`.
        """
        example = {"predictions": prediction, "references": reference, "radii": None, **kwargs}
        _check_kinds({name: [value] for name, value in example.items()})
        super().add(prediction=prediction, reference=reference, **kwargs)

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
        """As that of `evaluate.Metric`, which forgets what was added to it when it fails: options are tried before, on one image.

        Raises:
            TypeError: On an option that there is not.
            ValueError: On options or columns out of range.
        """
        self._compute([0], [0], [0.0], **{name: value for name, value in kwargs.items() if name not in _KINDS})
        found: dict[str, Any] | None = super().compute(predictions=predictions, references=references, **kwargs)
        return found

    def _compute(
        self,
        predictions: Any,
        references: Any,
        radii: Any,
        thresholds: Any = DEFAULT_RADII,
        n: int | None = None,
        confidence: float = 0.95,
        sigma: float | None = None,
        alpha: float | None = None,
        num_labels: int | None = None,
    ) -> dict[str, Any]:
        if n is not None and check_whole(n, "n") < 1:
            raise ValueError(f"`n` must be at least 1, got {n}.")
        if alpha is not None:
            check_alpha(alpha)
        if sigma is not None:
            check_reach(radii, sigma, n, alpha)
        for name, classes in (("predictions", predictions), ("references", references)):
            if num_labels is not None and len(classes) and max(classes) >= check_whole(num_labels, "num_labels"):
                raise ValueError(f"`{name}` must be below the number of classes, {num_labels}, got {max(classes)}.")
        curve = certified_accuracy(predictions, references, radii, thresholds, confidence)
        smoothed = certified_accuracy(predictions, references, radii, [0.0], confidence)
        return {
            "certified_accuracy": curve.accuracy.tolist(),
            "lower": curve.lower.tolist(),
            "upper": curve.upper.tolist(),
            "thresholds": curve.thresholds.tolist(),
            "smoothed_accuracy": float(smoothed.accuracy[0]),
            "average_certified_radius": average_certified_radius(predictions, references, radii),
            "n": n,
            "abstention_rate": abstention_rate(predictions),
            "num_images": curve.num_images,
            "confidence": curve.confidence,
        }

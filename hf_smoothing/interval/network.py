"""From a classifier of [0, 1] pixels to a function that takes boxes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_smoothing.interval.box import Box, Trace
from hf_smoothing.interval.margins import Margins, box_around, margin_bounds
from hf_smoothing.interval.radii import certified_radii
from hf_smoothing.preprocessing import Preprocessing


class BoundedNetwork:
    """A classifier whose margins can be bounded: resize and normalise, then the network.

    Args:
        network: a module (or function) of what follows `preprocessing`; bounds exist for linear layers, convolutions, batch norm,
            monotone activations, pooling, additions and reshapes.
        preprocessing: the resize and normalisation before it; None if the network takes [0, 1] pixels.
    """

    def __init__(self, network: Callable[..., Any], preprocessing: Preprocessing | None = None) -> None:
        self.network, self.preprocessing = network, preprocessing

    @classmethod
    def of(cls, classifier: Any) -> BoundedNetwork:
        """That of a `SmoothedClassifier`, of a plain model whose configuration notes its pixels, or of any module of [0, 1] pixels."""
        if isinstance(classifier, BoundedNetwork):
            return classifier
        base = getattr(classifier, "base_classifier", None)
        if base is not None:
            return cls(base, classifier.config.preprocessing())
        noted = getattr(getattr(classifier, "config", None), "hf_smoothing", None)
        if isinstance(noted, dict):
            size = noted.get("model_size")
            return cls(classifier, Preprocessing(noted["image_mean"], noted["image_std"], size and tuple(size)))
        return cls(classifier)

    def margins(
        self, pixels: Tensor, epsilon: Tensor | float, labels: Tensor, trace: Trace | None = None, value: bool = False
    ) -> Margins:
        """Lower bounds of f_y - f_t over each image's l-infinity ball within [0, 1].

        Args:
            pixels: float (batch, channels, height, width) in [0, 1].
            epsilon: radius in [0, 1] pixel units, one number or one an image.
            labels: int64 (batch,).
            trace, value: see `box_around`.
        """
        return margin_bounds(self._logits, box_around(pixels, epsilon, trace, value), labels, head=self.network)

    def _logits(self, box: Box) -> Any:
        if self.preprocessing is not None:
            box = self._prepared(box, self.preprocessing)
        # A model of transformers takes keyword arguments, a module of one's own what it likes.
        named = hasattr(self.network, "config")
        return self.network(pixel_values=box) if named else self.network(box)

    @staticmethod
    def _prepared(box: Box, preprocessing: Preprocessing) -> Box:
        """As `Preprocessing`, with a bound on every rounding: resize, subtract, divide."""
        size = preprocessing.model_size
        if size is not None and tuple(box.shape[-2:]) != size:
            shrinks = size[0] < box.shape[-2] or size[1] < box.shape[-1]
            box = F.interpolate(box, size=size, mode="bilinear", align_corners=False, antialias=shrinks)  # type: ignore[arg-type, assignment]
        mean, std = (
            torch.tensor(v, dtype=box.dtype, device=box.device)[None, :, None, None]
            for v in (preprocessing.image_mean, preprocessing.image_std)
        )
        result: Box = (box - mean) / std
        return result

    def exact(self) -> BoundedNetwork:
        """A copy for certification: float64, and checked.

        Raises:
            ValueError: in train mode, or with weights that are not finite.
        """
        if not isinstance(self.network, nn.Module):
            raise TypeError(
                f"Certification needs the network as a module, whose weights it can read, got {type(self.network).__name__}."
            )
        if any(module.training for module in self.network.modules()):
            raise ValueError(
                "The network is in train mode, where its output is random or depends on the batch. Call eval() first."
            )
        bad = [name for name, value in self.network.state_dict().items() if not torch.isfinite(value).all()]
        if bad:
            raise ValueError(f"Weights must be finite, but {bad[0]} holds nan or inf. Did training diverge?")
        return BoundedNetwork(copy.deepcopy(self.network).double(), self.preprocessing)


@torch.no_grad()
def linf_certificates(
    classifier: Any, pixels: Tensor, *, largest: float, tolerance: float = 1e-8, iterations: int = 100
) -> tuple[Tensor, Tensor]:
    """For each image the predicted class and an l-infinity radius within which it provably stays the prediction.

    Guarantee: deterministic. For the network with these weights in real arithmetic, no image of [0, 1] pixels that differs by at most
    the radius in every pixel gets another class. Bounds are computed in float64 and rounded outward. What a run in float32 or less adds
    to that is its own rounding error, which only matters for logits that nearly tie.

    Args:
        classifier: see `BoundedNetwork.of`; in eval mode.
        pixels: float (batch, channels, height, width) in [0, 1], or uint8.
        largest: radius at which to stop looking, in [0, 1] pixel units.
        tolerance, iterations: see `certified_radii`.

    Returns:
        (classes int64 (batch,), radii float64 (batch,)), the radius 0 where nothing can be certified.

    Raises:
        UnsupportedOperationError: naming an operation of the network without a bound.
        ValueError: in train mode, with weights that are not finite, or a `largest` outside (0, 1].
    """
    network = BoundedNetwork.of(classifier).exact()
    images = pixels.double() / 255 if pixels.dtype == torch.uint8 else pixels.double()
    zeros = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    logits = network.margins(images, 0.0, zeros, value=True).logits
    assert logits is not None  # the box had a value
    classes = logits.argmax(dim=1)

    def violation(which: Tensor, radii: Tensor) -> Tensor:
        return -network.margins(images[which], radii, classes[which], Trace(outward=True)).worst

    radii = certified_radii(
        violation,
        len(images),
        largest,
        device=images.device,
        dtype=images.dtype,
        tolerance=tolerance,
        iterations=iterations,
    )
    return classes, radii

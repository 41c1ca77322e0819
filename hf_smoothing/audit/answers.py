"""What a certifier returns, read with care: a silent misunderstanding would acquit it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


FORMS = "objects with the attributes prediction and radius, one per image, or a tuple (predictions, radii)"


MOST = 2.0**31
"""Beyond it a number is no class: as a whole number of 64 bits it would turn negative, and pass for an abstention."""


class Answers(NamedTuple):
    """The certificates of a call.

    Attributes:
        predictions: Classes, int64 (images,); negative where the certifier abstained.
        radii: Claimed l2 radii, float64 (images,).
    """

    predictions: NDArray[np.int64]
    radii: NDArray[np.float64]


def read_answers(returned: Any, images: int) -> Answers:
    """The certificates that a certifier returned for a number of images.

    Raises:
        TypeError: If it returned neither of the two forms.
        ValueError: If there is not one number per image, a class is not whole, or a radius negative or nan.
    """
    pair = isinstance(returned, tuple) and len(returned) == 2 and not hasattr(returned[0], "radius")
    if pair:
        predictions, radii = (_numbers(part) for part in returned)
    else:
        try:
            predictions = np.array([_number(one.prediction) for one in returned])
            radii = np.array([_number(one.radius) for one in returned])
        except (TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise TypeError(f"A certifier must return {FORMS}, got {type(returned).__name__} ({error}).") from error
    for one, name, values in (("prediction", "predictions", predictions), ("radius", "radii", radii)):
        if values.shape != (images,):
            raise ValueError(
                f"A certifier must return one {one} per image, shape ({images},), got {name} of shape {values.shape}."
            )
    whole = np.isfinite(predictions) & (np.abs(predictions) < MOST) & (predictions == np.floor(predictions))
    if not bool(whole.all()):
        raise ValueError(f"Predictions must be numbers of classes, -1 for an abstention, got {predictions[:5]}.")
    if not bool((radii >= 0.0).all()):
        raise ValueError(f"Radii must be at least 0 and not nan, 0 for an abstention, got {radii.min()}.")
    return Answers(predictions.astype(np.int64), radii)


def _number(value: Any) -> float:
    # Numpy would drop the imaginary part.
    if value.is_complex() if isinstance(value, Tensor) else np.iscomplexobj(value):
        raise TypeError("complex numbers")
    return float(value)


def _numbers(part: Any) -> NDArray[np.float64]:
    try:
        held = np.asarray(_held(part))
        if np.iscomplexobj(held):  # numpy would drop the imaginary part
            raise TypeError("complex numbers")
        return held.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"A certifier must return {FORMS}, got a tuple that holds {type(part).__name__} ({error})."
        ) from error


def _held(part: Any) -> Any:
    """What numpy reads: tensors off their device, without gradients, and in a dtype that it knows, unlike bfloat16; also those in a list."""
    if isinstance(part, Tensor):
        held = part.detach().cpu()
        return held if held.is_complex() else held.double()
    return [_held(one) for one in part] if isinstance(part, (list, tuple)) else part

"""What the values of a label column are: the number of one class, however a file keeps it, or none."""

from __future__ import annotations

import math
import re
from typing import Any

from hf_smoothing.units import as_number, check_whole, is_several, is_truth_value


TRUTH_NAMES = ("False", "True")
"""What the truth values are called, by the numbers that they are."""

TRUTH = {name.casefold(): number for number, name in enumerate(TRUTH_NAMES)}


def class_number(value: Any) -> int | None:
    """The whole number that a value is, or None. False and True are 0 and 1; a float is one if it is whole, as pandas makes 0.0 of 0 in a column with a gap.

    >>> class_number(2), class_number(1.0), class_number(True), class_number(0.3), class_number(None)
    (2, 1, 1, None, None)
    """
    if value is None or isinstance(value, str | bytes) or is_several(value):
        return None
    if is_truth_value(value):
        return int(value)
    try:
        return check_whole(value, "label")
    except ValueError:
        number = as_number(value)
        return int(number) if math.isfinite(number) and number.is_integer() else None


def number_of_text(text: str) -> int | None:
    """The number that a text names as JSON or pandas writes it, or None.

    >>> number_of_text("1.0"), number_of_text("True"), number_of_text("1.5")
    (1, 1, None)
    """
    text = text.strip().casefold()
    whole = re.fullmatch(r"([0-9]{1,18})\.0*", text)
    return int(whole[1]) if whole else TRUTH.get(text)


def is_missing(value: Any) -> bool:
    """Whether a value is what files have for none: nothing, or not a number."""
    return value is None or (not is_several(value) and not isinstance(value, str) and bool(value != value))  # nan


def refusal(value: Any, whose: str) -> str:
    """What to say of a value that is no number of a class.

    Args:
        value: The value.
        whose: Which label it is, such as "Label of image 3".
    """
    if is_missing(value):
        return f"{whose} is missing, got {value!r}. Every image needs a class: fill it in, or take the images without one out of the data set."
    if is_several(value):
        return (
            f"{whose} must be one class, got {value!r}. One class per image is needed: of one-hot values make the number of the class; what has several "
            "classes per image cannot be used. Or name another column: label_column=..."
        )
    if isinstance(value, str):
        return (
            f"{whose} must be an integer class, got {value!r}. Map names to numbers with a ClassLabel feature "
            "(dataset.class_encode_column)."
        )
    return (
        f"{whose} must be an integer class, got {value!r}. One class per image is needed, and fractions are a measured value: sort them into classes, "
        "or name another column: label_column=..."
    )

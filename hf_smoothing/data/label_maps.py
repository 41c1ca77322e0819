"""Maps by hand from the classes of a data set to those of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_smoothing.data.label_values import number_of_text
from hf_smoothing.spelling import number_of, plain


def by_hand(
    label_map: Mapping[Any, Any], names: Sequence[str] | None, model_names: Sequence[str], ordered: bool
) -> dict[int, int]:
    """Numbers of the data set -> numbers of the model.

    Raises:
        ValueError: If a class is in neither, or stands there twice.
    """
    if not isinstance(label_map, Mapping):
        raise ValueError(
            f"`label_map` must be a mapping from classes of the data set to classes of the model, got {label_map!r}."
        )
    found: dict[int, int] = {}
    for key, value in label_map.items():
        number = _class_number(key, names, "data set") if ordered else _name_number(key, names or ())
        if number in found:
            raise ValueError(f"`label_map` names class {number} of the data set twice, the second time as {key!r}.")
        found[number] = _class_number(value, model_names, "model")
    return found


def _name_number(value: Any, names: Sequence[str]) -> int:
    """The number of a name in a list whose order means nothing."""
    same = called(str(value), names)
    if len(same) != 1:
        several = f"{[names[index] for index in same]} are all written so, but for spelling. Write it as one of them"
        missing = f"the data set has no such label; its labels are {few(names)}"
        raise ValueError(f"`label_map` says {value!r}, but {several if same else missing}.")
    return same[0]


def called(value: str, names: Sequence[str]) -> list[int]:
    """Where a name stands in a list: as it is written, or else in any spelling."""
    same = [index for index, name in enumerate(names) if name == value]
    return same or [index for index, name in enumerate(names) if plain(name) == plain(value)]


def check_targets(label_map: Mapping[Any, Any], id2label: Mapping[int, str]) -> None:
    """Check a map by hand where the classes of the data set are not known yet.

    Raises:
        ValueError: If it is no map, or the model has no class that it names.
    """
    keys = list(map(str, label_map)) if isinstance(label_map, Mapping) else None
    by_hand(label_map, keys, names_of(id2label), ordered=False)


def _class_number(value: Any, names: Sequence[str] | None, whose: str) -> int:
    if isinstance(value, str | bool) and names is not None:
        same = called(str(value), names)
        if len(same) == 1:
            return same[0]
        if len(same) > 1:
            raise ValueError(
                f"`label_map` says {value!r}, but classes {same} of the {whose} are called so. Give the number."
            )
    number = value if isinstance(value, int) and not isinstance(value, bool) else number_of(str(value))
    if number is None and names is None:  # a column may hold 0.0 or True
        number = number_of_text(str(value))
    if number is None or number < 0 or (names is not None and number >= len(names)):
        known = (
            f"its classes are 0 to {len(names) - 1}: {few(names)}" if names is not None else "its classes are numbers"
        )
        raise ValueError(f"`label_map` says {value!r}, but the {whose} has no such class; {known}.")
    return number


def names_of(id2label: Mapping[int, str]) -> tuple[str, ...]:
    """The names of a label map in the order of their numbers.

    Raises:
        TypeError: If it is no mapping.
        ValueError: If the numbers are not 0, 1, ....
    """
    given: object = id2label
    if not isinstance(given, Mapping):
        raise TypeError(
            f"`id2label` must map numbers of classes to their names, such as {{0: 'cat', 1: 'dog'}}, got {type(given).__name__}. Of a list of names make one: "
            "dict(enumerate(names))."
        )
    try:
        by_number = {int(index): str(name) for index, name in id2label.items()}  # JSON keeps the numbers as text
    except (ValueError, TypeError) as error:
        numbered = all(isinstance(name, int) for name in id2label.values())
        cure = "This is the inverse, label2id." if numbered else "Number them from 0."
        raise ValueError(
            f"`id2label` must map numbers of classes to their names, such as {{0: 'cat', 1: 'dog'}}, got {few(list(map(str, id2label)))} for numbers. {cure}"
        ) from error
    if sorted(by_number) != list(range(len(by_number))):
        raise ValueError(
            f"`id2label` must name the classes 0 to {len(by_number) - 1}, got the numbers {sorted(by_number)[:5]} ..."
        )
    return tuple(by_number[index] for index in range(len(by_number)))


def few(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    return f"{list(names[:most])}{f' and {len(names) - most} more' if len(names) > most else ''}"

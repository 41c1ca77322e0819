"""The classes of a configuration: a name for each number, and the number of each name."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig


def check_names(id2label: Any, num_labels: int | None = None) -> None:
    """Refuse names of classes that are not one for each number from 0 on: a prediction is such a number, and must have its name.

    Raises:
        ValueError: If they are no mapping, leave a class out, or are not as many as `num_labels`.
    """
    numbers = sorted(str(key) for key in id2label) if isinstance(id2label, Mapping) else None
    if not id2label or numbers != sorted(str(number) for number in range(len(id2label))):
        raise ValueError(
            "`id2label` must name each class by its number, from 0 on without a gap, such as {0: 'cat', 1: 'dog'}, got "
            f"{reprlib.repr(id2label)}. Correct config.json, or pass id2label=dict(enumerate(names)) with the names in order."
        )
    if num_labels is not None and num_labels != len(id2label):
        raise ValueError(
            f"`num_labels` and `id2label` must agree, got num_labels={num_labels} and {len(id2label)} names. Leave num_labels out."
        )


def inverse(id2label: Mapping[Any, str]) -> dict[str, int]:
    """The numbers of classes by their names."""
    return {name: int(number) for number, name in id2label.items()}


def numbered(label2id: Any) -> dict[str, int | None] | None:
    """The numbers of classes as whole numbers, however they are written; None of what is no mapping."""
    return {name: _whole(number) for name, number in label2id.items()} if isinstance(label2id, Mapping) else None


def take_classes(config: PreTrainedConfig, id2label: Mapping[Any, str]) -> None:
    """Give a configuration made of others the classes of its parts; what it was given itself is checked first.

    Args:
        config: The configuration, whose names and numbers are set.
        id2label: The names of the parts.

    Raises:
        ValueError: As `check_names` and `check_numbers`.
    """
    if config.id2label is not None:
        check_names(config.id2label)
    if config.label2id:
        check_numbers(config.label2id, config.id2label or id2label)
    config.id2label = {int(number): name for number, name in id2label.items()}
    config.label2id = inverse(id2label)


def _whole(number: Any) -> int | None:
    """A class's number as configurations may write it: a number, a tensor or a text."""
    try:
        return int(number)
    except (TypeError, ValueError):
        return None


def check_numbers(label2id: Any, id2label: Mapping[Any, str]) -> None:
    """Refuse numbers of classes other than those under which they are named.

    Raises:
        ValueError: If they are no mapping, or not the inverse of the names.
    """
    if not named_so(label2id, id2label):
        raise ValueError(
            f"`label2id` must be the inverse of `id2label`, {reprlib.repr(dict(id2label))}, got {reprlib.repr(label2id)}. Leave it out: it is made of id2label, "
            "which is where other names belong."
        )


def named_so(label2id: Any, id2label: Any) -> bool:
    """Whether every number is one under which its name is found, and every name has one."""
    if not isinstance(label2id, Mapping) or not isinstance(id2label, Mapping):
        return False
    named = {_whole(number): name for number, name in id2label.items()}
    return set(label2id) == set(named.values()) and all(named.get(_whole(n)) == name for name, n in label2id.items())

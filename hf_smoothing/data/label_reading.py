"""`LabelReader`: the labels of a data set as classes of a model."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hf_smoothing.data.columns import column_values, find_column, holds_text, holds_truth_values
from hf_smoothing.data.label_maps import called, check_targets, names_of
from hf_smoothing.data.label_values import TRUTH_NAMES, class_number, is_missing, refusal
from hf_smoothing.data.labels import ClassMap, Labels, class_map, class_names, two_on_one, unasked
from hf_smoothing.spelling import number_of
from hf_smoothing.types import Images


class LabelReader:
    """Finds the label column of a data set, matches its classes with the model's, and reads labels.

    Args:
        dataset: As in `PixelDataset`.
        label_column: Its name; found if not given. A column that was found and marks every image as unlabelled (-1) is left alone.
        id2label, labels, label_map: As in `class_map`. Labels that are text are always matched by name.

    Raises:
        ValueError: As `find_column` and `class_map`, and if the named column has no label.
    """

    def __init__(
        self,
        dataset: Images,
        label_column: str | None,
        id2label: Mapping[int, str] | None,
        labels: Labels | None,
        label_map: Mapping[Any, Any] | None,
    ) -> None:
        self.column = find_column(dataset, label_column, "label", required=False)
        self.unlabelled_column: str | None = None
        self._values = column_values(dataset, self.column)
        if self._values and all(is_missing(value) or class_number(value) == -1 for value in self._values):
            if label_column is not None:
                raise ValueError(
                    f"Column {label_column!r} marks all images as unlabelled (-1). Use a split with labels, or leave label_column out."
                )
            self.unlabelled_column, self.column, self._values = self.column, None, None
        if self.column is None and (label_map or labels):
            raise ValueError(
                "`labels` and `label_map` are about a label column, but the data set has none that is clear. Pass label_column=..."
            )
        names = class_names(dataset, self.column) or self._truth_names(dataset, id2label)
        text = self.column is not None and holds_text(dataset, self.column)
        self._how = (id2label, labels, label_map) if text else None
        self._texts: dict[str, int] = {}
        self._named: dict[int, str] = {}
        if text and labels == "by-number":
            self._check_numerals()
        if text and labels != "by-number" and id2label is not None:
            self.class_map = self._match_texts(id2label, label_map)
            names = None
        else:
            present = (
                None
                if self._values is None or text
                else {found for value in self._values if (found := class_number(value)) is not None}
            )
            self.class_map = class_map(names, id2label, labels=labels, label_map=label_map, present=present)
        if self.column is not None and (doubt := unasked(self.class_map, labels)) is not None:
            warnings.warn(doubt, stacklevel=4)  # the line that makes the PixelDataset or PixelStream
        self.names = list(self.class_map.model_names or names or ()) or None
        self.num_labels = len(names or self.class_map.model_names or ()) or None

    def check(self) -> None:
        """Read all labels, where that needs no image.

        Raises:
            ValueError: The message names the first image whose label is no class.
        """
        for index, value in enumerate(self._values or ()):
            self.label(value, index)

    def known(self, indices: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(index, label) of these images, where that needs no image; nothing otherwise.

        Raises:
            ValueError: As `label`.
        """
        values = self._values
        return iter(()) if values is None else ((index, self.label(values[index], index)) for index in indices)

    def label(self, value: Any, index: int) -> int:
        """The class in the model.

        Raises:
            ValueError: If it is none.
        """
        if isinstance(value, str) and self._how is not None:
            return self._text(value, index)
        label = class_number(value)
        if label is None:
            raise ValueError(refusal(value, f"Label of image {index}"))
        targets = self.class_map.to_model
        count = self.num_labels if targets is None else len(targets)
        if label < 0 or (count is not None and label >= count):
            cure = "-1 marks unlabelled splits: use another split." if label == -1 else "Is this the model's data set?"
            if label == count:
                cure += " For labels that begin at 1 pass label_map={1: 0, 2: 1, ...}."
            raise ValueError(f"Label of image {index} must be a class in [0, {count}), got {label}. {cure}")
        target = label if targets is None else targets[label]
        if target is None:
            raise ValueError(
                f"Label of image {index} is class {label} of the data set, which the model does not have."
            )
        return target

    def _truth_names(self, dataset: Images, id2label: Mapping[int, str] | None) -> list[str] | None:
        """What True and False are called, where the model has classes of those names: their numbers there may be others than 1 and 0."""
        model_names = names_of(id2label or {})
        if self.column is None or not all(called(name, model_names) for name in TRUTH_NAMES):
            return None
        return list(TRUTH_NAMES) if holds_truth_values(dataset, self.column) else None

    def _check_numerals(self) -> None:
        for value in self._values or ():
            self._number(value)

    def _number(self, value: Any) -> int:
        number = number_of(str(value))
        if number is None:
            raise ValueError(
                f"Labels of column {self.column!r} are text such as {value!r}, which has no number. Leave labels='by-number' out, or pass "
                "label_map={...}."
            )
        return number

    def _match_texts(self, id2label: Mapping[int, str], label_map: Mapping[Any, Any] | None) -> ClassMap:
        """The map of all texts where they are known; otherwise each is matched when it comes."""
        if self._values is None:
            check_targets(label_map or {}, id2label)
            return ClassMap(None, class_map([], id2label).model_names, None, ("by name",))
        texts = sorted({value for value in self._values if isinstance(value, str)})
        made = class_map(texts, id2label, labels="by-name", label_map=label_map, ordered=False)
        self._texts = {text: operator.index(target) for text, target in zip(texts, made.to_model or (), strict=True)}  # type: ignore[arg-type]
        return made

    def _text(self, value: str, index: int) -> int:
        assert self._how is not None
        id2label, labels, label_map = self._how
        if value in self._texts:
            return self._texts[value]
        if labels == "by-number":
            return self.label(self._number(value), index)
        if id2label is None:
            raise ValueError(
                f"Label of image {index} must be an integer class, got {value!r}. Pass id2label, the classes of a model, or map names to numbers "
                "with a ClassLabel feature (dataset.class_encode_column)."
            )
        keys = list(label_map or {})
        hand = {keys[place]: (label_map or {})[keys[place]] for place in called(value, list(map(str, keys)))}
        try:
            made = class_map([value], id2label, labels="by-name", label_map=hand, ordered=False)
        except ValueError as error:
            raise ValueError(f"Label of image {index} is no class of the model. {error}") from error
        target = operator.index((made.to_model or (0,))[0])  # type: ignore[arg-type]
        # By hand several texts may be one class.
        other = value if hand else self._named.setdefault(target, value)
        if other != value:
            raise ValueError(f"Label of image {index}: {two_on_one(other, value, (made.model_names or ())[target])}")
        self._texts[value] = target
        return target

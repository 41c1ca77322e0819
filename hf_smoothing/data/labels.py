"""Class names of a data set and the classes of a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hf_smoothing.data.label_maps import by_hand, few, names_of
from hf_smoothing.spelling import has_names, match_names, number_of, numbers_of, plain
from hf_smoothing.types import Images


Labels = Literal["by-name", "by-number"]
LABELS: tuple[Labels, ...] = ("by-name", "by-number")
WAYS = ("by name", "by position", "by number", "by hand")


@dataclass(frozen=True)
class ClassMap:
    """Which class of a model each class of a data set is.

    Attributes:
        names: Names of the data set's classes, in the order of their numbers; None where it has numbers alone.
        model_names: Names of the model's classes, in order; None where there is no model.
        to_model: For each class of the data set its number in the model, or None for one that no image has and the model lacks;
            None as a whole where the numbers are taken as they are.
        how: For each class "by name", "by position", "by number" or "by hand"; where classes are met one by one, how all of them are matched.
    """

    names: tuple[str, ...] | None
    model_names: tuple[str, ...] | None
    to_model: tuple[int | None, ...] | None = None
    how: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: how many classes were matched which way and, where it is not the identity, the map."""
        counts = self._counts()
        facts: dict[str, Any] = {
            "matched": next(iter(counts)) if len(counts) == 1 else counts or (*self.how, "by number")[0]
        }
        if self.to_model is not None and self.to_model != tuple(range(len(self.model_names or ()))):
            facts["to_model"] = list(self.to_model)
        return facts

    def class_names(self) -> list[str] | None:
        """What the classes under the numbers of the model are called: by the data set where it has the class, which is the same for every model."""
        if self.names is None or self.to_model is None:
            known = self.model_names or self.names
            return None if known is None else list(known)
        own = {target: name for name, target in zip(self.names, self.to_model, strict=True)}
        return [own.get(number, name) for number, name in enumerate(self.model_names or ())]

    def describe(self, most: int = 8) -> str:
        """For a person: one line, and a line for each pair whose names or numbers differ.

        Args:
            most: Maximum number of pairs to show.
        """
        total = len(self.model_names or ())
        if self.names is None or self.to_model is None:
            return f"Classes: {self.how[0] if self.how else 'by number'}, as they are{f'; the model has {total}' if total else ''}."
        counts = self._counts()
        used = sum(counts.values())
        ways = ", ".join(f"{count:,} {way}" for way, count in counts.items())
        of = "" if used == total else f" (the model has {total:,})"
        text = f"Classes: {ways}{of}."
        pairs = [pair for number in range(len(self.names)) if (pair := self._pair(number))]
        more = [f"  ... and {len(pairs) - most:,} more"] if len(pairs) > most else []
        return "\n".join([text, *pairs[:most], *more])

    def _counts(self) -> dict[str, int]:
        ways = [way for way, target in zip(self.how, self.to_model or (), strict=False) if target is not None]
        return {way: ways.count(way) for way in WAYS if way in ways}

    def _pair(self, number: int) -> str | None:
        """A line for a class whose name or number is another in the model."""
        assert self.names is not None and self.to_model is not None and self.model_names is not None
        target = self.to_model[number]
        if target is None:
            return f"  {number} {self.names[number]!r} -> none (no image has it)"
        name = self.model_names[target]
        if target == number and self.how[number] == "by name" and plain(name) == plain(self.names[number]):
            return None
        return f"  {number} {self.names[number]!r} -> {target} {name!r}, {self.how[number]}"


def class_names(dataset: Images, label_column: str | None) -> list[str] | None:
    """The names of a ClassLabel column in order, or None."""
    feature = (getattr(dataset, "features", None) or {}).get(label_column)
    names = getattr(feature, "names", None)
    return None if names is None else list(names)


def class_map(
    names: Sequence[str] | None,
    id2label: Mapping[int, str] | None,
    *,
    labels: Labels | None = None,
    label_map: Mapping[Any, Any] | None = None,
    present: Collection[int] | None = None,
    ordered: bool = True,
) -> ClassMap:
    """Match the classes of a data set with those of a model.

    By name, where the model has names: spelling (case, Unicode form, spaces, hyphens and underscores), numbers before names and lists of
    synonyms do not matter as long as one class alone fits. Where the model has a name twice, and both have as many classes, the classes
    left over are matched by position. The data set may have fewer classes than the model.

    Args:
        names: Class names of the data set in order, if it has any.
        id2label: The model's label map, if there is one. Maps of the kind LABEL_0, LABEL_1, ... have no names to match.
        labels: Either "by-name", or "by-number" to take the data set's numbers as the model's, refused where classes are called by others; by default by name
            where both have names.
        label_map: By hand: class name or number in the data set -> class name or number in the model. Classes that it does not
            name are matched as `labels` says.
        present: Numbers of the classes that images have, where that is known. Other classes may be missing in the model.
        ordered: Whether the order of `names` means anything; without, nothing is matched by position or number, and numbers in `label_map` are
            names of the data set.

    Raises:
        ValueError: If a class has no place in the model or several, or it is not clear which numbers are meant.
    """
    if labels is not None and labels not in LABELS:
        raise ValueError(f"`labels` must be 'by-name' or 'by-number', got {labels!r}.")
    if id2label is None:
        if label_map or labels == "by-name":
            how = "`label_map` leads to" if label_map else "labels='by-name' asks for"
            raise ValueError(
                f"{how} the classes of a model, which are not known. Pass id2label=model.config.id2label as well, or the model in place of a size."
            )
        return ClassMap(None if names is None else tuple(names), None)
    model_names = names_of(id2label)
    hand = by_hand(label_map or {}, names, model_names, ordered)
    if names is None:
        return _numbers_alone(model_names, hand, present, labels)
    rest = [number for number in range(len(names)) if number not in hand]
    if labels == "by-number" and (place := _called_otherwise(names, model_names, rest)) is not None:
        raise ValueError(
            f"labels='by-number' takes the place of a class for its number, but class {place} of the data set is called {names[place]!r} (its classes are "
            f"{few(names)}), so it is not clear which is meant. {_either(names[place], place, model_names)}."
        )
    way = labels or (_way(names, model_names, rest) if ordered else "by-name")
    found = {number: (target, "by hand") for number, target in hand.items()}
    if way == "by-number":
        found |= {number: (number, "by number") for number in rest if number < len(model_names)}
    else:
        found |= match_names(names, model_names, rest, hand.values() if ordered else None)
    lost = [n for n in rest if n not in found and (present is None or n in present)]
    if way == "by-name" and not ordered:
        _check_single(names, model_names, lost, found)
    _check_all(names, model_names, lost, way, mapped=bool(hand))
    pairs = [found.get(number, (None, "by name")) for number in range(len(names))]
    return ClassMap(tuple(names), model_names, tuple(target for target, _ in pairs), tuple(how for _, how in pairs))


def unasked(made: ClassMap, labels: Labels | None) -> str | None:
    """What to say where numbers without names were taken for classes with names, and nobody asked for that; else None.

    Args:
        made: Result of `class_map`.
        labels: As there.
    """
    names = made.model_names
    if labels is not None or made.names is not None or made.how or names is None or _numbered(names):
        return None
    return (
        f"The data set's labels are numbers without names, so they are taken for the model's numbers: 0 for {names[0]!r}, of {few(names)}. If they "
        f"are, pass labels='by-number'; otherwise pass label_map={{...}}, or in Python {_NAMED}."
    )


_NAMED = (
    "give them their names: dataset.cast_column(column, datasets.ClassLabel(names=[...])), and of a stream that lost them on the way "
    "stream.map(function, features=stream.features)"
)


def _numbered(model_names: Sequence[str]) -> bool:
    """Whether each class of a model is called by its number, so that by name and by number are the same."""
    return all(number_of(name.removeprefix("LABEL_")) == index for index, name in enumerate(model_names))


def _numbers_alone(
    model_names: tuple[str, ...], hand: Mapping[int, int], present: Collection[int] | None, labels: Labels | None
) -> ClassMap:
    by_name = labels == "by-name" and not _numbered(model_names)
    if by_name and not (hand if present is None else hand.keys() >= set(present)):
        raise ValueError(
            f"labels='by-name' needs names of the data set's classes, but its labels are numbers without names; the model's classes are "
            f"{few(model_names)}. Pass labels='by-number' if they are the model's numbers; otherwise {_NAMED}, or pass label_map={{...}} with all of them."
        )
    if not hand:
        return ClassMap(None, model_names)
    count = max(len(model_names), max(hand) + 1)
    known = [
        not by_name and number < len(model_names) and (present is None or number in present) for number in range(count)
    ]
    targets = tuple(hand.get(number, number if known[number] else None) for number in range(count))
    how = tuple("by hand" if number in hand else "by number" for number in range(count))
    return ClassMap(tuple(map(str, range(count))), model_names, targets, how)


def _way(names: Sequence[str], model_names: Sequence[str], rest: Sequence[int]) -> Labels:
    """By name or by number, where the caller does not say.

    Raises:
        ValueError: If the model has no names, and numbers in the data set's names are not its numbers.
    """
    if has_names(model_names) or not rest:
        return "by-name"
    if (place := _called_otherwise(names, model_names, rest)) is not None:
        raise ValueError(
            f"It is not clear which class of the model a class of the data set is: class {place} of the data set is called {names[place]!r} "
            f"(its classes are {few(names)}), and the model's classes have no names ({few(model_names)}). {_either(names[place], place, model_names)}."
        )
    bare = all(number_of(name) is not None for name in names)
    if not bare and len(names) != len(model_names):
        raise ValueError(
            f"The data set has {len(names)} classes and the model {len(model_names)}, and the model's classes have no names to match "
            f"({few(model_names)}). Pass labels='by-number' to take the numbers as they are, or label_map={{...}}."
        )
    return "by-number"


def _called_otherwise(names: Sequence[str], model_names: Sequence[str], rest: Sequence[int]) -> int | None:
    """The first class that is called by another number than its place, such as 2 of the folders 0, 2 and 3, and not so in the model; None if there is none.

    Names of which only the end is a number may count from another one on, as "bird 1", "bird 2" do, or be no numbers of classes, as WordNet ids, where the model
    has no such class.
    """
    there = [place for place in rest if place >= len(model_names) or plain(names[place]) != plain(model_names[place])]
    for place in there:
        number = number_of(plain(names[place]).removeprefix("-"))
        if number is not None and (number != place or plain(names[place]).startswith("-")):
            return place
    numbers = numbers_of(names)
    if numbers is None or (
        numbers == list(range(numbers[0], numbers[0] + len(names))) and numbers[-1] >= len(model_names)
    ):
        return None
    few_enough = [place for place in there if numbers[place] < len(model_names) or numbers != sorted(numbers)]
    return next((place for place in few_enough if numbers[place] != place), None)


def _either(name: str, place: int, model_names: Sequence[str]) -> str:
    """How to say whether a class is meant by the number that it is called, or by its place."""
    by_name = f"labels='by-name' to take {name!r} for LABEL_{number_of(name)}, or "
    first = by_name if number_of(name) is not None and not has_names(model_names) else ""
    return f"Pass {first}label_map={{...}} with the number of each class in the model: {{name: place for place, name in enumerate(names)}} takes {name!r} for class {place}"


def _or_by_number(names: Sequence[str], model_names: Sequence[str]) -> str:
    """That numbers may be taken as they are, where that is clear."""
    shifted = _called_otherwise(names, model_names, range(len(names))) is not None
    return "" if shifted else "labels='by-number' to take the numbers as they are, "


def _check_single(
    names: Sequence[str], model_names: Sequence[str], lost: Sequence[int], found: Mapping[int, tuple[int, str]]
) -> None:
    """Refuse two texts of which each alone would be one class: they may be two classes, of which the model has one.

    Raises:
        ValueError: The message names both.
    """
    first = {target: number for number, (target, how) in found.items() if how != "by hand"}
    for number in lost:
        for target, _ in match_names([names[number]], model_names, [0], None).values():
            if (other := first.setdefault(target, number)) != number:
                raise ValueError(two_on_one(names[other], names[number], model_names[target]))


def two_on_one(first: str, second: str, model_name: str) -> str:
    """What to say of two texts that both mean one class."""
    return (
        f"Two labels of the data set fit one class of the model: {first!r} and {second!r} are both {model_name!r}. If they are one class, pass "
        f"label_map={{{second!r}: {model_name!r}}}; otherwise use the data set that the model was trained on."
    )


def _check_all(
    names: Sequence[str], model_names: Sequence[str], lost: Sequence[int], way: Labels, mapped: bool
) -> None:
    if not lost:
        return
    missing = [names[number] for number in lost]
    against = f"({len(names)} classes in the data set, {len(model_names)} in the model)"
    if way == "by-number":
        raise ValueError(
            f"The model has {len(model_names)} classes, so there is none for {few(missing)} {against}. {'Add them to `label_map`' if mapped else 'Pass label_map={...}'}, or use the data "
            "set that the model was trained on."
        )
    twice = [name for name in missing if sum(plain(name) == plain(other) for other in model_names) > 1]
    if len(twice) == len(missing):
        raise ValueError(
            f"Class names of the data set do not match the model's: {few(twice)} stand several times in the model {against}. Pass "
            "label_map={...} with the numbers of the model's classes, or labels='by-number' to take the data set's numbers as they are."
        )
    if mapped:
        raise ValueError(
            f"`label_map` does not map {few(missing)}, and the model has no class of that name {against}. Add them to the map; the model's classes "
            f"are {few(model_names)}."
        )
    raise ValueError(
        f"Class names of the data set do not match the model's: {few(missing)} are not among {few(model_names)} {against}. Pass "
        f"label_map={{...}} from the data set's classes to the model's, {_or_by_number(names, model_names)}or use the data set that the model was trained on."
    )

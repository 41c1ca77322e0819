"""Which of two lists of class names mean the same, however they are spelt; what a mistyped name was meant to be."""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence


DIGITS = "0123456789"
LONGEST_NUMBER = 18
"""Digits of a class number; a longer one is a name."""


SEPARATOR = re.compile(r"(?P<minus>(?<![^\W_])[\-\u2010-\u2015\u2212](?=\.?\d))|[_\-\u2010-\u2015]")
"""An underscore or hyphen; one right before a number, with no letter or digit before it, is a minus sign."""


@functools.lru_cache(maxsize=1 << 16)  # comparing all names of two data sets asks for each of them again and again
def plain(name: str) -> str:
    """A name without what spelling adds: Unicode form, case, underscores, hyphens and repeated spaces; a minus sign is no hyphen.

    >>> plain(" Polar_Bear") == plain("polar-bear")
    True
    >>> plain("covid-19"), plain("-1")
    ('covid 19', '-1')
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join(SEPARATOR.sub(lambda found: "-" if found["minus"] else " ", folded).split())


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was most likely meant, or None if none is close.

    >>> nearest("sgima", ["seed", "sigma"]), nearest("weather", ["seed", "sigma"])
    ('sigma', None)
    """
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def number_of(name: str) -> int | None:
    """The whole number that a name is, or None.

    >>> number_of("007"), number_of("LABEL_7"), number_of("7 up")
    (7, None, None)
    """
    text = name.strip()
    return int(text) if re.fullmatch(rf"[0-9]{{1,{LONGEST_NUMBER}}}", text) else None


def numbers_of(names: Sequence[str]) -> list[int] | None:
    """The numbers at the end of names that differ in nothing else, or None; negative ones are none.

    >>> numbers_of(["class 0", "class 10", "class 2"])
    [0, 10, 2]
    """
    stripped = [name.strip() for name in names]
    stems = {name.rstrip(DIGITS) for name in stripped}
    if len(stems) != 1:
        return None
    stem = stems.pop()
    if plain(stem + "0").endswith("-0"):
        return None
    start = len(stem)
    found = [number_of(name[start:]) for name in stripped]
    return None if None in found else [number for number in found if number is not None]


def aliases(name: str) -> list[str]:
    """What a class is called, plainly: the name, its synonyms, and what stands behind a number or WordNet id; the main ones first.

    The number of LABEL_3 is that of the class in a model, from 0, and the number before a name whatever its author counts, often from 1.
    A name that is a number alone may be either; a name with words is never LABEL_3.

    >>> aliases("n01440764 tench, Tinca tinca")
    ['n01440764 tench, tinca tinca', 'tench', 'n01440764', 'tinca tinca']
    >>> aliases("LABEL_3"), aliases("3"), aliases("001.Black_footed_Albatross")
    (['label 3', 'label_3'], ['3', 'label_3'], ['001.black footed albatross', 'black footed albatross', '1'])
    """
    whole = plain(name)
    first, *others = [part.strip() for part in whole.split(",")]
    main = [whole, first]
    if coded := re.fullmatch(r"(n[0-9]{8}|[0-9]+)[ .:]+(.*\D.*)", first):
        main = [whole, coded[2].strip(), _code(coded[1])]
    elif labelled := re.fullmatch(r"label ([0-9]+)", whole):
        main = [whole, _place(labelled[1])]
    elif number_of(whole) is not None:
        main = [whole, _code(whole), _place(whole)]
    elif number_of(first) is not None:
        main = [whole, _code(first)]
    return list(dict.fromkeys(alias for alias in [*main, *others] if alias))


def _code(text: str) -> str:
    number = number_of(text)
    return text if number is None else str(number)


def _place(text: str) -> str:
    return f"label_{_code(text)}"  # the underscore keeps it from any name as it is written: `plain` leaves none


def _without_number(name: str) -> str:
    """A name without the number at its end, in parentheses or not."""
    bare = name.removesuffix(")")
    stem = bare.rstrip(DIGITS)
    return name if stem == bare else stem.rstrip(" (")


def has_names(model_names: Sequence[str]) -> bool:
    """Whether the classes of a model are called otherwise than LABEL_0, LABEL_1, ... in order."""
    return any(name != f"LABEL_{index}" for index, name in enumerate(model_names))


def match_names(
    names: Sequence[str], model_names: Sequence[str], rest: Collection[int], taken: Collection[int] | None = ()
) -> dict[int, tuple[int, str]]:
    """For classes of a data set their number in the model and how it was found; classes without a clear one are left out.

    As they stand first, then plainly, then by synonyms: the main name of one among all names of the other. At each step a class is
    matched only if one class of the model fits, and fits no other class that is still open.

    Args:
        names: Names of all classes of the data set.
        model_names: Model names of all classes of the model.
        rest: Numbers in the data set that are to be matched.
        taken: Numbers in the model that are no longer free for a match by position; None where positions mean nothing.
    """
    found: dict[int, tuple[int, str]] = {}
    for fitting in (_same(names, model_names, str), _same(names, model_names, plain), _synonyms(names, model_names)):
        left = [number for number in rest if number not in found]
        used = {target for target, _ in found.values()}
        fits = {number: fitting(number) for number in left}
        wanted = Counter(target for targets in fits.values() for target in targets)
        for number, targets in fits.items():
            if len(targets) == 1 and wanted[target := next(iter(targets))] == 1 and target not in used:
                found[number] = (target, "by name")
    if taken is not None and len(names) == len(model_names):
        used = {target for target, _ in found.values()} | set(taken)
        found |= _by_position(names, model_names, [number for number in rest if number not in found], used)
    return found


def differing_classes(names: Sequence[str], id2label: Mapping[int, str]) -> Iterator[tuple[int, int | None]]:
    """The classes of a data set that are not the class of the same number in a model, in any spelling, by synonyms.

    Args:
        names: Names of the classes of the data set, in order.
        id2label: Names of the classes of the model.

    Yields:
        (number in the data set, number in the model), the latter None where the model has no class of that name.

    >>> list(differing_classes(["cat", "polar_bear", "eel"], {0: "cat", 1: "dog", 2: "Polar Bear"}))
    [(1, 2), (2, None)]
    """
    places = sorted(id2label)
    model_names = [str(id2label[place]) for place in places]
    matched = match_names(names, model_names, range(len(names)), ()) if has_names(model_names) else {}
    for label, name in enumerate(names):
        if label in matched:
            targets = [places[matched[label][0]]]
        else:  # a name that the model has twice is not matched, but is right under either number
            targets = [place for place, other in zip(places, model_names, strict=True) if plain(other) == plain(name)]
        if label not in targets:
            yield label, targets[0] if targets else None


Fitting = Callable[[int], set[int]]
"""Number in the data set -> the numbers in the model that fit."""


def _same(names: Sequence[str], model_names: Sequence[str], spelt: Callable[[str], str]) -> Fitting:
    places = _places([[spelt(unicodedata.normalize("NFC", name))] for name in model_names])
    return lambda number: places.get(spelt(unicodedata.normalize("NFC", names[number])), set())


def _synonyms(names: Sequence[str], model_names: Sequence[str]) -> Fitting:
    theirs = [aliases(name) for name in model_names]
    every, main = _places(theirs), _places([_main(called) for called in theirs])

    def fitting(number: int) -> set[int]:
        ours = aliases(names[number])
        by_ours = [every.get(alias, set()) for alias in _main(ours)]
        return set().union(*by_ours, *(main.get(alias, set()) for alias in ours))

    return fitting


def _main(called: Sequence[str]) -> Sequence[str]:
    # The whole name and the first synonym; of "001.name" or "n01440764 name" the code as well. Never a lesser synonym of both.
    return [alias for place, alias in enumerate(called) if place < 2 or re.fullmatch(r"(n|label_)?[0-9]+", alias)]


def _places(called: Sequence[Sequence[str]]) -> dict[str, set[int]]:
    places: dict[str, set[int]] = {}
    for number, names in enumerate(called):
        for name in names:
            places.setdefault(name, set()).add(number)
    return places


def _by_position(
    names: Sequence[str], model_names: Sequence[str], left: Sequence[int], taken: Collection[int]
) -> dict[int, tuple[int, str]]:
    """Classes that the model names alike, where the same positions are left over in both and the names agree but for a number at the end."""
    if set(left) != set(range(len(model_names))) - set(taken):
        return {}
    theirs = [set(aliases(name)) for name in model_names]
    for number in left:
        twin = any(theirs[number] & other for place, other in enumerate(theirs) if place != number)
        ours = {alias for name in aliases(names[number]) for alias in (name, _without_number(name))}
        if not twin or not ours & theirs[number]:
            return {}
    return {number: (number, "by position") for number in left}

"""The names of a head that stays as it was trained: its own, in its own order."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from hf_smoothing.spelling import has_names, match_names, plain


_NEW_HEAD = "from hf_smoothing.models import new_head; new_head(model)"


def check_kept_names(source: str, before: Mapping[Any, str], now: Mapping[Any, str], asked_anew: bool = False) -> None:
    """Refuse the names of a head in another order, and warn of names that are partly its own: its answers would be called by wrong names.

    Nothing is said where either has no names, or they are other names altogether, such as translations.

    Args:
        source: Origin of the head, for the message.
        before: Names that the head was trained with, by number.
        now: Names that it is to answer with.
        asked_anew: Whether a new head was asked for; then any other names are warned of.

    Raises:
        ValueError: If the same names are in another order.
    """
    old, new = ([str(names[key]) for key in sorted(names, key=int)] for names in (before, now))
    if old == new or len(old) != len(new) or not has_names(old) or not has_names(new):
        return
    found = {number: target for number, (target, _) in match_names(new, old, range(len(new)), None).items()}
    in_place = list(map(plain, old)) == list(map(plain, new)) or all(found.get(k) == k for k in range(len(new)))
    if not in_place and (len(found) == len(new) or sorted(map(plain, old)) == sorted(map(plain, new))):
        moved = min(range(len(new)), key=lambda k: (plain(old[k]) == plain(new[k]), found.get(k) == k))
        raise ValueError(
            f"The head of {source} knows these classes in another order than `id2label`: class {moved} is {old[moved]!r}, not {new[moved]!r}, so each answer "
            "would be called by a wrong name. Leave id2label out: PixelDataset(dataset, model), training and certification find the classes by their "
            f"names. To train a new head draw its weights again: {_NEW_HEAD}. If the names in config.json are wrong, correct them there."
        )
    if asked_anew:
        warnings.warn(
            f"The head of {source} is for {old[:3]}... and stays under the names {new[:3]}...: there are as many, {len(new)}, so no new one was made. Finetune it "
            f"before it answers; to start from a new head, draw its weights again: {_NEW_HEAD}",
            stacklevel=5,
        )
    elif found and not in_place:
        other = next(k for k in range(len(new)) if found.get(k) != k)
        warnings.warn(
            f"The head of {source} is for other classes than `id2label` in part: class {other} is {old[other]!r} there and {new[other]!r} here, and the head "
            f"stays as it was trained. Leave id2label out unless this is another name of the same class; to train a new head draw its weights again: {_NEW_HEAD}",
            stacklevel=5,
        )

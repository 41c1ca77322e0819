"""What the ranks of a run must have in common: what they are asked for, and the images that they read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_smoothing.certification.images import Seen, reading_facts
from hf_smoothing.certification.ranks import Ranks
from hf_smoothing.certification.settings import selection_of, with_description
from hf_smoothing.records import deciding, differences
from hf_smoothing.records.causes import causes


CUT = 300
"""Characters of a message about differences that are shown: two selections may be long."""


def check_same_request(
    ranks: Ranks,
    output_dir: str | os.PathLike[str],
    chosen: Sequence[int] | None,
    description: Mapping[str, Any] | None,
    asked: Mapping[str, Any],
) -> None:
    """Refuse ranks that are asked for different runs, before any image is read.

    Args:
        ranks: The processes that share the run.
        output_dir, chosen, description: As the user gave them, checked.
        asked: What else decides the rows.

    Raises:
        ValueError: On all ranks; the message names what differs.
        TypeError: As `with_description`.
    """
    described = with_description({}, description)
    if ranks.count == 1:
        return
    request = {
        **asked,
        "indices": selection_of(chosen),
        **({"description": _nameless(described)} if described else {}),
        "output_dir": os.fspath(output_dir),
    }
    requests = ranks.exchange(lambda: request)
    for rank, other in enumerate(requests):
        if other != requests[0]:
            found = differences(requests[0], other, f"{{}} is {{!r}} on rank 0 and {{!r}} on rank {rank}")
            raise ValueError(
                f"The ranks of a run must be asked for the same, but {_cut('; '.join(found))}. Give every rank the same arguments."
            )


def _nameless(description: Mapping[str, Any]) -> dict[str, Any]:
    """Without the names of network and data set: each rank may have a copy of its own, and what is in them is compared."""
    return {
        part: {key: value for key, value in said.items() if key != "id"} if part in ("model", "dataset") else said
        for part, said in description.items()
    }


def check_same_images(ranks: Ranks, seen: Mapping[int, Seen], trouble: Callable[[], str]) -> None:
    """Refuse ranks that have read different images, before the folder is made.

    Args:
        ranks: The processes that share the run.
        seen: The images that this rank has read, by index.
        trouble: As in `other_images`.

    Raises:
        ValueError: On all ranks; the message names what differs.
    """
    if ranks.count == 1:
        return
    digest = hashlib.sha256(repr(sorted(seen.items())).encode()).hexdigest()
    if len({*ranks.exchange(lambda: digest)}) > 1:
        raise other_images(ranks, seen, trouble)


def settings_of_first(ranks: Ranks, settings: dict[str, Any]) -> dict[str, Any]:
    """The content of `run.json` as rank 0 would write it.

    Args:
        ranks: The processes that share the run.
        settings: As this rank would.

    Raises:
        ValueError: On all ranks, if one of them would state another run; the message names what differs.
    """
    first, *others = ranks.exchange(lambda: settings)
    for rank, other in enumerate(others, 1):
        if differing := causes(*deciding(first, other, hashed_rows=True)):
            raise ValueError(
                f"The ranks of a run must certify the same, but rank {rank} has other settings than rank 0: {_cut('; '.join(differing))}. Load one model and "
                "data set on all ranks; after distributed training save the model on one rank first."
            )
    return first


def other_images(ranks: Ranks, seen: Mapping[int, Seen], trouble: Callable[[], str]) -> ValueError:
    """The error of ranks that read different images, once all know that they do.

    Args:
        ranks: The processes that share the run.
        seen: Images that this rank has read, by index.
        trouble: What went wrong with reading on this rank, "" if nothing (see `trouble_reading`).
    """
    everything = ranks.exchange(lambda: (dict(seen), trouble()))
    troubles = [text for _, text in everything]
    said = "; ".join(f"rank {rank}: {text}" for rank, text in enumerate(troubles) if text and len({*troubles}) > 1)
    said = said or _first_difference([images for images, _ in everything])
    return ValueError(
        f"The ranks of this run do not read the same images{f' ({_cut(said)})' if said else ''}. Give every rank the same data set in the same order, unshuffled or "
        "shuffled with one seed, and files that all can read."
    )


def trouble_reading(dataset: object, chosen: Sequence[int] | None) -> str:
    """Which images a data set has left out, in words; "" if none."""
    left_out = reading_facts(dataset, chosen).get("unreadable", ())
    return f"images that cannot be read: {', '.join(map(str, left_out))}" if left_out else ""


def _first_difference(images: Sequence[Mapping[int, Seen]]) -> str:
    for rank, other in enumerate(images):
        for index in sorted(images[0].keys() & other.keys()):
            if (one := images[0][index]) != other[index]:
                what = "another label" if one.image_sha256 == other[index].image_sha256 else "other pixels"
                return f"image {index} has {what} on rank {rank} than on rank 0"
    return ""


def _cut(text: str) -> str:
    return text if len(text) <= CUT else f"{text[:CUT]}..."

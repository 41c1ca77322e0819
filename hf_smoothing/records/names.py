"""Names of models and data sets in a run: they say what to call it, and never decide where a hash of the content does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


INFORMATIVE = frozenset({"created", "informative"})
"""Facts about a run that do not decide its result, so that a resumption may differ in them."""

NETWORK = ("weights_sha256", "weights_dtype", "probe_logits", "probe_classes")
"""What makes two networks one: their weights, and their answers to fixed images. Their configuration only says why these differ."""


def plain_name(name: Any) -> str:
    """A name as it is compared and shown: without the slash that completion adds, and other detours of a path.

    >>> plain_name("data/plain/"), plain_name("./data//plain"), plain_name("owner/name")
    ('data/plain', 'data/plain', 'owner/name')
    """
    text = str(name)
    # A byte of a path that is no UTF-8 must not stop the writing of a table.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if "://" in text or not text else os.path.normpath(text)


def of_networks(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The facts about two networks, with their configurations where the networks differ and both are known.

    >>> of_networks({"weights_sha256": "0", "config": {"dtype": None}}, {"weights_sha256": "0", "config": {"dtype": "float32"}})
    ({'weights_sha256': '0'}, {'weights_sha256': '0'})
    """
    same = all(before.get(key) == now.get(key) for key in NETWORK)
    left_out = {"config"} if same or "config" not in before or "config" not in now else set()
    first, second = ({key: value for key, value in one.items() if key not in left_out} for one in (before, now))
    return first, second


def deciding(
    before: Mapping[str, Any], now: Mapping[str, Any], hashed_rows: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What decides the result of two runs; the names of a model or data set only where neither hash nor path shows that they are one.

    The hash of all images is left out: it comes of the rows, with which a resumption compares each image.

    Args:
        before, now: Settings of the runs.
        hashed_rows: Whether the first has rows, and each holds the hash of its image: the images are compared with them, so their name decides nothing.

    >>> one, other = {"model": {"id": "a", "weights_sha256": "0"}}, {"model": {"id": "/b/a", "weights_sha256": "0"}}
    >>> deciding(one, other)
    ({'model': {'weights_sha256': '0'}}, {'model': {'weights_sha256': '0'}})
    """
    kept = [{key: value for key, value in one.items() if key not in INFORMATIVE} for one in (before, now)]
    if all(isinstance(one.get("model"), Mapping) for one in kept):
        kept[0]["model"], kept[1]["model"] = of_networks(kept[0]["model"], kept[1]["model"])
    for part in ("model", "dataset"):
        first, second = (one.get(part) for one in kept)
        if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
            continue
        weights = first.get("weights_sha256")
        same = hashed_rows if part == "dataset" else weights is not None and weights == second.get("weights_sha256")
        same = same or ("id" in first and "id" in second and plain_name(first["id"]) == plain_name(second["id"]))
        left_out = {*(["id"] if same else ()), *(["sha256"] if part == "dataset" else ())}
        for one in kept:
            one[part] = {key: value for key, value in one[part].items() if key not in left_out}
    return kept[0], kept[1]

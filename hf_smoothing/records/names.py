"""Names of models and data sets in a run: they say what to call it, and never decide where a hash of the content does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


INFORMATIVE = frozenset({"created", "informative"})
"""Facts about a run that do not decide its result, so that a resumption may differ in them."""

CONTENT = {"model": ("weights_sha256",), "dataset": ("sha256", "beginning_sha256")}
"""Parts of the settings with a name -> the hashes of what it names."""

CONFIG, CONFIG_SHA256 = "config", "config_sha256"
"""Hashes of a network's settings, each by itself, and what older records have in their place."""

STREAM = "stream_sha256"
"""What stands in the settings of a data set that is a stream: which of its images are asked for, not what they are."""


def plain_name(name: Any) -> str:
    """A name as it is compared and shown: without the slash that completion adds, and other detours of a path.

    >>> plain_name("data/plain/"), plain_name("./data//plain"), plain_name("owner/name")
    ('data/plain', 'data/plain', 'owner/name')
    """
    text = str(name)
    # A byte of a path that is no UTF-8 must not stop the writing of a table.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if "://" in text or not text else os.path.normpath(text)


def in_one_form(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The facts about two networks, with the settings of both as the older record has them.

    >>> in_one_form({"config_sha256": "0"}, {"config_sha256": "1", "config": {"size": "2"}})
    ({'config_sha256': '0'}, {'config_sha256': '1'})
    """
    other = CONFIG_SHA256 if CONFIG in before and CONFIG in now else CONFIG
    left_out = (other, "attributes_sha256")  # one hash of all attributes, which cannot be compared name by name
    first, second = ({key: value for key, value in one.items() if key not in left_out} for one in (before, now))
    return first, second


def deciding(
    before: Mapping[str, Any], now: Mapping[str, Any], hashed_rows: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What decides the result of two runs; the names of a model or data set only where neither hash nor path shows that they are one.

    Args:
        before, now: Settings of the runs.
        hashed_rows: Whether the first has rows, and each holds the hash of its image: a stream is compared with them, so its name decides nothing.

    >>> one, other = {"model": {"id": "a", "weights_sha256": "0"}}, {"model": {"id": "/b/a", "weights_sha256": "0"}}
    >>> deciding(one, other)
    ({'model': {'weights_sha256': '0'}}, {'model': {'weights_sha256': '0'}})
    """
    kept = [{key: value for key, value in one.items() if key not in INFORMATIVE} for one in (before, now)]
    if all(isinstance(one.get("model"), Mapping) for one in kept):
        kept[0]["model"], kept[1]["model"] = in_one_form(kept[0]["model"], kept[1]["model"])
    for part, hashes in CONTENT.items():
        first, second = (one.get(part) for one in kept)
        if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
            continue
        contents = [tuple(one.get(key) for key in hashes) for one in (first, second)]
        same = contents[0] == contents[1] and any(value is not None for value in contents[0])
        same = same or (hashed_rows and part == "dataset" and STREAM in first and STREAM in second)
        if same or ("id" in first and "id" in second and plain_name(first["id"]) == plain_name(second["id"])):
            for one in kept:
                one[part] = {key: value for key, value in one[part].items() if key != "id"}
    return kept[0], kept[1]

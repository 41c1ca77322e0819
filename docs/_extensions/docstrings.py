"""Docstrings are plain text with `code`: what reStructuredText would read as markup of another kind is escaped."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx


CODE = re.compile(r"(``[^`]+``|`[^`]+`)")


def _plain(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    for number, line in enumerate(lines):
        if line.lstrip().startswith(">>>"):
            continue
        parts = CODE.split(line)
        parts[::2] = [re.sub(r"([*|])", r"\\\1", part) for part in parts[::2]]
        parts[1::2] = ["``" + part.strip("`") + "``" for part in parts[1::2]]
        # What follows code at once, as in `Draws`s, needs a separator that is not shown.
        parts[2::2] = [re.sub(r"^(?=\w)", r"\\ ", part) for part in parts[2::2]]
        lines[number] = "".join(parts)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _plain, priority=100)  # before napoleon
    return {"parallel_read_safe": True}

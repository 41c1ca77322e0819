"""The names of other projects that the reference links to, with their addresses: from docs/inventories.json, so that a build needs no network."""

from __future__ import annotations

import json
import zlib
from pathlib import Path


FUNCTIONS = ("datasets.load_dataset",)


def mapping(docs: Path) -> dict[str, tuple[str, str]]:
    """`intersphinx_mapping`, with inventories that are written into the build folder.

    Args:
        docs: Folder of the documentation.
    """
    folder = docs / "_build" / "inventories"
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for project, known in json.loads((docs / "inventories.json").read_text(encoding="utf-8")).items():
        file = folder / f"{project}.inv"
        content = inventory(project, known["names"])
        if not file.exists() or file.read_bytes() != content:
            file.write_bytes(content)
        found[project] = (known["at"], str(file))
    return found


def inventory(project: str, names: dict[str, str]) -> bytes:
    """Version 2 of Sphinx's format: a head of four lines, then an entry per name, compressed."""
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    lines = [
        f"{name} py:{'function' if name in FUNCTIONS else 'class'} 1 {address} -\n" for name, address in names.items()
    ]
    return head.encode() + zlib.compress("".join(lines).encode(), 9)

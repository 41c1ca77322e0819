"""Pages for the model cards, and links that leave docs/ and model_cards/: the name of the file in the repository instead."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx


ROOT = Path(__file__).resolve().parents[2]
CARDS = ROOT / "model_cards"
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?!\w+:|#|/)[^)#\s]+)(#[^)\s]*)?\)")
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    docs = Path(app.srcdir)
    here = (docs / name).parent
    if name.startswith("models/"):  # the page itself is empty: what it shows is the card
        here = CARDS if name == "models/index" else CARDS / Path(name).name
        source[0] = FRONT_MATTER.sub("", (here / "README.md").read_text(encoding="utf-8"))

    def replace(found: re.Match[str]) -> str:
        text, link, place = found[1], found[2], found[3] or ""
        path = (here / link).resolve()
        if not path.exists():
            raise ValueError(f"{name}: the link to {link} leads nowhere.")
        if path.is_relative_to(docs) and path.suffix == ".md":
            return f"[{text}](/{path.relative_to(docs)}{place})"
        if path.name == "README.md" and path.is_relative_to(CARDS):
            page = "index" if path.parent == CARDS else path.parent.name
            return f"[{text}](/models/{page}.md{place})"
        if path == ROOT / "README.md":
            return f"[{text}](/index.md)"
        shown = f"`{path.relative_to(ROOT)}`"
        return shown if text.strip("`") in str(path) else f"{text} ({shown})"

    source[0] = LINK.sub(replace, source[0])
    if name == "models/index":
        pages = sorted(path.stem for path in (docs / "models").glob("*.md") if path.stem != "index")
        source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}

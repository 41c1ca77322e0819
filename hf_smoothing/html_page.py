"""Pages of HTML that need no other file: what all of them share."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def document(title: str, parts: Sequence[str]) -> str:
    """A whole page, readable in light and dark and on a phone.

    Args:
        title: Of the browser's tab.
        parts: Pieces of HTML, one after another.
    """
    page = _PAGE.replace("{title}", html.escape(title)).replace("{body}", "\n".join(parts))
    return page.encode("utf-8", "replace").decode("utf-8")  # a path may hold bytes that are none


def paragraph(text: str | None, kind: str = "p") -> str:
    """Text as an element, by default a paragraph; nothing where there is none."""
    return f"<{kind}>{html.escape(text)}</{kind}>" if text else ""


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """A table that scrolls by itself where it is too wide."""

    def line(cells: Sequence[Any], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(str(cell))}</{kind}>" for cell in cells) + "</tr>"

    return f"<div class='wide'><table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table></div>"


def picture(figure: Any, caption: str) -> str:
    """A figure of matplotlib inside the page; the caption is also what is read aloud."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f'<figure><img alt="{html.escape(caption)}" src="{_embedded(buffer)}"><figcaption>{html.escape(caption)}</figcaption></figure>'


def png_uri(pixels: NDArray[np.uint8], largest: int | None = None) -> str:
    """An image inside the page, as PNG.

    Args:
        pixels: (channels, height, width), one or three channels.
        largest: Longest side that is kept; all by default.
    """
    shown = Image.fromarray(pixels.squeeze(0) if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    if largest is not None:
        shown.thumbnail((largest, largest))
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG")
    return _embedded(buffer)


def _embedded(png: io.BytesIO) -> str:
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def thumbnail(pixels: NDArray[np.uint8]) -> str:
    """A small picture inside the page, 64 px wide.

    Args:
        pixels: (channels, height, width), one or three channels.
    """
    return f"<img class='thumbnail' alt='' src='{png_uri(pixels, 64)}'>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>
html { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #8886; }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; }
th, td { border: 1px solid #8888; padding: 3px 7px; text-align: left; vertical-align: top; }
td { min-width: 3.2em; max-width: 34em; overflow-wrap: break-word; }
th { background: #8882; }
@media (max-width: 40rem) { body { margin: 1rem auto; } table { font-size: 12px; } th, td { padding: 2px 4px; } }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #16181c; } }
.wide { overflow-x: auto; }
figure { margin: 1rem 0; } img { max-width: 100%; background: #fff; } figcaption { opacity: .7; font-size: 13px; }
.thumbnail { width: 64px; image-rendering: pixelated; vertical-align: middle; margin-right: .5em; }
summary { cursor: pointer; margin: 1rem 0 .5rem; } label { margin-right: 1em; white-space: nowrap; }
th[role=button] { cursor: pointer; } th[aria-sort=descending]::after { content: ' \25BE'; } th[aria-sort=ascending]::after { content: ' \25B4'; }
.images td { vertical-align: middle; }
.summary { background: #8a9fc022; padding: 1rem; border-radius: 6px; }
</style></head><body>
{body}
</body></html>
"""

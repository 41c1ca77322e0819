"""The picture behind a text: a path, a URL or base64, as its file holds it."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import huggingface_hub
from PIL import Image

from hf_smoothing.data.image_reading import why


def image_of_source(source: str, timeout: float | None = None) -> Image.Image:
    """The picture of a file, URL or base64 text in its own mode, decoded.

    `transformers.image_utils.load_image` converts to RGB at once, which makes 16-bit grey white and drops transparency: then nobody can tell.

    Args:
        source: Path of a file; a URL that begins with http:// or https://; or base64, alone or as a `data:image/...` URL.
        timeout: Seconds to wait for a URL; None for no limit.

    Raises:
        ValueError: If it is none of these, or what it holds is no image, damaged or too large for PIL; the message names it.
    """
    if source.startswith(("http://", "https://")):
        # The one client of a library that is required anyway; it honours offline mode and proxies.
        answer = huggingface_hub.get_session().get(source, timeout=timeout, follow_redirects=True)
        answer.raise_for_status()
        return _named(answer.content, source)
    if _is_file(source):
        return _named(Path(source).read_bytes(), source)
    text = source.split(",", 1)[-1] if source.startswith("data:image/") else source
    try:
        return _decoded(base64.decodebytes(text.encode()))
    except Exception as error:  # decoders raise whatever comes first
        shown = source if len(source) <= 80 else f"{source[:80]}..."
        raise ValueError(
            f"An image given as text must be the path of a file, a URL that begins with http:// or https://, or an image in base64, got {shown!r}, "
            f"which is no file here, and no image as base64 ({error}). Check the path, or pass a PIL image."
        ) from error


def _named(content: bytes, source: str) -> Image.Image:
    try:
        return _decoded(content)
    except Exception as error:  # decoders raise whatever comes first
        raise ValueError(f"{source} cannot be read as an image: {why(error)}. Repair it, or leave it out.") from error


def _decoded(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def _is_file(source: str) -> bool:
    try:
        return Path(source).is_file()
    except (OSError, ValueError):  # base64 is too long for a name
        return False

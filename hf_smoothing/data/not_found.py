"""What is said of a model or data set that is neither here nor to be had from the Hub: what was looked for, why it failed, and the cure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants

from hf_smoothing.spelling import nearest


UNREACHABLE = {
    "ConnectError", "ConnectTimeout", "ConnectionError", "LocalEntryNotFoundError", "OfflineModeIsEnabled", "ReadTimeout",
}  # fmt: skip
"""Errors of clients that could not ask the Hub."""


def not_found(kind: str, path: str, error: BaseException) -> ValueError:
    """The error for something that is neither here nor on the Hub.

    Args:
        kind: "model" or "data set".
        path: Folder or Hub id that was asked for.
        error: What loading it has raised.
    """
    return ValueError(f"No {kind} could be read from {path!r}: {_place(kind, path, error)}")


def other_kind(path: str) -> str | None:
    """What a folder evidently is, "model", "data set" or "run", or None where that is not evident, as where it may be two of them.

    Pictures lie beside models and their checkpoints as well, such as curves and samples; tables of images do not.
    """
    folder = Path(path)
    if (folder / "run.json").is_file():
        return "run"
    tables = any(next(folder.glob(one), None) for one in ("*.parquet", "*/*.parquet", "state.json"))
    if (folder / "config.json").is_file():
        return "model" if any(folder.glob("*.safetensors")) and not tables else None
    if next(folder.glob("*/config.json"), None) or not folder.is_dir():
        return None
    pictures = ("*/*.png", "*/*.jpg", "*/*/*.png", "*/*/*.jpg")
    return "data set" if tables or any(next(folder.glob(one), None) for one in pictures) else None


def swapped(kind: str, path: str) -> ValueError | None:
    """The error for a folder of the other kind, or None where it is none.

    Args:
        kind: What is wanted, "model" or "data set".
        path: Folder or Hub id that was asked for.
    """
    found = other_kind(path)
    if found in (None, kind):
        return None
    cure = f"Pass the {kind} that its run.json names." if found == "run" else "Were model and data set swapped?"
    return ValueError(f"{path!r} is the folder of a {found}, where a {kind} is wanted. {cure}")


def without_config(path: str) -> ValueError | None:
    """The error for a folder that no model was saved to, or None where it has a config.json, or is no folder."""
    folder = Path(path)
    if not folder.is_dir() or (folder / "config.json").is_file():
        return None
    below = sorted(str(file.parent) for file in folder.glob("*/config.json"))
    cure = (
        f"Pass one of the models in it: {', '.join(below[:5])}."
        if below
        else "Pass the folder that save_pretrained wrote."
    )
    return ValueError(f"{path} is not the folder of a model: it has no config.json. {cure}")


def _place(kind: str, path: str, error: BaseException) -> str:
    here = Path(path)
    if here.is_dir():
        return f"it is a folder without one ({_first_line(error)})."
    if here.is_file():
        return f"it is a file, where its folder is wanted ({_first_line(error)})."
    near = nearest(here.name, [one.name for one in here.parent.iterdir()]) if here.parent.is_dir() else None
    folder = f"there is no folder {here.absolute()}" + (f" (did you mean {here.parent / near}?)" if near else "")
    if path.startswith("~"):  # the command line expands it, Python does not
        return f"{folder}, since ~ is not expanded here. Check the spelling and the current folder, or pass {os.path.expanduser(path)!r}."
    if _is_path(path):
        return f"{folder}. Check the spelling and the current folder."
    more = ", repo_type='dataset'" if kind == "data set" else ""
    download = f"huggingface_hub.snapshot_download({path!r}{more})"
    if constants.HF_HUB_OFFLINE:
        return (
            f"{folder}, the cache does not hold it, and the Hub was not asked, since HF_HUB_OFFLINE is set. "
            f"Unset it, or fetch it first where there is a network: {download}."
        )
    if _names(error) & UNREACHABLE or "couldn't connect" in str(error).lower():
        return (
            f"{folder}, the cache does not hold it, and {constants.ENDPOINT} could not be reached. Check the network and the spelling; "
            f"without a network pass a folder, or fetch it first where there is one: {download}."
        )
    if "GatedRepoError" in _names(error):
        return f"{folder}, and on the Hub it is gated. Ask for access on its page, then log in: hf auth login."
    other = "data set" if kind == "model" else "model"
    return (
        f"{folder}, and it was not found on the Hub ({_first_line(error)}). Check the spelling, and that it is a {kind} and no {other}; "
        "if it is private log in: hf auth login."
    )


def _is_path(path: str) -> bool:
    """Whether this can be no id on the Hub, which is `name` or `owner/name`."""
    return path.startswith((".", "~", os.sep)) or path.endswith(os.sep) or path.count("/") > 1 or "\\" in path


def _names(error: BaseException) -> set[str]:
    return {type(one).__name__ for one in _chain(error)}


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__

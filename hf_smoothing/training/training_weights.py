"""The file beside a checkpoint's model that holds what training goes on from, where the model file holds averaged weights.

Both files are of one moment, and folders are written over: the file names the model file that it was written beside, and no other is
resumed with it.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME


NAME = "training_weights.safetensors"
"""In a checkpoint of a run with `ema_decay`."""

MARK = "training_weights.json"
"""Says that there is such a file, so that one that is lost is missed."""

_AVERAGE = "average:"
"""Before the names of averages that the model file holds rounded."""


def remove(folder: str) -> None:
    """Remove the files of an earlier run, before the model file is written anew."""
    for name in (NAME, MARK):
        Path(folder, name).unlink(missing_ok=True)


def write(folder: str, own: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> None:
    """Write it beside the model file, which is there already.

    Args:
        folder: Folder of the checkpoint.
        own: The weights that are trained.
        average: Averages that the model file holds rounded; none where it holds them as they are.
    """
    values = {**own, **{f"{_AVERAGE}{name}": value for name, value in average.items()}}
    contiguous = {name: value.contiguous() for name, value in values.items()}
    save_file(contiguous, Path(folder, NAME), metadata={"model": _model_sha256(folder)})
    Path(folder, MARK).write_text(json.dumps({"file": NAME}) + "\n", encoding="utf-8")


def read(folder: str) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
    """What `write` was given, on the CPU; None without the file, with a warning where there should be one.

    Raises:
        ValueError: If it was written beside another model file.
    """
    file = Path(folder, NAME)
    if not file.is_file():
        if Path(folder, MARK).is_file():
            warnings.warn(
                f"{folder} was saved with ema_decay, but its {NAME} is missing: training goes on from the averages in the model file, and is "
                f"not what it was. Bring that file back; or remove {MARK} to train on from the averages.",
                stacklevel=3,
            )
        return None
    with safe_open(file, "pt") as opened:
        beside = (opened.metadata() or {}).get("model")
        if beside != _model_sha256(folder):
            raise ValueError(
                f"{file} was written beside another model file than the one in this folder. Bring that model file back; or remove {NAME} to train on "
                "from the model file as it is."
            )
        values = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
    own = {name: value for name, value in values.items() if not name.startswith(_AVERAGE)}
    return own, {name[len(_AVERAGE) :]: value for name, value in values.items() if name not in own}


def _model_sha256(folder: str) -> str:
    """Of the model file, or of its parts in their order; of no copy that lies beside it."""
    digest = hashlib.sha256()
    for file in _model_files(Path(folder)):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _model_files(folder: Path) -> list[Path]:
    whole, index = folder / SAFE_WEIGHTS_NAME, folder / SAFE_WEIGHTS_INDEX_NAME
    if whole.is_file() or not index.is_file():  # as `transformers` chooses
        return [whole] if whole.is_file() else []
    return [folder / name for name in sorted({*json.loads(index.read_bytes())["weight_map"].values()})]

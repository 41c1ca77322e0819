"""A run folder made small enough to be kept beside a model or in a repository."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from hf_smoothing.records.json_files import replace_file, write_json
from hf_smoothing.records.reading import ROW_PATTERN, RUN_FILE, RunError, read_run


def keep_run(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    model: str | None = None,
    dataset: str | None = None,
    unfinished: bool = False,
) -> None:
    """Copy a run without its intermediate rows; `read_run` reads the copy, and checks it, as it does the run.

    Args:
        path: The run folder.
        target: Folder of the copy, which must not exist.
        model, dataset: What to call them, such as ids on the Hub, in place of the paths where they lay.
        unfinished: Keep a run that is not finished as well, with the last states of the images that it had begun.

    Raises:
        RunError: If the run is not finished and that was not asked for, or the target exists.
        OSError: If it cannot be written; nothing of it is left.
    """
    run, folder = read_run(path), Path(target)
    if not run.finished and not unfinished:
        raise RunError(
            f"A run must be finished to be kept, got {run.progress} images in {path}. Resume it, or pass unfinished=True to keep a part."
        )
    if folder.exists():
        raise RunError(f"{folder} exists: a copy must go to a new folder.")
    settings = dict(run.settings)
    for part, name in (("model", model), ("dataset", dataset)):
        if name is not None:
            settings[part] = settings.get(part, {}) | {"id": name}
    if "informative" in settings:  # the kernel's name says something of the machine alone
        settings["informative"] = {k: v for k, v in settings["informative"].items() if k != "platform"}
    folder.mkdir(parents=True)
    rows = run.rows | run.partials
    lines = (json.dumps(rows[index], separators=(",", ":")) + "\n" for index in sorted(rows))
    try:
        replace_file(folder / ROW_PATTERN.replace("*", "0"), "".join(lines))
        write_json(folder / RUN_FILE, settings)
    except BaseException:
        shutil.rmtree(
            folder, ignore_errors=True
        )  # of a part nothing could be made, and it would refuse the next attempt
        raise

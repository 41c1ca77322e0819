"""Run folders: what was asked (`run.json`) and one line an item that is done (`certificates-<rank>.jsonl`).

A run may be killed at any moment. Lines are appended and flushed one by one; the last line of a file may be torn, and is
dropped; everything before it counts. Generic over methods: a row is any JSON object with an integer "index".
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_smoothing.json_text import parse_json
from hf_smoothing.records.finished import hash_of_images, images_asked
from hf_smoothing.records.shape import METHODS, is_whole, settings_fault, shown


RUN_FILE = "run.json"
ROW_PATTERN = "certificates-*.jsonl"
FORMAT = 3
"""Of settings and rows; another one whenever a key changes its name or its meaning."""

MOST_NAMED = 5
"""Paths that a message names."""

Row = dict[str, Any]


class RunError(ValueError):
    """A run folder that cannot be read, or must not be continued."""


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
        path: The folder.
        settings: The content of `run.json`.
        rows: Finished rows by index.
        partials: The latest state of items that are not finished, by index.
    """

    path: Path
    settings: dict[str, Any]
    rows: dict[int, Row] = field(default_factory=dict)
    partials: dict[int, Row] = field(default_factory=dict)

    @property
    def images_asked(self) -> int | None:
        """Number of images that it is to certify; None where that is not known, see `records.finished`."""
        return images_asked(self.settings, self.rows)

    @property
    def finished(self) -> bool:
        """Whether every image that it was asked for is certified; not while it is unknown how many those are."""
        return not self.partials and len(self.rows) == self.images_asked

    @property
    def images_sha256(self) -> str | None:
        """Hash of all images, of the hashes in the rows: the same for a data set and a stream of them. None while not all are there."""
        return hash_of_images(self.rows) if self.finished and self.hashed_rows else None

    @property
    def hashed_rows(self) -> bool:
        """Whether something is recorded, and all of it with the hash of its image, by which a resumption compares it."""
        rows = [*self.rows.values(), *self.partials.values()]
        return bool(rows) and all(row.get("image_sha256") is not None for row in rows)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the order of their numbers; empty where they are not recorded."""
        return self.settings.get("informative", {}).get("class_names") or []

    @property
    def progress(self) -> str:
        """How far it is, such as "4 of 10"; "4 of ?" where it is not known how many a stream holds."""
        return f"{len(self.rows)} of {'?' if self.images_asked is None else self.images_asked}"


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read a run folder, finished or not.

    Raises:
        RunError: If the folder is no run folder or cannot be read, or its settings are not as a run writes them, or a line other than a
            torn last one is corrupt, or two files disagree on a finished item, or a row is not what the run's rule gives for the votes
            it records (see `recount`), or the images of a finished run are not those that its settings state.
    """
    folder = Path(path)
    settings = read_settings(folder)
    return run_of(folder, settings, {file: _content(file) for file in sorted(folder.glob(ROW_PATTERN))})


def run_of(folder: Path, settings: dict[str, Any], contents: Mapping[Path, bytes]) -> Run:
    """The run that files of rows make, as `read_run`, without touching a disk.

    Args:
        folder: The run folder, for messages.
        settings: The content of `run.json`, from `settings_of`.
        contents: What stands in each file of rows.
    """
    run = Run(folder, settings)
    places: dict[tuple[int, bool], str] = {}
    for file, content in contents.items():
        for number, row in _lines(file, content):
            index, draws = row.get("index"), row.get("draws", 0)
            if not is_whole(index):
                raise RunError(f"{file}, line {number}: every row needs an integer 'index', got {shown(index)}.")
            if not is_whole(draws) or draws < 0:
                raise RunError(f"{file}, line {number}: draws must be a whole number >= 0, got {shown(draws)}.")
            places[index, bool(row.get("partial"))] = f"{file}, line {number}"
            if row.get("partial"):
                before = run.partials.get(index)
                if before is None or draws >= before.get("draws", 0):
                    run.partials[index] = row
            elif index in run.rows and not _same_result(run.rows[index], row):
                raise RunError(f"{file}, line {number}: item {index} is already recorded with another result.")
            else:
                run.rows[index] = row
    for index in run.rows:
        run.partials.pop(index, None)
    _check_rows(run, places)
    return run


def _check_rows(run: Run, places: Mapping[tuple[int, bool], str]) -> None:
    """Refuse what the run itself could not have written: plain text is edited, joined and copied."""
    from hf_smoothing.records import recount  # SciPy, which writing rows does not need

    for index, fault in recount.faults(run.settings, run.rows, run.partials):
        place = places[index, index not in run.rows]
        raise RunError(
            f"{place}: the row of image {index} is not one of this run: {fault}. Take the file as the run wrote it, or remove this line "
            "to have the image done again."
        )
    total = run.images_asked
    if total is not None and len(run.rows) > total:
        raise RunError(
            f"{run.path} has {len(run.rows)} finished images, but its {RUN_FILE} says {total}. Were files of another run copied into it?"
        )
    # Taken back before a further row is written, so that what is stated counts all rows.
    stated, found = run.settings.get("dataset", {}).get("sha256"), run.images_sha256
    if stated is not None and found is not None and found != stated:
        raise RunError(
            f"{run.path} must have rows of the images that its {RUN_FILE} states ({stated[:8]}), got those of others ({found[:8]}). Were files of another run "
            "copied into it? Take the folder as the run wrote it, or certify again into another folder."
        )


def check_method(run: Run) -> None:
    """Refuse a run that does not say how it was certified: nothing that its rows claim could be checked.

    Raises:
        RunError: The message names the run.
    """
    if run.settings.get("method") not in METHODS:
        raise RunError(
            f"{run.path} must say how it was certified, one of {', '.join(METHODS)} as its method, got {run.settings.get('method')!r}: "
            "what its rows claim cannot be checked. Take its run.json as the run wrote it."
        )


def check_settings(run: Run) -> None:
    """Refuse a run that does not say what each run folder says, such as a published log: whoever goes on from its settings relies on it.

    Raises:
        RunError: The message names the run and what is wrong.
    """
    check_method(run)
    if (fault := settings_fault(run.settings)) is not None:
        raise RunError(f"{run.path} must say what each run folder says, but {fault}. Pass a run from read_run.")


def read_settings(folder: Path) -> dict[str, Any]:
    """The content of `run.json`.

    Raises:
        RunError: If there is none, or it cannot be read, or it is corrupt or of another format, or not as a run writes it (see `shape`).
    """
    file = folder / RUN_FILE
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(_no_run(folder)) from error
    except OSError as error:
        raise _unreadable(file, error) from error
    return settings_of(file, content)


def settings_of(file: Path, content: bytes) -> dict[str, Any]:
    """The settings in the bytes of `run.json`, as `read_settings`."""
    try:
        settings = parse_json(content)
    except ValueError as error:
        raise RunError(f"{file} is corrupt ({error}). Start the run again in another folder.") from error
    if not isinstance(settings, dict):
        raise RunError(f"{file} must hold a JSON object, got {type(settings).__name__}.")
    if settings.get("format") != FORMAT:
        raise RunError(
            f"{file} must have the format {FORMAT}, got {shown(settings.get('format'))}: another version of hf_smoothing recorded this run, with "
            "other names in its settings and rows. Read it with that version, or certify again into another folder."
        )
    if (fault := settings_fault(settings)) is not None:
        raise RunError(
            f"{file} is not as a run writes it: {fault}. Take the file as it was written, or certify again into another folder."
        )
    return settings


def _no_run(folder: Path) -> str:
    """Why a path is no run folder, and what may have been meant."""
    if not folder.exists():
        return f"{folder} does not exist. Check the spelling, and the folder that the path starts from."
    if not folder.is_dir():
        return f"{folder} is not a run folder but a file. Pass the folder that holds {RUN_FILE}."
    said = f"{folder} is not a run folder: it has no {RUN_FILE}."
    below = sorted(str(file.parent) for file in folder.glob(f"*/{RUN_FILE}"))
    if not below:
        return f"{said} Pass the folder that a run was written to."
    more = f" and {len(below) - MOST_NAMED} more" if len(below) > MOST_NAMED else ""
    return f"{said} It holds run folders: pass {' '.join(below[:MOST_NAMED])}{more}."


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: OSError) -> RunError:
    return RunError(
        f"{file} cannot be read ({error.strerror}). Make it readable, or take the folder from its source again."
    )


def _lines(file: Path, content: bytes) -> Iterator[tuple[int, Row]]:
    *lines, torn = content.split(b"\n")
    del torn  # empty after a whole last line, else what a kill cut off
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise RunError(
                f"{file}, line {number} is corrupt ({error}). Only a torn last line is expected after a kill; "
                "remove this line to have its item done again."
            ) from error
        if not isinstance(row, dict):
            raise RunError(f"{file}, line {number} must be a JSON object, got {type(row).__name__}.")
        yield number, row


def _same_result(first: Row, second: Row) -> bool:
    return {**first, "seconds": None} == {**second, "seconds": None}

"""Tables and curves from run folders and from published logs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from hf_smoothing.drawing import NoFiguresError
from hf_smoothing.records import RUN_FILE, Run, RunError, check_method, check_writable, read_run
from hf_smoothing.records.reading import MOST_NAMED
from hf_smoothing.reports import browser
from hf_smoothing.reports.curves import plot
from hf_smoothing.reports.grouping import Conditions, comparable, differing
from hf_smoothing.reports.images import PixelsOf
from hf_smoothing.reports.measured import Measured, measure, names_of
from hf_smoothing.reports.published import logs_in, read_published_log
from hf_smoothing.reports.remarks import beyond, by_row, default_thresholds, enlarged, norm_of, note, unbounded
from hf_smoothing.reports.tables import table
from hf_smoothing.units import check_radius


UNFINISHED = (
    "Unfinished: the images that are done are no random sample of those asked for (a sequential rule finishes the clearest first), so the figures "
    "and intervals of such a run hold for these images alone. Give its command again to finish it."
)
"""What a table must say of runs that were cut off."""


def radii_of(thresholds: Iterable[float] | None, runs: Sequence[Run]) -> list[float] | None:
    """The radii that somebody wants a table of; None for those of the runs.

    Args:
        thresholds: The radii, in any list or array.
        runs: The runs of the table.

    Raises:
        TypeError: If it is no list.
        ValueError: If there are none, or one is no distance between images of a run; the message names it.
    """
    if thresholds is None:
        return None
    if not isinstance(thresholds, Iterable) or getattr(thresholds, "ndim", 1) == 0:
        raise TypeError(
            f"`thresholds` must be a list of radii, got {thresholds!r}. For one radius pass [{thresholds}]."
        )
    radii = list(thresholds)
    if not radii:
        raise ValueError("`thresholds` must hold a radius, got none. Leave it out for the radii of the runs.")
    for run in runs:
        for radius in radii:
            check_radius(radius, norm_of(run.settings), "thresholds", run.settings.get("resolution"))
    return [float(radius) for radius in radii]


def notes_of(runs: Iterable[Run], thresholds: Sequence[float]) -> list[str]:
    """What a table of these radii must say about the runs in it: each remark once, with its rows where it is not of all."""
    runs, texts = list(runs), list[list[str]]()
    for run in runs:
        unfinished = "" if run.finished else UNFINISHED
        s = run.settings
        texts.append([note(s), beyond(s, thresholds), unbounded(s), enlarged(run), unfinished])
    return by_row(texts)


def captioned(measured: Sequence[Measured], common: Conditions, notes: Sequence[str]) -> str:
    """The table of comparable runs with what they have in common below it, and notes."""
    return "\n\n".join(
        ["Certified accuracy in %, with 95% intervals over the images.", table(measured), f"{common}.", *notes]
    )


def _read(path: Path) -> Run:
    """A run folder, or a published log."""
    if path.is_file():
        return read_published_log(path)
    if not (path / RUN_FILE).exists() and (logs := logs_in(path)):
        raise RunError(
            f"{path} is not a run folder: it has no {RUN_FILE}. It holds published logs: name the log files, such as "
            f"{' '.join(map(str, logs[:MOST_NAMED]))}."
        )
    run = read_run(path)
    check_method(run)
    return run


def report(
    paths: Sequence[str | os.PathLike[str]],
    *,
    thresholds: Iterable[float] | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    names: Sequence[str] | None = None,
    html: bool = False,
    pixels_of: PixelsOf | None = None,
) -> str:
    """One table for each group of comparable runs, as Markdown; with `output_dir` also report.md and a curve for each group.

    Without matplotlib there are no curves, and a line at the end names the extra that brings them.

    Args:
        paths: Run folders, and files in the log format of randomized-smoothing papers (see `read_published_log`). A log
            does not say with which alpha or on which data it was made, so it never shares a table with a run folder.
        thresholds: Radii of the tables; by default the targets of the runs of each.
        output_dir: Folder to write to; nothing is written by default.
        names: Names of the models, one per path; their ids by default, the path for a log. Networks with other weights have the hashes of these
            beside one name.
        html: Write report.html as well, one page with curves, histograms, settings and a table of the images; needs `output_dir`.
        pixels_of: A function of (run, index) -> pixels, uint8 (channels, height, width), by which that page shows the images.

    Raises:
        RunError: If a folder is no run, a file no published log, or either has nothing to report.
        OSError: If the folder cannot be written.
        ValueError: If there are no paths or no radii, one of these is no distance between images, `names` has another length, or `html` is wanted without
            `output_dir`.
        TypeError: If `paths`, `thresholds` or `names` is no list.
    """
    for name, value in (("paths", paths), ("names", names)):
        if isinstance(value, (str, os.PathLike)):
            raise TypeError(f"`{name}` must be a list, got {value!r}. For one run pass [{str(value)!r}].")
    if output_dir is not None:
        check_writable(output_dir)
    runs = [_read(Path(path)) for path in paths]
    if not runs:
        raise ValueError("`paths` must name a run, got none. Pass run folders or published logs.")
    if names is not None and len(names) != len(runs):
        raise ValueError(
            f"`names` must have one entry per run, got {len(names)} for {len(runs)} run{'s' if len(runs) > 1 else ''}."
        )
    if html and output_dir is None:
        raise ValueError("`html` needs `output_dir`, the folder of the page, got None.")
    called = dict(zip(map(id, runs), names_of(runs, names), strict=True))
    asked = radii_of(thresholds, runs)
    groups = comparable(runs)
    folder = None if output_dir is None else Path(output_dir)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    parts, for_page, undrawn = [], [], ""
    if len(groups) > 1:
        parts.append(
            f"These runs differ, so they are shown in {len(groups)} tables that must not be compared: {differing(groups)}."
        )
    for number, (common, members) in enumerate(groups.items(), start=1):
        radii = default_thresholds(members) if asked is None else asked
        measured = [measure(run, radii, called[id(run)]) for run in members]
        notes = notes_of(members, radii)
        text = captioned(measured, common, notes)
        for_page.append((str(common), measured, notes))
        if folder is not None:
            try:
                picture = plot(measured, folder / f"certified_accuracy{'' if len(groups) == 1 else f'_{number}'}.png")
                text += f"\n\n![Certified accuracy]({picture.name})"
            except NoFiguresError as error:
                undrawn = str(error)
        parts.append(text)
    if undrawn:
        parts.append(f"No curves beside the tables. {undrawn}")
    markdown = "\n\n".join(parts) + "\n"
    if folder is not None:
        (folder / "report.md").write_bytes(markdown.encode("utf-8", "replace"))
    if folder is not None and html:
        (folder / "report.html").write_text(browser.page(for_page, pixels_of), encoding="utf-8")
    return markdown

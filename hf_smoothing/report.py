"""Tables and curves from run folders and from published logs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_smoothing import statistics
from hf_smoothing.legends import short_names, styles
from hf_smoothing.published import read_published_log
from hf_smoothing.records import Run, RunError, read_run
from hf_smoothing.statistics import DEFAULT_RADII, exact_text
from hf_smoothing.units import check_radius


@dataclass(frozen=True)
class Measured:
    """The figures of one run.

    Attributes:
        run: the run folder or published log.
        name: to show.
        curve: certified accuracy at the radii of the table.
        average_radius: average certified radius.
        abstention: share of abstentions.
    """

    run: Run
    name: str
    curve: statistics.CertifiedAccuracy
    average_radius: float
    abstention: float

    @property
    def settings(self) -> dict[str, Any]:
        """Of the run."""
        return self.run.settings


def measure(run: Run, radii: Sequence[float] = DEFAULT_RADII, name: str | None = None) -> Measured:
    """The figures of a run over the images that are finished.

    Args:
        run: from `read_run` or `read_published_log`.
        radii: of the table.
        name: to show; the model's id by default.

    Raises:
        RunError: if nothing is finished, or images have no label.
    """
    predictions, references, certified = columns(run)
    curve = statistics.certified_accuracy(predictions, references, certified, radii)
    return Measured(
        run=run,
        name=name or str(run.settings.get("model", {}).get("id") or run.path.name),
        curve=curve,
        average_radius=statistics.average_certified_radius(predictions, references, certified),
        abstention=statistics.abstention_rate(predictions),
    )


def columns(run: Run) -> tuple[list[int], list[int], list[float]]:
    """Predictions, labels and radii of a run, ordered by index.

    Raises:
        RunError: if there are no rows, or rows lack what is needed.
    """
    if not run.rows:
        raise RunError(f"{run.path} has no finished image yet.")
    rows = [run.rows[index] for index in sorted(run.rows)]
    for row in rows:
        missing = {"prediction", "radius", "label"} - row.keys()
        if missing:
            raise RunError(f"{run.path}: the row of image {row['index']} lacks {', '.join(sorted(missing))}.")
        if row["label"] is None:
            raise RunError(
                f"{run.path}: image {row['index']} has no label, so accuracy cannot be measured. "
                "Certify with a labelled split and --label-column."
            )
    return [r["prediction"] for r in rows], [r["label"] for r in rows], [float(r["radius"]) for r in rows]


def comparable(runs: Iterable[Run]) -> list[tuple[str, list[Run]]]:
    """Group runs that may stand in one table: same norm and bound, data and images, draws, alpha, label-awareness.

    Returns:
        (what the group has in common, its runs), in the order given. Different models and noise levels share a table.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(caption(run), []).append(run)
    return list(groups.items())


def caption(run: Run) -> str:
    """What must be equal within a table, as the line under it."""
    s = run.settings
    rule = s.get("rule", {})
    draws = ", ".join(f"{key} = {value:,}" for key, value in rule.items() if isinstance(value, int))
    radii = f"{s.get('norm')} {s.get('bound', '')} radii".replace("  ", " ")
    parts = [
        f"{radii}, {s['rounding']}" if "rounding" in s else radii,
        f"{rule.get('name')} ({draws})" if draws else str(rule.get("name")),
        _alpha_text(s),
        f"{_images_asked(run)} images of {_data_text(run)}{_left_out_text(run)}",
    ]
    if "noise" in s:
        parts.append(f"noise {s['noise'].get('kind')} at {'x'.join(map(str, s.get('resolution', [])))}")
    if s.get("label_aware"):
        parts.append("LABEL-AWARE: for measuring only, no certificates")
    return "; ".join(parts)


def _alpha_text(settings: dict[str, Any]) -> str:
    if settings.get("deterministic"):
        return "deterministic"
    return "alpha not stated" if settings.get("alpha") is None else f"alpha = {settings['alpha']}"


def _decided(run: Run, radius: float) -> bool:
    """Whether the run drew until this radius was certified or given up; one with a fixed number of draws decides all."""
    targets = run.settings.get("rule", {}).get("radii")
    return targets is None or radius in targets


def default_radii(runs: Iterable[Run]) -> list[float]:
    """What a table shows by default: all target radii of the runs, every fifth of a curve, quarters of the largest radius looked for, or the usual ones."""
    runs = list(runs)
    rules = [run.settings.get("rule", {}) for run in runs]
    targets = {r for run in runs for r in _shown(run.settings)}
    targets |= {
        rule["largest"] if k == 4 else float(f"{rule['largest'] * k / 4:.10g}")
        for rule in rules
        if "largest" in rule
        for k in range(5)
    }
    return sorted(targets) or list(DEFAULT_RADII)


def _shown(settings: dict[str, Any]) -> list[float]:
    """The target radii that a table has room for: all that somebody chose, of a curve every fifth."""
    targets = [float(radius) for radius in settings.get("rule", {}).get("radii", ())]
    return targets[::5] if _is_curve(settings) else targets


def _is_curve(settings: dict[str, Any]) -> bool:
    """Whether the targets are those of mode "curve"."""
    targets, sigma = settings.get("rule", {}).get("radii", ()), settings.get("sigma")
    curve = [] if sigma is None else statistics.target_grid(sigma, curve=True)
    return len(targets) > 1 and list(targets) == curve[: len(targets)]


def note(settings: dict[str, Any]) -> str:
    """What a table must say about the figures of a run, beside what the caption says; empty where there is nothing."""
    rule = settings.get("rule", {})
    if "largest" in rule:
        return f"No radius above {exact_text(rule['largest'])} was looked for, which limits the ACR as well."
    if "radii" not in rule:
        return ""
    last = exact_text(rule["radii"][-1])
    aware, spending = settings.get("label_aware"), "spending" in str(rule.get("name"))
    if _is_curve(settings):
        text = (
            f"† Draws stopped when every radius of the curve, each sigma/10 = {exact_text(round(settings['sigma'] / 10, 12))} up to {last}, was decided. Between "
            f"them, beyond the last, and on average (ACR), slightly more might be certified"
        )
        cure = "by targets of your own (radii)" if aware else "by mode fixed"
        return f"{text}: {cure}."
    text = f"† Draws stopped when the targets of this run, up to {last}, were decided. At other radii, and on average (ACR), more might be certified"
    if spending:
        text += ", since the radius of an image is its largest certified target"
    return f"{text}: use mode curve{'' if aware else ' or fixed'} to measure those."


def _data_text(run: Run) -> str:
    data = run.settings.get("dataset", {})
    if "labels_sha256" in data:  # a log, which names no data set
        return f"an unknown data set (labels {data['labels_sha256'][:8]})"
    split = f" {data['split']}" if data.get("split") else ""
    if "stream_sha256" not in data:
        return f"{data.get('id') or 'data set'}{split} ({str(data.get('sha256'))[:8]})"
    # A stream has no hash of its own before it ends; what its rows keep tells it from others.
    rows = ",".join(f"{index} {run.rows[index].get('image_sha256')}" for index in sorted(run.rows))
    return f"{data.get('id') or 'a stream'}{split} ({hashlib.sha256(rows.encode()).hexdigest()[:8]})"


def _left_out(run: Run) -> int:
    return len(run.settings.get("informative", {}).get("unreadable", ()))


def _images_asked(run: Run) -> int:
    """Images that a run is to certify: of a stream it does not know beforehand which cannot be read."""
    asked = run.settings.get("num_images") or len(run.rows)
    return (
        asked - _left_out(run)
        if "stream_sha256" in run.settings.get("dataset", {}) and asked > len(run.rows)
        else int(asked)
    )


def _left_out_text(run: Run) -> str:
    left_out = _left_out(run)
    return f", {left_out} of {_images_asked(run) + left_out} left out since they cannot be read" if left_out else ""


def _sigma_text(settings: dict[str, Any]) -> str:
    if settings.get("deterministic"):
        return "none"
    return "?" if settings.get("sigma") is None else exact_text(settings["sigma"])


def table(measured: Sequence[Measured]) -> str:
    """A Markdown table: certified accuracy x radius, a row a run, with 95% intervals.

    Raises:
        ValueError: if the runs were measured at different radii.
    """
    radii = measured[0].curve.thresholds
    if any(not np.array_equal(m.curve.thresholds, radii) for m in measured):
        raise ValueError("Runs of one table must be measured at the same radii.")
    header = ["model", "sigma", *(f"r = {exact_text(r)}" for r in radii), "ACR", "abstained", "images"]
    rows = [header]
    for m in measured:
        cells = [
            f"{100 * a:.1f} ({100 * lo:.1f}-{100 * hi:.1f}){'' if _decided(m.run, r) else '†'}"
            for r, a, lo, hi in zip(radii, m.curve.accuracy, m.curve.lower, m.curve.upper, strict=True)
        ]
        total = _images_asked(m.run)
        images = (
            str(m.curve.num_images) if m.curve.num_images == total else f"{m.curve.num_images} of {total} (unfinished)"
        )
        targets = "radii" in m.settings.get("rule", {})
        digits = 3 if m.settings.get("norm", "l2") == "l2" else 5  # l-infinity radii are small
        acr = statistics.round_down(m.average_radius, digits) + ("†" if targets else "")
        abstained = "-" if m.settings.get("label_aware") else f"{100 * m.abstention:.1f}"
        rows.append([m.name, _sigma_text(m.settings), *cells, acr, abstained, images])
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def plot(measured: Sequence[Measured], path: str | os.PathLike[str], title: str | None = None) -> Path:
    """Certified accuracy curves with 95% confidence bands, as PNG.

    Args:
        measured: the runs.
        path: of the file.
        title: of the figure.

    Raises:
        ModuleNotFoundError: without matplotlib, with the cure.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("Curves need matplotlib: pip install 'hf_smoothing[plots]'.") from error
    # Twice the size at which it is read: 850 px across, of which the legend takes a third. Many curves make it taller, not narrower.
    figure = Figure(figsize=(8.5, max(4.0, 1.0 + 0.19 * len(measured))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    furthest = max(max(columns(m.run)[2]) for m in measured) or 1.0
    grid = np.linspace(0.0, furthest * 1.02, 400)
    names = short_names([m.name for m in measured])
    looks = styles([(m.name, m.settings.get("sigma")) for m in measured])
    for number, (m, name, look) in enumerate(zip(measured, names, looks, strict=True)):
        curve = statistics.certified_accuracy(*columns(m.run), thresholds=grid)
        label = name if m.settings.get("deterministic") else f"{name}, sigma {_sigma_text(m.settings)}"
        # Markers of different curves stand at different places, so that none hides another.
        places = (int(40 * number / len(measured)), 40)
        axes.plot(grid, 100 * curve.accuracy, label=label, markevery=places, markersize=5, linewidth=1.3, **look)
        axes.fill_between(
            grid,
            100 * curve.lower,
            100 * curve.upper,
            color=look["color"],
            alpha=0.12 if len(measured) < 6 else 0.05,
            linewidth=0,
        )
    axes.set(
        xlabel=f"{measured[0].settings.get('norm', 'l2')} radius ([0, 1] pixel units)",
        ylabel="certified accuracy (%)",
        xlim=(0, grid[-1]),
        ylim=(0, 100),
    )
    if title:
        axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, handlelength=3.5, borderaxespad=0.0)
    figure.savefig(path, dpi=200)
    return Path(path)


def report(
    paths: Sequence[str | os.PathLike[str]],
    *,
    radii: Sequence[float] | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    names: Sequence[str] | None = None,
) -> str:
    """One table for each group of comparable runs, as Markdown; with `output_dir` also report.md and a curve for each group.

    Args:
        paths: run folders, and files in the log format of randomized-smoothing papers (see `read_published_log`). A log
            does not say with which alpha or on which data it was made, so it never shares a table with a run folder.
        radii: of the tables; by default the targets of the runs.
        output_dir: where to write; nothing is written by default.
        names: what to call the models, one a path; their ids by default, the path for a log.

    Raises:
        RunError: if a folder is no run, a file no published log, or either has nothing to report.
        ValueError: if `names` has another length.
    """
    runs = [read_published_log(path) if Path(path).is_file() else read_run(path) for path in paths]
    if names is not None and len(names) != len(runs):
        raise ValueError(f"`names` must have one entry a run, got {len(names)} for {len(runs)} runs.")
    called = dict(zip(map(id, runs), names, strict=True)) if names else {}
    radii = default_radii(runs) if radii is None else radii
    for run in runs:
        for radius in radii:
            check_radius(radius, run.settings.get("norm", "l2"), "radii", run.settings.get("resolution"))
    groups = comparable(runs)
    folder = None if output_dir is None else Path(output_dir)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    parts = []
    if len(groups) > 1:
        parts.append(
            f"These runs differ in data, draws or rule, so they are shown in {len(groups)} tables that must not be compared."
        )
    for number, (common, members) in enumerate(groups, start=1):
        measured = [measure(run, radii, called.get(id(run))) for run in members]
        text = f"Certified accuracy in %, with 95% intervals over the images.\n\n{table(measured)}\n\n{common}."
        notes = dict.fromkeys(found for run in members if (found := note(run.settings)))
        text += "".join(f"\n\n{found}" for found in notes)
        if folder is not None:
            picture = plot(measured, folder / f"certified_accuracy{'' if len(groups) == 1 else f'_{number}'}.png")
            text += f"\n\n![Certified accuracy]({picture.name})"
        parts.append(text)
    markdown = "\n\n".join(parts) + "\n"
    if folder is not None:
        (folder / "report.md").write_text(markdown, encoding="utf-8")
    return markdown

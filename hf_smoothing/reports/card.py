"""The model card of certified runs: tables and the guarantee for readers, the same figures as evaluation results for the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_smoothing.card_file import CardFile
from hf_smoothing.cards import add_use, describe, fill_or_append, how_to_use
from hf_smoothing.json_text import parse_json
from hf_smoothing.records import Run, RunError, check_settings, plain_name, replace_file
from hf_smoothing.reports.browser import guarantee
from hf_smoothing.reports.card_results import ENTRIES, entries_text, indexed_name, put_results
from hf_smoothing.reports.grouping import comparable
from hf_smoothing.reports.measured import Measured, measure, networks_of
from hf_smoothing.reports.page import captioned, notes_of, radii_of
from hf_smoothing.reports.remarks import default_thresholds
from hf_smoothing.spelling import differing_classes


PLACE = "certified accuracy"


def check_finished(run: Run) -> None:
    """Refuse a run that still has images to certify, or does not say what each run folder says.

    Raises:
        RunError: The message names the run.
    """
    check_settings(run)
    if not run.finished:
        raise RunError(
            f"A run must be finished to stand in a card, got {run.progress} images in {run.path}. Give its command again to finish it."
        )


def check_class_names(run: Run, id2label: Mapping[int, str], model: Path) -> None:
    """Refuse a run whose labels were matched by name with classes that the model now has under other numbers.

    Args:
        run: The run.
        id2label: Names of the model's classes.
        model: Folder of the model, for the message.

    Raises:
        RunError: If a class of the run is another class of the model.
    """
    matched = run.settings.get("dataset", {}).get("labels", {}).get("matched", "by number")
    if not {*([matched] if isinstance(matched, str) else matched)} <= {"by name", "by position"}:
        return  # whoever takes numbers, or a map by hand, as they are knows of names that differ
    for number, place in differing_classes(run.class_names, id2label):
        if place is not None:
            name = run.class_names[number]
            raise RunError(
                f"A card needs runs with the classes of {model}, but {name!r} is class {number} in {run.path} and class {place} of the model now. "
                "Restore id2label in its config.json, or certify this model."
            )


def section(runs: Sequence[Run], thresholds: Sequence[float] | None = None, name: str | None = None) -> str:
    """What a card says of finished runs, as Markdown: for each group of comparable runs the guarantee, table, settings and notes.

    Args:
        runs: Finished runs with labels.
        thresholds: Radii of the tables; by default the targets of the runs.
        name: What the tables call the model; by default the id that the runs have.
    """
    parts = []
    for common, members in comparable(runs).items():
        radii = default_thresholds(members) if thresholds is None else thresholds
        measured = [measure(run, radii, name) for run in members]
        parts += [*dict.fromkeys(guarantee(run.settings) for run in members)]
        parts.append(captioned(measured, common, notes_of(members, radii)))
    return "\n\n".join(parts)


def write_card(
    folder: Path,
    runs: Sequence[Run],
    *,
    name: str | None = None,
    thresholds: Iterable[float] | None = None,
    benchmark: str | None = None,
) -> list[Path]:
    """Write or update the card of a model from its runs; the same again changes nothing.

    An existing card keeps its text and metadata but for the places "certified accuracy" and "use", and evaluation results of the metric
    "certified_accuracy"; where it has no such place, a section comes at its end. Results for other benchmarks stay as well.

    Args:
        folder: Folder of the model.
        runs: Its finished runs, with labels.
        name: What the card calls the model, such as its id on the Hub; by default as before, or the folder.
        thresholds: Radii of the tables; by default the targets of the runs.
        benchmark: Hub id of a benchmark, to write `.eval_results` as well.

    Returns:
        The files that were written.

    Raises:
        ValueError: If there are no runs or no radii; if the name or the benchmark is no id of the Hub; if the card has metadata that cannot be read, or places without an end; on two runs for one task of a benchmark.
        RunError: If a run is not finished, or has no labels, or two are of different networks.
        TypeError: If `thresholds` is no list.
    """
    if not runs:
        raise ValueError("A card needs `runs`, got none. Pass runs from read_run.")
    check_name(name)
    check_name(benchmark, "benchmark")
    for run in runs:
        check_finished(run)
    _check_one_network(runs)
    asked = radii_of(thresholds, runs)
    card = CardFile(folder / "README.md")
    called = plain_name(name or indexed_name(card) or folder.resolve().name)
    wrapped = is_wrapped(folder)
    measured = measured_for(runs, asked)
    describe(card, wrapped)
    put_results(card, called, measured)
    own = card.text.rstrip() or f"\n# {called}"
    text = add_use(f"{own}\n", card.page, _use(called, wrapped, runs))
    figures = section(runs, asked, called).replace("<!--", "&lt;!--")  # a name in a run is no mark of a place
    card.text = fill_or_append(text, PLACE, figures, "Certified accuracy", card.page)
    written = [card.page]
    if benchmark is not None:
        listed = entries_text(folder, measured, benchmark)
        written.append(folder / ENTRIES)
        written[-1].parent.mkdir(exist_ok=True)
        replace_file(written[-1], listed)
    card.save()
    return written


def _check_one_network(runs: Sequence[Run]) -> None:
    weights = {run.settings["model"].get("weights_sha256"): run.path for run in runs}
    if len(weights) > 1:
        said = (
            f"{path} ({'unknown weights' if one is None else f'weights {one[:8]}'})" for one, path in weights.items()
        )
        raise RunError(f"A card is about one network, got runs of several: {', '.join(said)}. Write a card for each.")
    for run, first in zip(runs, networks_of(runs), strict=True):
        if first.settings["resolution"] == runs[0].settings["resolution"] and first is not runs[0]:
            raise RunError(
                f"A card is about one network, got runs of two: {runs[0].path} and {run.path} have the same weights, but give other answers to fixed images "
                "(another activation, normalisation or the like). Write a card for each."
            )


def measured_for(runs: Iterable[Run], thresholds: Sequence[float] | None = None) -> list[Measured]:
    """The figures of runs by themselves, at the radii of a card."""
    return [measure(run, default_thresholds([run]) if thresholds is None else thresholds) for run in runs]


def check_name(name: str | None, kind: str = "model") -> None:
    """Refuse a name that the Hub would refuse as an id, and that is no path: the card tells readers to load the model by it.

    Args:
        name: The name; None where there is none.
        kind: What is called so, for the message.

    Raises:
        ValueError: The message says what ids are.
    """
    if name is None or name.startswith(("/", "./", "../", "~")):
        return
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(
            f"The name of the {kind} must be an id of the Hub, name or owner/name of letters, digits and . _ - with at most 96 characters, which "
            f"neither begin nor end with - or . and hold no -- or .., or a path that begins with / or ./, got {name!r}."
        ) from error


def results_in(folder: Path) -> list[str]:
    """What the results in the card of a model are of, such as "24 images of toys test"; empty without a card or results."""
    text = CardFile(folder / "README.md").text
    place = text.partition(f"<!-- table {PLACE} -->")[2].partition("<!-- end -->")[0]
    return list(dict.fromkeys(re.findall(r"; ([0-9]+ images of .+?) \([0-9a-f]{8}\)", place)))


def is_wrapped(folder: Path) -> bool:
    """Whether the folder holds a `SmoothedClassifier`, rather than a plain classifier."""
    file = folder / "config.json"
    try:
        config = parse_json(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} must be JSON, got what cannot be read ({error}). Save the model again.") from error
    return isinstance(config, dict) and config.get("model_type") == "smoothed_classifier"


def _use(name: str, wrapped: bool, runs: Iterable[Run]) -> str:
    settings = next(iter(runs)).settings
    largest = settings["rule"]["largest"] if settings.get("norm") == "linf" else None
    # A plain classifier may be certified at another size than its own, and need not say how its pixels are normalised.
    _, height, width = settings["resolution"]
    pixels = {"size": height if height == width else (height, width), **settings["model"].get("normalisation", {})}
    return how_to_use(name, wrapped=wrapped, sigma=settings.get("sigma") or 0.25, largest=largest, pixels=pixels)

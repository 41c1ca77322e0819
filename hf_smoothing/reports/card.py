"""The model card of certified runs: tables and the guarantee for readers, the same figures as evaluation results for the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, eval_result_entries_to_yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_smoothing.cards import add_use, describe, fill_or_append, how_to_use
from hf_smoothing.json_text import parse_json
from hf_smoothing.records import Run, RunError, check_settings, plain_name
from hf_smoothing.reports.browser import guarantee
from hf_smoothing.reports.grouping import Conditions, comparable
from hf_smoothing.reports.measured import Measured, measure
from hf_smoothing.reports.page import captioned, notes_of, radii_of
from hf_smoothing.reports.remarks import default_thresholds, norm_of
from hf_smoothing.spelling import differing_classes
from hf_smoothing.statistics import exact_text


METRIC = "certified_accuracy"
PLACE = "certified accuracy"
ENTRIES = Path(".eval_results") / "certified_accuracy.yaml"


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


def certified_shares(measured: Measured) -> list[tuple[float, float]]:
    """Radius and certified accuracy in %, to one decimal, at each radius of the table that the run decided and could certify."""
    pairs = zip(measured.curve.thresholds, measured.curve.accuracy, strict=True)
    return [
        (float(radius), round(100 * float(share), 1)) for radius, share in pairs if measured.tested.decided(radius)
    ]


def eval_results(measured: Measured, dataset_name: str | None = None) -> list[EvalResult]:
    """What the Hub shows beside a card: certified accuracy in % at each radius of the table that the run could certify.

    Args:
        measured: Figures of a run.
        dataset_name: Name to show of the data set; its id by default.
    """
    settings = measured.settings
    dataset = settings.get("dataset", {})
    identifier = plain_name(dataset.get("id") or "unknown")
    sigma = "" if settings.get("sigma") is None else f", sigma = {exact_text(settings['sigma'])}"
    aware = ", label-aware" if settings.get("label_aware") else ""
    return [
        EvalResult(
            task_type="image-classification", dataset_type=identifier, dataset_name=dataset_name or identifier,
            dataset_config=dataset.get("config"), dataset_split=dataset.get("split"), metric_type=METRIC,
            metric_name=f"certified accuracy ({norm_of(settings)}{aware}) at r = {exact_text(radius)}{sigma}, %",
            metric_value=share, metric_args=_terms(measured, radius),
        )
        for radius, share in certified_shares(measured)
    ]  # fmt: skip


def _terms(measured: Measured, radius: float) -> dict[str, Any]:
    """All that a figure depends on besides the model, so that those of two runs are not taken for one result."""
    common, settings = Conditions.of(measured.run), measured.settings
    terms = {
        "norm": common.norm, "radius": radius, "sigma": settings.get("sigma"), "bound": common.bound, "rule": common.rule, **dict(common.draws),
        "targets": " ".join(map(exact_text, settings.get("rule", {}).get("targets", ()))), "alpha": common.alpha, "label_aware": common.label_aware, "noise": common.noise_kind,
        "resolution": "x".join(map(str, common.resolution)), "images": common.num_images, "images_sha256": common.short_hash, "seed": settings.get("seed"),
    }  # fmt: skip
    return {key: value for key, value in terms.items() if value not in (None, "") and value is not False}


def benchmark_entries(measured: Measured, benchmark: str) -> list[EvalResultEntry]:
    """The same figures as entries of `.eval_results/*.yaml`, one task per norm, sigma and radius, such as
    "certified_accuracy_l2_sigma0.5_r0.25".

    Args:
        measured: Figures of a run.
        benchmark: Hub id of the benchmark, a data set whose `eval.yaml` lists these tasks.
    """
    settings = measured.settings
    sigma = None if settings.get("sigma") is None else exact_text(settings["sigma"])
    kind = f"{norm_of(settings)}{'_label_aware' if settings.get('label_aware') else ''}{'' if sigma is None else f'_sigma{sigma}'}"
    return [
        EvalResultEntry(
            dataset_id=benchmark, task_id=f"{METRIC}_{kind}_r{exact_text(radius)}", value=share,
            date=settings.get("created"), notes=f"{'' if sigma is None else f'sigma {sigma}; '}{Conditions.of(measured.run)}",
        )
        for radius, share in certified_shares(measured)
    ]  # fmt: skip


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
    "certified_accuracy"; where it has no such place, a section comes at its end.

    Args:
        folder: Folder of the model.
        runs: Its finished runs, with labels.
        name: What the card calls the model, such as its id on the Hub; by default as before, or the folder.
        thresholds: Radii of the tables; by default the targets of the runs.
        benchmark: Hub id of a benchmark, to write `.eval_results` as well.

    Returns:
        The files that were written.

    Raises:
        ValueError: If there are no runs or no radii; if the name is no id of the Hub; if the card has metadata that cannot be read, or places without an end; on two runs for one task of a benchmark.
        RunError: If a run is not finished, or has no labels, or two are of different networks.
        TypeError: If `thresholds` is no list.
    """
    if not runs:
        raise ValueError("A card needs `runs`, got none. Pass runs from read_run.")
    for run in runs:
        check_finished(run)
    _check_one_network(runs)
    asked = radii_of(thresholds, runs)
    _check_id(name)
    page = folder / "README.md"
    card = _open(page)
    called = plain_name(name or card.data.get("model_name") or folder.resolve().name)
    wrapped = is_wrapped(folder)
    measured = [measure(run, default_thresholds([run]) if asked is None else asked) for run in runs]
    card.data.model_name = called
    others = [result for result in card.data.eval_results or [] if result.metric_type != METRIC]
    card.data.eval_results = others + [result for one in measured for result in eval_results(one)]
    describe(card.data, wrapped)
    ending = "\r\n" if "\r\n" in card.text else "\n"
    text = card.text.replace("\r\n", "\n").rstrip() or f"\n# {called}"
    text = add_use(f"{text}\n", page, _use(called, wrapped, runs))
    text = fill_or_append(text, PLACE, section(runs, asked, called), "Certified accuracy", page)
    card.text = text.replace("\n", ending)
    written = [page]
    if benchmark is not None:
        entries = [entry for one in measured for entry in benchmark_entries(one, benchmark)]
        _check_distinct(entries)
        written.append(folder / ENTRIES)
        written[-1].parent.mkdir(exist_ok=True)
        listed = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
        written[-1].write_text(listed, encoding="utf-8")
    card.save(page)
    return written


def _check_one_network(runs: Sequence[Run]) -> None:
    weights = {run.settings["model"].get("weights_sha256"): run.path for run in runs}
    if len(weights) > 1:
        said = (
            f"{path} ({'unknown weights' if one is None else f'weights {one[:8]}'})" for one, path in weights.items()
        )
        raise RunError(f"A card is about one network, got runs of several: {', '.join(said)}. Write a card for each.")


def _check_id(name: str | None) -> None:
    """Refuse a name with an owner that the Hub would refuse as an id: the card tells readers to load the model by it."""
    if name is None or "/" not in name or name.startswith(("/", ".", "~")):
        return
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(
            f"The name of the model must be an id of the Hub, owner/name of letters, digits and . _ - with a name of at most 96 characters, or a name without a slash, got {name!r}."
        ) from error


def _check_distinct(entries: Sequence[EvalResultEntry]) -> None:
    """Refuse two figures for one task of a benchmark, which ranks a model by one."""
    tasks = [entry.task_id for entry in entries]
    if twice := [task for task in dict.fromkeys(tasks) if tasks.count(task) > 1]:
        raise ValueError(
            f"Results for a benchmark must have one run for each norm and sigma, got several for {twice[0]}. Name one of them, or leave the benchmark out."
        )


def results_in(folder: Path) -> list[str]:
    """What the results in the card of a model are of, such as "24 images of toys test"; empty without a card or results."""
    page = folder / "README.md"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
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


def _open(page: Path) -> ModelCard:
    """The card as it is, or an empty one."""
    if not page.exists():
        return ModelCard("---\n{}\n---\n")
    try:
        return ModelCard.load(page)
    except (yaml.YAMLError, ValueError) as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"{page} must begin with metadata that the Hub can read, got: {said}. Correct the lines between the first two `---`."
        ) from error

"""The figures of a card as evaluation results for the Hub: in its model index, and for benchmarks beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml
from huggingface_hub.repocard_data import eval_results_to_model_index

from hf_smoothing.card_file import (
    CardFile,
    entry_of,
    items_of,
    list_of,
    node_of,
    node_of_value,
    put_entry,
    text_of,
    word_of,
)
from hf_smoothing.records import plain_name
from hf_smoothing.reports.grouping import Conditions
from hf_smoothing.reports.measured import Measured
from hf_smoothing.reports.remarks import norm_of
from hf_smoothing.statistics import exact_text


METRIC = "certified_accuracy"
ENTRIES = Path(".eval_results") / "certified_accuracy.yaml"
INDEX = "model-index"


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


def indexed_name(card: CardFile, name: str | None = None) -> str | None:
    """What the model index calls the model of a card: of several models the one of this name, with certified results, or the last."""
    models = items_of(card.get(INDEX))
    place = _place(models, name)
    return card.word("model_name") if not models else word_of(models[-1 if place is None else place], "name")


def put_results(card: CardFile, name: str, measured: Iterable[Measured]) -> None:
    """Put the figures into the model index of a card in place of those that are there; results of other metrics and of other models stay as they are.

    Args:
        card: The card, changed in place.
        name: What the model is called.
        measured: Figures of the runs.
    """
    models = items_of(card.get(INDEX))
    if (place := _place(models, name)) is None:
        place, models = len(models), [*models, node_of_value({"name": name, "results": []})]
    before = items_of(entry_of(models[place], "results"))
    (index,) = eval_results_to_model_index(name, [result for one in measured for result in eval_results(one)])
    results = [*filter(None, map(_of_other_metrics, before)), *items_of(node_of_value(index["results"]))]
    put_entry(models[place], "name", node_of_value(name))
    put_entry(models[place], "results", list_of(results))
    card.put(INDEX, list_of(models))


def _place(models: Sequence[yaml.Node], name: str | None) -> int | None:
    """Which of the models of an index is that of the card: the one of its name, the one with certified results, or the only one."""
    named = [place for place, model in enumerate(models) if name is not None and word_of(model, "name") == name]
    certified = [place for place, model in enumerate(models) if _has_figures(model)]
    return next(iter([*named, *certified]), 0 if len(models) == 1 else None)


def _has_figures(model: yaml.Node) -> bool:
    metrics = [one for result in items_of(entry_of(model, "results")) for one in items_of(entry_of(result, "metrics"))]
    return any(word_of(metric, "type") == METRIC for metric in metrics)


def _of_other_metrics(result: yaml.Node) -> yaml.Node | None:
    """A result without certified figures, None where nothing is left of it."""
    metrics = items_of(entry_of(result, "metrics"))
    others = [metric for metric in metrics if word_of(metric, "type") != METRIC]
    if len(others) < len(metrics):
        put_entry(result, "metrics", list_of(others))
    return result if others or not metrics else None


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


def entries_text(folder: Path, measured: Sequence[Measured], benchmark: str) -> str:
    """What `.eval_results` says with these figures for a benchmark: entries for other benchmarks stay as they are.

    Raises:
        ValueError: On two runs for one task; if what is there cannot be read.
    """
    entries = _entries(measured, benchmark)
    _check_distinct(entries)
    kept = [one for one in _entries_in(folder) if _benchmark_of(one) != benchmark]
    return text_of(list_of([*kept, *entries])) + "\n"


def other_benchmarks(folder: Path, measured: Sequence[Measured]) -> list[str]:
    """The benchmarks for which `.eval_results` holds entries that are not these figures."""
    texts: dict[str, set[str]] = {}
    for one in _entries_in(folder):
        texts.setdefault(_benchmark_of(one), set()).add(text_of(one))
    return [name for name, found in texts.items() if found != {text_of(entry) for entry in _entries(measured, name)}]


def _entries(measured: Iterable[Measured], benchmark: str) -> list[yaml.Node]:
    entries = [entry for one in measured for entry in benchmark_entries(one, benchmark)]
    return items_of(node_of_value(eval_result_entries_to_yaml(entries)))


def _entries_in(folder: Path) -> list[yaml.Node]:
    file = folder / ENTRIES
    if not file.exists():
        return []
    try:
        return items_of(node_of(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file} must be YAML, got what cannot be read ({' '.join(str(error).split())}). Correct or remove it."
        ) from error


def _benchmark_of(entry: yaml.Node) -> str:
    return word_of(entry_of(entry, "dataset"), "id") or "a data set without an id"


def _check_distinct(entries: Sequence[yaml.Node]) -> None:
    """Refuse two figures for one task of a benchmark, which ranks a model by one."""
    tasks = [word_of(entry_of(entry, "dataset"), "task_id") for entry in entries]
    if twice := next((task for task in tasks if tasks.count(task) > 1), None):
        raise ValueError(
            f"Results for a benchmark must have one run for each norm and sigma, got several for {twice}. Name one of them, or leave the benchmark out."
        )

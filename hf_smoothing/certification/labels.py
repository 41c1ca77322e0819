"""Labels for a run whose images are certified already: a certificate does not depend on them, so no draw is made."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hf_smoothing.certification.classes import check_class
from hf_smoothing.certification.images import check_unchanged, checked_items, seen_of
from hf_smoothing.certification.survey import Survey
from hf_smoothing.records import (
    FORMAT,
    ROW_PATTERN,
    RUN_FILE,
    Row,
    Run,
    deciding,
    lock_folder,
    read_run,
    replace_file,
    write_settings,
)
from hf_smoothing.spelling import differing_classes
from hf_smoothing.types import Images


def warn_other_classes(classifier: object, dataset: object) -> None:
    """Warn if a class of the data set has the number of another class of the classifier, where both have names.

    Names are matched as `PixelDataset` matches them: in any spelling, by synonyms.

    Args:
        classifier: A `SmoothedClassifier`, or anything.
        dataset: A `PixelDataset`, or anything; one that was given `id2label` has its labels in the order of the model.
    """
    names = [str(name) for name in getattr(dataset, "names", None) or ()]
    id2label = getattr(getattr(classifier, "config", None), "id2label", None) or {}
    theirs = {int(number): str(name) for number, name in id2label.items()}
    for label, number in differing_classes(names, theirs):
        if number is not None:
            warnings.warn(
                f"Label {label} of the data set is {names[label]!r}, which is class {number} of the classifier, {theirs[number]!r}, so accuracies would be "
                "wrong. To match classes by name pass PixelDataset the model in place of a size, or id2label=model.config.id2label.",
                stacklevel=4,
            )
            return


def adopt_labels(
    output_dir: str | os.PathLike[str], settings: Mapping[str, Any], seen: Survey, dataset: Images
) -> int:
    """Give the rows of a run that has no labels those that its data set has now, if all else about the run is the same.

    Killed halfway, it can be called again. The rows become those of a run that had these labels from the start.

    Args:
        output_dir: The run folder; nothing is done if there is no run yet.
        settings: Settings of the run as it is requested now.
        seen: Result of `survey`.
        dataset: Data set with labels.

    Returns:
        The number of rows that have a label now and had none.

    Raises:
        RunError: If the folder is in use by another process, or is damaged.
        ValueError: If a label is no class of the classifier, or an image another one each time it is read.
    """
    folder = Path(output_dir)
    if not (folder / RUN_FILE).exists() or settings.get("label_aware"):
        return 0
    with lock_folder(folder):
        run = read_run(folder)
        now = json.loads(json.dumps({"format": FORMAT} | dict(settings)))
        old = run.settings.get("dataset", {})
        facts = {"labels": now["dataset"]["labels"]} if "labels" in now["dataset"] else {}
        dataset_facts = {key: value for key, value in old.items() if key != "labels"} | facts
        adopted = {**run.settings, "dataset": dataset_facts}
        # What the run would be with these labels must be what is asked for by the rule that decides so afterwards: nothing is written for a run that is refused.
        first, second = deciding(adopted, now, run.hashed_rows)
        if first != second:
            return 0
        if dataset_facts == old and not _gains(run, dataset):
            return 0
        labels = _labels(run, dataset, seen)
        if labels is None:
            return 0
        for file in sorted(folder.glob(ROW_PATTERN)):
            replace_file(file, "".join(json.dumps(row) + "\n" for row in _labelled_rows(file, labels)))
        if dataset_facts != old:
            write_settings(folder, adopted)
        return sum(row.get("label") != labels[index] for index, row in run.rows.items())


def _gains(run: Run, dataset: Images) -> bool:
    """Whether the first row without a label has one now; only then are the recorded images read once more."""
    recorded = run.partials | run.rows
    first = min((index for index, row in recorded.items() if row.get("label") is None), default=None)
    if first is None:
        return False
    _, item = next(checked_items(dataset, [first]), (first, {}))
    return item.get("labels") is not None


def _labels(run: Run, dataset: Images, seen: Survey) -> dict[int, int | None] | None:
    """The label of each recorded image; None if some have others, are other images or are gone."""
    recorded = run.partials | run.rows
    labels: dict[int, int | None] = {}
    for index, item in checked_items(dataset, sorted(recorded)) if recorded else ():
        check_class(item.get("labels"), index, seen.classes)
        now, row = seen_of(item), recorded[index]
        check_unchanged(index, now, seen.seen)
        if row.get("image_sha256") != now.image_sha256 or row.get("label") not in (None, now.label):
            return None
        labels[index] = now.label
    return labels if len(labels) == len(recorded) else None


def _labelled_rows(file: Path, labels: Mapping[int, int | None]) -> Iterator[Row]:
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            return  # torn by a kill
        row: Row = json.loads(line)
        yield {**row, "label": labels[row["index"]]}

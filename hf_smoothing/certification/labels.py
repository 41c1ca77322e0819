"""Labels for a run whose images are certified already: a certificate does not depend on them, so no draw is made."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hf_smoothing.certification.classes import check_class
from hf_smoothing.certification.images import check_unchanged, checked_items, image_hash
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


LABEL_FACTS = ("sha256", "beginning_sha256", "labels")
"""What `run.json` says of a data set that depends on its labels."""


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
                stacklevel=3,
            )
            return


def adopt_labels(
    output_dir: str | os.PathLike[str], settings: Mapping[str, Any], seen: Survey, dataset: Images
) -> int:
    """Give the rows of a run that has no labels those that its data set has now, if all else about the run is the same.

    Killed halfway, it can be called again. Rows and hashes become those of a run that had these labels from the start.

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
        facts = {key: now["dataset"][key] for key in LABEL_FACTS if key in now["dataset"]}
        adopted = {**run.settings, "dataset": {key: old[key] for key in old if key not in LABEL_FACTS} | facts}
        # What the run would be with these labels must be what is asked for by the rule that decides so afterwards: nothing is written for a run that is refused.
        first, second = deciding(adopted, now, run.hashed_rows)
        if first != second:
            return 0
        # The hash of images without labels is that of their pixels alone. A stream has none, so its rows are compared; so are those of a run whose
        # hash is that of its first images.
        known = old.get("sha256", old.get("beginning_sha256"))
        if known is not None and known not in (seen.read_sha256, seen.pixels_sha256):
            return 0
        gains = _gains(run, dataset) if known is None else known != seen.read_sha256
        if adopted["dataset"] == old and not gains:
            return 0
        changed = _relabel(run, dataset, seen, by_row="sha256" not in old)
        if changed is None:
            return 0
        if adopted["dataset"] != old:
            write_settings(folder, adopted)
        return changed


def _gains(run: Run, dataset: Images) -> bool:
    """Whether the first row without a label has one now; only then are the recorded images read once more."""
    if not run.rows:
        return bool(run.partials)
    first = min((index for index, row in run.rows.items() if row.get("label") is None), default=None)
    if first is None:
        return False
    _, item = next(checked_items(dataset, [first]), (first, {}))
    return item.get("labels") is not None


def _relabel(run: Run, dataset: Images, seen: Survey, by_row: bool) -> int | None:
    """Rewrite the rows with their labels; None, and nothing is written, if they have others or are of other images."""
    recorded = sorted(run.rows.keys() | run.partials.keys())
    new: dict[int, tuple[int | None, str]] = {}
    for index, item in checked_items(dataset, recorded) if recorded else ():
        check_class(item.get("labels"), index, seen.classes)
        check_unchanged(index, image_hash(index, item), seen.hashes)
        label, row = item.get("labels"), run.rows.get(index, run.partials.get(index, {}))
        if row.get("label") not in (None, label):
            return None
        # A partial row does not say with which label it was made.
        before = [row["label"]] if "label" in row else [None, label]
        if by_row and row.get("image_sha256") not in [image_hash(index, {**item, "labels": one}) for one in before]:
            return None
        new[index] = (None if label is None else int(label), image_hash(index, item))
    if len(new) < len(recorded):
        return None
    for file in sorted(run.path.glob(ROW_PATTERN)):
        replace_file(file, "".join(json.dumps(row) + "\n" for row in _labelled_rows(file, new)))
    return len([index for index in run.rows if run.rows[index].get("label") != new[index][0]])


def _labelled_rows(file: Path, new: Mapping[int, tuple[int | None, str]]) -> Iterator[Row]:
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            return  # torn by a kill
        row: Row = json.loads(line)
        label, digest = new[row["index"]]
        if "label" in row:
            row["label"] = label
        if "image_sha256" in row:
            row["image_sha256"] = digest
        yield row

"""From the results of a study to the page that reports them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from examples.studies.stages import Stage
from hf_smoothing.cards import fill
from hf_smoothing.records import read_json, replace_file


def keep_records(
    stages: Sequence[Stage], output: Path, file: Path, more: Callable[[Stage], dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Write the results of all finished stages to one file, small enough for a repository, and read it.

    Args:
        stages: Stages of the study.
        output: Its results folder; where it holds no results, the file is read as it is.
        file: JSON lines, one per stage: its "stage" (name), "kind", "settings" and "result".
        more: Further entries of a stage's line.

    Raises:
        SystemExit: If there are neither results nor file, fewer stages are finished than the file has, or it holds stages with other settings.
    """
    if any((output / stage.name / "result.json").exists() for stage in stages):
        lines = []
        for stage in stages:
            result = read_json(output / stage.name / "result.json")
            if result is not None:
                line = {"stage": stage.name, "kind": stage.kind, "settings": stage.settings, "result": result}
                lines.append(json.dumps(line | (more(stage) if more else {})))
        before = len(file.read_text().splitlines()) if file.exists() else 0
        if len(lines) < before:
            raise SystemExit(
                f"{output} holds {len(lines)} finished stages and {file} {before}: nothing was overwritten. Delete the file to start it anew, or leave "
                "--output-dir pointing nowhere to build from the file alone."
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, "\n".join(lines) + "\n")
    elif not file.exists():
        raise SystemExit(f"There is nothing to report: neither {output} nor {file} exists. Run the study first.")
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    planned = {stage.name: stage.settings for stage in stages}
    other = [line["stage"] for line in found if line["settings"] != planned.get(line["stage"], line["settings"])]
    if other:
        raise SystemExit(
            f"{file} holds {len(other)} stages that were done with other settings than the configuration has now, first {other[0]}. Restore it, or run them anew."
        )
    return found


def markdown_table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """A table, or a line that says there is nothing yet."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) if rows else "*Not measured yet.*"


def publish(
    scale: str, texts: dict[str, str], figures: dict[str, Any], page: Path, summary: Path, elsewhere: Path
) -> None:
    """Put tables between `<!-- table SCALE NAME -->` and `<!-- end -->` of a Markdown page, and figures into a JSON file beside those of other scales.

    What the page has no place for goes to `report.md` in another folder; so does `figures.json`, if it has no place at all.

    Args:
        scale: Scale of the study, such as "cpu".
        texts: Tables by name.
        figures: Plain values; nan becomes null.
        page: The Markdown file.
        summary: The JSON file.
        elsewhere: The folder.
    """
    figures = _without_nan(figures)
    json.dumps(figures)  # fails before anything is written
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    left = dict(texts)
    for name, body in texts.items():
        text, count = fill(text, f"{scale} {name}", body)
        if count:
            del left[name]
    if len(left) < len(texts):
        page.write_text(text, encoding="utf-8")
    else:
        summary = elsewhere / "figures.json"
    summary.parent.mkdir(parents=True, exist_ok=True)
    known = read_json(summary) or {}
    summary.write_text(json.dumps(known | {scale: figures}, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if left:
        elsewhere.mkdir(parents=True, exist_ok=True)
        shown = "\n\n".join(f"## {name}\n\n{body}" for name, body in left.items())
        (elsewhere / "report.md").write_text(shown + "\n", encoding="utf-8")
    where = f"{', '.join(left)}, now in {elsewhere / 'report.md'}" if left else "none"
    print(f"Tables without a place in {page.name}: {where}")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""From the results of a study to the page that reports them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hf_smoothing.stages import Stage, read_json


def keep_records(
    stages: Sequence[Stage], output: Path, file: Path, more: Callable[[Stage], dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Write the results of all finished stages to one file, small enough for a repository, and read it.

    Args:
        stages: of the study.
        output: its results folder; where there is none, the file is read as it is.
        file: JSON lines, one a stage: its "stage" (name), "kind", "settings" and "result".
        more: further entries of a stage's line.

    Raises:
        SystemExit: if there is neither folder nor file, or fewer stages are finished than the file has.
    """
    if output.exists():
        lines = []
        for stage in stages:
            result = read_json(output / stage.name / "result.json")
            if result is not None:
                line = {"stage": stage.name, "kind": stage.kind, "settings": stage.settings, "result": result}
                lines.append(json.dumps(line | (more(stage) if more else {})))
        before = len(file.read_text().splitlines()) if file.exists() else 0
        if not lines or len(lines) < before:
            raise SystemExit(
                f"{output} holds {len(lines)} finished stages and {file} {before}: nothing was overwritten. Delete the file to start it anew, or leave "
                "--output_dir pointing nowhere to build from the file alone."
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        partial.replace(file)
    elif not file.exists():
        raise SystemExit(f"There is nothing to report: neither {output} nor {file} exists. Run the study first.")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def keep_figures(file: Path, scale: str, figures: dict[str, Any]) -> None:
    """Put the figures of one scale into a JSON file beside those of others; nan is no JSON."""
    known = read_json(file) or {}
    file.write_text(json.dumps(known | {scale: figures}, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def markdown_table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """A table, or a line that says there is nothing yet."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) if rows else "*Not measured yet.*"


def fill_markers(page: Path, scale: str, texts: dict[str, str]) -> list[str]:
    """Replace what stands between `<!-- table SCALE NAME -->` and `<!-- end -->` in a Markdown page.

    Args:
        page: the file.
        scale: of the study, such as "cpu".
        texts: by name.

    Returns:
        names that no marker asks for.
    """
    text = page.read_text(encoding="utf-8")
    unused = []
    for name, body in texts.items():
        pattern = rf"(<!-- table {re.escape(scale)} {re.escape(name)} -->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda found, body=body: f"{found[1]}{body}\n{found[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
        if not count:
            unused.append(name)
    page.write_text(text, encoding="utf-8")
    return unused

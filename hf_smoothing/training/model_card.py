"""What a training was, for the checkpoint's configuration and for its model card."""

from __future__ import annotations

import functools
import inspect
import json
from pathlib import Path
from typing import Any

from hf_smoothing.training.objectives import Objective


def objective_note(objective: Objective, name: str) -> dict[str, Any]:
    """An objective's name and all its settings, defaults included, as JSON takes them.

    Args:
        objective: As `find_objective` returns it.
        name: The one it was found by.
    """
    partial = isinstance(objective, functools.partial)
    given, function = (objective.keywords, objective.func) if partial else ({}, objective)  # type: ignore[attr-defined]
    settings = {
        key: given.get(key, parameter.default)
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    return {"name": name} | {key: _plain(value) for key, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__


def add_to_card(card: Path, note: dict[str, Any]) -> None:
    """Put the note into a model card that the stock Trainer wrote.

    Args:
        card: The file README.md, changed in place.
        note: A dictionary of "noise" (None for clean images) and "objective", as `config.hf_smoothing` has them.
    """
    settings = dict(note["objective"])
    noise = "none" if note["noise"] is None else f"`{json.dumps(note['noise'])}`"
    lines = [
        "## Training for certified robustness",
        "",
        f"- noise, sigma in [0, 1] pixel units: {noise}",
        f"- objective: `{settings.pop('name')}`" + (f" with `{json.dumps(settings)}`" if settings else ""),
    ]
    card.write_text(f"{card.read_text().rstrip()}\n\n" + "\n".join(lines) + "\n")


def differences(before: Any, now: dict[str, Any]) -> str:
    """In what a checkpoint was trained otherwise than it is about to be, or ""; one without a note is not judged."""
    found = [
        f"{key} {before[key]} there and {now[key]} here"
        for key in ("noise", "objective")
        if isinstance(before, dict) and key in before and before[key] != now[key]
    ]
    return ", ".join(found)

"""What a training was, for the checkpoint's configuration and for its model card."""

from __future__ import annotations

import functools
import inspect
import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from hf_smoothing.cards import add_use, describe
from hf_smoothing.json_text import as_json
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
    return {"name": name, **as_json(settings)}


def add_to_card(page: Path, note: dict[str, Any], how: str, *, wrapped: bool) -> None:
    """Put the note, and how to load and certify, into a model card that the stock Trainer wrote.

    Args:
        page: The file README.md, changed in place.
        note: A dictionary of "noise" (None for clean images) and "objective", as `config.hf_smoothing` has them.
        how: How the checkpoint is loaded and certified, from `how_to_use`.
        wrapped: Whether the model is a `SmoothedClassifier`.
    """
    settings = dict(note["objective"])
    noise = "none" if note["noise"] is None else f"`{json.dumps(note['noise'])}`"
    lines = [
        "## Training for certified robustness",
        "",
        f"- noise, sigma in [0, 1] pixel units: {noise}",
        f"- objective: `{settings.pop('name')}`" + (f" with `{json.dumps(settings)}`" if settings else ""),
    ]
    card = ModelCard.load(page)
    describe(card.data, wrapped)
    card.text = add_use(f"{card.text.rstrip()}\n\n" + "\n".join(lines) + "\n", page, how)
    card.save(page)


def note_differences(before: Any, now: dict[str, Any]) -> str:
    """In what a checkpoint was trained otherwise than it is about to be, or ""; one without a note is not judged."""
    found = [
        f"{key} {before[key]} there and {now[key]} here"
        for key in ("noise", "objective")
        if isinstance(before, dict) and key in before and before[key] != now[key]
    ]
    return ", ".join(found)

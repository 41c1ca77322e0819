"""What a training was, for the checkpoint's configuration and for its model card."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from hf_smoothing.card_file import CardFile
from hf_smoothing.cards import add_use, describe, how_to_finetune, how_to_use
from hf_smoothing.data.framing import Framing
from hf_smoothing.data.processors import read_processor
from hf_smoothing.json_text import as_json
from hf_smoothing.models.configuration import input_channels
from hf_smoothing.models.masked import is_autoencoder
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier
from hf_smoothing.noise import NoiseMixture
from hf_smoothing.preprocessing import Preprocessing
from hf_smoothing.training.arguments import RobustTrainingArguments
from hf_smoothing.training.objectives import Objective


if TYPE_CHECKING:
    from transformers import BaseImageProcessor


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


def noise_note(model: PreTrainedModel, args: RobustTrainingArguments, processor: Any) -> dict[str, Any] | str | None:
    """What to note of the training noise: the mixture, whoever adds it, None for clean images, or a word where nobody says it."""
    if args.noise_owner != "processor":
        mixture = args.mixture()
        return getattr(model.config, "noise", None) if mixture is None else mixture.to_dict()
    # Without do_noise its noise is added only by the calls that ask for it, which nobody sees here.
    mixture = NoiseMixture.parse(getattr(processor, "noise", None) if getattr(processor, "do_noise", False) else None)
    return "added by the image processor, which does not say" if mixture is None else mixture.to_dict()


def pixels_note(
    model: PreTrainedModel,
    args: RobustTrainingArguments,
    processor: BaseImageProcessor | None,
    preprocessing: Preprocessing | None,
    framing: Framing | None,
    size: Sequence[int],
) -> dict[str, Any]:
    """What to note of the pixels that a plain backbone is trained on; nothing of a `SmoothedClassifier`, which says it, or where it is not known.

    Args:
        model, args, processor: As `RobustTrainer` gets them.
        preprocessing: Result of `find_preprocessing`.
        framing: Framing of the training images, where their data set says it.
        size: The pair (height, width) of a batch: the certified resolution, but with noise_owner="processor", where it
            is what the model sees.
    """
    if isinstance(model, SmoothedClassifier):
        return {}
    known = None if processor is None else read_processor(processor, input_channels(model.config))
    if args.noise_owner == "processor":
        if known is None:
            return {}
        framing, preprocessing = known.framing, known.preprocessing
    elif framing is None and known is not None:
        framing = known.framing
    assert preprocessing is not None
    if framing is None or (args.noise_owner != "processor" and framing.size != tuple(size)):
        return {"size": list(size), **preprocessing.to_dict()}  # how images got there is not known
    how = framing.to_dict()
    return {key: how[key] for key in ("size", "resize", "resample")} | preprocessing.to_dict()


def complete_card(model: PreTrainedModel, args: RobustTrainingArguments, note: dict[str, Any]) -> None:
    """Put the noise and the objective of a training, and how its model is used, into the card that the stock Trainer wrote in its folder.

    Args:
        model, args: As `RobustTrainer` gets them.
        note: A dictionary of "noise" (None for clean images) and "objective", as `config.hf_smoothing` has them.
    """
    folder = Path(str(args.output_dir))
    name, wrapped = args.hub_model_id or folder.resolve().name, isinstance(model, SmoothedClassifier)
    settings = dict(note["objective"])
    noise = "none" if note["noise"] is None else f"`{json.dumps(note['noise'])}`"
    lines = [
        "## Training for certified robustness",
        "",
        f"- noise, sigma in [0, 1] pixel units: {noise}",
        f"- objective: `{settings.pop('name')}`" + (f" with `{json.dumps(settings)}`" if settings else ""),
    ]
    card = CardFile(folder / "README.md")
    text = f"{card.text.rstrip()}\n\n" + "\n".join(lines) + "\n"
    if is_autoencoder(model):
        describe(card, wrapped, task=None)
        card.text = add_use(text, card.page, how_to_finetune(name), "Load and finetune")
    else:
        describe(card, wrapped)
        sigma, largest = model.config.sigma if wrapped else 0.25, note["objective"].get("largest")
        card.text = add_use(text, card.page, how_to_use(name, wrapped=wrapped, sigma=sigma, largest=largest))
    card.save()


def note_differences(before: Any, now: dict[str, Any]) -> str:
    """In what a checkpoint was trained otherwise than it is about to be, or ""; one without a note is not judged."""
    found = [
        f"{key} {before[key]} there and {now[key]} here"
        for key in ("noise", "objective")
        if isinstance(before, dict) and key in before and before[key] != now[key]
    ]
    return ", ".join(found)

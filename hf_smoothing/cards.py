"""Places of a Markdown page that a command writes, and what a model card says of loading and certifying."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yaml import ScalarNode

from hf_smoothing.card_file import CardFile, items_of, list_of, node_of_value
from hf_smoothing.statistics import exact_text


TAGS = ("certified-robustness", "hf_smoothing")


def fill(text: str, name: str, body: str) -> tuple[str, int]:
    """Put a body between `<!-- table NAME -->` and `<!-- end -->`; how many such places there were."""
    pattern = rf"(<!-- table {re.escape(name)} -->\n)(?:(?!<!-- table ).)*?(<!-- end -->)"
    return re.subn(pattern, lambda found: f"{found[1]}{body}\n{found[2]}", text, flags=re.DOTALL)


def fill_one(text: str, name: str, body: str, page: Path) -> str:
    """As `fill`, for the one place of that name.

    Raises:
        ValueError: If the page has no such place, or several.
    """
    text, count = fill(text, name, body)
    if count != 1:
        raise ValueError(f"{page} must have one place `<!-- table {name} -->` ... `<!-- end -->`, got {count}.")
    return text


def fill_or_append(text: str, name: str, body: str, heading: str, page: Path) -> str:
    """As `fill_one`; where the page does not mention the place, it comes at the end, under a heading.

    Args:
        text: Text of the page.
        name: Name of the place.
        body: What stands in it, without the empty lines around.
        heading: Heading of a new place.
        page: Path, for the message.

    Raises:
        ValueError: If the page has several such places, or one without an end.
    """
    if f"<!-- table {name} -->" not in text:
        text = f"{text.rstrip()}\n\n## {heading}\n\n<!-- table {name} -->\n<!-- end -->\n"
    return fill_one(text, name, f"\n{body}\n", page)


def add_use(text: str, page: Path, how: str, heading: str = "Load and certify") -> str:
    """A card's text with the place "use"; unchanged where it says in words of its own how the model is loaded.

    Args:
        text: Text of the card.
        page: Path, for the message.
        how: What stands in the place, from `how_to_use` or `how_to_finetune`.
        heading: Heading of a new place.
    """
    if "<!-- table use -->" not in text and "SmoothedClassifier.from_" in text:
        return text
    return fill_or_append(text, "use", how, heading, page)


def how_to_use(
    name: str,
    *,
    wrapped: bool,
    sigma: float = 0.25,
    largest: float | None = None,
    pixels: Mapping[str, Any] | None = None,
) -> str:
    """How a checkpoint is loaded and certified: two blocks of Python, for an image and for a data set.

    Args:
        name: Folder or Hub id.
        wrapped: Whether it is a `SmoothedClassifier`, which knows its noise level; else a plain classifier.
        sigma: Noise level of the certificates, in [0, 1] pixel units.
        largest: Largest l-infinity radius, for certificates by interval bounds; by default those are by smoothing.
        pixels: What must be said of the pixels of a plain classifier, such as size, image_mean and image_std.
    """
    quoted = _quoted(name)
    said = "".join(f", {key}={value!r}" for key, value in (pixels or {}).items())
    load = (
        f"from_pretrained({quoted})" if wrapped else f"from_base_pretrained({quoted}, sigma={exact_text(sigma)}{said})"
    )
    smooth = largest is None
    one = [
        "from hf_smoothing import SmoothedClassifier",
        *([] if smooth else ["from hf_smoothing.interval import linf_certificates"]),
        "from PIL import Image",
        "",
        f"model = SmoothedClassifier.{load}.eval()",
        'pixels = model.image_processor()(Image.open("image.png"), return_tensors="pt")["pixel_values"]',
    ]
    if largest is None:
        one += [
            f"certificate = model.certify(pixels, sigma={exact_text(sigma)})[0]",
            'name = "abstains" if certificate.abstained else model.config.id2label[certificate.prediction]',
            'print(name, "within l2 radius", certificate.radius)',
        ]
    else:
        one += [
            f"classes, radii = linf_certificates(model, pixels, largest={exact_text(largest)})",
            'print(model.config.id2label[int(classes[0])], "within l-infinity radius", float(radii[0]))',
        ]
    many = [
        "from datasets import load_dataset",
        f"from hf_smoothing import PixelDataset{', certify_dataset' if smooth else ''}",
        *([] if smooth else ["from hf_smoothing.interval import certify_dataset_linf"]),
        "from hf_smoothing.reports import report",
        "",
        'images = PixelDataset(load_dataset("path/to/images", split="test"), model)',
        f'certify_dataset(model, images, "runs/certified", sigma={exact_text(sigma)})'
        if largest is None
        else f'certify_dataset_linf(model, images, "runs/certified", largest={exact_text(largest)})',
        'print(report(["runs/certified"]))',
    ]
    return "\n\n".join([_python(one), "A whole data set, and its table:", _python(many)])


def how_to_finetune(name: str) -> str:
    """How a masked autoencoder, which has no classes, becomes a classifier: a block of Python.

    Args:
        name: Folder or Hub id.
    """
    return "Its encoder becomes a classifier with a new head, to be finetuned:\n\n" + _python(
        [
            "from hf_smoothing import SmoothedClassifier, classifier_from_autoencoder",
            "",
            f"classifier = classifier_from_autoencoder({_quoted(name)}, num_labels=10)",
            "model = SmoothedClassifier.from_base_pretrained(classifier, sigma=0.25)",
        ]
    )


def _quoted(name: str) -> str:
    """A name as people write it, where that is Python."""
    return f'"{name}"' if repr(name) == f"'{name}'" and '"' not in name else repr(name)


def _python(lines: list[str]) -> str:
    code = "\n".join(lines)
    return f"```python\n{code}\n```"


def describe(card: CardFile, wrapped: bool, task: str | None = "image-classification") -> None:
    """Fill in what a card's metadata must say for the Hub to show the right library and task.

    Args:
        card: The card, changed in place; what stands there is kept, but for the library of a `SmoothedClassifier`, which
            transformers alone cannot load.
        wrapped: Whether the checkpoint is a `SmoothedClassifier`.
        task: What it is for, None where that is none of the Hub's tasks.
    """
    if card.word("library_name") in (None, "transformers"):
        card.put("library_name", node_of_value("hf_smoothing" if wrapped else "transformers"))
    if task is not None and card.get("pipeline_tag") is None:
        card.put("pipeline_tag", node_of_value(task))
    tags = card.get("tags")
    there = [tags] if isinstance(tags, ScalarNode) else items_of(tags)
    if new := [tag for tag in TAGS if tag not in [one.value for one in there]]:
        card.put("tags", list_of([*there, *map(node_of_value, new)]))

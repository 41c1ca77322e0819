"""Noisy test images with what two networks see in them: measured with the networks, drawn from the record."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hf_smoothing.drawing import COLOURS, new_figure, plain, save
from hf_smoothing.noise import NoiseMixture
from hf_smoothing.records import read_json, write_json


RIGHT, WRONG = ("✓", COLOURS[0]), ("✗", COLOURS[1])
"""Mark and colour of a prediction."""


def file_of(docs: Path) -> Path:
    """The records of the gallery, by scale: the images as PNG, the noise, and what each network answers."""
    return docs / "results" / "smoothing_transfer-gallery.json"


@torch.inference_mode()
def measure(config: dict[str, Any], output: Path, data: Path, scale: str, docs: Path, count: int = 8) -> None:
    """Keep the predictions of the clean and the mixture backbone, each finetuned on clean images; needs the networks."""
    from examples.studies.recipes import decoded, labels_of
    from hf_smoothing.models import SmoothedClassifier

    made = {
        name: json.loads((output / f"certify/resnet/{name}/clean/seed0/sigma0.25/result.json").read_text())["model"]
        for name in ("clean", "mixture")
    }
    models = {
        name: SmoothedClassifier.from_pretrained(output / stage / "model").eval() for name, stage in made.items()
    }
    test = decoded(output, data, config["data"]["target"], "test", config["size"])
    chosen = list(range(0, len(test), len(test) // count))[:count]
    names = models["mixture"].config.id2label
    record: dict[str, Any] = {
        "data": config["data"]["target"], "split": "test", "images": chosen, "sigmas": [0.0, *config["sigmas"]], "noise_seed": 0,
        "models": made, "labels": [names[k] for k in labels_of(test)[chosen].tolist()],
        "png": [_png(image) for image in test.pixels[chosen]],
    }  # fmt: skip
    seen = noisy(record)
    record["predictions"] = {
        name: [[names[k] for k in model.classify(x).argmax(-1).tolist()] for x in seen]
        for name, model in models.items()
    }
    write_json(file_of(docs), (read_json(file_of(docs)) or {}) | {scale: record})


def noisy(record: dict[str, Any]) -> list[Tensor]:
    """The images of a record with its noise, float (images, channels, height, width), not clamped, for each sigma."""
    decoded = [np.array(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")) for png in record["png"]]
    pixels = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255
    return [
        NoiseMixture((sigma,)).add(pixels, torch.Generator().manual_seed(record["noise_seed"]))[0]
        for sigma in record["sigmas"]
    ]


def draw(record: dict[str, Any], file: Path) -> None:
    """A row of images per sigma; below each image what each network answers, with a mark and a colour for right and wrong."""
    labels, predictions = record["labels"], record["predictions"]
    figure, panels = new_figure(1.45 * len(record["sigmas"]) + 0.2, len(record["sigmas"]), len(labels))
    for i, (sigma, images) in enumerate(zip(record["sigmas"], noisy(record), strict=True)):
        for j, image in enumerate(images.clamp(0, 1).permute(0, 2, 3, 1).numpy()):
            panel = panels[i, j]
            panel.imshow(image, interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            if i == 0:
                panel.set_title(plain(labels[j]), fontsize=10, fontweight="bold")
            for k, (name, seen) in enumerate(predictions.items()):
                mark, colour = RIGHT if seen[i][j] == labels[j] else WRONG
                place = {"y": -0.06 - 0.17 * k, "transform": panel.transAxes, "va": "top", "fontsize": 9}
                panel.text(0.5, s=f"{mark} {plain(seen[i][j])}", color=colour, ha="center", **place)
                if j == 0:
                    panel.text(-0.1, s=f"{plain(name)}:", ha="right", **place)
            if j == 0:
                panel.set_ylabel(f"sigma {sigma:g}", fontsize=10)
    save(figure, file)


def _png(image: Tensor) -> str:
    """An image (channels, height, width) of 8 bits, as base64."""
    kept = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).expand(-1, -1, 3).numpy()).save(kept, "PNG")
    return base64.b64encode(kept.getvalue()).decode()

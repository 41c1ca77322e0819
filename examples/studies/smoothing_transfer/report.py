"""From the records to the report: tables between the markers of its page, figures, and the JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.studies.command import Command
from examples.studies.pages import publish
from examples.studies.smoothing_transfer import figures
from examples.studies.smoothing_transfer.cells import Records, collect
from examples.studies.smoothing_transfer.tables import Tables


def build(given: Command) -> None:
    """Gather the results into one file of records, if their folder is there, and rebuild everything from it.

    The gallery needs the networks as well: it is drawn where both results and data are given.
    """
    config, scale = given.config, given.scale
    file = given.docs / "results" / f"smoothing_transfer-{scale}.jsonl"
    pictures = given.docs / "figures" / "smoothing_transfer" / scale
    collect(given.stages, given.output, file)
    records = Records(file)
    tables = Tables(config, records)
    made = tables.all()
    texts = {
        name: table if name.startswith("compute") else f"*{tables.scale(name)}*\n\n{table}"
        for name, (table, _) in made.items()
    }
    values = _plain({"scale": tables.scale("")} | {name: value for name, (_, value) in made.items()})
    page, summary = given.docs / "smoothing_transfer.md", given.docs / "results" / "smoothing_transfer.json"
    publish(scale, texts, values, page, summary, given.output)
    for architecture in config["architectures"]:
        figures.curves(config, records, architecture, pictures / f"curves-{architecture}.png")
        if config["architectures"][architecture]["grid"] == "full":
            figures.heat_map(config, records, architecture, pictures / f"grid-{architecture}.png")
    if given.data is not None and any(given.output.glob("certify/*")):
        gallery(config, given.output, given.data, pictures / "gallery.png")


@torch.inference_mode()
def gallery(config: dict[str, Any], output: Path, data: Path, file: Path, count: int = 8) -> None:
    """Noisy test images with the predictions of the clean and the mixture model, each finetuned on clean images; needs the networks."""
    from examples.studies.recipes import decoded, labels_of
    from hf_smoothing.models import SmoothedClassifier
    from hf_smoothing.noise import NoiseMixture

    records = json.loads((output / "certify/resnet/mixture/clean/seed0/sigma0.25/result.json").read_text())
    other = json.loads((output / "certify/resnet/clean/clean/seed0/sigma0.25/result.json").read_text())
    models = {
        name: SmoothedClassifier.from_pretrained(output / result["model"] / "model").eval()
        for name, result in (("clean", other), ("mixture", records))
    }
    test = decoded(output, data, config["data"]["target"], "test", config["size"])
    chosen = torch.arange(0, len(test), len(test) // count)[:count]
    pixels, labels = test.pixels[chosen].float() / 255, labels_of(test)[chosen].tolist()
    names = models["mixture"].config.id2label
    noisy = []
    seen: dict[str, list[list[str]]] = {name: [] for name in models}
    sigmas = [0.0, *config["sigmas"]]
    for sigma in sigmas:
        x, _ = NoiseMixture((sigma,)).add(pixels, torch.Generator().manual_seed(0))
        noisy.append(x.clamp(0, 1).permute(0, 2, 3, 1).numpy())
        for name, model in models.items():
            seen[name].append([names[k] for k in model.classify(x).argmax(-1).tolist()])
    figures.gallery(np.stack(noisy), [names[k] for k in labels], seen, sigmas, file)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 5) if np.isfinite(value) else None
    return value

"""One image and its certificate as a picture: what noise and a radius look like, and the votes.

python -m examples.studies.one_certificate measure    # certify, attack, and write docs/results/one_certificate.json
python -m examples.studies.one_certificate draw       # docs/figures/explanation/certificate.png from that record
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import load_dataset

from examples.studies.command import DOCS
from hf_smoothing import PixelDataset, SmoothedClassifier, drawing
from hf_smoothing.attacks import pgd, smoothed_logits
from hf_smoothing.records import read_json, write_json
from hf_smoothing.sample import sample_images


MODEL, INDEX = "resnet-mixture-cifar10", 1
SIGMA, RADIUS, N, ALPHA, SEED = 0.25, 0.25, 10_000, 0.001, 0


def measure(docs: Path) -> None:
    """Certify the image, and look for the worst change of length `RADIUS` with the soft smoothed classifier."""
    model = SmoothedClassifier.from_pretrained(docs.parent / "model_cards" / MODEL).eval()
    data = load_dataset(sample_images(), split="test")
    example = PixelDataset(data, 32)[INDEX]
    image, label = example["pixel_values"][None], torch.tensor([example["labels"]])
    certificate = model.certify(image, sigma=SIGMA, n=N, alpha=ALPHA, mode="fixed", seed=SEED)[0]
    pixels, generator = image.float() / 255, torch.Generator().manual_seed(SEED)
    soft = smoothed_logits(model, SIGMA, 16, generator)
    changed = pgd(soft, pixels, label, epsilon=RADIUS, steps=20, generator=generator, keep="last")
    noisy = pixels + SIGMA * torch.randn(pixels.shape, generator=generator)
    images = {"image": pixels, "noisy copy": noisy, "changed": changed}  # each (1, 3, 32, 32)
    write_json(docs / "results" / "one_certificate.json", {
        "model": MODEL, "index": INDEX, "label": model.config.id2label[int(label)], "prediction": model.config.id2label[certificate.prediction],
        "sigma": SIGMA, "n": N, "alpha": ALPHA, "seed": SEED, "draws": certificate.draws, "radius": certificate.radius,
        "votes": {model.config.id2label[k]: int(votes) for k, votes in enumerate(np.sum(certificate.counts_by_look, axis=0))},
        "distance": float((changed - pixels).norm()),
        "command": "python -m examples.studies.one_certificate measure",
        "pixels": {name: seen(pixels[0]) for name, pixels in images.items()},
    })  # fmt: skip


def seen(pixels: torch.Tensor) -> str:
    """Pixels (3, 32, 32) for the eye, 8-bit and cut to [0, 1]: hexadecimal, row by row."""
    return bytes((255 * pixels.clamp(0, 1)).round().byte().permute(1, 2, 0).flatten().tolist()).hex()


def draw(docs: Path) -> None:
    """The picture, from the record."""
    found: dict[str, Any] = read_json(docs / "results" / "one_certificate.json") or {}
    figure, ((*panels, votes),) = drawing.new_figure(2.6, columns=4, width_ratios=(1, 1, 1, 1.25))
    titles = (
        f"image: {drawing.plain(found['label'])}",
        f"noisy copy, sigma = {found['sigma']:g}",
        f"changed by PGD, r = {found['distance']:.2f}",
    )
    for axes, shown, title in zip(panels, found["pixels"].values(), titles, strict=True):
        axes.imshow(np.frombuffer(bytes.fromhex(shown), np.uint8).reshape(32, 32, 3), interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    most = [item for item in sorted(found["votes"].items(), key=lambda item: -item[1])[:4] if item[1]]
    total = sum(found["votes"].values())
    bars = votes.barh(
        [drawing.plain(name) for name, _ in most][::-1],
        [100 * count / total for _, count in most][::-1],
        color=drawing.COLOURS[0],
    )
    votes.bar_label(bars, fmt="%.1f%%", fontsize=8, padding=2)
    votes.set_xlim(0, 130)
    votes.set_xticks([])
    votes.spines[["top", "right", "bottom"]].set_visible(False)
    votes.set_title(f"votes of {found['draws']:,} noisy copies", fontsize=9)
    radius = np.floor(1000 * found["radius"]) / 1000
    figure.supxlabel(
        f"Certificate: every image within l2 radius {radius:.3f} of the first gets “{drawing.plain(found['prediction'])}”; wrong with probability at most {found['alpha']:g}.",
        fontsize=9,
    )
    drawing.save(figure, docs / "figures" / "explanation" / "certificate.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "draw"])
    parser.add_argument("--docs", type=Path, default=DOCS, help="Folder of results and figures.")
    args = parser.parse_args()
    {"measure": measure, "draw": draw}[args.what](args.docs)

"""Turn the output of pretrain.py or finetune.py into a checkpoint to ship, in float16 by default, with a check that this changes nothing that matters.

    python model_cards/publish.py runs/mixture model_cards/resnet-mixture --dataset path/to/tiny_imagenet32

Prints how far the logits move and how many of the predictions change on noisy test images. The README.md of a card is written by hand and
kept, with relative links; `.ci/public_address.py` makes them absolute for the Hub (RELEASE.md).
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from transformers import AutoModelForImageClassification, PreTrainedConfig, ViTImageProcessor
from transformers.models.auto.image_processing_auto import AutoImageProcessor

import hf_smoothing  # noqa: F401  makes Auto classes know its models
from hf_smoothing import PixelDataset, SmoothedClassifier


def processor(trained: Path, config: PreTrainedConfig) -> Any:
    """What plain users of the checkpoint need: its own, or one made of what the configuration notes of its pixels."""
    if (trained / "preprocessor_config.json").exists():
        return AutoImageProcessor.from_pretrained(trained, trust_remote_code=False)
    noted = config.hf_smoothing
    height, width = noted["model_size"] or noted["size"]
    return ViTImageProcessor(
        size={"height": height, "width": width}, image_mean=noted["image_mean"], image_std=noted["image_std"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path)
    parser.add_argument("card", type=Path)
    parser.add_argument("--dataset", required=True, help="the data set it was trained on, for the check")
    parser.add_argument("--images", type=int, default=1_000)
    parser.add_argument(
        "--dtype", default="float16", choices=["float16", "float32"],
        help="of the weights; float32 where certificates have been measured, which hold for the very weights (%(default)s)",
    )  # fmt: skip
    args = parser.parse_args()

    model = AutoModelForImageClassification.from_pretrained(
        args.trained, dtype=getattr(torch, args.dtype), trust_remote_code=False
    )
    model.config.dtype = getattr(torch, args.dtype)
    model.save_pretrained(args.card)
    # Half precision is for the file: what loads it should compute in float32 unless asked otherwise.
    model.config.dtype = torch.float32
    model.config.save_pretrained(args.card)
    if not isinstance(model, SmoothedClassifier):  # which saves its own
        processor(args.trained, model.config).save_pretrained(args.card)

    size = model.config.size if isinstance(model, SmoothedClassifier) else model.config.hf_smoothing["size"]
    data = PixelDataset(load_dataset(args.dataset, split="test").select(range(args.images)), size).decode()
    pixels = data.pixels.float() / 255
    noisy = pixels + 0.25 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    logits = []
    with torch.inference_mode():
        for path in (args.trained, args.card):
            wrapped = isinstance(model, SmoothedClassifier)
            load = SmoothedClassifier.from_pretrained if wrapped else SmoothedClassifier.from_base_pretrained
            classifier = load(path, sigma=0.25).eval()
            logits.append(torch.cat([classifier.classify(batch) for batch in noisy.split(128)]))
    moved = (logits[0] - logits[1]).abs().max().item()
    changed = (logits[0].argmax(1) != logits[1].argmax(1)).sum().item()
    size = sum(file.stat().st_size for file in args.card.iterdir()) / 1e6
    print(
        f"{size:.1f} MB; {args.dtype} moves logits by at most {moved:.4f}; {changed} of {args.images} noisy predictions change."
    )


if __name__ == "__main__":
    main()

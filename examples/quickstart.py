"""The whole idea in three minutes: `make demo`.

Two copies of one small ResNet were pretrained on Tiny-ImageNet at 32 px: one on a mixture of clean and noisy images, one on clean images only.
Both are finetuned here on the same 2,000 *clean* CIFAR-10 images, then certified by randomized smoothing. What the backbone learnt about
noise survives a light finetuning, so that the first is certifiably robust and the second is not.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from transformers import AutoModelForImageClassification, set_seed
from transformers.utils import logging

from hf_smoothing import PixelDataset, RobustTrainer, RobustTrainingArguments, SmoothedClassifier, certify_dataset
from hf_smoothing.cli.parsing import add_config_option, parse_options
from hf_smoothing.data.selection import spread
from hf_smoothing.reports import report


HERE = Path(__file__).resolve().parent
BACKBONES = {"noise-mixture backbone": "resnet-mixture-small", "clean backbone": "resnet-clean-small"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sigmas", type=float, nargs="+", default=[0.25, 0.5], help="noise levels of the certificates"
    )
    parser.add_argument("--images", type=int, default=100, help="test images to certify, evenly spaced over the 500")
    parser.add_argument(
        "--n", type=int, default=1_000, help="maximum number of noisy copies per image (papers make 100,000 of each)"
    )
    parser.add_argument("--alpha", type=float, default=0.001, help="failure probability of one certificate")
    parser.add_argument("--epochs", type=float, default=8, help="epochs of the finetuning on clean images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", type=Path, default=Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S"))
    add_config_option(parser)
    args = parse_options(parser)
    # Loading bars and the note that a new head replaces the old one would hide the story.
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    print(__doc__.split("\n\n", 1)[1])
    data = load_dataset(str(HERE / "data"))
    names = data["train"].features["label"].names
    train = PixelDataset(data["train"], 32).decode(progress=False)
    test = PixelDataset(data["test"], 32).decode(progress=False)
    indices = spread(args.images, len(test))

    runs, labels = [], []
    for step, (title, folder) in enumerate(BACKBONES.items(), start=1):
        print(f"[{step}/{len(BACKBONES)}] Finetuning the {title} on {len(train):,} clean images, then certifying.")
        set_seed(args.seed)
        backbone = AutoModelForImageClassification.from_pretrained(
            HERE.parent / "model_cards" / folder, dtype=torch.float32, ignore_mismatched_sizes=True,
            id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
        )  # fmt: skip
        model = SmoothedClassifier.from_base_pretrained(backbone, sigma=args.sigmas[0])
        finetune(model, train, args)
        for sigma in args.sigmas:
            runs.append(args.output_dir / f"{folder}-sigma{sigma:g}")
            labels.append(title)
            certify_dataset(
                model, test, runs[-1], sigma=sigma, n=args.n, alpha=args.alpha, seed=args.seed, indices=indices, channels_last=True,
                description={"model": {"id": title}, "dataset": {"id": "examples/data", "split": "test"}},
            )  # fmt: skip
        model.save_pretrained(args.output_dir / folder)

    print(f"\n{report(runs, output_dir=args.output_dir, names=labels)}")
    print(
        "At radius r a figure is the share of test images that are classified correctly, and provably so under every perturbation\n"
        "of l2 norm up to r; each certificate is wrong with probability at most alpha. Neither model saw noise while it was finetuned.\n"
        f"Curves: {args.output_dir / 'certified_accuracy.png'}. Records of every image: {args.output_dir}/*/certificates-0.jsonl."
    )


def finetune(model: SmoothedClassifier, train: "torch.utils.data.Dataset[Any]", args: argparse.Namespace) -> None:
    """Lightly: last stage and new head only, batch-norm statistics kept, no noise."""
    trainer = RobustTrainer(
        model,
        RobustTrainingArguments(
            output_dir=str(args.output_dir / "trainer"), noise="clean", seed=args.seed,
            protocol="last-stage", crop_padding=4, horizontal_flip=True, channels_last=True,
            num_train_epochs=args.epochs, per_device_train_batch_size=64, learning_rate=0.02, lr_scheduler_type="cosine",
            warmup_steps=0.1, optim="sgd", optim_args="momentum=0.9", weight_decay=5e-4,
            save_strategy="no", logging_steps=1_000_000,
        ),
        train_dataset=train,
    )  # fmt: skip
    trainer.train()
    model.eval()


if __name__ == "__main__":
    main()

"""`hf-smoothing demo`: from a backbone to a table of certified accuracy."""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any


FEW_IMAGES, FEW_DRAWS = 20, 500


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    d = commands.add_parser("demo", help="finetune a small backbone on clean images, certify it, print the table")
    d.add_argument(
        "--backbones", nargs="+", help="checkpoints for 32 px, or 'scratch' for the network of the first without pretraining; by default the backbone that "
        "comes with the package, and scratch",
    )  # fmt: skip
    d.add_argument(
        "--dataset", help="folder of images of 32 px with splits train and test; by default the CIFAR-10 images that come with the package"
    )  # fmt: skip
    d.add_argument(
        "--sigmas", type=float, nargs="+", default=[0.25, 0.5], help="noise levels of the certificates (0.25 0.5)"
    )
    d.add_argument("--max-images", type=int, default=100, help="test images to certify (%(default)s)")
    d.add_argument(
        "--n",
        type=int,
        default=1_000,
        help="maximum number of noisy copies per image; papers make 100,000 of each (%(default)s)",
    )
    d.add_argument("--alpha", type=float, default=0.001, help="failure probability of one certificate (%(default)s)")
    d.add_argument("--epochs", type=float, default=8, help="passes of the finetuning (%(default)s)")
    d.add_argument("--seed", type=int, default=0, help="of new head, order of images and noise (%(default)s)")
    d.add_argument("--output-dir", type=Path, help="folder of models and runs (runs/demo-DATE-TIME)")
    d.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """`hf-smoothing demo`."""
    from hf_smoothing.cli.places import check_places
    from hf_smoothing.demo import SCRATCH, TRAINER, demo, folders_of, quiet_loading
    from hf_smoothing.demo import __doc__ as story
    from hf_smoothing.sample import sample_backbone, sample_images
    from hf_smoothing.units import check_seed

    output = args.output_dir or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    check_seed(args.seed, most=2**32 - 1)  # numpy's generator, too, is seeded
    backbones, images = args.backbones or [sample_backbone(), SCRATCH], args.dataset or sample_images()
    written = [output / TRAINER, *itertools.chain(*folders_of(output, backbones, args.sigmas))]
    check_places(output, images, *(one for one in backbones if one != SCRATCH), written=written)
    print(str(story).split("\n\n", 1)[1])
    with quiet_loading():
        table = demo(
            backbones, images, output,
            sigmas=args.sigmas, max_images=args.max_images, n=args.n, alpha=args.alpha, epochs=args.epochs, seed=args.seed,
        )  # fmt: skip
    print(f"\n{table}")
    if args.max_images < FEW_IMAGES or args.n < FEW_DRAWS or args.epochs < 1:
        print(
            f"So few images, draws or epochs show that the program runs, and nothing else: take at least {FEW_IMAGES} images, --n {FEW_DRAWS} and one epoch."
        )
    print(
        "At radius r a figure is the share of test images that are classified correctly, and provably so under every perturbation\n"
        "of l2 norm up to r; each certificate is wrong with probability at most alpha. No network saw noise while it was finetuned."
    )
    picture = output / "certified_accuracy.png"
    curves = f"Curves: {picture}. " if picture.exists() else ""
    print(f"{curves}Records of every image: {output}/*/certificates-0.jsonl.")
    return 0

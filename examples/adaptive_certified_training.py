"""Train networks whose l-infinity robustness is certified deterministically, at each example's own radius, and draw the tradeoff.

    python examples/adaptive_certified_training.py --dataset path/to/mnist --size 28 --largest 0.4 --thresholds 0.3 --width 8 --epochs 10 \
        --kappas 0 0.25 0.5 0.9 --seeds 0 1 --output-dir runs/adaptive-mnist

Each kappa (the weight of clean accuracy) gives one network with adaptive radii and, for comparison, one trained at the fixed radius
`--largest`. Each is trained, chosen on held-out training images, certified on test images by interval bounds, and added to the table and
the plot. The same command continues an interrupted run. For CIFAR-10 as published: --size 32 --largest 0.0345098
--thresholds 0.0078431 0.0313725 --width 64 --epochs 200 --ramp_share 0.4 --learning_rate 0.002 --crop_padding 2 --horizontal_flip --published cifar10
--max_images 10000 (a GPU needs tens of minutes per network).

Other losses than that of adaptive and fixed radii take `--loss`, and `--strengths` for what traces their tradeoff (alpha of MTL-IBP, CC-IBP and
Exp-IBP, the share of SABR), for each kind of radii. Interval bounds say little of such networks: certify them with `--backward crown`.

    python examples/adaptive_certified_training.py --dataset path/to/cifar10 --loss mtl-ibp --kinds fixed --strengths 0.01 0.1 0.5 \
        --largest 0.0078431 --width 8 --epochs 40 --ramp_share 0.5 --crop_padding 2 --horizontal_flip --backward crown --output-dir runs/cifar10-2

Tighter bounds take seconds an image, and searching for radii takes ten times that: `--at 0.0078431` certifies at that radius only, held-out training
images as well, and draws the front of each loss, whose networks are chosen on these, with its hypervolume.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import HfArgumentParser, set_seed

from examples.studies import fronts
from examples.studies.certified_networks import LOSSES, NetworkName, check_settings, trained
from examples.studies.recipes import fit, label_maps, pixel_statistics
from examples.studies.tradeoff import Network, add, figures, plot, ratio_at, table
from hf_smoothing import (
    CnnSevenConfig,
    CnnSevenForImageClassification,
    PixelDataset,
    RobustTrainer,
    RobustTrainingArguments,
    SmoothedClassifier,
)
from hf_smoothing.cli.explained import explained
from hf_smoothing.cli.parsing import parse_dataclasses
from hf_smoothing.cli.places import check_places
from hf_smoothing.data import DataChoice, DecodedPixels
from hf_smoothing.data.opening import choice_text, chosen_images, open_pixels, training_split
from hf_smoothing.interval import IntervalRadiusCallback, certify_dataset_linf, initialise_for_intervals
from hf_smoothing.records import write_json
from hf_smoothing.training.objectives import OBJECTIVES, find_objective


@dataclass
class Arguments:
    """What is trained, on what."""

    output_dir: Path = field(metadata={"help": "Folder of networks, run folders, table and plot."})
    largest: float = field(metadata={"help": "Largest l-infinity radius, in [0, 1] pixel units: e_max."})
    size: int = field(default=32, metadata={"help": "Resolution."})
    width: int = field(default=16, metadata={"help": "Width of CNN-7; 64 in the literature."})
    loss: str = field(default="interval", metadata={"help": f"The loss: {', '.join(LOSSES)}."})
    kappas: list[float] | None = field(
        default=None,
        metadata={
            "help": "Weights of clean cross-entropy; 0, 0.25, 0.5 and 0.9 with the loss of interval bounds, 0 with another."
        },
    )
    strengths: list[float] = field(
        default_factory=lambda: [0.5],
        metadata={"help": "Alphas of MTL-IBP, CC-IBP or Exp-IBP, shares of the radius of SABR; not of interval."},
    )
    attack_steps: int | None = field(
        default=None, metadata={"help": "Number of steps of the attack; as in the paper of the loss by default."}
    )
    attack_step_size: float | None = field(
        default=None, metadata={"help": "Length of a step, in radii; as in the paper of the loss by default."}
    )
    attack_scale: float | None = field(
        default=None, metadata={"help": "Radius of the attack, in radii of the bounds; not of SABR. 1 by default."}
    )
    seeds: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "Seed of initialisation, order and held-out images."}
    )
    epochs: int = field(default=10, metadata={"help": "Passes over the training images."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak of the one-cycle schedule (Adam)."})
    three_phases: bool = field(
        default=True,
        metadata={"help": "As published; in two, the learning rate falls in all that is left after the rise."},
    )
    batch_size: int = field(default=128, metadata={"help": "Training images per step."})
    crop_padding: int = field(
        default=0, metadata={"help": "Random crop after padding by this number of pixels per side."}
    )
    horizontal_flip: bool = field(default=False, metadata={"help": "Random left-right flip."})
    channels_last: bool = field(default=False, metadata={"help": "Train in that memory format: faster on CPUs."})
    max_train_images: int | None = field(default=None, metadata={"help": "Maximum number of training images."})
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    kinds: list[str] = field(
        default_factory=lambda: ["adaptive", "fixed"], metadata={"help": "Radii in training: adaptive, fixed or both."}
    )
    l1: float | None = field(default=None, metadata={"help": "Weight of the l1 norm of all weights; 0 by default."})
    thresholds: list[float] = field(
        default_factory=list, metadata={"help": "Further radii at which to report accuracy."}
    )
    start_from: str | None = field(
        default=None,
        metadata={
            "help": "Folder of a network of this command, with the same --seeds, to go on from: to move it along the tradeoff in a few epochs."
        },
    )
    clean_share: float = field(default=0.01, metadata={"help": "Share of the training before the cap grows."})
    ramp_share: float = field(default=0.4, metadata={"help": "Share of the training in which it grows to e_max."})
    backward: str = field(
        default="none",
        metadata={
            "help": "Bounds to certify with: none (intervals), crown-ibp, crown or optimised; each tighter and slower."
        },
    )
    at: float | None = field(
        default=None,
        metadata={
            "help": "Certify at this radius only, yes or no, held-out images as well, and draw the fronts of all losses."
        },
    )
    held_out: int = field(default=1_000, metadata={"help": "Training images by which the checkpoint is chosen."})
    held_out_at: int | None = field(
        default=None, metadata={"help": "With --at, the first so many of the held-out images; all by default."}
    )
    published: str | None = field(default=None, metadata={"help": "Draw the published points: 'cifar10'."})
    compare_at: list[float] = field(
        default_factory=list,
        metadata={"help": "Accuracies in percent at which ACR with adaptive and with fixed radii are compared."},
    )
    docs: Path | None = field(
        default=None,
        metadata={
            "help": "Folder whose interval.md and results/interval.json take table and figures, under the name of the output folder."
        },
    )


def main() -> None:
    parser = HfArgumentParser((Arguments, DataChoice))
    parser.set_defaults(max_images=1_000)
    args, choice = parse_dataclasses(parser)
    checkpoints = args.output_dir.glob("*/checkpoint-*")
    check_places(args.output_dir, choice.dataset, args.start_from, written=checkpoints)
    objective = NetworkName("fixed", 0.0, 0, args.loss).objective
    find_objective(objective, OBJECTIVES, {"largest": args.largest} | own_settings(args))  # or refuse them at once
    dataset, labels = training_split(replace(choice, split=args.train_split, max_images=None, stride=1))
    test = open_pixels(choice, args.size, labels)
    indices = chosen_images(choice, test)
    print(choice_text(choice, test, indices), flush=True)
    kappas = args.kappas or ([0.0, 0.25, 0.5, 0.9] if args.loss == "interval" else [0.0])
    strengths = [None] if args.loss == "interval" else args.strengths
    for seed, kappa, strength, kind in itertools.product(args.seeds, kappas, strengths, args.kinds):
        name = NetworkName(kind, kappa, seed, args.loss, strength)
        folder = args.output_dir / str(name)
        check_settings(settings_of(args), folder, own_settings(args))
        if not (folder / "model" / "config.json").exists():
            train_one(args, choice, dataset, labels, name, folder)
    results: list[Network] = []
    for name in trained(args.output_dir):  # also those of earlier commands
        folder = args.output_dir / str(name)
        own = check_settings(settings_of(args), folder)
        model = SmoothedClassifier.from_pretrained(folder / "model").eval()
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        results.append(name.to_dict(own) | certified(args, choice, model, folder, test, indices, "test"))
        if args.at is not None:
            held_out, _ = split_of(dataset, labels, args, choice, name.seed)
            results[-1] |= certified(
                args, choice, model, folder, held_out, range(len(held_out))[: args.held_out_at], "held_out"
            )  # fmt: skip
    compared = {f"{accuracy:g}": ratio_at(results, accuracy) for accuracy in args.compare_at}
    print(
        table(results),
        *(f"At {k}% accuracy ACR is {v} times that of fixed radii." for k, v in compared.items()),
        sep="\n",
    )
    if args.at is None:
        plot(results, args.output_dir / "tradeoff.png", args.published)
    else:
        print(*fronts.texts(results).values(), sep="\n\n")
        fronts.plot(results, args.output_dir / "fronts.png", args.at, fronts.published(choice.dataset, args.at))
    keep(results, compared, args, choice)


def certified(
    args: Arguments, choice: DataChoice, model: SmoothedClassifier, folder: Path, images: PixelDataset, indices: Sequence[int] | None, what: str
) -> dict[str, Any]:  # fmt: skip
    """Certify one network on images, and what the record says of it: radii up to the largest, or yes and no at `--at`."""
    kind = "run" if what == "test" else what.replace("_", "-")
    kind += "" if args.backward == "none" else f"-{args.backward}"
    search: dict[str, Any] = {"largest": args.largest}
    if args.at is not None:
        kind += f"-at-{args.at:g}"
        search = {"largest": args.at, "tolerance": args.at, "only_right": True}
    run = certify_dataset_linf(
        model, images, folder / kind, backward=args.backward, indices=indices, **search,
        description={"model": {"id": folder.name}, "dataset": choice.to_dict() | {"id": Path(choice.dataset).name}},
    )  # fmt: skip
    if args.at is None:
        return figures(run, args.largest, args.thresholds)
    found = {"backward": args.backward, "at": args.at, what: fronts.packed(run, args.at)}
    return found | figures(run, args.at, []) if what == "test" else found


def keep(results: list[Network], compared: dict[str, Any], args: Arguments, choice: DataChoice) -> None:
    """Write the figures with what is needed to repeat them."""
    about = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in asdict(args).items()
        if key not in ("output_dir", "docs", *SEVERAL, *OWN)  # those of this pass; each network says its own
    }
    found = {
        "dataset": Path(choice.dataset).name, "images": choice.to_dict() | {"id": Path(choice.dataset).name}, "arguments": about, "torch": torch.__version__, "acr_over_that_of_fixed_at_accuracy": compared,
        "networks": results,
    }  # fmt: skip
    write_json(args.output_dir / "results.json", found)
    if args.docs is not None:
        add(args.docs, args.output_dir.name, found, args.output_dir)


OWN = {"attack_steps": "steps", "attack_step_size": "step_size", "attack_scale": "attack_scale", "l1": "l1"}
"""Arguments that are settings of the loss, by their names there; those that are not given are left to it."""

SEVERAL = ("loss", "kappas", "strengths", "seeds", "kinds")
"""Arguments of one pass, which the name of each network says."""

REPORTED = (
    "output_dir",
    "docs",
    "thresholds",
    "backward",
    "at",
    "held_out_at",
    "published",
    "compare_at",
    "train_split",
    "channels_last",
)
"""Arguments that do not change what a network learns."""


def settings_of(args: Arguments) -> dict[str, Any]:
    """What all networks of an output folder are trained with."""
    return {key: value for key, value in asdict(args).items() if key not in (*REPORTED, *SEVERAL, *OWN)}


def own_settings(args: Arguments) -> dict[str, Any]:
    """Settings of the loss that are given, beside those that a network's name says."""
    return {name: value for key, name in OWN.items() if (value := getattr(args, key)) is not None}


def split_of(
    data: Dataset, labels: dict[int, str], args: Arguments, choice: DataChoice, seed: int
) -> list[PixelDataset]:
    """The held-out training images of a seed, and those that are trained on."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    held_out, rest = order[: args.held_out], order[args.held_out :][: args.max_train_images]
    if not len(rest):
        raise SystemExit(
            f"There is no image to train on: --held_out {args.held_out} and --max_train_images {args.max_train_images} leave none of {len(data)}. Hold out fewer."
        )
    options = {"id2label": labels, **choice.pixel_options()}
    return [PixelDataset(data.select(some), args.size, **options) for some in (held_out, rest)]


def start_of(args: Arguments, names: list[str], train: DecodedPixels) -> SmoothedClassifier:
    """The network as it is before the first step.

    Raises:
        ValueError: If the one to go on from is another than the arguments ask for.
    """
    config = CnnSevenConfig(width=args.width, image_size=args.size, **label_maps(names))
    if args.start_from is not None:
        started: SmoothedClassifier = SmoothedClassifier.from_pretrained(args.start_from)
        there, asked = (
            [c.width, c.image_size, list(c.id2label.values())] for c in (started.config.base_config, config)
        )
        if there != asked:
            raise ValueError(
                f"--start-from must be a network of this width, size and classes, {asked}, got {there} in {args.start_from}."
            )
        return started
    network = CnnSevenForImageClassification(config)
    initialise_for_intervals(network)
    mean, std = pixel_statistics(train)
    pixels: dict[str, Any] = {"size": args.size, "image_mean": mean, "image_std": std}
    return SmoothedClassifier.from_base_pretrained(network, sigma=0.25, num_samples=1, **pixels)


def train_one(
    args: Arguments,
    choice: DataChoice,
    data: Dataset,
    labels: dict[int, str],
    name: NetworkName,
    folder: Path,
) -> None:
    """One network; with the loss of interval bounds the checkpoint chosen on held-out training images, else the last.

    The radii by interval bounds, by which checkpoints are chosen, can be 0 throughout for networks of the other losses.
    """
    set_seed(name.seed)
    validation, train = (part.decode() for part in split_of(data, labels, args, choice, name.seed))
    model = start_of(args, list(labels.values()), train)
    steps = args.epochs * -(-len(train) // args.batch_size)
    optimizer = torch.optim.Adam(model.parameters(), args.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.learning_rate, total_steps=steps + 1, three_phase=args.three_phases
    )
    arguments = RobustTrainingArguments(
        str(folder), noise="clean", objective=name.objective,
        objective_args={
            "largest": args.largest, "kappa": name.kappa, "adaptive": name.kind == "adaptive",
            "clean_share": args.clean_share, "ramp_share": args.ramp_share,
        } | name.settings | own_settings(args),
        num_train_epochs=args.epochs, per_device_train_batch_size=args.batch_size, per_device_eval_batch_size=250,
        max_grad_norm=10.0, crop_padding=args.crop_padding, horizontal_flip=args.horizontal_flip, channels_last=args.channels_last, data_on_device=True, seed=name.seed,
        eval_strategy="epoch", save_strategy="epoch", save_total_limit=1, load_best_model_at_end=name.loss == "interval", metric_for_best_model="tradeoff",
        logging_steps=100, report_to="none",
    )  # fmt: skip
    trainer = RobustTrainer(
        model,
        arguments,
        train_dataset=train,
        eval_dataset=validation,
        optimizers=(optimizer, schedule),
    )
    watch = IntervalRadiusCallback(trainer, validation, largest=args.largest, indices=range(len(validation)))
    trainer.add_callback(watch)
    fit(trainer)
    trainer.model.save_pretrained(folder / "model")


if __name__ == "__main__":
    explained(main)

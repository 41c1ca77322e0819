"""Pretrain a classifier from scratch on a mixture of clean and noisy images.

    python examples/pretrain.py --dataset path/to/tiny_imagenet32 --size 32 --output-dir runs/mixture \
        --noise '{"sigmas": [0, 1], "clean": 0.25, "distribution": "uniform"}' --num_train_epochs 20

The result is a plain `transformers` checkpoint: it loads with AutoModelForImageClassification, without this library.
Pretrain on clean images with --noise clean. All arguments of transformers.TrainingArguments work; --help lists them. A run
that was cut off continues where it stopped with the same command and --resume_from_checkpoint true.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import (
    AutoModelForImageClassification,
    HfArgumentParser,
    PreTrainedModel,
    ResNetConfig,
    ViTImageProcessor,
    set_seed,
)

from hf_smoothing import CertifiedAccuracyCallback, PixelDataset, RobustTrainer, RobustTrainingArguments
from hf_smoothing.cli.explained import explained
from hf_smoothing.cli.parsing import parse_dataclasses
from hf_smoothing.cli.places import check_places
from hf_smoothing.data import DataChoice, DecodedPixels
from hf_smoothing.data.opening import training_split
from hf_smoothing.data.processors import noted_pixels
from hf_smoothing.data.selection import hold_out, spread
from hf_smoothing.models.checkpoints import check_plain, load_base_classifier
from hf_smoothing.models.weights import read_config
from hf_smoothing.training.pacing import epochs_within


@dataclass
class Pretraining:
    """What is trained."""

    size: int = field(default=32, metadata={"help": "The resolution at which noise is added."})
    backbone_size: int = field(
        default=64,
        metadata={
            "help": "The resolution that the backbone sees, after the noise; with --weights that of the weights, where they note it."
        },
    )
    network: str | None = field(
        default=None, metadata={"help": "Configuration of the network (path or Hub id); a small ResNet by default."}
    )
    weights: str | None = field(
        default=None,
        metadata={
            "help": "Checkpoint to start from, with a learning rate schedule of its own, instead of from scratch; of another number of classes, with a new "
            "head."
        },
    )
    widths: list[int] = field(default_factory=lambda: [32, 64, 128, 256], metadata={"help": "Of the small ResNet."})
    blocks: list[int] = field(
        default_factory=lambda: [1],
        metadata={"help": "Basic blocks in each stage of the small ResNet; one number holds for all stages."},
    )
    decode_processes: int = field(default=1, metadata={"help": "Processes that decode images side by side."})
    minutes: float | None = field(
        default=None, metadata={"help": "Train as many epochs as fit into so many minutes here, measured first."}
    )
    validation_share: float = field(default=0.02, metadata={"help": "Share of the training images to hold out."})


def first_network(wanted: Pretraining, names: dict[int, str]) -> PreTrainedModel:
    """The network of `--weights`, or one from scratch, for these classes."""
    labels = {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    if wanted.weights is not None:
        return load_base_classifier(wanted.weights, ignore_mismatched_sizes=True, **labels)
    if wanted.network is not None:
        check_plain(wanted.network, {})
        config = read_config(wanted.network, {})
    else:
        depths = wanted.blocks * len(wanted.widths) if len(wanted.blocks) == 1 else wanted.blocks
        config = ResNetConfig(
            embedding_size=wanted.widths[0], hidden_sizes=wanted.widths, depths=depths, layer_type="basic"
        )
    config.update({**labels, "num_labels": len(names)})  # of some networks the number stands beside the names
    return AutoModelForImageClassification.from_config(config, dtype=torch.float32, trust_remote_code=False)


def pixels_of(
    model: PreTrainedModel, train: DecodedPixels, size: int
) -> tuple[list[float], list[float], dict[str, int]]:
    """Normalisation and size of what the network sees: those of its weights where they note them, else of these images and as asked."""
    noted = noted_pixels(model.config)
    if noted is not None:
        ready = noted.preprocessing
        height, width = ready.model_size or noted.framing.size
        return list(ready.image_mean), list(ready.image_std), {"height": height, "width": width}
    pixels = train.pixels.float() / 255
    mean, std = ([round(x, 4) for x in part.tolist()] for part in (pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))))
    return mean, std, {"height": size, "width": size}


def main() -> None:
    parser = HfArgumentParser((Pretraining, DataChoice, RobustTrainingArguments))
    parser.set_defaults(split="train")
    wanted, choice, args = parse_dataclasses(parser)
    checkpoints = Path(args.output_dir).glob("checkpoint-*")
    check_places(args.output_dir, choice.dataset, wanted.network, wanted.weights, written=checkpoints)
    set_seed(args.seed)

    # 1. Data: pixels at the certified resolution, a part of train held out.
    dataset, names = training_split(choice)
    kept, held_out = hold_out(dataset.shuffle(seed=args.seed), wanted.validation_share, args.seed)
    options = {"id2label": names, **choice.pixel_options()}
    train = PixelDataset(kept, wanted.size, **options).decode(processes=wanted.decode_processes)
    validation = PixelDataset(held_out, wanted.size, **options).decode(processes=wanted.decode_processes)

    # 2. A network from scratch or from weights, and the processor that plain users of the checkpoint will want.
    model = first_network(wanted, names)
    mean, std, side = pixels_of(model, train, wanted.backbone_size)
    processor = ViTImageProcessor(size=side, image_mean=mean, image_std=std)

    # 3. Train. The trainer adds the noise of --noise on the device, then resizes and normalises as the processor says.
    def make_trainer(model: PreTrainedModel, args: RobustTrainingArguments) -> RobustTrainer:
        return RobustTrainer(
            model, args, processing_class=processor, train_dataset=train, eval_dataset=validation,
            compute_metrics=lambda out: {"accuracy": float((out.predictions.argmax(-1) == out.label_ids).mean())},
        )  # fmt: skip

    if wanted.minutes is not None:
        args.num_train_epochs = epochs_within(wanted.minutes, model, args, make_trainer)
    trainer = make_trainer(model, args)
    few = spread(200, len(validation))
    trainer.add_callback(CertifiedAccuracyCallback(trainer, validation, sigmas=(0.25, 0.5), indices=few))
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    metrics = trainer.evaluate()
    if trainer.is_world_process_zero():
        Path(args.output_dir, "eval_results.json").write_text(json.dumps(metrics, indent=2) + "\n")
        print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    explained(main)

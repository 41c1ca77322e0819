"""Finetune a pretrained backbone, by default on clean images, and save it as a certified classifier.

    python examples/finetune.py --backbone model_cards/resnet-mixture --dataset examples/data --output-dir runs/finetuned

The default touches the backbone lightly: the last stage and a new head are trained, batch-norm statistics stay as they are, so that
what the backbone learnt about noise survives (docs/finetuning.md). `--protocol` chooses another way, and `--noise` trains on noise:
then `--protocol whole --learning_rate 0.05` uses it best.
All arguments of transformers.TrainingArguments work; --help lists them.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser, PreTrainedModel, set_seed

from hf_smoothing import (
    CertifiedAccuracyCallback,
    PixelDataset,
    RobustTrainer,
    RobustTrainingArguments,
    SmoothedClassifier,
)
from hf_smoothing.cli.explained import explained
from hf_smoothing.cli.parsing import parse_dataclasses
from hf_smoothing.cli.places import check_places
from hf_smoothing.data import DataChoice
from hf_smoothing.data.opening import training_split
from hf_smoothing.data.selection import hold_out
from hf_smoothing.training.pacing import epochs_within


@dataclass
class Finetuning:
    """What is finetuned."""

    backbone: str = field(metadata={"help": "Hub id or folder of an image classifier."})
    sigma: float = field(default=0.25, metadata={"help": "Default noise level of the saved classifier."})
    size: int | None = field(default=None, metadata={"help": "Certified resolution, if the backbone does not say."})
    validation_share: float = field(default=0.1, metadata={"help": "Share of the training images to hold out."})
    decode_processes: int = field(default=1, metadata={"help": "Processes that decode images side by side."})
    minutes: float | None = field(
        default=None, metadata={"help": "Train as many epochs as fit into so many minutes here, measured first."}
    )
    round_weights: bool = field(
        default=False,
        metadata={
            "help": "Round what is saved to float16 values: a file of half the size then holds what is certified."
        },
    )


def main() -> None:
    parser = HfArgumentParser((Finetuning, DataChoice, RobustTrainingArguments))
    parser.set_defaults(
        split="train",
        protocol="last-stage", crop_padding=4, horizontal_flip=True,
        optim="sgd", optim_args="momentum=0.9", learning_rate=0.02, lr_scheduler_type="cosine", warmup_steps=0.1,
        weight_decay=5e-4, num_train_epochs=8, per_device_train_batch_size=64, save_strategy="epoch", save_total_limit=1,
        per_device_eval_batch_size=64, eval_num_samples=10,
    )  # fmt: skip
    wanted, choice, args = parse_dataclasses(parser)
    checkpoints = Path(args.output_dir).glob("checkpoint-*")
    check_places(args.output_dir, choice.dataset, wanted.backbone, written=checkpoints)
    set_seed(args.seed)

    # 1. The backbone with a new head for the data set's classes, inside the smoothed wrapper.
    dataset, labels = training_split(choice)
    model = SmoothedClassifier.from_base_pretrained(
        wanted.backbone, sigma=wanted.sigma, size=wanted.size, ignore_mismatched_sizes=True,
        id2label=labels, label2id={name: i for i, name in labels.items()},
    )  # fmt: skip

    # 2. Data: pixels at the certified resolution, a part of train held out.
    kept, held_out = hold_out(dataset, wanted.validation_share, args.seed)
    options = {"id2label": labels, **choice.pixel_options()}
    train = PixelDataset(kept, model, **options).decode(processes=wanted.decode_processes)
    validation = PixelDataset(held_out, model, **options).decode(processes=wanted.decode_processes)

    # 3. Train, watching certified accuracy on the held-out images.
    def make_trainer(model: PreTrainedModel, args: RobustTrainingArguments) -> RobustTrainer:
        return RobustTrainer(model, args, train_dataset=train, eval_dataset=validation)

    if wanted.minutes is not None:
        args.num_train_epochs = epochs_within(wanted.minutes, model, args, make_trainer)
    trainer = make_trainer(model, args)
    trainer.add_callback(CertifiedAccuracyCallback(trainer, validation, sigmas=(wanted.sigma,)))
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    metrics = trainer.evaluate()
    if trainer.is_world_process_zero():
        Path(args.output_dir, "eval_results.json").write_text(json.dumps(metrics, indent=2) + "\n")
        print(json.dumps(metrics, indent=2))
        if wanted.round_weights:
            saved = SmoothedClassifier.from_pretrained(args.output_dir)
            saved.half().float().save_pretrained(args.output_dir)


if __name__ == "__main__":
    explained(main)

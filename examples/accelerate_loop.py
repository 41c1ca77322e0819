"""Finetune and certify in a plain Accelerate loop, without any Trainer.

python examples/accelerate_loop.py --backbone model_cards/resnet-mixture --dataset examples/data --output-dir runs/loop
ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 -- examples/accelerate_loop.py ...   # two ranks on a CPU
"""

import gc
from dataclasses import dataclass, field, replace

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import HfArgumentParser

from hf_smoothing import NoiseMixture, PixelDataset, SmoothedClassifier, certify_dataset
from hf_smoothing.cli.explained import explained
from hf_smoothing.cli.parsing import parse_dataclasses
from hf_smoothing.cli.places import check_places
from hf_smoothing.data import DataChoice
from hf_smoothing.data.opening import choice_text, chosen_images, open_pixels, training_split
from hf_smoothing.noise import training_generator
from hf_smoothing.progress import progress_of
from hf_smoothing.reports import report


@dataclass
class Arguments:
    """What is finetuned and certified, and how."""

    backbone: str = field(metadata={"help": "Hub id or folder of an image classifier."})
    output_dir: str = field(metadata={"help": "Folder of the model and the run folder."})
    noise: str = field(default="0.25", metadata={"help": "Training noise: a sigma, 'clean', or a mixture as JSON."})
    sigma: float = field(default=0.25, metadata={"help": "Noise level of the certificates."})
    epochs: int = field(default=2, metadata={"help": "Passes over the training images."})
    batch_size: int = field(default=64, metadata={"help": "Training images per step and rank."})
    learning_rate: float = field(default=0.01, metadata={"help": "Peak of the one-cycle schedule."})
    train_split: str = field(default="train", metadata={"help": "Split to train on, all of it."})
    n: int = field(default=1_000, metadata={"help": "Maximum number of estimation draws per image."})
    seed: int = field(default=0, metadata={"help": "Seed of initialisation, order and noise."})


def main() -> None:
    parser = HfArgumentParser((Arguments, DataChoice))
    parser.set_defaults(max_images=20)
    args, choice = parse_dataclasses(parser)
    check_places(args.output_dir, choice.dataset, args.backbone, written=[f"{args.output_dir}/certified"])
    accelerator = Accelerator()
    set_seed(args.seed)

    dataset, labels = training_split(replace(choice, split=args.train_split, max_images=None, stride=1))
    model = SmoothedClassifier.from_base_pretrained(
        args.backbone, sigma=args.sigma, ignore_mismatched_sizes=True,
        id2label=labels, label2id={name: i for i, name in labels.items()},
    )  # fmt: skip
    images = PixelDataset(dataset, model, id2label=labels, **choice.pixel_options())
    train = images.decode(progress=accelerator.is_main_process)
    loader = DataLoader(train, args.batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), args.learning_rate, momentum=0.9, weight_decay=5e-4)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    steps = args.epochs * len(loader)
    if steps < 1:
        raise SystemExit(
            f"There is no step to train: {len(train)} images make {len(loader)} whole batches of --batch_size {args.batch_size} per rank, in "
            f"--epochs {args.epochs}. Pass a smaller --batch_size or more images, and at least 1 epoch."
        )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, total_steps=steps)

    mixture = NoiseMixture.parse(args.noise)
    model.train()
    with progress_of("Finetuning", steps, "step", shown=accelerator.is_main_process) as bar:
        for epoch in range(args.epochs):
            for number, batch in enumerate(loader, start=epoch * len(loader)):
                pixels = batch["pixel_values"].float() / 255
                if mixture is not None:
                    # A generator of its own for each step and rank: no two ever train on the same noise.
                    generator = training_generator(
                        args.seed, number, accelerator.process_index, accelerator.num_processes, pixels.device
                    )
                    pixels, _ = mixture.add(pixels, generator)
                loss = model(pixel_values=pixels, labels=batch["labels"]).loss
                accelerator.backward(loss)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                bar.update(loss=f"{loss.item():.3f}")

    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(args.output_dir)
    accelerator.wait_for_everyone()
    # Each rank has batch-norm statistics of its own: all must certify the one model that was saved.
    model = SmoothedClassifier.from_pretrained(args.output_dir).to(accelerator.device).eval()
    test = open_pixels(choice, model, model.config.id2label)
    indices = chosen_images(choice, test)
    if accelerator.is_main_process:
        print(choice_text(choice, test, indices), flush=True)
    certify_dataset(
        model, test, f"{args.output_dir}/certified", sigma=args.sigma, n=args.n, seed=args.seed, indices=indices,
        description={"model": {"id": args.output_dir}, "dataset": choice.to_dict()},
    )  # fmt: skip
    if accelerator.is_main_process:
        print(report([f"{args.output_dir}/certified"]))
    accelerator.end_training()
    del model, optimizer, loader, accelerator
    gc.collect()  # before the interpreter goes: worker threads of `datasets` and DDP do not like each other at exit


if __name__ == "__main__":
    explained(main)

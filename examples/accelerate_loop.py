"""Finetune and certify in a plain Accelerate loop, without any Trainer.

python examples/accelerate_loop.py --backbone model_cards/resnet-mixture --dataset examples/data --output_dir runs/loop
ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 -- examples/accelerate_loop.py ...   # two ranks on a CPU
"""

import gc
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import load_dataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from hf_smoothing import NoiseMixture, PixelDataset, SmoothedClassifier, certify_dataset
from hf_smoothing.noise import training_generator
from hf_smoothing.report import report


@dataclass
class Arguments:
    """What is finetuned and certified, and how."""

    backbone: str = field(metadata={"help": "Hub id or folder of an image classifier."})
    dataset: str = field(metadata={"help": "Hub id or folder of an image data set with train and test splits."})
    output_dir: str = field(metadata={"help": "Where the model and the run folder go."})
    noise: str = field(default="0.25", metadata={"help": "Training noise: a sigma, 'clean', or a mixture as JSON."})
    sigma: float = field(default=0.25, metadata={"help": "Noise level of the certificates."})
    epochs: int = field(default=2, metadata={"help": "Passes over the training images."})
    batch_size: int = field(default=64, metadata={"help": "Training images a step and rank."})
    learning_rate: float = field(default=0.01, metadata={"help": "Peak of the one-cycle schedule."})
    max_images: int = field(default=20, metadata={"help": "Test images to certify."})
    n: int = field(default=1_000, metadata={"help": "Estimation draws an image, at most."})
    seed: int = field(default=0, metadata={"help": "Of initialisation, order and noise."})


def main() -> None:
    (args,) = HfArgumentParser(Arguments).parse_args_into_dataclasses()
    accelerator = Accelerator()
    set_seed(args.seed)

    dataset = load_dataset(args.dataset)
    names = dataset["train"].features["label"].names
    model = SmoothedClassifier.from_base_pretrained(
        args.backbone, sigma=args.sigma, ignore_mismatched_sizes=True,
        id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
    )  # fmt: skip
    train = PixelDataset(dataset["train"], model.config.size).decode(progress=accelerator.is_main_process)
    loader = DataLoader(train, args.batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), args.learning_rate, momentum=0.9, weight_decay=5e-4)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    steps = args.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, total_steps=steps)

    mixture = NoiseMixture.parse(args.noise)
    model.train()
    with tqdm(total=steps, desc="Finetuning", disable=not accelerator.is_main_process) as bar:
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
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.3f}")

    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(args.output_dir)
    accelerator.wait_for_everyone()
    # Each rank has batch-norm statistics of its own: all must certify the one model that was saved.
    model = SmoothedClassifier.from_pretrained(args.output_dir).to(accelerator.device).eval()
    test = PixelDataset(dataset["test"], model.config.size, id2label=model.config.id2label)
    certify_dataset(
        model, test, f"{args.output_dir}/certified", sigma=args.sigma, n=args.n, seed=args.seed,
        indices=range(min(args.max_images, len(test))),
        description={"model": {"id": args.output_dir}, "dataset": {"id": args.dataset, "split": "test"}},
    )  # fmt: skip
    if accelerator.is_main_process:
        print(report([f"{args.output_dir}/certified"]))
    accelerator.end_training()
    del model, optimizer, loader, accelerator
    gc.collect()  # before the interpreter goes: worker threads of `datasets` and DDP do not like each other at exit


if __name__ == "__main__":
    main()

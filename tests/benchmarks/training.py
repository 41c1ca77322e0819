"""Training with data on the device against a bare hand-written loop, written to docs/results/training.json.

    python tests/benchmarks/training.py [--threads 2] [--steps 60] [--pairs 7] [network ...]

Both do the same: crop, flip, noise from the mixture, forward and backward in bfloat16, clipping, SGD, a schedule. Pairs alternate
in one process, and the ratio of each pair is taken.
"""

import argparse
import statistics
import tempfile
import time

import torch
import torch.nn.functional as F
from networks import NETWORKS
from results import record

from hf_smoothing import NoiseMixture, RobustTrainer, RobustTrainingArguments
from hf_smoothing.data import DecodedPixels
from hf_smoothing.training.augmentation import random_crop, random_flip


MIXTURE = {"sigmas": [0, 1], "clean": 0.25, "distribution": "uniform"}
BATCH = 128


def images() -> DecodedPixels:
    pixels = torch.randint(0, 256, (8192, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return DecodedPixels(pixels, torch.arange(8192) % 10)


def bare_seconds(name: str, data: DecodedPixels, device: torch.device, steps: int) -> float:
    """A loop as a researcher would write it."""
    model = NETWORKS[name]().to(device).train()
    if name.startswith("resnet"):
        model = model.to(memory_format=torch.channels_last)
    pixels, labels = data.pixels.to(device), data.labels.to(device)
    mixture, generator = NoiseMixture.parse(MIXTURE), torch.Generator(device).manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.randperm(len(pixels), device=device)
    synchronize(device)
    began = time.perf_counter()
    for step in range(steps):
        chosen = order[(step * BATCH) % (len(pixels) - BATCH) :][:BATCH]
        x = random_flip(random_crop(pixels[chosen].float() / 255, 4, generator), generator)
        x, _ = mixture.add(x, generator)
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(pixel_values=x).logits
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels[chosen]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    synchronize(device)
    return time.perf_counter() - began


def trainer_seconds(name: str, data: DecodedPixels, device: torch.device, steps: int, folder: str) -> float:
    """The same by `RobustTrainer`; building it is not counted."""
    args = RobustTrainingArguments(
        folder, noise=str(MIXTURE).replace("'", '"'), crop_padding=4, horizontal_flip=True, bf16=True, optim="sgd", optim_args="momentum=0.9",
        learning_rate=0.05, weight_decay=5e-4, lr_scheduler_type="cosine", per_device_train_batch_size=BATCH, max_steps=steps,
        channels_last=name.startswith("resnet"), data_on_device=True, use_cpu=device.type == "cpu", save_strategy="no", logging_steps=steps,
        disable_tqdm=True, report_to="none",
    )  # fmt: skip
    trainer = RobustTrainer(NETWORKS[name](), args, train_dataset=data)
    synchronize(device)
    began = time.perf_counter()
    trainer.train()
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["resnet-small", "vit-tiny"], choices=list(NETWORKS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = images()
    for name in args.networks:
        ratios = []
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(args.pairs + 1):
                bare = bare_seconds(name, data, device, args.steps)
                ratios.append(bare / trainer_seconds(name, data, device, args.steps, folder))
        ratios = ratios[1:]  # the first pair warms up
        record(
            "training", f"robust_trainer_over_bare_loop, {name}, {device.type}", round(statistics.median(ratios), 3), seed=0,
            command=f"python tests/benchmarks/training.py --threads {args.threads} --steps {args.steps} --pairs {args.pairs} {name}",
            ratios=[round(ratio, 3) for ratio in ratios], batch_size=BATCH, threads=args.threads, dtype="bfloat16", noise=MIXTURE,
        )  # fmt: skip


if __name__ == "__main__":
    main()

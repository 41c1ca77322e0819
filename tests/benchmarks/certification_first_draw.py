"""How long a run over many images takes before its first draw, and in how much memory."""

from __future__ import annotations

import argparse
import io
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from certification_shared import keep
from PIL import Image

from hf_smoothing import PixelDataset, certify_dataset


IMAGES = 50_000


class _Photographs:
    """As many images as are asked for, each a JPEG file of 256 x 256 pixels that is decoded when it is read."""

    def __init__(self, count: int) -> None:
        rough = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        self.count, raw = count, io.BytesIO()
        Image.fromarray(rough).resize((256, 256), Image.Resampling.BICUBIC).save(raw, "JPEG", quality=90)
        self.file = raw.getvalue()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= self.count:
            raise IndexError(index)
        return {"image": Image.open(io.BytesIO(self.file)), "label": index % 10}


class _FirstDrawError(Exception):
    pass


def _first(pixels: torch.Tensor) -> torch.Tensor:
    raise _FirstDrawError


def child(count: int) -> None:
    """Print the seconds until the first forward pass over that many images at 224 px, and the peak memory in KiB."""
    pixels = PixelDataset(_Photographs(count), 224)
    pixels[0]  # what is imported by the first image does not count
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        try:
            # A batch size, since finding one would run the network.
            certify_dataset(_first, pixels, folder, sigma=0.5, n=1_000, copies_per_batch=64, progress=False)
        except _FirstDrawError:
            print("RESULT", time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def time_to_first_draw(args: argparse.Namespace) -> None:
    """(g) Seconds from the call to the first forward pass, 50,000 images at 224 px against 500, in processes taken in turns."""
    found: dict[int, list[tuple[float, int]]] = {500: [], 5_000 if args.quick else IMAGES: []}
    for _ in range(1 if args.quick else 3):
        for count, one in found.items():
            command = [
                sys.executable,
                str(Path(__file__).with_name("certification.py")),
                "--child",
                "first",
                str(count),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            words = next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()
            one.append((float(words[1]), int(words[2])))
    seconds, memory = (
        {count: sorted(one[k] for one in runs)[len(runs) // 2] for count, runs in found.items()} for k in (0, 1)
    )
    largest = max(found)
    keep(
        "time_to_first_draw", "no network", round(seconds[largest], 2), args,
        images=largest, pixels=224, seconds={str(count): round(one, 2) for count, one in seconds.items()},
        peak_kib={str(count): one for count, one in memory.items()}, repeats=len(found[largest]), unit="seconds, wall time",
    )  # fmt: skip

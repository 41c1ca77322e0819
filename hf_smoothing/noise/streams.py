"""Keyed generators: which noise an image, a training step or a process gets."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import secrets
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hf_smoothing.units import MAX_DRAWS, check_whole


# Draw j of image i under seed s must be a function of (s, i, j) alone. torch's CPU generator keeps only 32 bits of its
# seed, so a hash of (i, j) would collide within a run of a few ten thousand keys. Instead a *block* of DRAWS_PER_BLOCK
# consecutive draws has a number of exactly 32 bits, image and block side by side, and is scrambled by a bijection: two
# blocks of a run never share a stream. Whole blocks are drawn in one call, since how torch fills a tensor depends on its
# size.

BLOCK_BITS = 14
DRAWS_PER_BLOCK = MAX_DRAWS >> BLOCK_BITS
MAX_IMAGES = 1 << (32 - BLOCK_BITS)


def seed_words(seed: int | str, count: int = 2) -> tuple[int, ...]:
    """Up to 8 words of 32 bits that follow from a seed."""
    digest = hashlib.sha256(str(seed).encode()).digest()
    return tuple(int.from_bytes(digest[4 * i : 4 * i + 4], "little") for i in range(count))


def _scramble(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """A bijection of the 32-bit words (xor-shifts and odd multipliers; the finaliser of MurmurHash3)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return np.asarray(x ^ (x >> np.uint32(16)), dtype=np.uint32)


def stream_keys(seed: int, image: ArrayLike, block: ArrayLike) -> NDArray[np.uint64]:
    """Generator seeds of (image, block) pairs: within one `seed`, different pairs always get different keys.

    The low 32 bits, all that torch's CPU generator keeps, are different already; the high 32 bits hold more of the seed for
    generators that keep them (CUDA). Runs with different seeds use the same streams for different pairs, and
    only there.

    Args:
        seed: Any integer.
        image: Indices in [0, MAX_IMAGES), any shape.
        block: Block numbers in [0, 2 ** BLOCK_BITS), broadcast against `image`.

    Raises:
        ValueError: Beyond these ranges.
    """
    i, b = np.broadcast_arrays(np.asarray(image, dtype=np.int64), np.asarray(block, dtype=np.int64))
    if np.any(i < 0) or np.any(i >= MAX_IMAGES):
        raise ValueError(
            f"Image indices of one run must lie in [0, {MAX_IMAGES}), got {i.min()} to {i.max()}. "
            "Make runs of parts of a larger data set, each with a seed of its own."
        )
    if np.any(b < 0) or np.any(b >= 1 << BLOCK_BITS):
        raise ValueError(
            f"An image has at most {MAX_DRAWS:,} draws in all; draw {b.max() * DRAWS_PER_BLOCK:,} is beyond."
        )
    low, high = seed_words(seed)
    unit = ((i << BLOCK_BITS) | b).astype(np.uint32)
    return (np.uint64(high) << np.uint64(32)) | _scramble(unit ^ np.uint32(low)).astype(np.uint64)


class Draws(NamedTuple):
    """A request: the noisy copies number `start` to `stop` - 1 of one image.

    Attributes:
        slot: Position of the image in the tensor of current images.
        image: Index of the image within the run; with the draw number it decides the noise.
        start, stop: Numbers of the draws.
    """

    slot: int
    image: int
    start: int
    stop: int


class GaussianStream:
    """Gaussian draws in float32 addressed by (image, draw): the same numbers in any order, batch size or process.

    Args:
        seed: Seed of the run. The same seed gives the same draws on the same kind of device; CPU and CUDA differ.
        shape: Shape of one draw, (channels, height, width).
        device: Where the draws are made.
        sigma: Noise standard deviation in [0, 1] pixel units.
    """

    kind = "gaussian"
    total_variation = 0.0  # float32 rounding is not of this kind; the records name it

    def __init__(self, seed: int, shape: tuple[int, ...], device: torch.device | str = "cpu", *, sigma: float) -> None:
        self.seed = int(seed)
        self.shape = tuple(shape)
        self.device = torch.device(device)
        self.sigma = float(sigma)
        self._generator = torch.Generator(self.device)
        self._kept: tuple[int, int] | None = None
        with torch.inference_mode(False):  # it is written to in whatever mode draws are made
            self._block = torch.empty((DRAWS_PER_BLOCK, *self.shape), dtype=torch.float32, device=self.device)

    def _draw_block(self, image: int, block: int, out: Tensor) -> None:
        self._generator.manual_seed(int(stream_keys(self.seed, image, block)))
        torch.randn(out.shape, generator=self._generator, device=out.device, out=out)

    def draw(self, out: Tensor, image: int, start: int) -> None:
        """Write standard normal draws start, start + 1, ... of `image` into `out`.

        Args:
            out: A contiguous float32 tensor (draws, *shape) on the stream's device.
            image: Index of the image within the run.
            start: Number of the first draw.
        """
        done, count = 0, out.shape[0]
        while done < count:
            block, offset = divmod(start + done, DRAWS_PER_BLOCK)
            take = min(DRAWS_PER_BLOCK - offset, count - done)
            if take == DRAWS_PER_BLOCK:
                self._draw_block(image, block, out[done : done + take])
            else:  # part of a block: the rest is wanted by the neighbouring batch, so it is kept
                if self._kept != (image, block):
                    self._draw_block(image, block, self._block)
                    self._kept = (image, block)
                out[done : done + take] = self._block[offset : offset + take]
            done += take

    def noisy_copies(self, out: Tensor, images: Tensor, draws: Sequence[Draws]) -> None:
        """Write noisy copies of several images into `out`, one request after another.

        Args:
            out: A contiguous float32 tensor (copies, *shape) on the stream's device.
            images: Images, float32 (slots, *shape) in [0, 1].
            draws: The copies wanted, as many in all as `out` has room for.
        """
        first = 0
        for slot, image, start, stop in draws:
            rows = out[first : first + stop - start]
            self.draw(rows, image, start)
            rows.mul_(self.sigma).add_(images[slot])
            first += stop - start


def training_generator(
    seed: int, step: int, rank: int, world_size: int, device: torch.device | str
) -> torch.Generator:
    """A generator of its own for every (micro-)step and rank of a training run.

    Args:
        seed: Seed of the run.
        step: Number of the forward pass, counting gradient accumulation; never repeated within a run.
        rank, world_size: Rank of the process and number of processes.
        device: Where the noise is drawn.

    Raises:
        ValueError: Beyond 2 ** 32 forward passes over all ranks.
    """
    unit = step * world_size + rank
    if not (0 <= rank < world_size and 0 <= unit < 1 << 32):
        raise ValueError(f"A training run has at most {1 << 32} forward passes, got step {step} of rank {rank}.")
    low, high = seed_words(seed)
    key = int(_scramble(np.asarray(unit ^ low, dtype=np.uint32)))
    return torch.Generator(device).manual_seed(high << 32 | key)


_PID = os.getpid()


def process_generator(device: torch.device | str) -> torch.Generator:
    """A generator for training noise outside `RobustTrainer`: reproducible under `transformers.set_seed`, yet different in
    every rank (which are all seeded alike), data-loading worker, epoch of workers, and child process.

    Its seed is drawn from torch's global generator, so that a run resumed by `RobustTrainer` does not repeat noise, but may draw other
    noise than one that was not interrupted. The stock `Trainer` restores that generator only after it has read the first batches, and
    after workers have started: resumed in the middle of an epoch, noise added by a processor is again that of its beginning, on other images.

    Args:
        device: Where the noise is drawn.
    """
    drawn = int(torch.randint(1 << 62, (), device="cpu"))
    worker = torch.utils.data.get_worker_info()
    if worker is not None:
        process: int | str = f"worker {worker.id}"
    else:
        # A child inherits the global generator of its parent. A spawned one has a name of its own; after a bare fork the
        # process id at least keeps its noise its own.
        process = multiprocessing.current_process().name if os.getpid() == _PID else os.getpid()
    key = f"{drawn}/{os.environ.get('RANK', '0')}/{process}"
    low, high = seed_words(key)
    return torch.Generator(device).manual_seed(high << 32 | low)


def fresh_seed(seed: int | None) -> int:
    """`seed`, or fresh entropy if there is none: with a known seed an input could be chosen against the noise."""
    if seed is None:
        return secrets.randbits(64)
    return check_whole(seed, "seed")

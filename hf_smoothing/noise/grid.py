"""Gaussian noise rounded to the 1/255 grid of 8-bit images: exact, cheap, and the same on every device.

With floating-point noise a classifier can be built that asks whether a pixel is representable as fl(x + e), and so distinguishes images
that the theory takes for indistinguishable (Voracek & Hein, arXiv 2207.07209; Jin et al., arXiv 2205.10159). Here the
noise is a whole number k of grid steps,

    P(k = i) = Phi((2i + 1) / (510 sigma)) - Phi((2i - 1) / (510 sigma)),

the law of round(255 z) for z ~ N(0, sigma^2). For an 8-bit image x the noisy copy (255 x + k) / 255 is what rounding x + z to the grid
gives, so the certified classifier is f after Round, and Cohen's theorem holds for it without any floating-point caveat. The
certificate covers perturbed images that are themselves 8-bit at the certified resolution.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_smoothing.noise.grid_law import STEPS, grid_law, tables, total_variation
from hf_smoothing.noise.streams import MAX_IMAGES, Draws, seed_words
from hf_smoothing.units import MAX_DRAWS


logger = logging.getLogger(__name__)

Kernel = Callable[..., None]
_WITHOUT_KERNEL: set[torch.device] = set()
"""Devices on which the kernel cannot be used."""

# The finaliser of SplitMix64 (Steele, Lea & Flood 2014, in Stafford's variant 13): a bijection of the 64-bit words whose output
# bits each depend on every input bit. torch has signed words only: products wrap alike, shifts must clear the sign's copies.
_GOLDEN, _FIRST, _SECOND = (
    int(np.uint64(c).astype(np.int64)) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def _mix(words: Tensor, key: tuple[int, int]) -> Tensor:
    """Scramble 64-bit counters in place: for one key a bijection, so different counters never share their bits."""
    spare = torch.empty_like(words)

    def xor_shift(bits: int) -> None:
        torch.bitwise_right_shift(words, bits, out=spare)
        words.bitwise_xor_(spare.bitwise_and_((1 << (64 - bits)) - 1))

    words.add_(key[0]).mul_(_GOLDEN)
    xor_shift(30)
    words.mul_(_FIRST).add_(key[1])
    xor_shift(27)
    words.mul_(_SECOND)
    xor_shift(31)
    return words


class GridStream:
    """Noisy copies of 8-bit images, addressed by (image, draw): the same in any order, batch size, process and on any device.

    Random bits are a function of a counter with 18 bits for the image, 19 for the draw and 27 within the draw; nothing is kept between
    calls.

    Args:
        seed: Seed of the run.
        shape: Shape of one draw, (channels, height, width).
        device: Where the noise is drawn.
        sigma: Noise standard deviation in [0, 1] pixel units.

    Raises:
        ValueError: If an image has more than 2^26 pixels.
    """

    kind = "grid"

    def __init__(self, seed: int, shape: tuple[int, ...], device: torch.device | str = "cpu", *, sigma: float) -> None:
        self.seed, self.shape, self.device, self.sigma = int(seed), tuple(shape), torch.device(device), float(sigma)
        self.pixels = int(np.prod(self.shape))
        if self.pixels > 1 << 26:
            raise ValueError(f"Grid noise is made for images of at most {1 << 26:,} pixels, got {self.pixels:,}.")
        self.total_variation = total_variation(self.sigma, self.pixels)
        words = seed_words(self.seed, 4)
        self._key = (_signed(words[0] | words[1] << 32), _signed(words[2] | words[3] << 32))
        table, self._filled, thresholds = tables(self.sigma)
        values = grid_law(self.sigma)[0]
        self._table = torch.from_numpy(table).to(self.device)
        self._thresholds = torch.from_numpy(thresholds).to(self.device)
        self._values = torch.from_numpy(values.astype(np.float32)).to(self.device)
        self._steps = torch.tensor(float(STEPS), dtype=torch.float32, device=self.device)  # see grid_to_unit
        self._words = torch.arange(-(-self.pixels // 4), device=self.device)
        self._kernel: Kernel | None = None

    def draw(self, out: Tensor, image: int, start: int) -> None:
        """Write the noise of draws start, start + 1, ... of `image` into `out`, in grid steps.

        Args:
            out: A contiguous float32 tensor (draws, *shape) on the stream's device; holds whole numbers afterwards.
            image: Index of the image within the run.
            start: Number of the first draw.
        """
        self._fill(out, [Draws(0, image, start, start + len(out))])

    def noisy_copies(self, out: Tensor, images: Tensor, draws: Sequence[Draws]) -> None:
        """Write noisy copies of several images into `out`, one request after another.

        Args:
            out: A contiguous float32 tensor (copies, *shape) on the stream's device.
            images: Images, float32 (slots, *shape), multiples of 1/255 in [0, 1] (within 1e-3 grid steps).
            draws: The copies wanted, as many in all as `out` has room for.
        """
        self._fill(out, draws, images.mul(STEPS).round_())

    def _fill(self, out: Tensor, draws: Sequence[Draws], steps: Tensor | None = None) -> None:
        """Noise in grid steps or, with images in grid steps, noisy copies of these in [0, 1]."""
        for slot, image, start, stop in draws:
            if not (0 <= image < MAX_IMAGES and 0 <= start <= stop <= MAX_DRAWS):
                raise ValueError(
                    f"A run has images in [0, {MAX_IMAGES}) and at most {MAX_DRAWS:,} draws of each, got image {image}, draws "
                    f"{start:,} to {stop:,}. Make runs of parts of a larger data set, each with a seed of its own."
                )
            if steps is not None and not 0 <= slot < len(steps):
                raise ValueError(f"Draws must be of one of the {len(steps)} images given, got slot {slot}.")
        numbers = np.concatenate([np.arange(start, stop) + image * MAX_DRAWS for _, image, start, stop in draws])
        if len(out) != len(numbers) or out.dtype != torch.float32 or not out.is_contiguous():
            raise ValueError(
                f"`out` must be a contiguous float32 tensor with room for the {len(numbers)} copies asked for, got {out.dtype} {tuple(out.shape)}."
            )
        kernel = self._kernel_that_agrees() if out.is_cuda else None
        if kernel is not None:
            slots = np.repeat([slot for slot, *_ in draws], [stop - start for *_, start, stop in draws])
            self._kernel_fill(kernel, out, np.stack([numbers, slots], axis=1), steps)
            return
        self._torch_fill(out, numbers)
        if steps is None:
            return
        first = 0
        for slot, _, start, stop in draws:
            # The sum is a whole number, exact in float32; so the copy is a function of 255 x + k alone.
            out[first : first + stop - start].add_(steps[slot])
            first += stop - start
        out.div_(self._steps)

    def _kernel_fill(self, kernel: Kernel, out: Tensor, copies: NDArray[np.int64], steps: Tensor | None) -> None:
        law = (self._table, self._thresholds, self._values)
        numbers = torch.from_numpy(copies).to(self.device, non_blocking=True)
        images = None if steps is None else steps.reshape(len(steps), -1).to(self.device, torch.float32).contiguous()
        kernel(out.view(len(out), -1), numbers, images, law, self._filled, self._key)

    def _kernel_that_agrees(self) -> Kernel | None:
        """The kernel that draws and adds in one go, where there is one and a trial of it gives the numbers of torch's operations."""
        if self._kernel is None and self.device not in _WITHOUT_KERNEL:
            try:
                self._kernel = self._tried()
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # Triton is missing, or has no compiler here, and says so in many ways
                logger.info("Grid noise is drawn by operations of torch, at a slower pace: %s", error)
            if self._kernel is None:
                _WITHOUT_KERNEL.add(self.device)  # each further trial would end so
        return self._kernel

    def _tried(self) -> Kernel | None:
        if torch.version.hip is None and self.device.type == "cuda" and torch.cuda.is_available():
            major, _ = torch.cuda.get_device_capability(self.device)
            if major < 7:
                raise RuntimeError("the GPU is older than those for which Triton compiles")
        from hf_smoothing.noise.grid_kernel import draw_grid

        numbers = np.array([0, 1, (1 << 36) + 5, MAX_IMAGES * MAX_DRAWS - 1])
        slots = np.array([0, 1, 1, 0])
        levels = torch.arange(2 * self.pixels, device=self.device).remainder_(STEPS + 1).view(2, -1).float()
        expected, noise, copies = (
            torch.empty(len(numbers), self.pixels, dtype=torch.float32, device=self.device) for _ in range(3)
        )
        self._torch_fill(expected, numbers)
        asked = np.stack([numbers, slots], axis=1)
        self._kernel_fill(draw_grid, noise, asked, None)
        self._kernel_fill(draw_grid, copies, asked, levels)
        same = torch.equal(noise, expected)
        expected.add_(levels[torch.from_numpy(slots).to(self.device)]).div_(self._steps)
        if same and torch.equal(copies, expected):
            return draw_grid
        logger.warning("The kernel for grid noise draws other numbers than torch on %s and is not used.", self.device)
        return None

    def _torch_fill(self, out: Tensor, numbers: NDArray[np.int64]) -> None:
        # The counters of all copies in one tensor, so that a GPU gets a few large kernels a batch and not some for each image.
        firsts = torch.from_numpy(numbers).to(self.device, non_blocking=True) << 27
        # In pieces, so that what lies between fits a CPU's cache, and a GPU's memory however large the images.
        rows = max(1, (1 << 18 if self.device.type == "cpu" else 1 << 24) // self.pixels)
        for part, counters in zip(out.view(len(out), -1).split(rows), firsts.split(rows), strict=True):
            self._fill_rows(part, counters)

    def _fill_rows(self, out: Tensor, firsts: Tensor) -> None:
        words = _mix(firsts[:, None] + self._words, self._key)
        slots = words.view(torch.int16)[:, : self.pixels].to(torch.int32).add_(1 << 15)
        flat = out.view(-1)
        torch.index_select(self._table, 0, slots.view(-1), out=flat)
        if self.device.type == "cpu":
            # About one draw in a hundred falls into the rest of the law; only these cost a search.
            places = torch.from_numpy(np.flatnonzero(slots.numpy() >= self._filled))
            flat[places] = self._rest(firsts[places // self.pixels] + places % self.pixels)
        else:  # Picking them out would make the host wait for the device, so all are searched.
            rest = self._rest(firsts[:, None] + torch.arange(self.pixels, device=self.device))
            torch.where(slots >= self._filled, rest, out, out=out)

    def _rest(self, counters: Tensor) -> Tensor:
        bits = _mix(counters.add_(1 << 26), self._key).bitwise_and_((1 << 62) - 1)
        return self._values[torch.searchsorted(self._thresholds, bits, right=True)]


def on_grid(pixels: Tensor) -> bool:
    """Whether all pixels are multiples of 1/255, as those of 8-bit images are: |255 x - round(255 x)| < 1e-3."""
    steps = pixels.double() * STEPS
    return bool(((steps - steps.round()).abs() < 1e-3).all())


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word

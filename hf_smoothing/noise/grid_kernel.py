"""Grid noise in one kernel for CUDA devices: the numbers of `grid.py`, bit for bit, without a tensor in between.

The operations of `grid.py`, one after another, write the 64-bit counters of every pixel to the device's memory and read them again a dozen
times; a network at 224 px waits for that. Here a pixel's counter, its bits and its value stay in registers, and only the copy is written.
Triton comes with torch for CUDA. Where it is missing, `grid.py` draws the same numbers by torch alone.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


_BLOCK = 1024


@triton.jit
def _mixed(words, key_first, key_second):
    # `_mix` of grid.py, on words without a sign, whose shifts clear the upper bits by themselves.
    words = (words + key_first) * 0x9E3779B97F4A7C15
    words = words ^ (words >> 30)
    words = words * 0xBF58476D1CE4E5B9 + key_second
    words = words ^ (words >> 27)
    words = words * 0x94D049BB133111EB
    return words ^ (words >> 31)


@triton.jit
def _draw(
    out, steps, copies, table, thresholds, values, key_first, key_second, filled, pixels, number, blocks,
    searches: tl.constexpr, add: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) // blocks
    places = (tl.program_id(0) % blocks) * block + tl.arange(0, block)
    inside = places < pixels
    first = tl.load(copies + 2 * row).to(tl.uint64) << 27
    key_first, key_second = key_first.to(tl.uint64), key_second.to(tl.uint64)

    # Four pixels share a word, 16 bits each; flipping the highest bit adds 2^15 to what `grid.py` reads as a signed number.
    words = _mixed(first + (places // 4).to(tl.uint64), key_first, key_second)
    slots = ((words >> ((places % 4) * 16).to(tl.uint64)) & 0xFFFF).to(tl.int32) ^ 0x8000
    noise = tl.load(table + slots, mask=inside, other=0.0)

    # One draw in a hundred falls into the rest of the law: searchsorted(thresholds, bits, right=True).
    resting = inside & (slots >= filled)
    bits = (_mixed(first + places.to(tl.uint64) + (1 << 26), key_first, key_second) & 0x3FFFFFFFFFFFFFFF).to(tl.int64)
    below, above = tl.zeros_like(slots), tl.zeros_like(slots) + number
    for _ in tl.static_range(searches):
        middle = (below + above) // 2
        searching = resting & (below < above)
        reached = tl.load(thresholds + middle, mask=searching, other=0) <= bits
        below = tl.where(searching & reached, middle + 1, below)
        above = tl.where(searching & (reached == 0), middle, above)
    noise = tl.where(resting, tl.load(values + below, mask=resting, other=0.0), noise)

    at = row.to(tl.int64) * pixels + places
    if add:
        image = tl.load(copies + 2 * row + 1) * pixels
        # Whole numbers, exact in float32; the division is that of `grid_to_unit`, correctly rounded.
        noise = tl.div_rn(
            tl.load(steps + image + places, mask=inside, other=0.0) + noise, tl.full(noise.shape, 255.0, tl.float32)
        )
    tl.store(out + at, noise, mask=inside)


def draw_grid(
    out: Tensor, copies: Tensor, steps: Tensor | None, tables: tuple[Tensor, Tensor, Tensor], filled: int, key: tuple[int, int]
) -> None:  # fmt: skip
    """Write noise, or noisy copies, into `out`.

    Args:
        out: A contiguous float32 tensor (copies, pixels).
        copies: For each copy its number, draw + image * MAX_DRAWS, and the slot of its image; int64 (copies, 2).
        steps: Images in grid steps, float32 (slots, pixels), whose noisy copies in [0, 1] pixel units are wanted; None for noise in steps.
        tables: Value of each slot of the table, thresholds of the rest, and values, as in `grid.py`.
        filled: Number of slots of the table that are filled.
        key: Of the stream.
    """
    table, thresholds, values = tables
    pixels, number = out.shape[1], len(thresholds)
    blocks = triton.cdiv(pixels, _BLOCK)
    with torch.cuda.device(out.device if out.device.type == "cuda" else -1):  # not on a CPU, where it is interpreted
        _draw[(len(out) * blocks,)](
            out, out if steps is None else steps, copies, table, thresholds, values, *key, filled, pixels, number, blocks,
            searches=number.bit_length(), add=steps is not None, block=_BLOCK,
        )  # fmt: skip

"""Noise in [0, 1] pixel units: what training draws (`NoiseMixture`) and what certification draws (keyed streams).

Noise is drawn and added in float32, or in whole steps of the 1/255 grid, whatever dtype the network runs in: with bfloat16 noise
the tails are missing and the theory does not hold.
"""

from hf_smoothing.noise.grid import GridStream, on_grid
from hf_smoothing.noise.mixture import NoiseMixture
from hf_smoothing.noise.streams import (
    BLOCK_BITS,
    DRAWS_PER_BLOCK,
    MAX_IMAGES,
    Draws,
    GaussianStream,
    fresh_seed,
    process_generator,
    stream_keys,
    training_generator,
)
from hf_smoothing.units import MAX_DRAWS


__all__ = [
    "BLOCK_BITS",
    "DRAWS_PER_BLOCK",
    "MAX_DRAWS",
    "MAX_IMAGES",
    "Draws",
    "GaussianStream",
    "GridStream",
    "NoiseMixture",
    "fresh_seed",
    "on_grid",
    "process_generator",
    "stream_keys",
    "training_generator",
]

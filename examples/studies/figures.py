"""What the figures of the studies share: the mean of several seeds with its interval over the images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hf_smoothing.statistics import interval


def mean_interval(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of images that are right, mean over seeds, with the limits of its 95% interval over the images, all in %.

    For one seed, or seeds that agree, the interval is exact (Clopper and Pearson). What several seeds say about one image belongs together,
    and its mean varies no more than one answer of that accuracy: the limits are those of one seed with as many right, rounded outwards. How
    much seeds vary is not in it.

    Args:
        right: Whether an image is right, (seeds, images, places).

    Returns:
        An array (3, places): mean, lower and upper limit.
    """
    counts, images = right.sum(axis=1).mean(axis=0), right.shape[1]
    lower, _ = interval(np.floor(counts).astype(int), images, 0.95)
    _, upper = interval(np.ceil(counts).astype(int), images, 0.95)
    return 100 * np.array([counts / images, lower, upper])

"""The records of the study as the tables need them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.studies.robustness_transfer.plan import folder
from hf_smoothing.robustness_transfer import area_of_each, matched
from hf_smoothing.robustness_transfer.records import from_bits
from hf_smoothing.statistics import Paired, paired_difference


class Records:
    """The results of the study's stages, as curves of accuracy."""

    def __init__(self, config: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        self.config = config
        self.stages = {line["stage"]: line["result"] for line in lines}

    def curve(self, target: str, pretraining: str, way: str, seed: int, norm: str) -> NDArray[np.bool_] | None:
        """(radii, images): what survives, or None where it is missing."""
        return self.attacked(f"attack/{target}/{pretraining}/{folder(way)}/seed{seed}", norm)

    def known(self, target: str, model: tuple[str, str], seed: int, norm: str = "linf") -> NDArray[np.bool_]:
        """The curve of a model that has one.

        Raises:
            KeyError: If it has none.
        """
        pretraining, way = model
        curve = self.curve(target, pretraining, way, seed, norm)
        if curve is None:
            raise KeyError(f"{target}/{pretraining}/{way}/seed{seed}")
        return curve

    def attacked(self, stage: str, norm: str) -> NDArray[np.bool_] | None:
        """The same by the name of the stage."""
        result = self.stages.get(stage)
        return None if result is None else np.array([from_bits(row) for row in result["right"][norm]])

    def gains(self, target: str, pretraining: str, way: str, seed: int) -> NDArray[np.float64] | None:
        """What each image adds to the average certified radius."""
        result = self.stages.get(f"certify/{target}/{pretraining}/{folder(way)}/seed{seed}")
        return None if result is None else np.maximum(np.array(result["radii"]), 0.0)

    def seeds(self, *models: tuple[str, str], target: str) -> list[int]:
        """Those that all models have."""
        return [
            s
            for s in self.config["seeds"]
            if all(self.curve(target, *model, s, "linf") is not None for model in models)
        ]

    def scale(self, target: str, images: str = "test") -> str:
        """What the caption of a table says."""
        about, attack = self.config["target_data"][target], self.config["attack"]
        return (
            f"Scale: {self.config['scale']}; {target}, {about['train_images']:,} training images, {about['arguments']['num_train_epochs']} epochs; "
            f"{attack['attack']} of {attack['steps']} steps on {attack['images']:,} {images} images"
        )


def mean_matched_difference(
    epsilons: list[float], pairs: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]
) -> Paired | None:
    """Mean over seeds of `matched_difference`, its interval over images: those of an image belong together, whatever the seed.

    Args:
        epsilons: Radii of the rows.
        pairs: The pair (first, second) for each seed, on the same images.

    Returns:
        None if a seed has fewer than two images that both get right.
    """
    influence: NDArray[np.float64] = np.zeros(pairs[0][0].shape[1])
    means = []
    for first, second in pairs:
        both = first[0] & second[0]
        if both.sum() < 2:
            return None
        apart = area_of_each(epsilons, first) - area_of_each(epsilons, second)
        means.append(apart[both].mean())
        influence[both] += (apart[both] - means[-1]) / both.mean() / len(pairs)
    return paired_difference(np.mean(means) + influence, np.zeros(len(influence)))


def matched_difference(
    epsilons: list[float], first: NDArray[np.bool_] | None, second: NDArray[np.bool_] | None
) -> Paired | None:
    """First - second of the area under the curve, on the images that both get right without an attack; None for fewer than two."""
    if first is None or second is None:
        return None
    one, other = (area_of_each(epsilons, curve) for curve in matched([first, second]))
    return paired_difference(one, other) if len(one) > 1 else None

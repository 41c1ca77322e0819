"""What each kind of stage does. All results are plain JSON values."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from hf_smoothing import SmoothedClassifier
from hf_smoothing.recipes import (
    accuracy,
    certify_stage,
    class_names,
    decoded,
    fit,
    from_scratch,
    make_trainer,
    pixel_statistics,
    split_off,
)
from hf_smoothing.stages import Results, Stage


class Work:
    """Args: output: the results folder. data: the folder that holds the data sets."""

    def __init__(self, output: Path, data: Path) -> None:
        self.output, self.data = output, data

    def __call__(self, stage: Stage, needs: Results) -> dict[str, Any]:
        """Do a stage; its result, with the seconds it took."""
        start = time.perf_counter()
        result: dict[str, Any] = getattr(self, stage.kind)(stage, self.output / stage.name, list(needs))
        return result | {"seconds": round(time.perf_counter() - start, 1), "threads": torch.get_num_threads()}

    def train(self, stage: Stage, folder: Path, needs: list[str]) -> dict[str, Any]:
        """A classifier from scratch."""
        settings = stage.settings
        images = decoded(self.output, self.data, settings["data"], "train", settings["size"])
        train, held_out = split_off(images, settings["held_out"], 0)
        set_seed(settings["seed"])
        mean, std = pixel_statistics(train)
        model = SmoothedClassifier.from_base_pretrained(
            from_scratch(settings["network"], class_names(self.data, settings["data"])), sigma=0.25, size=settings["size"],
            model_size=settings["model_size"], image_mean=mean, image_std=std,
        )  # fmt: skip
        seen = fit(make_trainer(model, folder, settings["arguments"] | {"seed": settings["seed"]}, train))
        model.eval().save_pretrained(folder / "model")
        test = decoded(self.output, self.data, settings["data"], "test", settings["size"])
        return {"images": seen, "accuracy": accuracy(model, test), "accuracy_held_out": accuracy(model, held_out)}

    def certify(self, stage: Stage, folder: Path, needs: list[str]) -> dict[str, Any]:
        """Certified radii at the sigma of training."""
        model = SmoothedClassifier.from_pretrained(self.output / needs[0] / "model").eval()
        if torch.cuda.is_available():
            model = model.to("cuda")
        test = decoded(self.output, self.data, stage.settings["data"], "test", stage.settings["size"])
        return certify_stage(model, test, stage.settings, folder, needs[0])

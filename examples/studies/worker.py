"""What does the stages of a study: the parts that all studies share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, set_seed

from examples.studies.command import Command
from examples.studies.recipes import (
    accuracy,
    certify_stage,
    check_trainings,
    class_names,
    decoded,
    fit,
    from_scratch,
    label_maps,
    last_checkpoint,
    make_trainer,
    pixel_statistics,
    some,
    split_off,
)
from examples.studies.stages import Results, Stage
from hf_smoothing.data import DecodedPixels
from hf_smoothing.models import SmoothedClassifier
from hf_smoothing.models.checkpoints import load_base_classifier


class Worker:
    """Does a stage by the method that is named like its kind: (stage, its folder, results of its needs) -> its result, plain JSON.

    A study derives its own and adds its kinds. Settings are those of a stage: "data", "size", "seed", "network", "model_size" and so on.

    Args:
        given: Arguments of the command line.

    Raises:
        SystemExit: If a training's arguments, objective or noise could only fail hours later.
    """

    def __init__(self, given: Command) -> None:
        assert given.data is not None  # the command line has looked
        check_trainings(given.stages)
        self.output, self.data = given.output, given.data

    def __call__(self, stage: Stage, needs: Results) -> dict[str, Any]:
        """Do a stage; its result, with the seconds it took."""
        start, folder = time.perf_counter(), self.output / stage.name
        resumed = last_checkpoint(folder) is not None
        result: dict[str, Any] = getattr(self, stage.kind)(stage, folder, needs)
        seconds = round(time.perf_counter() - start, 1)
        return result | {"seconds": seconds, "threads": torch.get_num_threads(), "resumed": resumed}

    root = Path(__file__).resolve().parents[2]
    """Where relative paths of backbones that are there already start: the repository."""

    def adopt(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """A backbone that is there already."""
        load_base_classifier(self.root / stage.settings["backbone"]).save_pretrained(folder / "model")
        return {"images": 0}

    def pretrain(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """A plain backbone from scratch."""
        settings = stage.settings
        train, held_out, names = self.training_images(settings)
        set_seed(settings["seed"])
        model = from_scratch(settings["network"], names)
        mean, std = pixel_statistics(train)
        pixels = {"image_mean": mean, "image_std": std, "model_size": settings["model_size"]}
        trainer = make_trainer(model, folder, self.arguments(settings) | pixels, train, held_out)
        images = fit(trainer)
        reached = trainer.evaluate()["eval_accuracy"]
        trainer.save_model(str(folder / "model"))
        return {"images": images, "held_out_accuracy": reached}

    def train(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """A classifier, the whole network trained: from the backbone that the stage needs, or from scratch."""
        settings = stage.settings
        train, held_out, names = self.training_images(settings)
        set_seed(settings["seed"])
        model = self.classifier(settings, train, names, next(iter(needs), None))
        return self.taught(model, settings, folder, train, held_out)

    def taught(
        self,
        model: SmoothedClassifier,
        settings: dict[str, Any],
        folder: Path,
        train: DecodedPixels,
        held_out: DecodedPixels,
    ) -> dict[str, Any]:
        """Train a classifier, keep it, and measure it without noise."""
        images = fit(make_trainer(model, folder, self.arguments(settings), train))
        model.eval().save_pretrained(folder / "model")
        test = self.split(settings, "test")
        return {"images": images, "accuracy": accuracy(model, test), "accuracy_held_out": accuracy(model, held_out)}

    def certify(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """Certified radii of some test images."""
        (trained,) = needs
        return certify_stage(
            self.trained(trained), self.split(stage.settings, "test"), stage.settings, folder, trained
        )

    def arguments(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Of the training."""
        arguments: dict[str, Any] = settings["arguments"]
        return arguments | {key: settings[key] for key in ("noise", "seed") if key in settings}

    def split(self, settings: dict[str, Any], split: str) -> DecodedPixels:
        """The data set's "train" or "test" images."""
        return decoded(self.output, self.data, settings["data"], split, settings["size"])

    def training_images(self, settings: dict[str, Any]) -> tuple[DecodedPixels, DecodedPixels, list[str]]:
        """(images to train on, held-out ones, names of the classes)."""
        seed = settings.get("held_out_seed", 0)
        train, held_out = split_off(self.split(settings, "train"), settings["held_out"], seed)
        train = some(train, torch.arange(len(train))[: settings.get("train_images")])
        return train, held_out, class_names(self.data, settings["data"])

    def classifier(
        self, settings: dict[str, Any], train: DecodedPixels, names: list[str], backbone: str | None
    ) -> SmoothedClassifier:
        """To be trained: on a backbone, named by its stage, or from scratch."""
        network: PreTrainedModel | str
        if backbone is not None:
            network = str(self.output / backbone / "model")
            about = {"ignore_mismatched_sizes": True, "model_size": settings["model_size"], **label_maps(names)}
        else:
            network = from_scratch(settings["network"], names)
            mean, std = pixel_statistics(train)
            sizes = {key: settings[key] for key in ("size", "model_size")}
            about = {"image_mean": mean, "image_std": std, **sizes}
        model: SmoothedClassifier = SmoothedClassifier.from_base_pretrained(network, sigma=0.25, **about)
        return model

    def trained(self, name: str) -> SmoothedClassifier:
        """The model of a stage, in eval mode, on the device."""
        model: SmoothedClassifier = SmoothedClassifier.from_pretrained(self.output / name / "model").eval()
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        return model

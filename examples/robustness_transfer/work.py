"""What each kind of stage does. All results are plain JSON values."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from hf_smoothing import SmoothedClassifier
from hf_smoothing.data import DecodedPixels
from hf_smoothing.recipes import (
    accuracy,
    certify_stage,
    class_names,
    decoded,
    fit,
    from_scratch,
    label_maps,
    make_trainer,
    pixel_statistics,
    split_off,
)
from hf_smoothing.stages import Results, Stage
from hf_smoothing.transfer.analysis import Analysis
from hf_smoothing.transfer.corruptions import corrupted
from hf_smoothing.transfer.drawing import KINDS
from hf_smoothing.transfer.findings import alike, frequency_gap, sentences, universal
from hf_smoothing.transfer.keeping import bits, read_analysis
from hf_smoothing.transfer.page import write_page
from hf_smoothing.transfer.plan import Plan
from hf_smoothing.transfer.robustness import attack_curve


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Work:
    """Args: output: the results folder. data: the folder that holds the data sets."""

    def __init__(self, output: Path, data: Path) -> None:
        self.output, self.data = output, data

    def __call__(self, stage: Stage, needs: Results) -> dict[str, Any]:
        """Do a stage; its result, with the seconds it took."""
        start = time.perf_counter()
        result: dict[str, Any] = getattr(self, stage.kind)(stage, self.output / stage.name, list(needs))
        return result | {"seconds": round(time.perf_counter() - start, 1), "threads": torch.get_num_threads()}

    def pretrain(self, stage: Stage, folder: Path, needs: list[str]) -> dict[str, Any]:
        """A plain backbone from scratch."""
        train, held_out, names = self._images(stage.settings)
        set_seed(stage.settings["seed"])
        model = from_scratch(stage.settings["network"], names)
        mean, std = pixel_statistics(train)
        pixels = {"image_mean": mean, "image_std": std, "model_size": stage.settings["model_size"]}
        trainer = make_trainer(model, folder, self._arguments(stage) | pixels, train, held_out)
        images = fit(trainer)
        reached = trainer.evaluate()["eval_accuracy"]
        trainer.save_model(str(folder / "model"))
        return {"images": images, "held_out_accuracy": reached}

    def train(self, stage: Stage, folder: Path, needs: list[str]) -> dict[str, Any]:
        """A classifier of the target, the whole network trained."""
        settings = stage.settings
        train, held_out, names = self._images(settings)
        set_seed(settings["seed"])
        if needs:
            model = SmoothedClassifier.from_base_pretrained(
                str(self.output / needs[0] / "model"), sigma=0.25, ignore_mismatched_sizes=True, **label_maps(names)
            )
        else:
            mean, std = pixel_statistics(train)
            model = SmoothedClassifier.from_base_pretrained(
                from_scratch(settings["network"], names), sigma=0.25, size=settings["size"], model_size=settings["model_size"],
                image_mean=mean, image_std=std,
            )  # fmt: skip
        images = fit(make_trainer(model, folder, self._arguments(stage), train))
        model.eval().save_pretrained(folder / "model")
        test = self._split(settings, "test")
        return {
            "images": images,
            "accuracy_held_out": accuracy(model, held_out),
            "accuracy": accuracy(model, test),
        }

    def attack(self, stage: Stage, folder: Path, needs: list[str]) -> dict[str, Any]:
        """Which test images survive an attack of each radius."""
        settings = stage.settings
        model = SmoothedClassifier.from_pretrained(self.output / needs[0] / "model").eval().to(DEVICE)
        test = self._some(settings)
        found: dict[str, Any] = {}
        for norm, epsilons in settings["epsilons"].items():
            right = attack_curve(
                model.classify, test.pixels.to(DEVICE).float() / 255, test.labels.to(DEVICE), attack=settings["attack"], norm=norm, epsilons=epsilons,
                steps=settings["steps"],
            )  # fmt: skip
            found[norm] = [bits(row) for row in right]
        return {"right": found}

    def certify(self, stage: Stage, folder: Path, needs: list[str]) -> dict[str, Any]:
        """Certified radii of some test images."""
        settings = stage.settings
        model = SmoothedClassifier.from_pretrained(self.output / needs[0] / "model").eval().to(DEVICE)
        return certify_stage(model, self._split(settings, "test"), settings, folder, needs[0])

    def analyse(self, stage: Stage, folder: Path, needs: list[str]) -> dict[str, Any]:
        """The whole analysis of one triple of networks, with its page."""
        models = {}
        for role, name in zip(("pretrained", "finetuned", "standard"), needs, strict=True):
            load = (
                SmoothedClassifier.from_base_pretrained if role == "pretrained" else SmoothedClassifier.from_pretrained
            )
            models[role] = load(str(self.output / name / "model"), sigma=0.25).eval().to(DEVICE)
        test = self._some(stage.settings)
        about = {
            "paths": dict(zip(models, needs, strict=True)),
            "dataset": {"id": stage.settings["data"], "split": "test"},
        }
        Analysis(models, test.pixels, test.labels, folder, Plan(), about).run(progress=False)
        write_page(folder)
        _, records = read_analysis(folder)
        return {
            "sentences": sentences(records),
            "carried": {one.norm: asdict(one.carried) for one in universal(records)},
            "cka": {kind: {"-".join(pair): values for pair, values in alike(records, kind).items()} for kind in KINDS},
            "frequency": {part: asdict(gap) for part in ("low", "high") if (gap := frequency_gap(records, part))},
        }

    def _images(self, settings: dict[str, Any]) -> tuple[DecodedPixels, DecodedPixels, list[str]]:
        train, held_out = split_off(self._split(settings, "train"), settings["held_out"], settings["held_out_seed"])
        count = settings["train_images"]
        train = DecodedPixels(train.pixels[:count], train.labels[:count])
        return train, held_out, class_names(self.data, settings["data"])

    def _split(self, settings: dict[str, Any], split: str) -> DecodedPixels:
        """A data set, corrupted if the settings say so."""
        data = decoded(self.output, self.data, settings["data"], split, settings["size"])
        how = settings["corruption"]
        return DecodedPixels(corrupted(data.pixels, **how), data.labels) if how else data

    def _some(self, settings: dict[str, Any]) -> DecodedPixels:
        """So many test images, spread over the set."""
        test = self._split(settings, "test")
        chosen = torch.arange(settings["images"]) * len(test) // settings["images"]
        return DecodedPixels(test.pixels[chosen], test.labels[chosen])

    @staticmethod
    def _arguments(stage: Stage) -> dict[str, Any]:
        return stage.settings["arguments"] | {"seed": stage.settings["seed"]}

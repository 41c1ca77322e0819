"""What each kind of stage does. All results are plain JSON values."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from examples.studies.corruptions import corrupted
from examples.studies.recipes import labels_of, some
from examples.studies.stages import Results, Stage
from examples.studies.worker import Worker
from hf_smoothing.data import DecodedPixels
from hf_smoothing.models import SmoothedClassifier
from hf_smoothing.robustness_transfer.analysis import Analysis
from hf_smoothing.robustness_transfer.figures import KINDS
from hf_smoothing.robustness_transfer.findings import alike, frequency_gap, universal
from hf_smoothing.robustness_transfer.page import write_page
from hf_smoothing.robustness_transfer.records import bits, read_analysis
from hf_smoothing.robustness_transfer.robustness import attack_curve
from hf_smoothing.robustness_transfer.sentences import sentences
from hf_smoothing.robustness_transfer.settings import AnalysisSettings


class Work(Worker):
    """Attacks and analyses, beside what every study does."""

    def train(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """As in every study; a teacher called "backbone" is the one that this stage needs."""
        arguments = stage.settings["arguments"]
        objective_args = arguments.get("objective_args", {})
        if objective_args.get("teacher") == "backbone":
            (backbone,) = needs
            taught = objective_args | {"teacher": str(self.output / backbone / "model")}
            stage = replace(stage, settings=stage.settings | {"arguments": arguments | {"objective_args": taught}})
        return super().train(stage, folder, needs)

    def attack(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """Which images survive an attack of each radius."""
        settings = stage.settings
        (trained,) = needs
        model, test = self.trained(trained), self._some(settings)
        found: dict[str, Any] = {}
        for norm, epsilons in settings["epsilons"].items():
            right = attack_curve(
                model.classify, test.pixels.to(model.device).float() / 255, labels_of(test).to(model.device), attack=settings["attack"], norm=norm, epsilons=epsilons,
                steps=settings["steps"],
            )  # fmt: skip
            found[norm] = [bits(row) for row in right]
        return {"right": found}

    def analyse(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """The whole analysis of one triple of networks, with its page."""
        pretrained, finetuned, standard = needs
        backbone = SmoothedClassifier.from_base_pretrained(str(self.output / pretrained / "model"), sigma=0.25).eval()
        models = {"finetuned": self.trained(finetuned), "standard": self.trained(standard)}
        models = {"pretrained": backbone.to(models["standard"].device), **models}
        test = self._some(stage.settings)
        about = {
            "paths": dict(zip(models, needs, strict=True)),
            "dataset": {"id": stage.settings["data"], "split": "test"},
        }
        measured = AnalysisSettings(attacks=tuple(stage.settings["attacks"]))
        Analysis(models, test.pixels, labels_of(test), folder, measured, about).run(progress=False)
        write_page(folder)
        _, records = read_analysis(folder)
        return {
            "sentences": sentences(records),
            "carried": {one.norm: asdict(one.carried) for one in universal(records)},
            "cka": {kind: {"-".join(pair): values for pair, values in alike(records, kind).items()} for kind in KINDS},
            "frequency": {part: asdict(gap) for part in ("low", "high") if (gap := frequency_gap(records, part))},
        }

    def split(self, settings: dict[str, Any], split: str) -> DecodedPixels:
        """A data set, corrupted if the settings say so."""
        data, how = super().split(settings, split), settings["corruption"]
        return DecodedPixels(corrupted(data.pixels, **how), data.labels) if how else data

    def _some(self, settings: dict[str, Any]) -> DecodedPixels:
        """So many test images, or held-out ones, spread over the set."""
        test = self.training_images(settings)[1] if "held_out" in settings else self.split(settings, "test")
        chosen = torch.arange(settings["images"]) * len(test) // settings["images"]
        return some(test, chosen)

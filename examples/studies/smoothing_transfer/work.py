"""What each kind of stage does. All results are plain JSON values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import set_seed

from examples.studies.command import Command
from examples.studies.recipes import accuracy, fit, labels_of, make_trainer
from examples.studies.smoothing_transfer.plan import rule
from examples.studies.stages import Results, Stage
from examples.studies.worker import Worker
from hf_smoothing.certification import certify, certify_dataset, make_rule
from hf_smoothing.data import DecodedPixels
from hf_smoothing.models import SmoothedClassifier
from hf_smoothing.statistics import certified_accuracy
from hf_smoothing.training.finite import DivergedError


class Work(Worker):
    """Pretraining as in every study; finetuning with a choice of settings, and certificates of the chosen model.

    Raises:
        SystemExit: The message names the stage whose training or rule is not valid.
    """

    def __init__(self, given: Command) -> None:
        super().__init__(given)
        for stage in given.stages:
            if stage.kind == "certify":
                try:
                    make_rule(**rule(stage.settings))
                except ValueError as error:
                    raise SystemExit(f"{stage.name}: {error}") from error

    def finetune(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """A backbone, or none, on the target data; measured on held-out training images."""
        settings, names_of_needs = stage.settings, list(needs)
        arguments = settings["arguments"]
        if arguments == "as chosen":
            chosen = choose({name: needs[name] for name in names_of_needs if name.startswith("finetune/")})
            arguments = needs[chosen]["arguments"]
        train, held_out, names = self.training_images(settings)
        set_seed(settings["seed"])
        backbones = [name for name in names_of_needs if name.startswith("pretrain/")]
        model = self.classifier(settings, train, names, next(iter(backbones), None))
        trainer = make_trainer(model, folder, self.arguments(settings | {"arguments": arguments}), train)
        try:
            images = fit(trainer)
        except DivergedError as error:  # the other candidate may do
            return {"arguments": arguments, "images": 0, "diverged": str(error)}
        model.eval().save_pretrained(folder / "model")
        selection = settings["selection"]
        scores = {str(sigma): _selection(model, held_out, selection, sigma) for sigma in selection["sigmas"]}
        test = self.split(settings, "test")
        return {
            "arguments": arguments,
            "images": images,
            "selection": scores,
            "clean_accuracy": accuracy(model, test),
            "clean_accuracy_held_out": accuracy(model, held_out),
        }

    def certify(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """Certify the chosen model at one sigma."""
        settings = stage.settings
        chosen = choose(needs)
        model = self.trained(chosen)
        side, _ = model.config.size
        test = self.split(settings | {"size": side}, "test")
        run = certify_dataset(
            model, test, folder / "run", **rule(settings), indices=range(0, len(test), settings["stride"]),
            dtype="bfloat16", channels_last=settings["channels_last"], progress=False,
            description={"model": {"id": chosen}, "dataset": {"id": settings["data"], "split": "test"}},
        )  # fmt: skip
        return {"model": chosen, "draws": sum(row["draws"] for row in run.rows.values())}


def choose(candidates: Results) -> str:
    """The candidate with the highest certified accuracy on held-out training images, over the sigmas it is meant for.

    Not the average certified radius: a network that answers one class to all noise has a large one, and is useless.
    """
    scores = {
        name: sum(result["selection"].values()) for name, result in candidates.items() if "diverged" not in result
    }
    if not scores:
        raise RuntimeError(f"All candidates diverged: {', '.join(candidates)}. Lower their learning rates.")
    return max(scores, key=scores.__getitem__)


def _selection(model: SmoothedClassifier, held_out: DecodedPixels, about: dict[str, Any], sigma: float) -> float:
    """Certified accuracy at a radius in proportion to sigma, of the first held-out images, from few draws."""
    pixels, labels = held_out.pixels[: about["images"]].float() / 255, labels_of(held_out)[: about["images"]].tolist()
    found = certify(
        model,
        pixels.to(model.device),
        sigma=sigma,
        mode="fixed",
        n0=about["n0"],
        n=about["n"],
        seed=0,
        dtype="bfloat16",
    )
    columns = ([c.prediction for c in found], labels, [c.radius for c in found])
    return float(certified_accuracy(*columns, thresholds=[about["radius_over_sigma"] * sigma]).accuracy[0])

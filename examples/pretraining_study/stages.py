"""What each kind of stage does. All results are plain JSON values."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from plan import rule
from transformers import set_seed

from hf_smoothing import SmoothedClassifier, certify_dataset
from hf_smoothing.certification import certify, make_rule
from hf_smoothing.data import DecodedPixels
from hf_smoothing.models.checkpoints import load_base_classifier
from hf_smoothing.recipes import (
    accuracy,
    check_trainings,
    class_names,
    decoded,
    fit,
    from_scratch,
    label_maps,
    last_checkpoint,
    make_trainer,
    pixel_statistics,
    split_off,
)
from hf_smoothing.stages import Results, Stage
from hf_smoothing.statistics import certified_accuracy
from hf_smoothing.training.divergence import DivergedError


ROOT = Path(__file__).resolve().parents[2]


class Study:
    """Where a study reads and writes.

    Args:
        output: the results folder.
        data: the folder that holds the data sets.
    """

    def __init__(self, output: Path, data: Path) -> None:
        self.output, self.data = output, data

    @staticmethod
    def check(stages: list[Stage]) -> None:
        """Refuse what could only fail hours later.

        Raises:
            SystemExit: naming the stage whose training or rule is not valid.
        """
        check_trainings(stages)
        for stage in stages:
            if stage.kind == "certify":
                try:
                    make_rule(**rule(stage.settings))
                except ValueError as error:
                    raise SystemExit(f"{stage.name}: {error}") from error

    def run(self, stage: Stage, needs: Results) -> dict[str, Any]:
        """Do a stage.

        Args:
            stage: what to do.
            needs: the results of the stages that it needs, by name.

        Returns:
            its result, with the seconds it took.
        """
        start = time.perf_counter()
        resumed = last_checkpoint(self.output / stage.name) is not None
        work = {"pretrain": self.pretrain, "adopt": self.adopt, "finetune": self.finetune, "certify": self.certify}[
            stage.kind
        ]
        result = work(stage, self.output / stage.name, needs)
        return {
            **result,
            "seconds": round(time.perf_counter() - start, 1),
            "threads": torch.get_num_threads(),
            "resumed": resumed,
        }

    def pretrain(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """A network from scratch on the source data."""
        settings = stage.settings
        train, held_out, names = self._train(settings)
        set_seed(settings["seed"])
        model = from_scratch(settings["config"], names)
        mean, std = pixel_statistics(train)
        arguments = settings["arguments"] | {
            "image_mean": mean,
            "image_std": std,
            "model_size": settings["model_size"],
        }
        trainer = make_trainer(model, folder, arguments | _common(settings), train, held_out)
        images = fit(trainer)
        reached = trainer.evaluate()["eval_accuracy"]
        trainer.save_model(str(folder / "model"))
        return {"images": images, "held_out_accuracy": reached}

    def adopt(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """A backbone of the repository."""
        model = load_base_classifier(ROOT / stage.settings["backbone"])
        model.save_pretrained(folder / "model")
        return {"images": 0}

    def finetune(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """A backbone, or none, on the target data; measured on held-out training images."""
        settings, names_of_needs = stage.settings, list(needs)
        arguments = settings["arguments"]
        if arguments == "as chosen":
            chosen = choose({name: needs[name] for name in names_of_needs if name.startswith("finetune/")})
            arguments = needs[chosen]["arguments"]
        train, held_out, names = self._train(settings)
        set_seed(settings["seed"])
        labels = label_maps(names)
        backbones = [name for name in names_of_needs if name.startswith("pretrain/")]
        if backbones:
            model = SmoothedClassifier.from_base_pretrained(
                str(self.output / backbones[0] / "model"), sigma=0.25, ignore_mismatched_sizes=True, **labels
            )
        else:
            mean, std = pixel_statistics(train)
            pixels = {
                "size": settings["size"],
                "model_size": settings["model_size"],
                "image_mean": mean,
                "image_std": std,
            }
            model = SmoothedClassifier.from_base_pretrained(
                from_scratch(settings["config"], names), sigma=0.25, **pixels
            )
        trainer = make_trainer(model, folder, arguments | _common(settings), train)
        try:
            images = fit(trainer)
        except DivergedError as error:  # the other candidate may do
            return {"arguments": arguments, "images": 0, "diverged": str(error)}
        model.eval().save_pretrained(folder / "model")
        selection = settings["selection"]
        scores = {str(sigma): _selection(model, held_out, selection, sigma) for sigma in selection["sigmas"]}
        test = self.test_images(settings["data"], settings["size"])
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
        model = SmoothedClassifier.from_pretrained(self.output / chosen / "model").eval()
        if torch.cuda.is_available():
            model = model.to("cuda")
        test = self.test_images(settings["data"], model.config.size)
        run = certify_dataset(
            model, test, folder / "run", **rule(settings), indices=range(0, len(test), settings["stride"]),
            dtype="bfloat16", channels_last=settings["channels_last"], progress=False,
            description={"model": {"id": chosen}, "dataset": {"id": settings["data"], "split": "test"}},
        )  # fmt: skip
        return {"model": chosen, "draws": sum(row["draws"] for row in run.rows.values())}

    def _train(self, settings: dict[str, Any]) -> tuple[DecodedPixels, DecodedPixels, list[str]]:
        images = decoded(self.output, self.data, settings["data"], "train", settings["size"])
        first, second = split_off(images, settings["held_out"], settings["held_out_seed"])
        return first, second, class_names(self.data, settings["data"])

    def test_images(self, name: str, size: Any) -> DecodedPixels:
        """All test images of a data set of the study."""
        return decoded(self.output, self.data, name, "test", size if isinstance(size, int) else size[0])


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


def _common(settings: dict[str, Any]) -> dict[str, Any]:
    return {"noise": settings["noise"], "seed": settings["seed"]}


def _selection(model: SmoothedClassifier, held_out: DecodedPixels, about: dict[str, Any], sigma: float) -> float:
    """Certified accuracy at a radius in proportion to sigma, of the first held-out images, from few draws."""
    pixels, labels = held_out.pixels[: about["images"]].float() / 255, held_out.labels[: about["images"]].tolist()
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

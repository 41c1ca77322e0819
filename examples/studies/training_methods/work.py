"""What the routes do that other studies do not: masked autoencoders, denoisers, LoRA, ensembles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import ViTMAEConfig, ViTMAEForPreTraining, set_seed

from examples.studies.recipes import fit, label_maps, make_trainer, pixel_statistics
from examples.studies.stages import Results, Stage
from examples.studies.worker import Worker
from hf_smoothing.models import (
    SmoothedClassifier,
    add_lora,
    classifier_from_autoencoder,
    denoised_classifier,
    smoothed_ensemble,
)


class Work(Worker):
    """Kinds of stages by name, beside those of every study."""

    def autoencoder(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """Masked denoising of the training images, without their labels."""
        settings = stage.settings
        train, _, _ = self.training_images(settings)
        set_seed(settings["seed"])
        model = ViTMAEForPreTraining(ViTMAEConfig(**settings["autoencoder"], image_size=settings["size"]))
        mean, std = pixel_statistics(train)
        trainer = make_trainer(model, folder, self.arguments(settings) | {"image_mean": mean, "image_std": std}, train)
        images = fit(trainer)
        trainer.save_model(str(folder / "model"))
        return {"images": images}

    def finetune_autoencoder(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """The encoder with a new head."""
        (pretrained,) = needs
        train, held_out, names = self.training_images(stage.settings)
        set_seed(stage.settings["seed"])
        network = classifier_from_autoencoder(self.output / pretrained / "model", **label_maps(names))
        model = SmoothedClassifier.from_base_pretrained(network, sigma=0.25)
        return self.taught(model, stage.settings, folder, train, held_out)

    def denoiser(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """A denoiser before the classifier, which stays as it is; or further training of one that is there."""
        model, settings = self._from(needs, stage), stage.settings
        if not hasattr(model.base_network, "denoise"):
            model = denoised_classifier(model, sigma=settings["sigma"], denoiser=settings["denoiser"])
        train, held_out, _ = self.training_images(settings)
        return self.taught(model, settings, folder, train, held_out)

    def lora(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """Low-rank updates of a classifier."""
        model = self._from(needs, stage)
        share = add_lora(model, **stage.settings["lora"])
        train, held_out, _ = self.training_images(stage.settings)
        return self.taught(model, stage.settings, folder, train, held_out) | {"share_trained": share}

    def _from(self, needs: Results, stage: Stage) -> SmoothedClassifier:
        """The classifier that a stage goes on from; what is added to it is drawn by the stage's seed."""
        (before,) = needs
        set_seed(stage.settings["seed"])
        return self.trained(before)

    def ensemble(self, stage: Stage, folder: Path, needs: Results) -> dict[str, Any]:
        """The mean of classifiers; nothing is trained."""
        model = smoothed_ensemble([self.output / name / "model" for name in needs], sigma=stage.settings["sigma"])
        model.eval().save_pretrained(folder / "model")
        return {"images": 0, "members": len(needs)}

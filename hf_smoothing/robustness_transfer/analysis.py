"""Three models, one data set: everything that is measured about robustness transfer, kept in a folder of records."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_smoothing.attacks import Norm, fooled, pgd, universal_perturbation
from hf_smoothing.attacks.losses import check_answers, check_labels, logits_of_batch
from hf_smoothing.certification.behaviour import answer_to_probe
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.identity import classifier_identity, differences_from
from hf_smoothing.models import SmoothedClassifier
from hf_smoothing.models.layers import layers_of
from hf_smoothing.models.network import Network
from hf_smoothing.pixels import to_unit_pixels, without_tolerance
from hf_smoothing.progress import progress_of
from hf_smoothing.records import RunError, write_json
from hf_smoothing.robustness_transfer.activations import activations
from hf_smoothing.robustness_transfer.frequency import frequency_curve
from hf_smoothing.robustness_transfer.records import SETTINGS, Key, bits, pair_key, read_record
from hf_smoothing.robustness_transfer.robustness import attack_curve, check_epsilons
from hf_smoothing.robustness_transfer.settings import (
    ROLES,
    AnalysisSettings,
    check_models,
    other_framings,
    same_classes,
)
from hf_smoothing.robustness_transfer.similarity import MinibatchCKA, pooled, svcca


PAIRS = (("pretrained", "finetuned"), ("pretrained", "standard"), ("standard", "finetuned"))


class Analysis:
    """Measures what is not measured yet, one record a measurement.

    Args:
        models: By role: "pretrained", "finetuned" and "standard"; in eval mode, on one device, of one certified resolution.
            Finetuned and standard have the classes of the data set, the pretrained one may have others.
        pixels: Pixels, uint8 or float (images, channels, height, width) in [0, 1], as of `attack_curve`.
        labels: Labels, whole numbers (images,), classes of the finetuned network.
        output: Folder of the records; an interrupted run is continued.
        settings: Measurements to make.
        about: Further facts to keep, JSON values.

    Raises:
        TypeError: On models that are no `SmoothedClassifier`, labels that are no tensor of whole numbers, or further facts that are no JSON.
        ValueError: On missing roles, different resolutions or label maps, fewer images than a comparison needs, labels that are not one class for each
            image, or layers that cannot be compared.
        RunError: If the folder holds the records of other models, images or settings.
    """

    def __init__(
        self,
        models: Mapping[str, SmoothedClassifier],
        pixels: Tensor,
        labels: Tensor,
        output: str | os.PathLike[str],
        settings: AnalysisSettings | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        check_models(models)
        check_about(about or {})
        if len(pixels) < 8:
            raise ValueError(f"A comparison needs at least 8 images, got {len(pixels)}. Take more images.")
        self.settings, self.output = settings or AnalysisSettings(), Path(output)
        device = models["finetuned"].device
        # In random order: a data set sorted by class would have perturbations crafted on some classes and judged on the others.
        order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(self.settings.seed))
        pixels = without_tolerance(to_unit_pixels(pixels, "pixels"))
        labels = check_labels(labels, pixels)
        self.pixels, self.labels = pixels[order].to(device), labels[order].to(device)
        self.networks = {role: Network(models[role].eval(), models[role].classify) for role in ROLES}
        self.facts = {
            "models": {role: self._identity(models[role]) for role in ROLES},
            "parameters": {role: sum(p.numel() for p in models[role].parameters()) for role in ROLES},
            "same_classes": same_classes(models["pretrained"], models["finetuned"]),
            "images": len(pixels),
            "side": min(pixels.shape[2:]),
            "data_sha256": hashlib.sha256(
                (self.pixels * 255).round().byte().cpu().numpy().tobytes() + self.labels.cpu().numpy().tobytes()
            ).hexdigest(),
            **json.loads(json.dumps(asdict(self.settings))),  # tuples become lists, as they are read back
        }
        universal = ((norm, (radius,)) for norm, radius in self.settings.universal.items())
        for norm, radii in (*self.settings.epsilons.items(), *universal):
            check_epsilons(radii, norm, pixels[0].numel())
        for role in ROLES:  # refuse before hours of attacks
            self._activations(role, self.pixels[:4])
        with torch.no_grad():
            check_answers(logits_of_batch(self.networks["finetuned"], self.pixels[:4]), self.labels)
        self._open(models, {"other_framings": other_framings(models), **(about or {})})

    def _identity(self, model: SmoothedClassifier) -> dict[str, Any]:
        answer = answer_to_probe(resolve_classifier(model), tuple(self.pixels.shape[1:]))
        return classifier_identity(model) | answer.to_dict()

    def _is_recorded(self, model: SmoothedClassifier, known: Mapping[str, Any]) -> bool:
        return not differences_from(resolve_classifier(model), known, tuple(self.pixels.shape[1:]), Execution())

    def _open(self, models: Mapping[str, SmoothedClassifier], about: Mapping[str, Any]) -> None:
        records, file = self.output / "records", self.output / SETTINGS
        records.mkdir(parents=True, exist_ok=True)
        if file.exists():
            known = read_record(file).get("settings", {})
            # As texts, so that the order of norms counts: images are attacked in the first one.
            differing = [
                key
                for key in self.facts
                if key != "models" and json.dumps(known.get(key)) != json.dumps(self.facts[key])
            ]
            if not all(self._is_recorded(models[role], known.get("models", {}).get(role, {})) for role in ROLES):
                differing.insert(0, "models")
            if differing:
                raise RunError(
                    f"{self.output} holds the records of another analysis: {', '.join(differing)} differ. Use another output folder."
                )
            return
        if any(records.iterdir()):
            raise RunError(
                f"{self.output} holds records, but not what they are of ({SETTINGS} is missing). Delete the folder, or use another output folder."
            )
        write_json(file, {"settings": self.facts, "about": dict(about)})

    def run(self, progress: bool = True) -> None:
        """Do what is missing."""
        work = self.work()
        with progress_of("Measuring", len(work), "record", shown=progress) as bar:
            for key, measure in work.items():
                bar.update(0, now=key)
                if not self._measured(key):
                    write_json(self._file(key), measure())
                bar.update()

    def _file(self, key: Key, suffix: str = ".json") -> Path:
        return self.output / "records" / f"{key}{suffix}"

    def _measured(self, key: Key) -> bool:
        file = self._file(key)
        crafted = key.kind == "universal" and not self._file(key, ".safetensors").exists()
        if not file.exists() or crafted:
            return False
        read_record(file)  # refuse a damaged one before measuring the others
        return True

    def work(self) -> dict[Key, Callable[[], dict[str, Any]]]:
        """Key -> what makes the record, in order: later ones may read earlier ones."""
        todo: dict[Key, Callable[[], dict[str, Any]]] = {}
        judged = [role for role in ROLES if role != "pretrained" or self.facts["same_classes"]]
        for norm in self.settings.epsilons:
            for attack in self.settings.attacks:
                for role in judged:
                    todo[Key("attack", role, attack, norm)] = lambda r=role, a=attack, n=norm: self.attack(r, a, n)  # type: ignore[misc]
        for norm in self.settings.universal:
            for role in (*ROLES, "random"):
                todo[Key("universal", role, norm=norm)] = lambda r=role, n=norm: self.universal(r, n)  # type: ignore[misc]
        for kind in ("clean", "attacked", "universal"):
            todo[Key("similarity", kind)] = lambda k=kind: self.similarity(k)  # type: ignore[misc]
        for role in judged:
            todo[Key("frequency", role)] = lambda r=role: self.frequency(r)  # type: ignore[misc]
        return todo

    def attack(self, role: str, attack: str, norm: Norm) -> dict[str, Any]:
        """Which images a network still gets right under an attack of each radius."""
        epsilons = self.settings.epsilons[norm]
        right = attack_curve(
            self.networks[role], self.pixels, self.labels, attack=attack, norm=norm, epsilons=epsilons, steps=self.settings.steps,
            batch_size=self.settings.batch_size, seed=self.settings.seed,
        )  # fmt: skip
        return {"epsilons": list(epsilons), "right": [bits(row) for row in right]}

    def universal(self, source: str, norm: Norm) -> dict[str, Any]:
        """What a perturbation crafted on the first half of the images on one network, or a random one, does to all three, on the second half."""
        epsilon, half = self.settings.universal[norm], len(self.pixels) // 2
        generator = torch.Generator(self.pixels.device).manual_seed(self.settings.seed)
        if source == "random":
            found = random_perturbation(self.pixels[0], epsilon, norm, generator)
        else:
            found = universal_perturbation(
                self.networks[source], self.pixels[:half], epsilon=epsilon, norm=norm, batch_size=min(self.settings.batch_size, max(half // 4, 1)),
                generator=generator,
            )  # fmt: skip
        save_file({"perturbation": found.cpu()}, self._file(Key("universal", source, norm=norm), ".safetensors"))
        changed = {
            target: bits(fooled(network, self.pixels[half:], found, self.settings.batch_size))
            for target, network in self.networks.items()
        }
        return {"epsilon": epsilon, "changed": changed}

    def similarity(self, kind: str) -> dict[str, Any]:
        """For each pair, CKA of all layers, and SVCCA of those of equal number from the front, on clean, attacked or universally perturbed images."""
        cka = {pair: MinibatchCKA() for pair in PAIRS}
        kept: dict[str, list[list[Tensor]]] = {role: [] for role in ROLES}
        for number, images in enumerate(self.pixels.tensor_split(self._equal_batches)):
            points = self._inputs(images, kind, number)
            seen = {role: self._activations(role, points) for role in ROLES}
            for role in ROLES:
                kept[role].append([pooled(value).cpu() for value in seen[role].values()])
            for first, second in PAIRS:
                cka[first, second].update(seen[first], seen[second])
        columns = {role: [torch.cat(parts) for parts in zip(*kept[role], strict=True)] for role in ROLES}
        return {
            pair_key(first, second): {
                "images": len(self.pixels),
                "rows": found.rows,
                "columns": found.columns,
                "cka": found.values().tolist(),
                "svcca": [svcca(x, y) for x, y in zip(columns[first], columns[second], strict=False)],
                "svcca_shuffled": [
                    svcca(x, y.roll(1, 0)) for x, y in zip(columns[first], columns[second], strict=False)
                ],
            }
            for (first, second), found in cka.items()
        }

    def frequency(self, role: str) -> dict[str, Any]:
        """Accuracy and confidence on low and high frequencies."""
        side = self.facts["side"]
        cutoffs = self.settings.cutoffs or tuple(side * share for share in (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8))
        return frequency_curve(
            self.networks[role], self.pixels, self.labels, cutoffs, batch_size=self.settings.batch_size
        )

    def _activations(self, role: str, pixels: Tensor) -> dict[str, Tensor]:
        network = self.networks[role]
        return activations(network, layers_of(network.module, (self.settings.layers or {}).get(role)), pixels, role)

    def _inputs(self, images: Tensor, kind: str, number: int) -> Tensor:
        """The same for every network: attacks are made on the finetuned network, universal ones on the pretrained."""
        if kind == "clean":
            return images
        norm = next(iter(self.settings.epsilons))  # in the order of `NORMS`
        if kind == "universal":
            norm = next(iter(self.settings.universal))
            file = self._file(Key("universal", "pretrained", norm=norm), ".safetensors")
            return (images + load_file(file)["perturbation"].to(images.device)).clamp(0.0, 1.0)
        generator = torch.Generator(images.device).manual_seed(self.settings.seed + number)
        answers = self._clean_answers.tensor_split(self._equal_batches)[number]
        return pgd(
            self.networks["finetuned"], images, answers, epsilon=self.settings.epsilons[norm][-1], norm=norm, steps=self.settings.steps, generator=generator,
        )  # fmt: skip

    @property
    def _equal_batches(self) -> int:
        """A number of batches, about equally large, of at least 4 images: similarity from a small last batch is noise."""
        return min(-(-len(self.pixels) // self.settings.batch_size), len(self.pixels) // 4)

    @cached_property
    @torch.no_grad()
    def _clean_answers(self) -> Tensor:
        """The classes that the finetuned network gives the images."""
        parts = self.pixels.split(self.settings.batch_size)
        return torch.cat([self.networks["finetuned"](part).argmax(1) for part in parts])


def check_about(about: Mapping[str, Any]) -> None:
    """Refuse facts that cannot be kept, before anything is.

    Raises:
        TypeError: The message names the first.
    """
    for key, value in about.items():
        try:
            json.dumps({key: value})
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"`about` must hold JSON values only, but {key!r} holds {value!r}: {error}. Convert numbers of numpy or torch with .item()."
            ) from error


def random_perturbation(like: Tensor, epsilon: float, norm: Norm, generator: torch.Generator) -> Tensor:
    """Of the size that universal perturbations may have, in a random direction: float32 of the shape of `like`."""
    normal = torch.randn(like.shape, generator=generator, device=like.device)
    return epsilon * (normal.sign() if norm == "linf" else normal / normal.norm())

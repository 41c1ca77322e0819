"""What an analysis measures, and which models it can compare."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_smoothing.attacks import ATTACKS, Norm
from hf_smoothing.models import SmoothedClassifier
from hf_smoothing.robustness_transfer.robustness import check_epsilons
from hf_smoothing.spelling import nearest
from hf_smoothing.units import as_number, check_seed, check_whole


ROLES = ("pretrained", "finetuned", "standard")


@dataclass(frozen=True)
class AnalysisSettings:
    """What is measured.

    Attributes:
        attacks: Names in `hf_smoothing.attacks.ATTACKS`.
        epsilons: Norm -> growing radii in [0, 1] pixel units, the first of them 0.
        steps: Number of steps of the attacks.
        universal: Norm -> radius of the universal perturbations.
        cutoffs: Radii of the frequency masks, cycles per image side; by default 1/16, 1/8, 3/16, 1/4 and 3/8 of the side.
        layers: Role -> names of modules to compare; by default the stem and the blocks.
        batch_size: Number of images per forward pass.
        seed: Seed of attacks and perturbations.

    Raises:
        TypeError: On a name in place of a sequence of names, or something else in place of a mapping.
        ValueError: On unknown attacks, norms and roles, names that are there twice, radii that do not grow from 0, or numbers out of range.
    """

    attacks: tuple[str, ...] = ("fgsm", "pgd", "mi-fgsm", "di-fgsm")
    epsilons: Mapping[Norm, tuple[float, ...]] = field(
        default_factory=lambda: {
            "linf": (0.0, 0.25 / 255, 0.5 / 255, 1 / 255, 2 / 255),
            "l2": (0.0, 0.05, 0.1, 0.2, 0.4),
        }
    )
    steps: int = 10
    universal: Mapping[Norm, float] = field(default_factory=lambda: {"linf": 8 / 255, "l2": 1.5})
    cutoffs: tuple[float, ...] | None = None
    layers: Mapping[str, tuple[str, ...]] | None = None
    batch_size: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.epsilons or not self.universal or not self.attacks:
            raise ValueError(
                "An analysis needs attacks, and radii for attacks and universal perturbations, of at least one norm."
            )
        _check_names(self.attacks, "attacks", "attack", ATTACKS)
        for norm, values in _mapping(self.epsilons, "epsilons", "{'linf': (0.0, 0.01)}").items():
            check_epsilons(values, norm)
            if len(values) < 2 or values[0] != 0.0:
                raise ValueError(
                    f"Radii must start with 0, the clean images, and have at least one more, got {list(values)}."
                )
        for norm, epsilon in _mapping(self.universal, "universal", "{'linf': 8 / 255}").items():
            check_epsilons([epsilon], norm)
        if self.cutoffs is not None:
            _check_cutoffs(self.cutoffs)
        if self.layers is not None:
            layers = _mapping(self.layers, "layers", "{'finetuned': ('base_network.classifier',)}")
            _check_names(list(layers), "layers", "role", ROLES)
            for role, names in layers.items():
                _check_names(names, f"layers[{role!r}]", "module")
        if check_whole(self.batch_size, "batch_size") < 4 or check_whole(self.steps, "steps") < 1:
            raise ValueError(
                f"An analysis needs batches of at least 4 images and at least 1 step, got {self.batch_size} and {self.steps}."
            )
        check_seed(self.seed)


def _mapping(value: Any, name: str, example: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must be a mapping such as {example}, got {value!r}.")
    return value


def _check_names(names: Any, name: str, kind: str, known: Collection[str] = ()) -> None:
    """Refuse what is no sequence of different names, and names that are not known where any are."""
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(one, str) for one in names):
        example = f"({names!r},)" if isinstance(names, str) else f"a tuple of names of {kind}s"
        raise TypeError(f"`{name}` must be a sequence of names of {kind}s, got {names!r}. Write {example}.")
    if not names:
        raise ValueError(f"`{name}` must name at least one {kind}, got none. Leave it out for the usual ones.")
    if len(set(names)) < len(names):
        raise ValueError(f"`{name}` must name each {kind} once, got {', '.join(names)}.")
    if known and (unknown := [one for one in names if one not in known]):
        near = nearest(unknown[0], known)
        meant = f" Did you mean {near}?" if near else ""
        raise ValueError(f"`{name}` must be among {', '.join(known)}, got {unknown[0]!r}.{meant}")


def _check_cutoffs(cutoffs: Any) -> None:
    if isinstance(cutoffs, str) or not isinstance(cutoffs, Sequence):
        raise TypeError(f"`cutoffs` must be a sequence of numbers, such as (2.0, 4.0), got {cutoffs!r}.")
    if not cutoffs or not all(0.0 <= as_number(radius) < math.inf for radius in cutoffs):
        raise ValueError(
            f"`cutoffs` must be radii of at least 0 cycles per image side, got {list(cutoffs)}. Leave it out for the usual ones."
        )


def check_models(models: Mapping[str, SmoothedClassifier]) -> None:
    """Refuse models that cannot be compared.

    All see the pixels that the finetuned one is for; a model that is for another part of each image, or another filter, is warned of.

    Raises:
        ValueError: On missing roles, different resolutions or channels, or a standard model with other classes than the finetuned one.
    """
    missing = [role for role in ROLES if role not in models]
    if missing:
        raise ValueError(f"An analysis needs a {', a '.join(ROLES)} model; missing: {', '.join(missing)}.")
    sizes = {role: tuple(models[role].config.size) for role in ROLES}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"The models must take images of one size, got {sizes}. Wrap each with "
            "SmoothedClassifier.from_base_pretrained(..., size=, model_size=), which resizes inside."
        )
    channels = {role: models[role].config.framing().channels for role in ROLES}
    if len(set(channels.values())) > 1:
        raise ValueError(
            f"The models must take images of the same channels, got {channels}. Take a pretrained and a standard model for the finetuned one's images."
        )
    if said := other_framings(models):
        warnings.warn(said, stacklevel=2)
    classes = [dict(models[role].config.id2label) for role in ("finetuned", "standard")]
    if classes[0] != classes[1]:
        first = next(
            (k for k in sorted(classes[0] | classes[1], key=int) if classes[0].get(k) != classes[1].get(k)), None
        )
        raise ValueError(
            f"The finetuned and the standard model must have the same classes in the same order, got {len(classes[0])} and {len(classes[1])} classes; "
            f"class {first} is {classes[0].get(first)!r} and {classes[1].get(first)!r}. Train the standard one on the finetuning data, or set "
            "id2label where only the names differ."
        )


def other_framings(models: Mapping[str, SmoothedClassifier]) -> str:
    """A sentence on the models that are for other pixels of an image than those of the finetuned one, which all see; empty without any."""
    framings = {role: models[role].config.framing() for role in ROLES}
    seen = framings["finetuned"]
    others = [f"the {role} one for {framing.words()}" for role, framing in framings.items() if framing != seen]
    if not others:
        return ""
    return (
        f"All models see the pixels of the finetuned one, {seen.words()}, but {' and '.join(others)}: differences may come of that. Finetune and "
        "train on pixels that are made alike."
    )


def same_classes(first: SmoothedClassifier, second: SmoothedClassifier) -> bool:
    """Whether two classifiers name the same classes; LABEL_0 and the like name none."""
    names = [dict(model.config.id2label) for model in (first, second)]
    return names[0] == names[1] and not all(str(name).startswith("LABEL_") for name in names[0].values())

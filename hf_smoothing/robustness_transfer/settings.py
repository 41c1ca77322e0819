"""What an analysis measures, and which models it can compare."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_smoothing.attacks import ATTACKS, Norm
from hf_smoothing.models import SmoothedClassifier
from hf_smoothing.robustness_transfer.robustness import NORMS, check_epsilons
from hf_smoothing.spelling import nearest
from hf_smoothing.units import check_seed, check_whole, plain_numbers


ROLES = ("pretrained", "finetuned", "standard")


@dataclass(frozen=True)
class AnalysisSettings:
    """What is measured. Numbers may be of numpy or torch; they are kept as Python's.

    Attributes:
        attacks: Names in `hf_smoothing.attacks.ATTACKS`.
        epsilons: Norm -> growing radii in [0, 1] pixel units, the first of them 0. The attacked images whose representations are compared are made in "linf" where it is
            there, else in "l2", in whatever order the norms are given.
        steps: Number of steps of the attacks.
        universal: Norm -> radius of the universal perturbations; of those of images that are compared, as of `epsilons`.
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
        batch_size, steps = check_whole(self.batch_size, "batch_size"), check_whole(self.steps, "steps")
        if batch_size < 4 or steps < 1:
            raise ValueError(
                f"An analysis needs batches of at least 4 images and at least 1 step, got {batch_size} and {steps}."
            )
        plain = {
            "attacks": _names(self.attacks, "attacks", "attack", ATTACKS),
            "epsilons": _by_norm(self.epsilons, "epsilons", "{'linf': (0.0, 0.01)}", _radii),
            "steps": steps,
            "universal": _by_norm(self.universal, "universal", "{'linf': 8 / 255}", _radius),
            "cutoffs": None if self.cutoffs is None else _cutoffs(self.cutoffs),
            "layers": None if self.layers is None else _layers(self.layers),
            "batch_size": batch_size,
            "seed": check_seed(self.seed),
        }
        for name, value in plain.items():  # whatever they came as: records are JSON
            object.__setattr__(self, name, value)


def _mapping(value: Any, name: str, example: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must be a mapping such as {example}, got {value!r}.")
    return value


def _by_norm(value: Any, name: str, example: str, plain: Callable[[Any, Norm], Any]) -> dict[Norm, Any]:
    """What is given for each norm, in the order of `NORMS`, whatever the order in which it was given."""
    given = _mapping(value, name, example)
    if not given:
        raise ValueError(f"`{name}` must have at least one norm, such as {example}, got none.")
    found = {norm: plain(values, norm) for norm, values in given.items()}
    return {norm: found[norm] for norm in NORMS if norm in found}


def _radii(values: Any, norm: Norm) -> tuple[float, ...]:
    found = check_epsilons(values, norm)
    if len(found) < 2 or found[0] != 0.0:
        raise ValueError(f"Radii must start with 0, the clean images, and have at least one more, got {list(found)}.")
    return found


def _radius(value: Any, norm: Norm) -> float:
    return check_epsilons([value], norm)[0]


def _layers(value: Any) -> dict[str, tuple[str, ...]]:
    given = _mapping(value, "layers", "{'finetuned': ('base_network.classifier',)}")
    roles = _names(list(given), "layers", "role", ROLES)
    return {role: _names(given[role], f"layers[{role!r}]", "module") for role in roles}


def _names(names: Any, name: str, kind: str, known: Collection[str] = ()) -> tuple[str, ...]:
    """Different names; what is no sequence of these is refused, and names that are not known where any are."""
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
    return tuple(map(str, names))


def _cutoffs(cutoffs: Any) -> tuple[float, ...]:
    found = plain_numbers(cutoffs, "`cutoffs`", "(2.0, 4.0)")
    if not found or not all(0.0 <= radius < math.inf for radius in found):
        raise ValueError(
            f"`cutoffs` must be radii of at least 0 cycles per image side, got {cutoffs!r}. Leave it out for the usual ones."
        )
    return found


def check_models(models: Mapping[str, SmoothedClassifier]) -> None:
    """Refuse models that cannot be compared.

    All see the pixels that the finetuned one is for; a model that is for another part of each image, or another filter, is warned of.

    Raises:
        TypeError: On what is no mapping, or no `SmoothedClassifier`.
        ValueError: On missing roles, different resolutions or channels, or a standard model with other classes than the finetuned one.
    """
    if not isinstance(models, Mapping):
        raise TypeError(f"`models` must map {', '.join(ROLES)} to a model each, got a {type(models).__name__}.")
    missing = [role for role in ROLES if role not in models]
    if missing:
        raise ValueError(f"An analysis needs a {', a '.join(ROLES)} model; missing: {', '.join(missing)}.")
    for role in ROLES:
        if getattr(getattr(models[role], "config", None), "model_type", None) != "smoothed_classifier":
            raise TypeError(
                f"An analysis compares models of the type SmoothedClassifier, got a {type(models[role]).__name__} as the {role} one. Load a checkpoint of one with "
                "SmoothedClassifier.from_pretrained(path); wrap another classifier with SmoothedClassifier.from_base_pretrained(network, sigma=...)."
            )
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

"""The configuration of a smoothed classifier: a base classifier, the pixels it takes, and the noise around it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from hf_smoothing import statistics
from hf_smoothing.certification import FixedRule
from hf_smoothing.data.framing import FramedSize, Framing, parse_framing
from hf_smoothing.keywords import SIGMA, check_not_misspelt
from hf_smoothing.models.class_maps import check_names, check_numbers, inverse, named_so, numbered
from hf_smoothing.noise import NoiseMixture
from hf_smoothing.preprocessing import Preprocessing, parse_size


NOISE_OWNERS = ("trainer", "model", "processor")
_OWN = (
    "sigma", "size", "resize", "resample", "model_size", "image_mean", "image_std", "num_samples", "n0", "n", "alpha", "noise", "noise_owner", "id2label", "label2id", "problem_type",
)  # fmt: skip
_REQUIRED = ("base_config", "sigma", "size", "image_mean", "image_std")


class SmoothedClassifierConfig(PreTrainedConfig):
    """Configuration of `SmoothedClassifier`.

    Args:
        base_config: Configuration of the base classifier, any `AutoModelForImageClassification` with at least two classes.
            Required.
        sigma: Default noise level of `forward`, `predict` and `certify`, in [0, 1] pixel units. Required.
        size: The pair (height, width) of the certified resolution, at which noise is added; or a `Framing`, which has
            what follows in it. Required.
        resize, resample: How images get to `size`, as in `Framing`; None for a resize of the whole image, bilinear.
        model_size: The pair (height, width) that the base classifier sees, or None for `size`.
        image_mean, image_std: Normalisation, one number per channel, in [0, 1] pixel units. Required.
        num_samples: Number of noisy copies per image in `forward` in eval mode.
        n0, n, alpha: Default draws and failure probability of `certify`.
        noise: The mixture that the model itself adds in train mode, as `NoiseMixture.parse` reads it; only with
            noise_owner="model".
        lora: Settings of the low-rank adapters of the base classifier, as `add_lora` leaves them, or None.
        id2label: Names of the classes by their numbers; those of the base classifier by default, which gets the same.
        label2id: The inverse of `id2label`, of which it is made where it is left out.
        noise_owner: Who adds noise in training: "trainer" (`RobustTrainer`), "model" (for the stock `Trainer`), or "processor".

    Without any of the required values it is empty: enough to be known by `transformers`, and no model can be made from it.

    Raises:
        TypeError: On a further keyword that is all but spelt like one of these.
        ValueError: If some of the required values are missing, a value is out of range, `label2id` is not the inverse of the names, or it, or the base classifier, is for regression or multi-label data.
    """

    model_type = "smoothed_classifier"
    sub_configs = {"base_config": AutoConfig}
    has_no_defaults_at_init = True  # transformers 5.18 would otherwise build one without arguments to save another

    base_config: Any = None
    sigma: float | None = None
    size: Any = None
    resize: Any = None
    resample: Any = None
    model_size: Any = None
    image_mean: Any = None
    image_std: Any = None
    num_samples: int = 100
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001
    noise: Any = None
    noise_owner: str = "trainer"
    lora: Any = None
    id2label: Any = None
    label2id: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        check_not_misspelt(kwargs, SmoothedClassifierConfig.__annotations__, "SmoothedClassifierConfig")
        if all(getattr(self, name) is None for name in _REQUIRED):
            # Empty, as `transformers` makes one of each type that it knows. No model can be made from it.
            super().__post_init__(**kwargs)
            return
        self.check_complete()
        if self.id2label is not None:  # before `transformers` reads the same names in the base configuration
            check_names(self.id2label, kwargs.get("num_labels"))
        self.base_config = as_config(self.base_config)
        if self.id2label is not None:  # one label map: the caller's is pushed down
            if numbered(self.label2id) == inverse(self.base_config.id2label or {}):
                self.label2id = None  # of the names that these replace
            self._push_down(self.id2label)
        check_head(self.base_config)
        self.sigma = statistics.check_sigma(self.sigma)  # type: ignore[arg-type]  # None was refused above
        FixedRule(sigma=self.sigma, n0=self.n0, n=self.n, alpha=self.alpha)
        self.model_size = None if self.model_size is None else list(parse_size(self.model_size, "model_size") or ())
        channels = input_channels(self.base_config)
        self.image_mean, self.image_std = (per_channel(x, channels) for x in (self.image_mean, self.image_std))
        ready = self.preprocessing()  # checked, and as plain numbers, whatever they came as
        self.image_mean, self.image_std = list(ready.image_mean), list(ready.image_std)
        if channels not in (None, len(self.image_mean)):
            raise ValueError(
                f"`image_mean` and `image_std` need one value per channel, {channels} for this {self.base_config.model_type!r} network, got "
                f"{len(self.image_mean)}."
            )
        framing = self.framing()
        self.size, self.resample = FramedSize(framing), framing.resample
        if self.model_size == list(framing.size):
            self.model_size = None
        self.resize = None if framing.plain else framing.to_dict()["resize"]
        if statistics.check_whole(self.num_samples, "num_samples") < 1:
            raise ValueError(f"`num_samples` must be at least 1, got {self.num_samples}.")
        mixture = NoiseMixture.parse(self.noise)
        self.noise = None if mixture is None else mixture.to_dict()
        check_noise_owner(self.noise_owner)
        if (self.noise is not None) != (self.noise_owner == "model"):
            raise ValueError(
                f"`noise` belongs into the model exactly when noise_owner='model', got noise={self.noise} and "
                f"noise_owner={self.noise_owner!r}. With RobustTrainer pass the noise to RobustTrainingArguments instead."
            )
        if self.id2label is None and "num_labels" not in kwargs:
            names = {k: f"LABEL_{k}" for k in range(self.base_config.num_labels)}
            self.id2label = dict(self.base_config.id2label or names)
        numbers = self.label2id
        super().__post_init__(**kwargs)
        self._push_down(self.id2label or {})
        if numbers:  # of classes of one name only the caller can say which is meant
            check_numbers(numbers, self.id2label or {})
            self.base_config.label2id = numbered(numbers)
        self.label2id = dict(self.base_config.label2id)
        check_head(self)  # `pipeline` shows shares by the kind of problem of this one

    def _push_down(self, id2label: Mapping[Any, str]) -> None:
        base = self.base_config
        base.id2label = {int(number): name for number, name in id2label.items()}
        base.num_labels = len(base.id2label)  # of a PvtConfig it is a number beside its names
        base.label2id = inverse(base.id2label)

    def check_complete(self) -> None:
        """Refuse a configuration from which no model can be made.

        Raises:
            ValueError: The message names the first required value that is missing.
        """
        for name in _REQUIRED:
            if getattr(self, name) is None:
                raise ValueError(
                    f"SmoothedClassifierConfig needs `{name}`{f', {SIGMA}' if name == 'sigma' else ''}. To wrap a plain image classifier use "
                    "SmoothedClassifier.from_base_pretrained(path, sigma=0.25) instead of from_pretrained."
                )

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As the parent, but values that override the checkpoint's (`from_pretrained(path, sigma=0.5)`) are checked like any.

        Another `size` gets the same part of each image, and the base classifier goes on seeing the size that it was trained at.
        """
        overrides = {name: kwargs.pop(name) for name in _OWN if name in kwargs}
        given = overrides.get("size")
        if given is not None and config_dict.get("size") is not None:
            known = Framing(config_dict["size"], config_dict.get("resize"), config_dict.get("resample") or "bilinear")
            if config_dict.get("model_size") is None:
                overrides.setdefault("model_size", known.size)
            if "resize" not in overrides and config_dict.get("resize") is not None:
                overrides["size"] = (
                    parse_framing(given) if isinstance(given, Framing | FramedSize) else known.scaled(given)
                )
        stored = dict(config_dict)
        if "id2label" in overrides or not named_so(stored.get("label2id"), stored.get("id2label") or {}):
            stored.pop("label2id", None)  # it is made of the names that are asked for
        return super().from_dict({**stored, **overrides}, **kwargs)

    def framing(self) -> Framing:
        """How an image becomes the pixels that noise is added to."""
        if isinstance(self.size, Framing | FramedSize):
            framing = parse_framing(self.size)
        else:
            framing = Framing(self.size, self.resize, self.resample or "bilinear")
        return replace(framing, channels=len(self.image_mean))

    def preprocessing(self) -> Preprocessing:
        """What happens between noisy pixels and the base classifier."""
        return Preprocessing(tuple(self.image_mean), tuple(self.image_std), parse_size(self.model_size, "model_size"))


def as_config(value: Any) -> PreTrainedConfig:
    """A configuration of its own, from one or from its dictionary; it does not say where it came from, which may be a private path.

    Raises:
        TypeError, ValueError: If it is neither, or does not say its model type.
    """
    if isinstance(value, dict):
        values = dict(value)
        if "model_type" not in values:
            raise ValueError("`base_config` needs a 'model_type', such as 'resnet' or 'vit'.")
        if isinstance(values.get("id2label"), list):  # no configuration of `transformers` can be made with it
            check_names(values["id2label"])
        try:
            config = AutoConfig.for_model(values.pop("model_type"), **values)
        except NO_CONFIGURATION as error:
            raise ValueError(f"`base_config` {unusable(error)}") from error
    elif isinstance(value, PreTrainedConfig):
        # A copy: the outer configuration sets attributes such as _attn_implementation on its parts.
        config = copy.deepcopy(value)
    else:
        raise TypeError(
            f"`base_config` must be a transformers configuration or its dictionary, got {type(value).__name__}."
        )
    config._name_or_path = ""
    return config


NO_CONFIGURATION = (StrictDataclassError, AttributeError, KeyError, TypeError)
"""What `transformers` raises of values that were edited by hand, for one; a StrictDataclassError is no ValueError."""


def unusable(error: Exception) -> str:
    """What to say of values of which it raised an error of `NO_CONFIGURATION`, after their name."""
    said = " ".join(str(error).split())
    return f"holds what no configuration can be made of ({type(error).__name__}: {said}). Correct it, in a checkpoint its config.json, or save the model again."


def check_head(config: PreTrainedConfig) -> None:
    """Refuse heads that do not choose one class of several, each with its name.

    Raises:
        ValueError: For regression, multi-label, or a single class; as `check_names`.
    """
    if config.id2label:
        check_names(config.id2label)
    if config.problem_type in ("regression", "multi_label_classification") or config.num_labels < 2:
        raise ValueError(
            "Randomized smoothing certifies single-label classification with at least two classes, got "
            f"problem_type={config.problem_type!r} with {config.num_labels} label(s). "
            "Finetune with problem_type='single_label_classification' first."
        )


def input_channels(config: PreTrainedConfig) -> int | None:
    """How many channels the images of a network have, where its configuration says."""
    channels = getattr(config, "num_channels", None) or getattr(
        getattr(config, "vision_config", None), "num_channels", None
    )
    return int(channels) if isinstance(channels, int) else None


def per_channel(values: Any, channels: int | None) -> list[Any]:
    """One number, or a list of one, repeated for each channel, where it is known how many there are; other lists as they are."""
    plain = values.tolist() if hasattr(values, "tolist") else values  # of numpy or torch, one number or several
    every = list(plain) if isinstance(plain, Iterable) else [plain]
    return every * channels if len(every) == 1 and channels else every


def check_noise_owner(owner: str) -> str:
    """Return `owner` if it names who adds noise in training.

    Raises:
        ValueError: In any other case.
    """
    if owner not in NOISE_OWNERS:
        raise ValueError(f"`noise_owner` must be one of {', '.join(map(repr, NOISE_OWNERS))}, got {owner!r}.")
    return owner

"""Several classifiers as one base classifier: less variance under noise, so larger radii at the cost of as many passes."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from hf_smoothing.keywords import SIGMA, check_not_misspelt, needs
from hf_smoothing.models.class_maps import take_classes
from hf_smoothing.models.composites import Source, on_unit_pixels, part, split_arguments
from hf_smoothing.models.configuration import as_config, check_head
from hf_smoothing.models.construction import check_own_config
from hf_smoothing.models.forward import logits_of
from hf_smoothing.models.outputs import Output, classifier_output
from hf_smoothing.models.reloading import as_it_is, build_network
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier
from hf_smoothing.pixels import check_image_batch
from hf_smoothing.preprocessing import Preprocessing, parse_size


class EnsembleConfig(PreTrainedConfig):
    """Configuration of `EnsembleForImageClassification`.

    Args:
        members: For each member its "base_config" and its pixels: "image_mean", "image_std" and "model_size" (or None).

    Raises:
        ValueError: Without members, or if they have different classes.
    """

    model_type = "classifier_ensemble"
    has_no_defaults_at_init = True

    members: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        check_not_misspelt(kwargs, EnsembleConfig.__annotations__, "EnsembleConfig")
        if not self.members:
            raise ValueError(
                "EnsembleConfig needs `members`. Make an ensemble with smoothed_ensemble([...], sigma=...)."
            )
        configs = [as_config(member["base_config"]) for member in self.members]
        for config in configs:
            check_head(config)
        classes = [{int(k): v for k, v in config.id2label.items()} for config in configs]
        for number, labels in enumerate(classes):
            if labels != classes[0]:
                raise ValueError(
                    f"All members must have the same classes in the same order, but member {number} has {list(labels.values())[:5]} and member 0 "
                    f"{list(classes[0].values())[:5]}. Finetune them on one data set."
                )
        self.members = [
            {"base_config": config.to_dict(), **self._pixels(member).to_dict()}
            for config, member in zip(configs, self.members, strict=True)
        ]
        take_classes(self, classes[0])
        super().__post_init__(**kwargs)

    @staticmethod
    def _pixels(member: dict[str, Any]) -> Preprocessing:
        size = parse_size(member.get("model_size"), "model_size")
        return Preprocessing(tuple(member["image_mean"]), tuple(member["image_std"]), size)

    def preprocessing(self) -> list[Preprocessing]:
        """Of each member."""
        return [self._pixels(member) for member in self.members]


class EnsembleForImageClassification(PreTrainedModel):
    """The mean of the members' logits; takes [0, 1] pixels (noise allowed), which each member resizes and normalises for itself.

    Source: Horváth et al. (2022), arXiv 2106.06946.
    """

    config_class = EnsembleConfig
    config: EnsembleConfig
    base_model_prefix = "members"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    accepts_loss_kwargs = False
    _supports_sdpa = True

    def __init__(self, config: EnsembleConfig, members: Sequence[PreTrainedModel] | None = None) -> None:
        check_own_config(
            config,
            EnsembleConfig,
            "An EnsembleForImageClassification",
            "Make an ensemble of classifiers with smoothed_ensemble([one, other], sigma=...).",
        )
        super().__init__(config)
        self.members = nn.ModuleList(
            members or [build_network(as_config(member["base_config"])) for member in config.members]
        )
        self.num_labels = config.num_labels
        self.loss_type = "ForImageClassification"
        self.post_init()

    @property
    def dtype(self) -> torch.dtype:
        """The widest of its members: it takes pixels in it, which each member rounds for itself, and answers in it."""
        return functools.reduce(torch.promote_types, self._dtypes())

    def _dtypes(self) -> list[torch.dtype]:
        members: Any = self.members
        return [member.dtype for member in members]

    def forward(
        self, pixel_values: Tensor | None = None, labels: Tensor | None = None, return_dict: bool | None = None, **kwargs: Any
    ) -> Output:  # fmt: skip
        """Mean logits.

        Args:
            pixel_values: Pixel values, float (batch, channels, height, width), [0, 1] pixels, noise allowed.
            labels: Labels, int64 (batch,), for the cross-entropy loss.
            return_dict: Pass False for a tuple.
            kwargs: Ignored.
        """
        pixels = check_image_batch(pixel_values, "pixel_values")
        members = zip(self.members, self.config.preprocessing(), self._dtypes(), strict=True)
        logits = torch.stack(
            [
                logits_of(member, prepare(pixels).to(dtype), return_dict=True).to(self.dtype)
                for member, prepare, dtype in members
            ]
        ).mean(0)
        return classifier_output(self, logits, labels, return_dict)


@needs(sigma=SIGMA)
def smoothed_ensemble(
    members: Sequence[Source],
    *,
    sigma: float,
    pixels: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> SmoothedClassifier:
    """A `SmoothedClassifier` whose base classifier is the mean of several.

    Args:
        members: Folders or Hub ids of `SmoothedClassifier`s or of plain image classifiers that say their pixels, or
            the models themselves; of one certified resolution and with the same classes.
        sigma: Default noise level.
        pixels: The settings size, model_size, image_mean and image_std of the plain members that do not say them.
        kwargs: Further arguments of `SmoothedClassifier.from_base_pretrained`: its n, n0, alpha and so on, or how to load checkpoints.

    Raises:
        ValueError: Without members, or if they differ in resolution, channels or classes.
        TypeError: On a single one.
    """
    single = isinstance(members, str | os.PathLike | PreTrainedModel | PreTrainedConfig)
    if single or not (members is None or isinstance(members, Iterable)):
        raise TypeError(
            f"`members` must be a list of classifiers, got {type(members).__name__}. Write [...] around it."
        )
    if not members:
        raise ValueError("An ensemble needs at least one member, got none.")
    own, loading = split_arguments(kwargs)
    wrapped = [part(member, sigma, pixels, loading) for member in members]
    framings = list(dict.fromkeys(member.config.framing() for member in wrapped))
    if len(framings) > 1:
        raise ValueError(
            f"All members must see the same pixels of an image, got {framings[0]} and {framings[1]}. Wrap them with one size=Framing(...), best the one "
            "that all are finetuned with; model_size may differ."
        )
    config = EnsembleConfig(
        members=[
            {"base_config": member.config.base_config.to_dict(), **member.config.preprocessing().to_dict()}
            for member in wrapped
        ]
    )
    ensemble = EnsembleForImageClassification(
        config, [as_it_is(copy.deepcopy(member.base_network)) for member in wrapped]
    )
    return on_unit_pixels(ensemble, wrapped[0], sigma, **own)

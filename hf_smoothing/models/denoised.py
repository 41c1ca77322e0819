"""A denoiser before any image classifier: a frozen classifier becomes certifiable without training of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from hf_smoothing.keywords import SIGMA, check_not_misspelt, needs
from hf_smoothing.models.class_maps import take_classes
from hf_smoothing.models.composites import Source, on_unit_pixels, part, split_arguments
from hf_smoothing.models.configuration import as_config, check_head
from hf_smoothing.models.construction import check_own_config
from hf_smoothing.models.denoisers import make_denoiser
from hf_smoothing.models.forward import logits_of
from hf_smoothing.models.outputs import Output, classifier_output
from hf_smoothing.models.reloading import as_it_is, build_network
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier
from hf_smoothing.pixels import check_image_batch
from hf_smoothing.preprocessing import Preprocessing, parse_size
from hf_smoothing.statistics import check_sigma


class DenoisedClassifierConfig(PreTrainedConfig):
    """Configuration of `DenoisedClassifierForImageClassification`.

    Args:
        denoiser: Its "kind" ("residual" or "diffusion") and settings, see `denoisers`.
        base_config: Configuration of the classifier.
        sigma: Noise level that the denoiser expects, [0, 1] pixel units.
        image_mean, image_std, model_size: Pixels of the classifier, as in `SmoothedClassifierConfig`.

    Raises:
        ValueError: If something is missing or makes no sense.
    """

    model_type = "denoised_classifier"
    sub_configs = {"base_config": AutoConfig}
    has_no_defaults_at_init = True

    denoiser: Any = None
    base_config: Any = None
    sigma: float | None = None
    image_mean: Any = None
    image_std: Any = None
    model_size: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        check_not_misspelt(kwargs, DenoisedClassifierConfig.__annotations__, "DenoisedClassifierConfig")
        for name in ("denoiser", "base_config", "sigma", "image_mean", "image_std"):
            if getattr(self, name) is None:
                raise ValueError(
                    f"DenoisedClassifierConfig needs `{name}`. Make one with denoised_classifier(path, sigma=...)."
                )
        self.base_config = as_config(self.base_config)
        check_head(self.base_config)
        self.sigma = check_sigma(self.sigma)  # type: ignore[arg-type]  # None was refused above
        self.denoiser = dict(self.denoiser)
        self.image_mean, self.image_std = list(self.image_mean), list(self.image_std)
        self.model_size = None if self.model_size is None else list(parse_size(self.model_size, "model_size") or ())
        self.preprocessing()
        take_classes(self, self.base_config.id2label)
        super().__post_init__(**kwargs)

    @property
    def only_sigma(self) -> float | None:
        """The noise level that a diffusion model takes out, at one timestep; None for a denoiser that does not take it."""
        return self.sigma if self.denoiser.get("kind") == "diffusion" else None

    def preprocessing(self) -> Preprocessing:
        """What happens between the denoised pixels and the classifier."""
        return Preprocessing(tuple(self.image_mean), tuple(self.image_std), parse_size(self.model_size, "model_size"))


class DenoisedClassifierForImageClassification(PreTrainedModel):
    """Denoise, resize, normalise, classify; takes noisy [0, 1] pixels.

    The denoiser is part of the classifier that is certified, so the certificate holds whatever it does; it is only useful near
    `config.sigma`. Train it alone with RobustTrainingArguments(objective="denoising", trainable=["denoiser"]).

    Source: Salman et al. (2020), arXiv 2003.01908; with a diffusion model, Carlini et al. (2023), arXiv 2206.10550.
    """

    config_class = DenoisedClassifierConfig
    config: DenoisedClassifierConfig
    base_model_prefix = "network"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    accepts_loss_kwargs = False
    _supports_sdpa = True

    def __init__(self, config: DenoisedClassifierConfig, network: PreTrainedModel | None = None) -> None:
        check_own_config(
            config,
            DenoisedClassifierConfig,
            "A DenoisedClassifierForImageClassification",
            "Put a denoiser before a classifier with denoised_classifier(classifier, sigma=...).",
        )
        super().__init__(config)
        self.denoiser = make_denoiser(config.denoiser)
        self.network = build_network(config.base_config) if network is None else network
        self.num_labels = config.num_labels
        self.loss_type = "ForImageClassification"
        self.post_init()

    def denoise(self, pixels: Tensor) -> Tensor:
        """[0, 1] pixels with noise of standard deviation `config.sigma` -> an estimate of those without."""
        assert self.config.sigma is not None
        cleaned: Tensor = self.denoiser(pixels, self.config.sigma)
        return cleaned

    def forward(
        self, pixel_values: Tensor | None = None, labels: Tensor | None = None, return_dict: bool | None = None, **kwargs: Any
    ) -> Output:  # fmt: skip
        """Logits.

        Args:
            pixel_values: Pixel values, float (batch, channels, height, width), noisy [0, 1] pixels.
            labels: Labels, int64 (batch,), for the cross-entropy loss.
            return_dict: Pass False for a tuple.
            kwargs: Ignored.
        """
        pixels = check_image_batch(pixel_values, "pixel_values")
        prepared = self.config.preprocessing().__call__(self.denoise(pixels))  # as in SmoothedClassifier._base_logits
        logits = logits_of(self.network, prepared.to(self.network.dtype), return_dict=True)
        return classifier_output(self, logits, labels, return_dict)


@needs(sigma=SIGMA)
def denoised_classifier(
    classifier: Source,
    *,
    sigma: float,
    denoiser: dict[str, Any] | tuple[dict[str, Any], torch.nn.Module] | None = None,
    pixels: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> SmoothedClassifier:
    """A `SmoothedClassifier` whose base classifier is a denoiser before a classifier.

    Args:
        classifier: Folder or Hub id of an image classifier, or the model itself; of a `SmoothedClassifier` the base classifier is taken.
        sigma: Noise level to take out, and to certify at by default.
        denoiser: Configuration of a new denoiser ({"kind": "residual", "width": 32, "depth": 8} by default), or that and a trained
            one, as `diffusion_from_pretrained` returns.
        pixels: The settings size (the certified resolution, at which the denoiser works), model_size, image_mean and image_std, where a plain checkpoint does not
            say them.
        kwargs: Further arguments of `SmoothedClassifier.from_base_pretrained`: its n, n0, alpha and so on, or how to load a checkpoint.

    Raises:
        ValueError: If the resolution or normalisation of the classifier is not known, it has a denoiser already, or the denoiser is for
            images of another size.
        TypeError: On a denoiser of another kind.
    """
    own, loading = split_arguments(kwargs)
    classifier = part(classifier, sigma, pixels, loading)
    if isinstance(classifier.base_network, DenoisedClassifierForImageClassification):
        raise ValueError(
            "This classifier has a denoiser already. Pass what stands behind it: model.base_network.network."
        )
    if denoiser is None:
        denoiser = {"kind": "residual", "channels": len(classifier.config.image_mean)}
    settings, trained = denoiser if isinstance(denoiser, tuple) and len(denoiser) == 2 else (denoiser, None)
    if not isinstance(settings, dict):
        raise TypeError(
            "`denoiser` must be a configuration such as {'kind': 'residual', 'width': 32, 'depth': 8}, or that and a trained one as a pair, got "
            f"{type(settings).__name__}."
        )
    expected = settings.get("unet", {}).get("sample_size")
    if expected is not None and parse_size(expected) != tuple(classifier.config.size):
        raise ValueError(
            f"The denoiser is for images of {expected} px, but this classifier is certified at {tuple(classifier.config.size)}. Wrap it for the "
            f"denoiser's size: SmoothedClassifier.from_base_pretrained(..., size={expected}); its model_size may differ."
        )
    channels = settings["unet"].get("in_channels", 3) if "unet" in settings else settings.get("channels", 3)
    if channels != len(classifier.config.image_mean):
        raise ValueError(
            f"The denoiser is for {channels} channels, but this classifier takes {len(classifier.config.image_mean)}. Choose one for the same images."
        )
    config = DenoisedClassifierConfig(
        denoiser=settings,
        base_config=classifier.config.base_config,
        sigma=sigma,
        **classifier.config.preprocessing().to_dict(),
    )
    model = DenoisedClassifierForImageClassification(config, as_it_is(copy.deepcopy(classifier.base_network)))
    if trained is not None:
        model.denoiser.load_state_dict(trained.state_dict())
    return on_unit_pixels(model, classifier, sigma, **own)

"""`SmoothedClassifier`: any image classifier of `transformers`, with a certificate."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from transformers import PreTrainedModel

from hf_smoothing.certification import Certificate, Draws, Prediction, certify, count_votes, predict
from hf_smoothing.certification.options import CertifyOptions, PredictOptions, documented
from hf_smoothing.data import NoisyImageProcessor
from hf_smoothing.data.framing import FramedSize, Framing
from hf_smoothing.keywords import SIGMA, needs
from hf_smoothing.models.adapters import freeze_all_but_adapters
from hf_smoothing.models.checkpoint_pixels import check_pixels_known, origin_of, pixel_settings, with_channels
from hf_smoothing.models.checkpoints import check_plain, find_network, in_float32
from hf_smoothing.models.configuration import SmoothedClassifierConfig, check_head
from hf_smoothing.models.construction import WRAP, check_base_network, check_is_path, check_own_config
from hf_smoothing.models.forward import logits_of
from hf_smoothing.models.kept_heads import check_kept_names
from hf_smoothing.models.lora_layers import inject_lora
from hf_smoothing.models.outputs import Output, check_channels, classifier_output
from hf_smoothing.models.probes import check_forward
from hf_smoothing.models.reloading import as_it_is, build_network, check_reloadable, check_unhidden, why_not_reloadable
from hf_smoothing.models.weights import HUB, load_whole
from hf_smoothing.noise import GaussianStream, NoiseMixture, fresh_seed, process_generator
from hf_smoothing.pixels import PROCESS, check_image_batch, to_unit_pixels
from hf_smoothing.units import check_sigma, check_whole


class SmoothedClassifier(PreTrainedModel):
    """A base classifier and the noise around it; takes [0, 1] pixels at the certified resolution.

    - `classify`: the base classifier's logits for any finite pixels. It is what gets certified.
    - `forward`: in train mode those logits; in eval mode log vote shares under noise, for `pipeline` and `Trainer`.
    - `predict`, `certify`: the smoothed classifier's answer, and its guarantee.

    >>> model = SmoothedClassifier.from_base_pretrained("path/or/hub-id", sigma=0.25, size=32)  # doctest: +SKIP
    >>> model.certify(pixels, n=10_000)[0].radius  # doctest: +SKIP
    """

    config_class = SmoothedClassifierConfig
    config: SmoothedClassifierConfig
    base_model_prefix = "base_network"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    # Our loss is a mean over the batch, so Trainer must scale it when it accumulates gradients.
    accepts_loss_kwargs = False
    # Attention is the base classifier's affair, which checks for itself.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: SmoothedClassifierConfig, base_network: PreTrainedModel | None = None) -> None:
        check_own_config(config, SmoothedClassifierConfig, "A SmoothedClassifier", WRAP)
        config.check_complete()
        check_base_network(base_network)
        if base_network is not None:
            check_kept_names(
                f"this {type(base_network).__name__}", base_network.config.id2label or {}, config.id2label or {}
            )
        super().__init__(config)
        # A name that does not end as heads do: adapters find those by the end of a name.
        self.base_network = build_network(config.base_config) if base_network is None else as_it_is(base_network)
        config.base_config.architectures = [type(self.base_network).__name__]  # some types have several classes
        if config.lora is not None:
            inject_lora(self.base_network, config.lora)
        self.supports_gradient_checkpointing = self.base_network.supports_gradient_checkpointing
        self._no_split_modules = self.base_network._no_split_modules
        self.num_labels = config.num_labels
        self.loss_type = "ForImageClassification"
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`, in float32 unless `dtype` is given, and as `load_whole` has it: safetensors only, and every
        tensor, or a ValueError."""
        check_is_path(pretrained_model_name_or_path)
        loaded: Any = load_whole(super().from_pretrained, pretrained_model_name_or_path, in_float32(kwargs), *args)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with output_loading_info
        if model.config.lora is not None:
            freeze_all_but_adapters(model)
        return loaded

    @classmethod
    @needs(sigma=SIGMA)
    def from_base_pretrained(
        cls,
        base: str | os.PathLike[str] | PreTrainedModel,
        *,
        sigma: float,
        size: int | Sequence[int] | Framing | None = None,
        model_size: int | Sequence[int] | None = None,
        image_mean: float | Sequence[float] | None = None,
        image_std: float | Sequence[float] | None = None,
        num_samples: int = 100,
        n0: int = 100,
        n: int = 100_000,
        alpha: float = 0.001,
        noise: NoiseMixture | Mapping[str, Any] | Sequence[float] | str | float | None = None,
        noise_owner: str | None = None,
        **model_kwargs: Any,
    ) -> SmoothedClassifier:
        """Wrap a trained image classifier.

        What is not given is read from the checkpoint: first from what `RobustTrainer` noted in its configuration
        (`config.hf_smoothing`), then from its image processor.

        Args:
            base: Path or Hub id of any image classifier, or the model itself.
            size: Certified resolution; another one than the checkpoint's gets the same part of each image, which is resized for the backbone
                after the noise. A `Framing` says how images are resized and cropped as well.
            sigma, model_size, image_mean, image_std, num_samples, n0, n, alpha, noise: As in `SmoothedClassifierConfig`. One value of
                `image_mean` and `image_std` is for all channels: of colour, or else of grey, where the network does not say how many there are.
            noise_owner: As there; "model" by default if `noise` is given, else "trainer".
            model_kwargs: Arguments of `AutoModelForImageClassification.from_pretrained`, e.g. num_labels, ignore_mismatched_sizes.

        Returns:
            The wrapper, in eval mode.

        Raises:
            ValueError: If the certified resolution or the normalisation is not known and not given, two places in the checkpoint disagree
                about them, its image processor does what cannot be expressed, the network gives no logits for its labels, the head is not
                for single-label classification, or the checkpoint is a pickle.
            TypeError: On `model_kwargs` for a model that is there already.
        """
        sigma = check_sigma(sigma)
        check_plain(base, model_kwargs)
        model = find_network(base, model_kwargs)
        source = model.config._name_or_path if isinstance(base, PreTrainedModel) else os.fspath(base)
        check_head(model.config)
        values = {"size": size, "model_size": model_size, "image_mean": image_mean, "image_std": image_std}
        given = {key: value for key, value in values.items() if value is not None}
        hub = {key: model_kwargs[key] for key in HUB if key in model_kwargs}
        place = origin_of(model, given) if isinstance(base, PreTrainedModel) else source
        known = pixel_settings(model.config, place, given, **hub)
        if "size" in given and "size" in known and not isinstance(size, Framing | FramedSize):
            given["size"] = known["size"].scaled(size)
        settings = known | given
        check_pixels_known(settings, source, model.config)
        name = f"{type(model).__name__}{f' of {source}' if source else ''}"
        refused: ValueError | None = None
        for pixels in with_channels(settings, known, model.config):
            config = SmoothedClassifierConfig(
                base_config=model.config, sigma=sigma, num_samples=num_samples, n0=n0, n=n, alpha=alpha, noise=noise,
                noise_owner=noise_owner or ("trainer" if noise is None else "model"), **pixels,
            )  # fmt: skip
            wrapper: SmoothedClassifier = cls(config, model)
            wrapper.config._name_or_path = str(source)
            wrapper.eval()
            try:
                check_forward(wrapper, wrapper.classify, config.framing(), config.num_labels, name)
                break
            except ValueError as error:
                refused = refused or error
        else:
            assert refused is not None
            raise refused
        if reason := why_not_reloadable(model):
            warnings.warn(f"This classifier can be certified, but not saved. {reason}", stacklevel=3)
        return wrapper

    def image_processor(self) -> NoisyImageProcessor:
        """Images to the [0, 1] pixels that this model takes; saved with it, for `pipeline` and `AutoImageProcessor`."""
        return NoisyImageProcessor(
            **self.config.framing().processor_settings(),
            image_mean=self.config.image_mean,
            image_std=self.config.image_std,
            do_normalize=False,
        )

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, **kwargs: Any
    ) -> None:
        """Save weights, configuration and image processor; arguments as in `PreTrainedModel.save_pretrained`.

        Raises:
            ValueError: If it could not be loaded again, or only as another network or with another image processor.
        """
        if getattr(self, "_hf_peft_config_loaded", False):  # add_adapter of transformers: the adapter alone is saved
            super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
            return
        if is_main_process:  # the processor first, so that push_to_hub=True uploads it with the rest
            check_reloadable(self, kwargs.get("state_dict"))
            check_unhidden(save_directory)
            self.image_processor().save_pretrained(save_directory)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)

    def classify(self, pixels: Tensor) -> Tensor:
        """The base classifier: resize, normalise, backbone.

        Args:
            pixels: Pixels, float (batch, channels, *config.size), any finite values: noise may already be added.

        Returns:
            Logits (batch, num_labels).

        Raises:
            ValueError: If the pixels are not at the certified resolution.
        """
        return self._base_logits(pixels)

    def prepare(self, pixels: Tensor) -> Tensor:
        """What the base classifier is given of (noisy) pixels: resized to `config.model_size` and normalised.

        Args:
            pixels: As for `classify`.

        Returns:
            A tensor of their dtype, (batch, channels, height, width).

        Raises:
            ValueError: If the pixels are not at the certified resolution, or of other channels than the base classifier takes.
        """
        if tuple(check_image_batch(pixels, "pixels").shape[-2:]) != tuple(self.config.size):
            raise ValueError(
                f"`pixels` must be at the certified resolution {tuple(self.config.size)}, got {tuple(pixels.shape[-2:])}. "
                f"Make them of the images with {PROCESS}, or of a data set with PixelDataset(dataset, model): both resize and crop as the network expects, "
                "before noise is added."
            )
        check_channels(pixels, self.config.base_config, f"This {type(self.base_network).__name__}")
        # By name, since torch.compile (2.11) would ask for the hash of an object it is to call, before the object has its fields.
        return self.config.preprocessing().__call__(pixels)

    def _base_logits(self, pixels: Tensor, **kwargs: Any) -> Tensor:
        prepared = self.prepare(pixels)
        network = self.base_network  # one that is no classifier is refused when it is wrapped
        return logits_of(network, prepared.to(network.dtype), return_dict=True, **kwargs)

    def forward(
        self, pixel_values: Tensor | None = None, labels: Tensor | None = None, seed: int | None = None,
        first_index: int = 0, num_samples: int | None = None, return_dict: bool | None = None, **kwargs: Any,
    ) -> Output:  # fmt: skip
        """Logits of the base classifier in train mode; in eval mode log vote shares.

        A share is (votes + 1 / (2 * num_labels)) / (num_samples + 1/2): half a vote, spread over the classes, keeps the logarithm finite.
        With 100 copies a unanimous vote has the share 0.995 or more, whatever the number of classes.

        Args:
            pixel_values: Pixel values (batch, channels, *config.size), in [0, 1] (uint8 or float). In train mode noise
                may already be added by the trainer or the processor, as `config.noise_owner` says.
            labels: Labels, whole numbers (batch,), for the cross-entropy loss.
            seed: Seed of the noise in eval mode; fresh entropy by default.
            first_index: Number of the first image within a data set; with `seed` it decides the noise.
            num_samples: Number of noisy copies of each image in eval mode; `config.num_samples` by default.
            return_dict: Pass False for a tuple.
            kwargs: Arguments of the base classifier, in train mode.
        """
        pixels = check_image_batch(pixel_values, "pixel_values")
        if self.training:
            logits = self._base_logits(self._training_pixels(pixels), **kwargs)
        else:
            logits = self._vote_log_shares(pixels, seed, first_index, num_samples)
        return classifier_output(self, logits, labels, return_dict)

    def _training_pixels(self, pixels: Tensor) -> Tensor:
        if self.config.noise is None and pixels.is_floating_point():
            return pixels
        return self._checked_training_pixels(pixels)

    # Checks of values and generators are no part of a compiled graph, nor is the voting: `torch.compile` leaves both as they are.
    # torch.compiler.disable does the same, but imports the compiler here, which takes seconds.
    @_disable_dynamo
    def _checked_training_pixels(self, pixels: Tensor) -> Tensor:
        checked = to_unit_pixels(pixels, "pixel_values")
        mixture = NoiseMixture.parse(self.config.noise)
        # A generator for each forward pass: one that is kept would be copied with the model, and not restored on resuming.
        return checked if mixture is None else mixture.add(checked, process_generator(pixels.device))[0]

    @_disable_dynamo
    def _vote_log_shares(
        self, images: Tensor, seed: int | None, first_index: int, num_samples: int | None = None
    ) -> Tensor:
        pixels = to_unit_pixels(images, "pixel_values").to(self.device)
        count = check_whole(self.config.num_samples if num_samples is None else num_samples, "num_samples")
        first = check_whole(first_index, "first_index")
        for name, value, least in (("num_samples", count, 1), ("first_index", first, 0)):
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}.")
        votes = count_votes(
            self,
            pixels,
            [Draws(slot, first + slot, 0, count) for slot in range(len(pixels))],
            stream=GaussianStream(fresh_seed(seed), tuple(pixels.shape[1:]), pixels.device, sigma=self.noise_level()),
        )
        return torch.log(
            (torch.from_numpy(votes).to(pixels.device, torch.float32) + 0.5 / votes.shape[1]) / (count + 0.5)
        )

    @documented(PredictOptions)
    def predict(
        self,
        images: Tensor,
        *,
        sigma: float | None = None,
        seed: int | None = None,
        indices: Sequence[int] | None = None,
        **options: Unpack[PredictOptions],
    ) -> list[Prediction]:
        """The smoothed classifier's answers, as `hf_smoothing.predict`; sigma and alpha come from the configuration if not given.

        Args:
            images, sigma, seed, indices: As there.
            {options}
        """
        if options.get("alpha") is None:
            options["alpha"] = self.config.alpha
        return predict(self, images, sigma=self.noise_level(sigma), seed=seed, indices=indices, **options)

    @documented(CertifyOptions)
    def certify(
        self,
        images: Tensor,
        *,
        sigma: float | None = None,
        seed: int | None = None,
        indices: Sequence[int] | None = None,
        **options: Unpack[CertifyOptions],
    ) -> list[Certificate]:
        """A certificate for each image, as `hf_smoothing.certify`; sigma, n0, n and alpha come from the configuration if not given.

        Args:
            images, sigma, seed, indices: As there.
            {options}
        """
        if options.get("n0") is None:
            options["n0"] = self.config.n0
        if options.get("n") is None:
            options["n"] = self.config.n
        if options.get("alpha") is None:
            options["alpha"] = self.config.alpha
        return certify(self, images, sigma=self.noise_level(sigma), seed=seed, indices=indices, **options)

    def noise_level(self, sigma: float | None = None) -> float:
        """`sigma`, or that of the configuration; with a warning if the base classifier is for another one.

        Raises:
            ValueError: If it is no noise level: one number above 0.
        """
        level = check_sigma(self.config.sigma if sigma is None else sigma)  # type: ignore[arg-type]  # the config requires it
        expected = getattr(self.config.base_config, "only_sigma", None)
        if expected not in (None, level):
            warnings.warn(
                f"The denoiser takes out noise of sigma {expected}, but this is sigma {level}: the certificate is true, but smaller than it could be. "
                f"Make the classifier anew: denoised_classifier(..., sigma={level}).",
                stacklevel=3,
            )
        return level

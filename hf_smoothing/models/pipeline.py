"""`pipeline("certified-image-classification")`: images in, answers with their guarantee out."""

from __future__ import annotations

import os
from typing import Any, NoReturn

import torch
from PIL import Image
from transformers import Pipeline

from hf_smoothing.certification import Certificate
from hf_smoothing.certification.options import CertifyOptions, options_of
from hf_smoothing.data.image_source import image_of_source
from hf_smoothing.data.pictures import Pictures, pictures_of
from hf_smoothing.keywords import meant
from hf_smoothing.models.own_processor import check_own_processor
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier
from hf_smoothing.units import implied_linf


TASK = "certified-image-classification"

# What `certify` takes, apart from the images and their numbers.
_OPTIONS = {"sigma", "seed"} | options_of(CertifyOptions).keys()


class NoDefaultModel:
    """Stands where transformers keeps the model and revision of a task, and says why there are none when these are asked for."""

    def __iter__(self) -> NoReturn:
        raise ValueError(
            f"The task {TASK!r} has no default model, since a guarantee is about your classes. Pass model=, the folder or Hub id of a SmoothedClassifier, "
            "or the object."
        )


class CertifiedImageClassificationPipeline(Pipeline):
    """The smoothed classifier's answer for each image, and the l2 radius within which it cannot change.

    Takes what the image-classification pipeline takes: PIL images, paths, URLs, base64, lists of them, or a data set with a column
    of images, or that column. Options, when
    it is made or called: all of `hf_smoothing.certify`, e.g. sigma, targets, n, alpha, channels_last;
    but dtype, half precision of the network, when it is called, since `pipeline` makes it the dtype of the weights.
    The noise is fresh at every call unless a `seed` is given.

    Returns, for each image, a dictionary: "label", its name, or None on an abstention; "radius" in [0, 1] pixel units at the certified
    resolution, unrounded; "grey_levels", the same in 8-bit grey levels (255 times), and "linf_radius", by how much all pixels may change at
    once; "draws" made; "alpha", the largest probability that this is wrong; "sigma"; "noise_kind" and "threat_model": which
    perturbed images the radius is about.

    >>> classify = pipeline("certified-image-classification", model="path/or/hub-id")  # doctest: +SKIP
    >>> classify("cat.png", n=10_000)  # doctest: +SKIP
    {'label': 'cat', 'radius': 0.61, 'grey_levels': 155.5, 'linf_radius': 0.011, 'draws': 513, 'alpha': 0.001, 'sigma': 0.25, 'noise_kind': 'grid', 'threat_model': ...}
    """

    image_processor: Any
    _load_processor = False
    _load_image_processor = None  # if there is one
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.model, SmoothedClassifier):
            raise ValueError(
                f"The task {TASK!r} needs a SmoothedClassifier, got {type(self.model).__name__}, which has no noise level. Wrap it: "
                "SmoothedClassifier.from_base_pretrained(path, sigma=0.25).save_pretrained(folder)."
            )
        if self.image_processor is None:
            self.image_processor = self.model.image_processor()
        check_own_processor(self.image_processor, self.model)
        if getattr(self.image_processor, "do_noise", False):
            raise ValueError(
                f"The task {TASK!r} takes clean images, to which certification adds its noise, got an image processor with do_noise=True. Pass "
                "image_processor=model.image_processor()."
            )

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As that of `transformers.Pipeline`; of a data set or one of its columns the answers for all its images, as a list."""
        found = pictures_of(inputs)
        if isinstance(found, list) and not found:
            return []
        answers = super().__call__(found, *args, **kwargs)
        return list(answers) if isinstance(found, Pictures) else answers

    def _sanitize_parameters(self, timeout: float | None = None, **options: Any) -> tuple[dict[str, Any], ...]:
        unknown = sorted(options.keys() - _OPTIONS)
        if unknown:
            raise ValueError(
                f"The task {TASK!r} takes the options {', '.join(sorted(_OPTIONS))}, got {', '.join(unknown)}. {meant(unknown[0], _OPTIONS)}"
            )
        return ({} if timeout is None else {"timeout": timeout}), options, {}

    def preprocess(self, image: Any, timeout: float | None = None) -> dict[str, torch.Tensor]:
        """One image to pixels. They stay in float32 whatever the model's dtype: half precision would leave the 8-bit grid."""
        source = os.fspath(image) if isinstance(image, str | os.PathLike) else getattr(image, "filename", "")
        if isinstance(image, str | os.PathLike):
            image = image_of_source(os.fspath(image), timeout)
        if not isinstance(image, Image.Image):
            raise TypeError(
                f"The task {TASK!r} takes PIL images, paths, URLs and base64, got {type(image).__name__}. Of a uint8 array make an image with "
                "PIL.Image.fromarray(array), or pass model.certify() a batch of pixels."
            )
        try:
            pixels = self.image_processor(images=image, return_tensors="pt")["pixel_values"]
        except ValueError as error:
            if not source or len(source) > 1_000:  # base64 names nothing
                raise
            raise ValueError(f"{source} cannot be certified: {error}") from error
        return {"pixel_values": pixels}

    def _forward(self, model_inputs: dict[str, torch.Tensor], **options: Any) -> dict[str, list[Certificate]]:
        pixels = model_inputs["pixel_values"]
        if options.get("seed") is None:
            return {"certificates": self.model.certify(pixels, **options)}
        # One by one, so that with a seed the answer for an image does not depend on the images beside it.
        return {"certificates": [self.model.certify(image[None], **options)[0] for image in pixels]}

    def postprocess(self, model_outputs: dict[str, Any]) -> dict[str, Any]:
        """A certificate to a dictionary of plain values."""
        found = model_outputs["certificates"]
        framing = self.model.config.framing()
        certificate: Certificate = found[0] if isinstance(found, list) else found
        return {
            "label": None if certificate.abstained else self.model.config.id2label[certificate.prediction],
            "radius": certificate.radius,
            "grey_levels": 255.0 * certificate.radius,
            "linf_radius": implied_linf(certificate.radius, (framing.channels, *framing.size)),
            "draws": certificate.draws,
            "alpha": certificate.alpha,
            "sigma": certificate.sigma,
            "noise_kind": certificate.noise_kind,
            "threat_model": certificate.threat_model,
        }

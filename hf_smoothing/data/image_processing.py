"""`NoisyImageProcessor`: images to tensors, with Gaussian noise between resizing and normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import ImagesKwargs
from transformers.utils import is_torchvision_available

from hf_smoothing.data.eight_bit import eight_bit_image
from hf_smoothing.data.framing import Framing, framing_of_settings
from hf_smoothing.noise import NoiseMixture, process_generator
from hf_smoothing.pixels import RANGE_TOLERANCE
from hf_smoothing.preprocessing import Preprocessing, parse_size


class NoisyImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict, untyped for mypy
    """What the processor takes beyond the arguments of every image processor of `transformers`."""

    do_noise: bool | None
    noise: Any
    model_size: Any
    num_channels: int | None


class _NoiseMixin:
    """The order of the contract: resize and crop to `size` -> [0, 1] -> noise -> resize to `model_size` -> normalise."""

    valid_kwargs = NoisyImageProcessorKwargs
    resample = PILImageResampling.BILINEAR
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    size = {"height": 32, "width": 32}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_noise = False
    noise: Any = None
    model_size: Any = None
    num_channels = 3

    def __init__(self, **kwargs: Any) -> None:
        mixture = NoiseMixture.parse(kwargs.pop("noise", None))
        size = parse_size(kwargs.pop("model_size", None), "model_size")
        if kwargs.get("num_channels") == 1:
            kwargs["do_convert_rgb"] = False
        super().__init__(**kwargs)
        self.noise = None if mixture is None else mixture.to_dict()
        self.model_size = None if size is None else {"height": size[0], "width": size[1]}
        if self.do_noise and mixture is None:
            raise ValueError(
                "do_noise=True needs a mixture: pass e.g. noise={'sigmas': [0, 1], 'clean': 0.25, 'distribution': 'uniform'}."
            )

    def framing(self) -> Framing:
        """How an image becomes the pixels to which noise is added."""
        return framing_of_settings(self)

    def process_image(self, image: Any, *args: Any, num_channels: int | None = None, **kwargs: Any) -> Any:
        """As the backend, but turned as its EXIF orientation says, in grey where that is asked for, and with 8 bits per channel."""
        if isinstance(image, Image):
            image = eight_bit_image(image, grey=num_channels == 1)
        return super().process_image(image, *args, **kwargs)  # type: ignore[misc]  # the other base is an image backend

    def _preprocess(
        self,
        images: list[Any],
        do_rescale: bool = True,
        do_normalize: bool = True,
        image_mean: Any = None,
        image_std: Any = None,
        return_tensors: Any = None,
        do_noise: bool | None = None,
        noise: Any = None,
        model_size: Any = None,
        num_channels: int | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        plain = super()._preprocess(  # type: ignore[misc]  # the other base is an image backend
            images, do_rescale=do_rescale, do_normalize=False, image_mean=image_mean, image_std=image_std,
            return_tensors=None, **kwargs,
        )  # fmt: skip
        values = plain["pixel_values"]
        if do_noise or model_size is not None or do_normalize:
            values = self._finish(values, do_rescale, do_normalize, image_mean, image_std, do_noise, noise, model_size)
        return BatchFeature(data={"pixel_values": values}, tensor_type=return_tensors)

    def _finish(
        self, values: list[Any], do_rescale: bool, do_normalize: bool, mean: Any, std: Any,
        do_noise: bool | None, noise: Any, model_size: Any,
    ) -> list[Any]:  # fmt: skip
        shapes = {tuple(value.shape) for value in values}
        if len(shapes) > 1:
            raise ValueError(
                f"Images of one batch must have one size and channel count after resizing, got {sorted(shapes)}. "
                "Use do_resize=True with a (height, width) size, and do_convert_rgb=True."
            )
        pixels = torch.stack([torch.as_tensor(value) for value in values]).to(torch.float32)
        if do_noise:
            mixture = NoiseMixture.parse(noise)
            if mixture is None:
                raise ValueError("do_noise=True needs a mixture: construct the processor with noise=...")
            low, high = (float(x) for x in torch.aminmax(pixels))
            if not (low >= -RANGE_TOLERANCE and high <= 1.0 + RANGE_TOLERANCE):
                raise ValueError(
                    f"Noise is in [0, 1] pixel units, but images reach from {low:.3g} to {high:.3g} before it. "
                    f"Pass 0..255 images with do_rescale=True (got do_rescale={do_rescale}), or floats in [0, 1] with False."
                )
            pixels = mixture.add(pixels, process_generator("cpu"))[0]
        target = parse_size(model_size, "model_size")
        if do_normalize:
            pixels = Preprocessing(mean, std, target)(pixels)
        elif target is not None:
            pixels = Preprocessing((0.0,), (1.0,), target)(pixels)
        return list(self._as_backend(pixels))

    def _as_backend(self, pixels: Tensor) -> Any:
        return pixels


class NoisyImageProcessorPil(_NoiseMixin, PilBackend):
    """Images to `pixel_values`, with noise when asked for; PIL backend, no torchvision needed.

    Noise is off by default, so that evaluation and `pipeline` see clean images; a training transform turns it on:
    `processor(images, do_noise=True, return_tensors="pt")`.

    Args:
        size: The certified resolution, {"height": h, "width": w} or an int; noise is added at this size. With do_center_crop it is what
            images are resized to before the crop, {"shortest_edge": s} too, and `crop_size` is the certified resolution.
        model_size: What the backbone sees, or None for `size`.
        noise: A mixture as `NoiseMixture.parse` reads it.
        do_noise: Add it; False by default.
        num_channels: 3 for RGB, 1 for grey images.
        do_normalize: False for `SmoothedClassifier` and `RobustTrainer`, which normalise themselves.
        image_mean, image_std: Radius in [0, 1] pixel units.
        kwargs: Everything else that image processors of `transformers` take.

    Raises:
        ValueError: On an invalid mixture, noise on images that are not in [0, 1] after rescaling, or mixed shapes.
    """

    def _as_backend(self, pixels: Tensor) -> np.ndarray[Any, Any]:
        return pixels.numpy()


if is_torchvision_available():  # pragma: no cover - tested by `make test-torchvision`
    from transformers.image_processing_backends import TorchvisionBackend

    class NoisyImageProcessor(_NoiseMixin, TorchvisionBackend):
        """`NoisyImageProcessorPil` on the torchvision backend."""

else:
    NoisyImageProcessor = NoisyImageProcessorPil  # type: ignore[misc]  # as transformers does without torchvision

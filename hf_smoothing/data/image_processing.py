"""`NoisyImageProcessor`: images to tensors, with Gaussian noise between resizing and normalisation."""

from __future__ import annotations

from typing import Any, get_type_hints

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import ImagesKwargs
from transformers.utils import is_torchvision_available

from hf_smoothing.data.eight_bit import eight_bit_image, has_channels_first
from hf_smoothing.data.framing import Framing, framing_of_settings
from hf_smoothing.data.image_source import image_of_source
from hf_smoothing.keywords import check_not_misspelt
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
        own = [name for name in get_type_hints(self.valid_kwargs) if not name.startswith("return_")]
        check_not_misspelt(kwargs.keys() - set(own), own, type(self).__name__)
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

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """As the backend, but a path, URL or base64 in the mode of its file, for `process_image` to convert."""
        if isinstance(image_url_or_urls, str):
            return image_of_source(image_url_or_urls)
        return super().fetch_images(image_url_or_urls)  # type: ignore[misc]  # the other base is an image backend

    def process_image(self, image: Any, *args: Any, num_channels: int | None = None, **kwargs: Any) -> Any:
        """As the backend, but turned as its EXIF orientation says, in grey where that is asked for, and with 8 bits per channel.

        Raises:
            ValueError: If the channels of an array can be its first axis or its last one, and `input_data_format` does not say.
        """
        if isinstance(image, Image):
            image = eight_bit_image(image, grey=num_channels == 1)
        elif kwargs.get("input_data_format") is None and len(getattr(image, "shape", ())) == 3:
            has_channels_first(
                image.shape, "Pass input_data_format='channels_last', or 'channels_first', whichever it is."
            )
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
        # Without rescaling, normalisation and noise, pixels are only resized, in whatever unit they have.
        if do_rescale or do_normalize:
            for image in images:
                _check_unit(image, kwargs["rescale_factor"] if do_rescale else None)
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


def _check_unit(image: Any, factor: float | None) -> None:
    """Refuse an array that is not in the unit which the settings say: 0..255 where it is rescaled by a factor of 1/255, [0, 1] where it is not.

    Raises:
        ValueError: If it lies outside, or is boolean, or holds floats that are plainly in [0, 1] already but would be rescaled, to black.
    """
    if 0 in image.shape or (factor is not None and image.dtype in (np.uint8, torch.uint8)):
        return
    values = image.to(torch.float32) if isinstance(image, Tensor) else image
    if factor is not None and factor <= 0:
        raise ValueError(f"`rescale_factor` must be positive, such as 1/255, got {factor}.")
    low, high = float(values.min()), float(values.max())
    top = 1.0 if factor is None else 1.0 / factor
    shown = f"got {image.dtype} from {low:.3g} to {high:.3g}".replace("torch.", "")
    if factor is None:
        if not (low >= -RANGE_TOLERANCE and high <= 1.0 + RANGE_TOLERANCE):  # written so that nan fails
            raise ValueError(
                f"With do_rescale=False images must be floats in [0, 1] pixel units, {shown}. Pass 0..255 images with do_rescale=True, and images "
                "that are normalised already to the model itself."
            )
        return
    if image.dtype in (np.bool_, torch.bool):
        raise ValueError(
            f"With do_rescale=True images must hold levels 0..{top:.6g}, got bool, which would be black. Pass (255 * image).astype('uint8')."
        )
    if not (low >= -RANGE_TOLERANCE * top and high <= (1.0 + RANGE_TOLERANCE) * top):
        raise ValueError(
            f"With do_rescale=True images must hold levels 0..{top:.6g}, {shown}. Pass uint8 images: clip what a resize brought beyond, "
            "scale 16 bits down, and leave normalisation to the processor or the model."
        )
    # Floats of 0..255 below 2 would be a picture of the darkest two levels, which comes as uint8 if at all; as [0, 1] it is any picture.
    # All zero is black in either unit.
    floating = image.is_floating_point() if isinstance(image, Tensor) else image.dtype.kind == "f"
    if floating and 0.0 < high < 2.0 < top:
        raise ValueError(
            f"With do_rescale=True images must hold levels 0..{top:.6g}, {shown}. It looks like [0, 1] (ToTensor makes such), which would be divided "
            f"by {top:.6g} once more, to black: pass do_rescale=False. If these are levels, pass them as uint8."
        )


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
        image_mean, image_std: Mean and standard deviation of each channel, for the normalisation, in [0, 1] pixel units.
        kwargs: Everything else that image processors of `transformers` take.

    Raises:
        ValueError: On an invalid mixture, mixed shapes, arrays outside 0..255 where they are rescaled or outside [0, 1] where they are not but are
            to get noise or be normalised, and floats in [0, 1] that would be rescaled.
    """

    def resize(self, image: Any, *args: Any, **kwargs: Any) -> Any:
        """As the backend, which takes floats that are all 0 or 1 for the levels 0 and 1 of 255, between which it has no shades."""
        if image.dtype.kind == "f" and image.any() and np.isin(image, (0.0, 1.0)).all():
            levels = super().resize((255 * image).astype(np.uint8), *args, **kwargs)
            return (levels / 255.0).astype(image.dtype)
        return super().resize(image, *args, **kwargs)

    def _as_backend(self, pixels: Tensor) -> np.ndarray[Any, Any]:
        return pixels.numpy()


if is_torchvision_available():  # pragma: no cover - tested by `make test-torchvision`
    from transformers.image_processing_backends import TorchvisionBackend

    class NoisyImageProcessor(_NoiseMixin, TorchvisionBackend):
        """`NoisyImageProcessorPil` on the torchvision backend."""

else:
    NoisyImageProcessor = NoisyImageProcessorPil  # type: ignore[misc]  # as transformers does without torchvision

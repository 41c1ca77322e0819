"""`Framing`: how an image of any shape becomes the pixels at the certified resolution, before any noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from transformers.image_utils import PILImageResampling

from hf_smoothing.preprocessing import Size, parse_size


Resize = Size | int | bool | None


@dataclass(frozen=True)
class Framing:
    """Resize an 8-bit image, then cut out its centre.

    Args:
        size: The pair (height, width) of the pixels: the certified resolution.
        resize: What the image is resized to before the crop: (height, width) whatever its proportions; a number for its shortest edge,
            keeping its proportions; False for no resize; None for `size` itself.
        resample: The filter, by its name in PIL: "bilinear", "bicubic", "nearest", "lanczos", "box" or "hamming"; or its number.
        channels: 3 for RGB, 1 for grey; images of other kinds are converted.

    Raises:
        ValueError: If a value is none of these, or the image would be smaller than its crop.
    """

    size: Size
    resize: Resize = None
    resample: str = "bilinear"
    channels: int = 3

    def __post_init__(self) -> None:
        size = parse_size(self.size)
        if size is None:
            raise ValueError("`size` is needed, the certified resolution: a number of pixels or (height, width).")
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "resample", parse_filter(self.resample))
        object.__setattr__(self, "resize", _parse_resize(self.resize, size))
        if self.channels not in (1, 3):
            raise ValueError(f"`channels` must be 3 (RGB) or 1 (grey), got {self.channels!r}.")

    @property
    def plain(self) -> bool:
        """Whether the image is just resized to `size`, without a crop."""
        return self.resize == self.size

    def words(self) -> str:
        """The same in words, such as "resized to 256 (bilinear), centre (224, 224)"."""
        resized = "not resized" if self.resize is False else f"resized to {self.resize} ({self.resample})"
        return resized if self.plain else f"{resized}, centre {self.size}"

    def scaled(self, size: Any) -> Framing:
        """The same part of the image at another resolution.

        Raises:
            ValueError: If images are cropped without a resize, which has no proportions to keep.
        """
        new = parse_size(size)
        assert new is not None
        if new == self.size:
            return self
        if self.resize is False:
            raise ValueError(
                f"Images are cropped to {self.size} without a resize, so there is no same part of them at {new}. "
                f"Leave `size` out, or pass size=Framing({new}) to resize whole images."
            )
        factors = [a / b for a, b in zip(new, self.size, strict=True)]
        if isinstance(self.resize, tuple):
            pair = [max(round(edge * f), n) for edge, f, n in zip(self.resize, factors, new, strict=True)]
            return replace(self, size=new, resize=(pair[0], pair[1]))
        return replace(self, size=new, resize=max(round(int(self.resize or 0) * max(factors)), *new))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; of `Framing(**values)`."""
        resize = list(self.resize) if isinstance(self.resize, tuple) else self.resize
        return {"size": list(self.size), "resize": resize, "resample": self.resample, "channels": self.channels}

    def processor_settings(self) -> dict[str, Any]:
        """The same in the words of image processors of `transformers`."""
        settings: dict[str, Any] = {"resample": PILImageResampling[self.resample.upper()]}
        if isinstance(self.resize, tuple):
            settings["size"] = {"height": self.resize[0], "width": self.resize[1]}
        elif self.resize is False:
            settings |= {"do_resize": False, "size": {"height": self.size[0], "width": self.size[1]}}
        else:
            settings["size"] = {"shortest_edge": self.resize}
        if not self.plain:
            settings |= {"do_center_crop": True, "crop_size": {"height": self.size[0], "width": self.size[1]}}
        return settings | ({} if self.channels == 3 else {"num_channels": self.channels})


class FramedSize(list[int]):
    """[height, width] that remembers its framing: `PixelDataset(data, model.config.size)` frames images as the model wants them."""

    def __init__(self, framing: Framing) -> None:
        super().__init__(framing.size)
        self.framing = framing

    def __reduce__(self) -> tuple[Any, ...]:
        return FramedSize, (self.framing,)


def enlargement(framing: Framing, original: tuple[int, int]) -> float | None:
    """By how much an l2 distance grows where an image is enlarged; None where it is at least as large as the pixels in one direction.

    Args:
        original: The pair (height, width) of the image.
    """
    if framing.resize is False or any(edge >= wanted for edge, wanted in zip(original, framing.size, strict=True)):
        return None
    if isinstance(framing.resize, tuple):
        return math.sqrt(framing.resize[0] * framing.resize[1] / (original[0] * original[1]))
    return int(framing.resize or 0) / min(original)


def framing_of_settings(processor: Any) -> Framing:
    """What the settings of an image processor say, in the plain meaning that the base class gives them.

    Raises:
        ValueError: If images would come out in different shapes, or the size has bounds.
    """
    check_size_alone(processor)
    size, crop = processor.size, getattr(processor, "crop_size", None)
    cropped = bool(getattr(processor, "do_center_crop", False)) and crop is not None
    edge = getattr(size, "shortest_edge", None)
    resize: Resize = False if getattr(processor, "do_resize", True) is False else (edge or parse_size(size))
    if not cropped and (resize is False or edge):
        raise ValueError(
            f"{type(processor).__name__} gives images in different shapes, but a certificate needs one. Pass it a (height, width) `size`, or a "
            f"`crop_size` with do_center_crop=True; got size={size} and do_resize={getattr(processor, 'do_resize', True)}."
        )
    channels = getattr(processor, "num_channels", None) or 3
    return Framing(parse_size(crop if cropped else size) or (0, 0), resize, _filter_of(processor), channels)


def check_size_alone(processor: Any) -> None:
    """Refuse a size with bounds, such as a longest edge: what is done to an image then depends on its proportions.

    Raises:
        ValueError: The message names the bounds.
    """
    size = getattr(processor, "size", None)
    stated = size if isinstance(size, Mapping) else getattr(size, "__dict__", {})
    bounds = {k: v for k, v in stated.items() if v is not None and k not in ("height", "width", "shortest_edge")}
    if bounds and getattr(processor, "do_resize", True) is not False:
        raise ValueError(
            f"{type(processor).__name__} bounds what it resizes to by {bounds}, so images come out in different shapes, or padded, by their proportions. "
            "Pass it a (height, width) `size`, or a `shortest_edge` alone with a `crop_size` and do_center_crop=True."
        )


def parse_filter(value: Any) -> str:
    """The name of a resampling filter, from that or from PIL's number.

    Raises:
        ValueError: On any other.
    """
    names = {member.name.lower(): member for member in PILImageResampling}
    if isinstance(value, str) and value.lower() in names:
        return value.lower()
    if not isinstance(value, bool) and value in list(names.values()):
        return str(PILImageResampling(value).name.lower())
    raise ValueError(f"`resample` must be one of {', '.join(names)}, got {value!r}.")


def parse_framing(value: Any) -> Framing:
    """A framing from itself, its dictionary, or a size alone: then whole RGB images are resized to it.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(value, Framing):
        return value
    if isinstance(value, FramedSize):
        return value.framing
    if isinstance(value, Mapping) and "size" in value:
        return Framing(**value)
    return Framing(value)


def _filter_of(processor: Any) -> str:
    resample = getattr(processor, "resample", None)
    if resample is None:
        return "bilinear"
    # torchvision's InterpolationMode has PIL's names as values.
    return parse_filter(getattr(resample, "value", resample))


def _parse_resize(value: Any, size: Size) -> Resize:
    if value is None:
        return size
    if value is False:
        return False
    resize: Resize
    if isinstance(value, int) and not isinstance(value, bool):
        resize, smallest = value, (value, value)
    else:
        smallest = resize = parse_size(value, "resize") or size
    if any(edge < wanted for edge, wanted in zip(smallest, size, strict=True)):
        raise ValueError(f"`resize` must cover the crop to `size` {size}, got {value}. Make it at least as large.")
    return resize

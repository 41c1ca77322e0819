"""What is read of the image processors of `transformers`: their pixels are ours, or they are refused by name."""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.utils import is_torchvision_available

from hf_smoothing import NoisyImageProcessor, PixelDataset
from hf_smoothing.data.framing import Framing
from hf_smoothing.data.probe_pictures import probe_pictures
from hf_smoothing.data.processors import LARGEST, MEAN, frame, read_processor


SQUARE = {"height": 32, "width": 32}
LARGE = {"height": 36, "width": 36}
EDGE, LARGE_EDGE = {"shortest_edge": 32}, {"shortest_edge": 36}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
LEVEL = 1.01 / 255
"""torchvision, on which processors run where it is installed, rounds some pixels to the next of 8 bits."""


def processor(name, **settings):
    made = getattr(transformers, name + "Pil")
    return made(**settings)


EXPRESSIBLE = {
    "whole image": ("ViTImageProcessor", {"size": SQUARE}, (32, 32)),
    "bicubic": ("BeitImageProcessor", {"size": SQUARE}, (32, 32)),
    "not square": ("ViTImageProcessor", {"size": {"height": 24, "width": 40}}, (24, 40)),
    "whole image, then crop": ("DeiTImageProcessor", {"size": LARGE, "crop_size": SQUARE}, (36, 36)),
    "shortest edge, then crop": ("CLIPImageProcessor", {"size": EDGE, "crop_size": SQUARE}, 32),
    "larger edge": ("BitImageProcessor", {"size": LARGE_EDGE, "crop_size": SQUARE}, 36),
    "bilinear edge": ("MobileNetV2ImageProcessor", {"size": LARGE_EDGE, "crop_size": SQUARE}, 36),
    "crop_pct, below 384": ("ConvNextImageProcessor", {"size": EDGE}, 36),
    "crop_pct of another value": ("ConvNextImageProcessor", {"size": EDGE, "crop_pct": 0.95}, 33),
    "crop_pct, from 384 on": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}, (384, 384)),
    "LeViT's 256/224": ("LevitImageProcessor", {"size": EDGE, "crop_size": SQUARE}, 36),
    "PoolFormer's 0.9": ("PoolFormerImageProcessor", {"size": EDGE, "crop_size": SQUARE}, 35),
    "one normalisation": ("EfficientNetImageProcessor", {"size": SQUARE, "include_top": False}, (32, 32)),
    "two normalisations": ("EfficientNetImageProcessor", {"size": SQUARE, **IMAGENET}, (32, 32)),
    "offset": (
        "EfficientNetImageProcessor", {"size": SQUARE, "rescale_factor": 1 / 127.5, "rescale_offset": True}, (32, 32),
    ),
    "no normalisation": ("ViTImageProcessor", {"size": SQUARE, "do_normalize": False}, (32, 32)),
    "no rescaling": ("ViTImageProcessor", {"size": SQUARE, "do_rescale": False, "do_normalize": False}, (32, 32)),
    "no resize": ("CLIPImageProcessor", {"do_resize": False, "crop_size": SQUARE}, False),
    "nearest": ("ViTImageProcessor", {"size": SQUARE, "resample": 0}, (32, 32)),
    "one mean for all channels": ("ViTImageProcessor", {"size": SQUARE, "image_mean": 0.4, "image_std": 0.3}, (32, 32)),
}  # fmt: skip


@pytest.mark.parametrize("case", EXPRESSIBLE)
def test_our_pixels_are_those_of_the_processor(case):
    name, settings, resize = EXPRESSIBLE[case]
    theirs = processor(name, **settings)
    found = read_processor(theirs)
    assert found.framing.resize == resize
    draw = np.random.default_rng(7)  # not the probe images
    edge = max(found.framing.size)
    for shape in ((edge + 58, edge + 109, 3), (2 * edge + 13, edge + 8, 3), (edge + 18, edge + 18, 3)):
        image = Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8))
        ours = found.preprocessing(PixelDataset([{"image": image}], found.framing)[0]["pixel_values"][None] / 255)
        expected = theirs(image, return_tensors="pt")["pixel_values"].float()
        scale = 255 if case == "no rescaling" else 1
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=2e-5 * scale)


def test_the_filter_is_honoured():
    assert read_processor(processor("ViTImageProcessor", size=SQUARE, resample=1)).framing.resample == "lanczos"


PAN = {
    "do_pan_and_scan": True, "pan_and_scan_min_crop_size": 256, "pan_and_scan_max_num_crops": 4, "pan_and_scan_min_ratio_to_activate": 1.2,
}  # fmt: skip
REFUSED = {
    "channels reversed": (
        "MobileViTImageProcessor", {"size": LARGE_EDGE, "crop_size": SQUARE}, "MobileViT.* turns RGB into BGR",
    ),
    "crop by ratio": (
        "PerceiverImageProcessor", {"size": SQUARE, "crop_size": LARGE},
        r"Perceiver.* cannot express: .* differ .* by 0\.\d+ of the pixel range at most .*standard deviation .*ours",
    ),
    "thumbnail and padding": ("DonutImageProcessor", {"size": SQUARE}, "Donut.* cannot express"),
    "patches": (
        "Siglip2ImageProcessor", {"patch_size": 8, "max_num_patches": 16}, r"Siglip2.* does not make pixels .*\(1, 16, 192\)",
    ),
    "colours": (
        "ImageGPTImageProcessor", {"size": {"height": 8, "width": 8}, "clusters": [[i / 8 - 1] * 3 for i in range(16)]},
        "ImageGPT.* does not make pixels .*input_ids",
    ),
    "shape of the image kept": (
        "TextNetImageProcessor", {"size": {"shortest_edge": 64}}, "TextNet.* images in different shapes",
    ),
    "edge without a crop": (
        "CLIPImageProcessor", {"size": EDGE, "do_center_crop": False}, "CLIP.* images in different shapes",
    ),
    "not resized at all": ("ViTImageProcessor", {"do_resize": False}, "ViT.* images in different shapes"),
    "crop larger than the image": (
        "CLIPImageProcessor", {"size": EDGE, "crop_size": LARGE}, "CLIP.* cannot express",
    ),
    "longest edge": (
        "CLIPImageProcessor", {"size": {"shortest_edge": 32, "longest_edge": 640}, "crop_size": SQUARE},
        r"CLIP.* bounds what it resizes to by \{'longest_edge': 640\}",
    ),
    "several crops of a photograph": ("Gemma3ImageProcessor", {"size": SQUARE} | PAN, "Gemma3.* does not make pixels"),
    "several crops of a larger one": (
        "Gemma3ImageProcessor", {"size": SQUARE} | PAN | {"pan_and_scan_min_crop_size": 5000}, "Gemma3.* has do_pan_and_scan=True",
    ),
    "all black": ("ViTImageProcessor", {"size": SQUARE, "rescale_factor": 0.0}, "ViT.* makes black .* and white"),
    "means of other channels": (
        "ViTImageProcessor", {"size": SQUARE, "image_mean": [0.5], "image_std": [0.5], "do_convert_rgb": True}, "ViT.* fails on",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_expressed_is_refused_by_name(case):
    name, settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        read_processor(processor(name, **settings), 3)


def test_the_refusal_shows_the_way_on():
    with pytest.raises(ValueError, match=r"say all of it: size, image_mean and image_std"):
        read_processor(processor("PerceiverImageProcessor", size=SQUARE, crop_size=LARGE))


class Brighter(transformers.ViTImageProcessorPil):
    """A step of its own, that its settings do not mention."""

    def normalize(self, image, mean, std, **kwargs):
        return super().normalize(image**0.5, mean, std, **kwargs)


def test_a_step_that_no_setting_says_is_found():
    with pytest.raises(ValueError, match="Brighter does what .* cannot express"):
        read_processor(Brighter(size=SQUARE))


SOMETIMES = {
    "one of the size itself": lambda height, width: (height, width) == (32, 32),
    "squares": lambda height, width: height == width,
    "strips": lambda height, width: height > 4 * width,
    "panoramas": lambda height, width: width > 4 * height,
    "photographs": lambda height, width: height * width > 500_000,
}


@pytest.mark.parametrize("which", SOMETIMES)
def test_a_step_that_only_some_images_take_is_found(which):
    class Mirror(transformers.ViTImageProcessorPil):
        def resize(self, image, size, **kwargs):
            return super().resize(image[..., ::-1] if SOMETIMES[which](*image.shape[-2:]) else image, size, **kwargs)

    with pytest.raises(ValueError, match="Mirror does what .* cannot express: for probe images of 32 x 32, 69 x 11"):
        read_processor(Mirror(size=SQUARE))


@pytest.mark.parametrize(
    "size",
    [
        {"shortest_edge": 32, "longest_edge": 10_000},
        {"longest_edge": 32},
        {"max_height": 32, "max_width": 32},
        {"min_pixels": 1024, "max_pixels": 1024},
    ],
    ids="-".join,
)
def test_a_size_with_bounds_is_refused_by_their_name(size):
    bound = max(size, key=lambda name: name.startswith("longest"))
    made = processor("CLIPImageProcessor", size=size, crop_size=SQUARE)
    with pytest.raises(ValueError, match=rf"CLIP.* bounds what it resizes to by .*'{bound}'"):
        read_processor(made)
    with pytest.raises(ValueError, match=rf"bounds what it resizes to by .*'{bound}'"):
        NoisyImageProcessor(size=size, do_center_crop=True, crop_size=SQUARE).framing()
    made.do_resize = False
    assert read_processor(made).framing == Framing((32, 32), False, "bicubic")


def test_pixels_of_torchvision_agree_within_the_tolerance():
    """Its resize in floats, rounded once, stands for it here; PIL rounds between and after its two passes."""
    images = probe_pictures((32, 32))
    for resample, mode in (("bilinear", "bilinear"), ("bicubic", "bicubic")):
        ours = frame(Framing((32, 32), resample=resample), images).float()
        theirs = torch.cat([
            torch.nn.functional.interpolate(
                torch.tensor(np.asarray(image)).permute(2, 0, 1)[None].float(), size=(32, 32), mode=mode, antialias=True
            )
            for image in images
        ]).round().clamp(0, 255)  # fmt: skip
        gap = (ours - theirs).abs() / 255
        assert float(gap.max()) <= LARGEST and float(gap.mean()) <= MEAN


@pytest.mark.parametrize("other", [
    Framing((32, 32), resample="bicubic"), Framing((32, 32), 33, "bilinear"), Framing((32, 32), (33, 33), "bilinear"),
    Framing((32, 32), resample="nearest"),
])  # fmt: skip
def test_another_framing_is_far_outside_the_tolerance(other):
    images = probe_pictures((32, 32))
    gap = (frame(other, images).float() - frame(Framing((32, 32)), images).float()).abs() / 255
    assert float(gap.max()) > 2 * LARGEST and float(gap.mean()) > 2 * MEAN


def test_probe_images_are_the_same_every_time():
    first, second = probe_pictures((32, 48)), probe_pictures((32, 48))
    assert [image.tobytes() for image in first] == [image.tobytes() for image in second]
    assert [image.size for image in first] == [(89, 39), (27, 28)]


@pytest.mark.parametrize(
    "framing",
    [
        Framing((32, 32)), Framing((24, 40), 44, "bicubic"), Framing((24, 40), (30, 50), "lanczos"), Framing((16, 16), False),
        Framing((28, 28), channels=1), Framing((28, 28), 32, channels=1),
    ],
)  # fmt: skip
def test_a_framing_is_kept_by_the_processor_that_is_saved(framing, tmp_path):
    NoisyImageProcessor(**framing.processor_settings(), do_normalize=False).save_pretrained(tmp_path)
    loaded = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    assert loaded.framing() == framing == Framing(**framing.to_dict())
    assert read_processor(loaded).framing == framing
    images = probe_pictures((40, 40), framing.channels)
    for image, expected in zip(images, frame(framing, images), strict=True):
        found = loaded(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(found, expected / 255, rtol=0, atol=LEVEL if is_torchvision_available() else 1e-6)


def test_the_noise_of_a_processor_is_no_difference():
    noisy = NoisyImageProcessor(size=8, model_size=16, noise=0.5, do_noise=True, **IMAGENET)
    found = read_processor(noisy)
    assert (found.framing, found.preprocessing.model_size) == (Framing((8, 8)), (16, 16))
    assert found.preprocessing.image_mean == tuple(IMAGENET["image_mean"])

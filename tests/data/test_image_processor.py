"""The noisy image processor resizes, adds noise and normalises in this order, and comes back from disk."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils import is_torchvision_available

from hf_smoothing import NoisyImageProcessor, NoisyImageProcessorPil
from hf_smoothing.preprocessing import resize
from tests.support.tiny import MEAN, STD, data, pil_images, pixels


HALF = {"sigmas": [0.5]}


def tensor(processor, images, **kwargs):
    return processor(images, return_tensors="pt", **kwargs)["pixel_values"]


def test_without_noise_it_resizes_with_pil_rescales_and_normalises():
    images = pil_images(2, size=20)
    processor = NoisyImageProcessor(size=16, image_mean=MEAN, image_std=STD)
    resized = [np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR)) for image in images]
    by_hand = torch.stack([torch.tensor(image).permute(2, 0, 1) / 255 for image in resized])
    by_hand = (by_hand - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    twin = NoisyImageProcessorPil(size=16, image_mean=MEAN, image_std=STD)
    torch.testing.assert_close(tensor(twin, images), by_hand)
    # torchvision, where it is installed, rounds a few pixels the other way: one level of 255, in units of the standard deviation.
    torch.testing.assert_close(tensor(processor, images), by_hand, rtol=0, atol=1.01 / 255 / min(STD))


def test_noise_is_off_by_default_even_with_a_mixture():
    processor = NoisyImageProcessor(size=16, noise=HALF, do_normalize=False)
    torch.testing.assert_close(tensor(processor, pil_images(), do_noise=False), pixels() / 255)
    torch.testing.assert_close(tensor(processor, pil_images()), pixels() / 255)


def test_noise_comes_between_resizing_and_normalising():
    torch.manual_seed(0)
    images = pil_images(16, size=20)
    plain = NoisyImageProcessor(size=16, image_mean=MEAN, image_std=STD)
    noisy = NoisyImageProcessor(size=16, image_mean=MEAN, image_std=STD, noise=HALF)
    difference = tensor(noisy, images, do_noise=True) - tensor(plain, images)
    in_pixel_units = difference * torch.tensor(STD)[:, None, None]
    # 12288 draws: five standard errors of the mean and of the standard deviation.
    assert abs(float(in_pixel_units.mean())) < 5 * 0.5 / 110
    assert abs(float(in_pixel_units.std()) - 0.5) < 5 * 0.5 / 156
    # Neighbours would be correlated had the noise been added before the resize.
    pairs = torch.stack([in_pixel_units[..., :-1].flatten(), in_pixel_units[..., 1:].flatten()])
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 5 / 107


def seeded(processor, images, **arguments):
    """The processor's output with noise that depends on the arguments of nothing but itself."""
    torch.manual_seed(0)
    return tensor(processor, images, do_noise=True, **arguments)


def test_noise_comes_before_the_resize_to_the_model_size():
    processor = NoisyImageProcessor(size=8, noise=HALF, do_normalize=False)
    images = pil_images(3, size=20)
    noisy, enlarged = seeded(processor, images), seeded(processor, images, model_size=32)
    assert enlarged.shape == (3, 3, 32, 32)
    torch.testing.assert_close(enlarged, resize(noisy, (32, 32)))


def test_the_order_with_everything_on():
    processor = NoisyImageProcessor(size=8, model_size=32, noise=HALF, image_mean=MEAN, image_std=STD)
    images = pil_images(3, size=20)
    noisy = seeded(processor, images, model_size=8, do_normalize=False)
    expected = (resize(noisy, (32, 32)) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(seeded(processor, images), expected)


def test_noise_is_not_clamped():
    torch.manual_seed(3)
    noisy = tensor(NoisyImageProcessor(size=16, noise=HALF, do_normalize=False), pil_images(), do_noise=True)
    assert noisy.min() < -0.5 and noisy.max() > 1.5


def test_every_image_and_call_has_its_own_noise():
    torch.manual_seed(4)
    processor = NoisyImageProcessor(size=16, noise=HALF, do_normalize=False)
    grey = Image.new("RGB", (16, 16), (128, 128, 128))
    first, second = tensor(processor, [grey] * 3, do_noise=True), tensor(processor, [grey] * 3, do_noise=True)
    draws = torch.cat([first, second]).flatten(1)
    assert float(torch.cdist(draws, draws).fill_diagonal_(9.0).min()) > 1.0


def test_without_normalising_values_lie_in_0_1():
    values = tensor(NoisyImageProcessor(size=16, do_normalize=False), pil_images())
    assert values.dtype == torch.float32
    assert values.min() >= 0.0 and values.max() <= 1.0 and values.max() > 0.9


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_other_image_modes_become_rgb(mode):
    image = pil_images(1)[0].convert(mode)
    values = tensor(NoisyImageProcessor(size=16, do_normalize=False), [image, pil_images(1)[0]])
    expected = torch.tensor(np.asarray(image.convert("RGB"))).permute(2, 0, 1) / 255
    torch.testing.assert_close(values[0], expected)
    assert values.shape == (2, 3, 16, 16)


def test_images_of_sixteen_bits_are_not_clipped_to_white():
    deep = Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16))
    try:
        values = tensor(NoisyImageProcessor(size=16, do_normalize=False), [deep])
    except (ValueError, TypeError):
        return
    assert float((values == 1.0).float().mean()) < 0.5


@pytest.mark.parametrize("given", [16, [16, 16], {"height": 16, "width": 16}])
def test_sizes_are_written_in_several_ways(given):
    assert tensor(NoisyImageProcessor(size=given), pil_images(1, size=9)).shape == (1, 3, 16, 16)
    assert tensor(NoisyImageProcessor(size=9, model_size=given), pil_images(1, size=9)).shape == (1, 3, 16, 16)


def test_save_and_reload_through_auto(tmp_path):
    processor = NoisyImageProcessor(
        size={"height": 16, "width": 12}, model_size=32, noise="0.5", image_mean=MEAN, image_std=STD
    )
    tensor(processor, pil_images(), do_noise=True)  # a generator is there now, and must not be saved
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["noise"] == {"sigmas": [0.5], "clean": 0.0, "distribution": "list"}
    assert "_generator" not in saved
    for loaded in (AutoImageProcessor.from_pretrained(tmp_path), NoisyImageProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, NoisyImageProcessor)
        assert loaded.model_size == {"height": 32, "width": 32}
        assert loaded.do_noise is False
        assert torch.equal(tensor(loaded, pil_images(size=20)), tensor(processor, pil_images(size=20)))
        assert not torch.equal(tensor(loaded, pil_images(), do_noise=True), tensor(loaded, pil_images()))


def test_do_noise_is_saved(tmp_path):
    NoisyImageProcessor(size=16, noise=0.5, do_noise=True).save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert not torch.equal(tensor(loaded, pil_images()), tensor(loaded, pil_images()))


def test_a_mixture_can_be_given_with_the_call():
    torch.manual_seed(0)
    processor = NoisyImageProcessor(size=16, do_normalize=False)
    noise = tensor(processor, pil_images(16), do_noise=True, noise=0.1) - pixels(16) / 255
    assert 0.09 < noise.std() < 0.11


def test_a_mixture_with_a_clean_share_leaves_images_clean():
    torch.manual_seed(0)
    processor = NoisyImageProcessor(size=16, noise={"sigmas": [0.5], "clean": 0.5}, do_normalize=False)
    noise = tensor(processor, pil_images(40), do_noise=True) - pixels(40) / 255
    clean = (noise.abs().amax(dim=(1, 2, 3)) < 1e-6).sum()
    assert 8 <= clean <= 32


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"do_noise": True}, "do_noise=True needs a mixture"),
        ({"noise": {"sigmas": []}}, "`sigmas` must be"),
        ({"noise": -1.0}, "`sigmas` must be"),
        ({"noise": "lots"}, "noise mixture must be"),
        ({"model_size": 0}, "`model_size` must be"),
    ],
)
def test_bad_settings_are_refused_at_construction(kwargs, message):
    with pytest.raises(ValueError, match=message):
        NoisyImageProcessor(size=16, **kwargs)


def test_noise_without_a_mixture_is_refused_at_the_call():
    with pytest.raises(ValueError, match="needs a mixture"):
        tensor(NoisyImageProcessor(size=16), pil_images(), do_noise=True)


def test_noise_on_images_that_are_not_rescaled_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\] pixel units.*do_rescale=True"):
        tensor(NoisyImageProcessor(size=16, noise=0.5, do_rescale=False), pil_images(), do_noise=True)


def test_noise_on_images_that_are_rescaled_twice_is_refused_or_harmless():
    floats = [image.numpy() / np.float32(255) for image in pixels()]
    values = tensor(
        NoisyImageProcessor(size=16, noise=0.5, do_rescale=False, do_normalize=False), floats, do_noise=False
    )
    torch.testing.assert_close(values, pixels() / 255, rtol=0, atol=1 / 255)


def test_mixed_shapes_are_refused():
    with pytest.raises(ValueError, match="one size and channel count"):
        tensor(NoisyImageProcessor(do_resize=False), [pil_images(1, size=8)[0], pil_images(1, size=9)[0]])


def test_the_stated_class_runs_on_torchvision_where_it_is_installed():
    expected = "TorchvisionBackend" if is_torchvision_available() else "PilBackend"
    assert expected in [parent.__name__ for parent in NoisyImageProcessor.__mro__]


@pytest.mark.parametrize("kind", [NoisyImageProcessor, NoisyImageProcessorPil])
def test_each_backend_adds_noise_and_comes_back_from_disk(kind, tmp_path):
    made = kind(size=16, model_size=8, noise=0.5, image_mean=MEAN, image_std=STD)
    made.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    images = pil_images(64, size=20)
    torch.manual_seed(0)
    noisy = tensor(made, images, do_noise=True)
    torch.manual_seed(0)
    assert torch.equal(tensor(loaded, images, do_noise=True), noisy)
    assert noisy.shape == (64, 3, 8, 8) and noisy.dtype == torch.float32
    difference = (noisy - tensor(made, images)) * torch.tensor(STD)[:, None, None]
    assert 0.15 < float(difference.std()) < 0.5, "noise of 0.5 at 16 px, averaged by the resize"
    eight_bit = tensor(kind(size=16, do_normalize=False), images) * 255
    torch.testing.assert_close(eight_bit, eight_bit.round(), rtol=0, atol=1e-3)


def test_tensors_are_taken_as_well():
    values = tensor(NoisyImageProcessor(size=16, do_normalize=False), list(data(4).pixels))
    torch.testing.assert_close(values, data(4).pixels / 255)


KINDS = pytest.mark.parametrize("kind", [NoisyImageProcessor, NoisyImageProcessorPil])
NO_LEVELS = {
    "unit": (pixels(1)[0] / 255, r"got float(32|64) from 0\S* to 1\. It looks like \[0, 1\].* do_rescale=False"),
    "zeros and ones": ((pixels(1)[0] > 99).float(), r"It looks like \[0, 1\]"),
    "dark": (pixels(1)[0] / 255 * 0.4, r"It looks like \[0, 1\]"),
    "white": (torch.full((3, 16, 16), 1.0), r"It looks like \[0, 1\]"),
    "to -1": (pixels(1)[0] / 127.5 - 1, r"got float(32|64) from -1\S* to 1\S* Pass uint8"),
    "normalised": ((pixels(1)[0] / 255 - 0.45) / 0.22, r"from -2\S* to 2\.5\. Pass uint8"),
    "16 bits": (pixels(1)[0].float() * 257, r"from \S+ to 6.*16 bits"),
    "nan": (torch.full((3, 16, 16), torch.nan), "from nan to nan"),
}


@KINDS
@pytest.mark.parametrize("image", NO_LEVELS)
@pytest.mark.parametrize(
    "form",
    [lambda image: image, lambda image: image.numpy(), lambda image: image.double(), lambda image: image.permute(1, 2, 0)],
    ids=["tensor", "array", "double", "channels last"],
)  # fmt: skip
def test_floats_that_are_no_levels_are_not_rescaled(kind, image, form):
    given, message = NO_LEVELS[image]
    with pytest.raises(ValueError, match=f"With do_rescale=True images must hold levels 0..255, .*{message}"):
        tensor(kind(size=16), form(given))


@KINDS
@pytest.mark.parametrize("noise", [{}, {"do_noise": True, "noise": 0.25}], ids=["clean", "noisy"])
@pytest.mark.parametrize("settings", [{}, {"do_normalize": False}, {"do_resize": False}, {"model_size": 8}], ids=str)
def test_no_setting_rescales_floats_of_the_unit(kind, noise, settings):
    with pytest.raises(ValueError, match=r"It looks like \[0, 1\]"):
        tensor(kind(**({"size": 16} | settings)), [pixels(1)[0], pixels(1)[0] / 255], **noise)


@KINDS
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (pixels(1)[0] > 99, "got bool, which would be black"),
        (pixels(1)[0].int() * 257, "got int32 from .*16 bits"),
        (pixels(1)[0].numpy().astype(np.uint16) * 257, "got uint16 from .*16 bits"),
        (pixels(1)[0].long() - 128, "got int64 from -"),
    ],
    ids=["bool", "int32", "uint16", "below 0"],
)
def test_whole_numbers_that_are_no_levels_are_not_rescaled(kind, image, message):
    with pytest.raises(ValueError, match=f"must hold levels 0..255, {message}"):
        tensor(kind(size=16), image)


@KINDS
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0, 2, 255, None])  # floats that are all 1 could be white in [0, 1]
def test_levels_of_any_dtype_are_rescaled(kind, dtype, level):
    image = pixels(1)[0] if level is None else torch.full((3, 16, 16), level)
    values = tensor(kind(size=16, do_normalize=False), image.to(dtype))[0]
    torch.testing.assert_close(values, image / 255, rtol=0, atol=1e-6)


@KINDS
def test_floats_of_another_range_have_a_factor_of_their_own(kind):
    processor = kind(size=16, do_resize=False, do_normalize=False, rescale_factor=1 / 65535)
    deep = (pixels(1)[0].numpy() * 257.0).astype(np.float32)
    torch.testing.assert_close(tensor(processor, deep)[0], pixels(1)[0] / 255, rtol=0, atol=1e-6)
    unit = kind(size=16, do_resize=False, do_normalize=False, rescale_factor=1.0)
    torch.testing.assert_close(tensor(unit, pixels(1)[0] / 255)[0], pixels(1)[0] / 255, rtol=0, atol=1e-6)


@KINDS
def test_only_floats_of_the_unit_are_normalised_without_rescaling(kind):
    processor = kind(size=16, do_rescale=False, image_mean=MEAN, image_std=STD)
    expected = tensor(kind(size=16, image_mean=MEAN, image_std=STD), pixels(1)[0])
    torch.testing.assert_close(tensor(processor, pixels(1)[0] / 255), expected, rtol=0, atol=1e-5)
    for image in (pil_images(1)[0], pixels(1)[0], pixels(1)[0].float()):
        with pytest.raises(ValueError, match=r"With do_rescale=False images must be floats in \[0, 1\].* to 25\d"):
            tensor(processor, image)


def test_float_images_of_two_values_are_resized_with_shades():
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) > 0.5
    unit = tensor(NoisyImageProcessorPil(size=16, do_rescale=False, do_normalize=False), image.float())
    levels = tensor(NoisyImageProcessorPil(size=16, do_normalize=False), image.to(torch.uint8) * 255)
    torch.testing.assert_close(unit, levels)
    assert len(unit.unique()) > 2

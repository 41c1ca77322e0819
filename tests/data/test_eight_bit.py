"""One file, one image: the same pixels whichever way it comes in, and nothing silently cut off."""

import io
from functools import partial

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from hf_smoothing import NoisyImageProcessor, PixelDataset
from hf_smoothing.data.eight_bit import image_of_array
from hf_smoothing.data.framing import Framing
from tests.support.tiny import SIZE, smoothed


GREY = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def pixels(image, channels=3):
    return PixelDataset([{"image": image}], Framing(SIZE, channels=channels))[0]["pixel_values"]


@pytest.mark.parametrize(
    "image",
    [GREY, GREY[..., None], GREY[None], torch.tensor(GREY), GREY.tolist(), GREY.astype(np.int64), np.asfortranarray(GREY)],
    ids=["pairs", "last", "first", "tensor", "lists", "int64", "fortran"],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_arrays_are_read(image, channels):
    assert torch.equal(pixels(image, channels), torch.tensor(GREY).expand(channels, -1, -1))


@pytest.mark.parametrize("image", [COLOUR, COLOUR.transpose(2, 0, 1), torch.tensor(COLOUR), COLOUR.tolist()])
def test_colour_arrays_are_read(image):
    assert torch.equal(pixels(image), torch.tensor(COLOUR).permute(2, 0, 1))


@pytest.mark.parametrize("form", [None, "numpy", "torch"])
@pytest.mark.parametrize(
    ("feature", "value"),
    [
        (datasets.Array3D((SIZE, SIZE, 3), "uint8"), COLOUR), (datasets.Array3D((3, SIZE, SIZE), "uint8"), COLOUR.transpose(2, 0, 1)),
        (datasets.Array2D((SIZE, SIZE), "uint8"), GREY),
    ],
    ids=["last", "first", "grey"],
)  # fmt: skip
def test_columns_of_arrays_are_read(feature, value, form):
    table = datasets.Dataset.from_dict({"image": [value]}, features=datasets.Features({"image": feature}))
    expected = torch.tensor(COLOUR).permute(2, 0, 1) if value is not GREY else torch.tensor(GREY).expand(3, -1, -1)
    assert torch.equal(PixelDataset(table.with_format(form), SIZE)[0]["pixel_values"], expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (COLOUR / 255, r"must be uint8, 0 to 255, got float64 from 0\.0 to 1\.0"),
        (GREY.astype(np.uint16), "must be uint8, 0 to 255, got uint16"),
        (GREY.astype(np.int32) * 16, r"got int32 from 0 to \d+"),
        (GREY.astype(np.int64) - 5, "got int64 from -5 to"),
        (GREY > 9, "got bool"),
        (COLOUR[..., :2], r"must have shape .* got \(16, 16, 2\)"),
        (GREY.reshape(1, 1, SIZE, SIZE), r"must have shape .* got \(1, 1, 16, 16\)"),
        (GREY[0], r"must have shape .* got \(16,\)"),
        (GREY[:0], r"got \(0, 16\)"),
        ({"red": 1}, "must be uint8, 0 to 255, got object"),
    ],
)
def test_other_arrays_are_refused_with_what_they_are(image, message):
    with pytest.raises(ValueError, match=f"Image 0 of column 'image' cannot be read: arrays .*{message}"):
        pixels(image)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("height", [1, 2, 3, 4, 5])
def test_arrays_are_read_where_one_axis_alone_can_be_channels_and_refused_where_two_can(height, channels):
    array = np.random.default_rng(2).integers(0, 256, (height, 8, channels), dtype=np.uint8)
    process = partial(NoisyImageProcessor(size=SIZE, do_convert_rgb=False), do_normalize=False, do_rescale=False)
    if height in (2, 5):
        assert image_of_array(array) == Image.fromarray(array.squeeze(-1) if channels == 1 else array)
        assert process(array)["pixel_values"][0].shape == (channels, SIZE, SIZE)
        return
    for both in (array, array.transpose(2, 1, 0), torch.tensor(array), array.tolist()):
        with pytest.raises(ValueError, match=r"which fits both\. Pass PIL images"):
            image_of_array(both)
    with pytest.raises(ValueError, match="which fits both.*input_data_format='channels_last'"):
        process(array)
    assert process(array, input_data_format="channels_last")["pixel_values"][0].shape == (channels, SIZE, SIZE)


def test_an_array_of_one_pixel_is_grey_either_way():
    assert image_of_array(np.uint8([[[7]]])) == Image.new("L", (1, 1), 7)


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_images_of_more_bits_are_refused_everywhere(mode, tmp_path):
    deep = Image.fromarray(GREY.astype({"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]))
    assert deep.mode == mode
    with pytest.raises(ValueError, match="8 bits per channel"):
        pixels(deep, 1)
    with pytest.raises(ValueError, match="8 bits per channel"):
        NoisyImageProcessor(size=SIZE)(deep)
    serve = pipeline("certified-image-classification", model=smoothed(), image_processor=smoothed().image_processor())
    with pytest.raises(ValueError, match="8 bits per channel"):
        serve(deep)
    if mode == "I;16":
        deep.save(tmp_path / "deep.png")
        with pytest.raises(ValueError, match="8 bits per channel"):
            serve(str(tmp_path / "deep.png"))


def turned():
    """A JPEG-like photo whose EXIF data say that it must be turned, and the same upright."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR[:, :10]).save(buffer, "PNG", exif=exif)
    return Image.open(buffer), Image.fromarray(COLOUR[:, :10]).transpose(Image.Transpose.ROTATE_270)


def clear():
    """With a transparent half over an unseen colour, and as it looks on white."""
    values = np.concatenate([COLOUR, np.full((SIZE, SIZE, 1), 255, np.uint8)], axis=2)
    values[:8, :, 3] = 0
    seen = COLOUR.copy()
    seen[:8] = 255
    return Image.fromarray(values), Image.fromarray(seen)


@pytest.mark.parametrize("make", [turned, clear])
@pytest.mark.parametrize("way", ["data set", "table", "processor", "pipeline", "pipeline with a path"])
def test_one_image_gives_the_same_pixels_whichever_way_it_comes(make, way, tmp_path, monkeypatch):
    image, upright = make()
    expected = torch.tensor(np.asarray(upright.resize((SIZE, SIZE), Image.Resampling.BILINEAR))).permute(2, 0, 1)
    if way == "data set":
        found = pixels(image)
    elif way == "table":
        image.save(tmp_path / "image.png", exif=image.getexif())
        features = datasets.Features({"image": datasets.Image()})
        table = datasets.Dataset.from_dict({"image": [str(tmp_path / "image.png")]}, features=features)
        found = PixelDataset(table, SIZE)[0]["pixel_values"]
    elif way == "processor":
        found = NoisyImageProcessor(size=SIZE, do_normalize=False)(image, return_tensors="pt")["pixel_values"][0] * 255
    else:
        model, seen = smoothed(), []
        serve = pipeline("certified-image-classification", model=model, image_processor=model.image_processor())
        monkeypatch.setattr(type(model), "certify", lambda self, images, **_: seen.append(images) or [None])
        monkeypatch.setattr(serve, "postprocess", lambda outputs: outputs)
        if "path" in way:
            image.save(tmp_path / "image.png", exif=image.getexif())
        serve(str(tmp_path / "image.png") if "path" in way else image)
        found = seen[0][0] * 255
    torch.testing.assert_close(found.float(), expected.float(), rtol=0, atol=1e-3)

"""Files that visitors choose: read as the library reads images, or refused with a clear word."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from examples.space.pictures import MOST_PIXELS, UnusableFileError, data_uri, read_file, sample
from hf_smoothing import Framing, PixelDataset


FRAMING = Framing(32)


def colours(width: int, height: int, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def saved(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


IMAGES = {
    "rgb.png": Image.fromarray(colours(64, 48)),
    "grey.png": Image.fromarray(colours(40, 40, 1)),
    "rgba.png": Image.fromarray(colours(40, 40, 4)),
    "palette.gif": Image.fromarray(colours(40, 40)).quantize(16),
    "photo.jpg": Image.fromarray(colours(50, 70)),
    "print.jpg": Image.fromarray(colours(50, 70)).convert("CMYK"),
    "bits.png": Image.fromarray(colours(40, 40, 1)).convert("1"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_file_gives_the_pixels_that_the_library_gives(name, tmp_path):
    path = saved(tmp_path / name, IMAGES[name])
    chosen = read_file(path, FRAMING)
    wanted = PixelDataset([{"image": path.read_bytes()}], FRAMING)[0]["pixel_values"]
    assert chosen.pixels.dtype == torch.uint8 and torch.equal(chosen.pixels, wanted)
    assert name in chosen.about and "the certificate is about the image that you see here" in chosen.about


def test_what_was_done_is_said(tmp_path):
    assert "It is resized to 32 x 32" in read_file(saved(tmp_path / "a.png", IMAGES["rgb.png"]), FRAMING).about
    assert "enlarged" in read_file(saved(tmp_path / "dot.png", Image.new("RGB", (1, 1), "red")), FRAMING).about
    assert "over white" in read_file(saved(tmp_path / "a.png", IMAGES["rgba.png"]), FRAMING).about
    same = read_file(saved(tmp_path / "a.png", Image.fromarray(colours(32, 32))), FRAMING)
    assert same.about == "a.png, 32 x 32 pixels."


@pytest.mark.parametrize(("mode", "through"), [("LAB", False), ("CMYK", False), ("LA", True), ("RGBA", True)])
def test_only_what_can_be_seen_through_is_said_to_be_laid_over_white(mode, through, tmp_path):
    image = saved(tmp_path / "a.tif", Image.new(mode, (40, 30)))
    assert ("over white" in read_file(image, FRAMING).about) == through


def test_the_size_is_that_of_the_picture_upright(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (60, 40)), exif=turned)
    assert "a.jpg, 40 x 60 pixels." in read_file(path, FRAMING).about


def test_of_an_animation_the_first_frame_is_used(tmp_path):
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    chosen = read_file(saved(tmp_path / "two.gif", frames[0], save_all=True, append_images=frames[1:]), FRAMING)
    assert "Only its first frame is used." in chosen.about
    assert chosen.pixels.float().mean((1, 2)).tolist() == pytest.approx([255, 0, 0], abs=2)


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.png", "a.webp"])
def test_an_animation_that_is_cut_off_anywhere_is_read_or_refused(name, tmp_path):
    """Its first frame may be whole although no one can count the others."""
    frames = [Image.fromarray(np.roll(colours(24, 20), turn)) for turn in range(3)]
    content = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:]).read_bytes()
    cut, read = tmp_path / f"cut-{name}", 0
    for end in range(12, len(content), 37):
        cut.write_bytes(content[:end])
        try:
            assert f"cut-{name}, 24 x 20 pixels." in read_file(cut, FRAMING).about
            read += 1
        except UnusableFileError:
            pass
    assert read > 0 or name == "a.webp"


def test_a_single_pixel_fills_the_image(tmp_path):
    chosen = read_file(saved(tmp_path / "dot.png", Image.new("RGB", (1, 1), (1, 2, 3))), FRAMING)
    assert chosen.pixels.flatten(1).unique(dim=1).tolist() == [[1], [2], [3]]


def refused(path) -> str:
    with pytest.raises(UnusableFileError) as error:
        read_file(path, FRAMING)
    return str(error.value)


def test_files_that_are_no_images_are_refused(tmp_path):
    text = tmp_path / "notes.png"
    text.write_text("only renamed")
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    for path in (text, empty):
        assert refused(path).startswith(f"{path.name} is not an image that can be read. Choose a PNG")


def test_damaged_files_are_refused(tmp_path):
    whole = io.BytesIO()
    IMAGES["rgb.png"].save(whole, format="png")
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.getvalue()[:2000])
    assert (
        refused(cut)
        == "cut.png begins as a PNG image but cannot be read. It may be cut off: save or download it again."
    )


def test_deep_images_are_refused(tmp_path):
    deep = saved(tmp_path / "deep.png", Image.fromarray(np.full((40, 40), 40_000, dtype=np.uint16)))
    assert "deep.png has more than 8 bits per channel (mode I" in refused(deep)


@pytest.mark.parametrize("side", [7_500, 20_000])  # above the limit here, above that of PIL
def test_huge_images_are_refused_unread(side, tmp_path):
    assert side**2 > MOST_PIXELS
    assert "at most 50,000,000 pixels are read here" in refused(
        saved(tmp_path / "huge.png", Image.new("1", (side, side)))
    )


def test_a_sample_names_its_class():
    chosen = sample(Image.fromarray(colours(32, 32)), "frog", FRAMING)
    assert "Its label is frog" in chosen.about
    assert np.array_equal(chosen.pixels.permute(1, 2, 0).numpy(), colours(32, 32))


def test_pictures_in_the_page_hold_the_pixels():
    pixels = torch.from_numpy(colours(5, 4)).permute(2, 0, 1)

    def back(uri: str) -> np.ndarray:
        content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
        return np.asarray(Image.open(io.BytesIO(content)))

    assert np.array_equal(back(data_uri(pixels)), colours(5, 4))
    assert np.array_equal(back(data_uri(pixels / 255 + 0.0)), colours(5, 4))
    noisy = torch.tensor([-3.0, 7.0, 0.5]).view(3, 1, 1)
    assert back(data_uri(noisy)).tolist() == [[[0, 255, 128]]]

"""Every kind of image file gives the same pixels, or the same refusal, by every way in: formats, modes of a column, paths, URLs, base64."""

import base64
import functools
import io
from types import SimpleNamespace

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from transformers import pipeline

from hf_smoothing import NoisyImageProcessor, NoisyImageProcessorPil, PixelDataset, PixelStream
from hf_smoothing.data.framing import Framing
from tests.support.tiny import SIZE, smoothed


GENERATOR = np.random.default_rng(0)
COLOUR = Image.fromarray(GENERATOR.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
DEEP = Image.fromarray(GENERATOR.integers(0, 65536, (SIZE, SIZE)).astype(np.uint16))
DARK = Image.fromarray(GENERATOR.integers(0, 256, (SIZE, SIZE)).astype(np.uint16))


def clear(mode):
    """Transparent above the middle, over colours that are not to be seen."""
    image = COLOUR.convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat(np.uint8([0, 255]), SIZE * SIZE // 2).reshape(SIZE, SIZE)))
    return image.convert(mode)


def cielab():
    profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    return ImageCms.applyTransform(COLOUR, ImageCms.buildTransform(*profiles, "RGB", "LAB"))


def encoded(image, kind, **options):
    raw = io.BytesIO()
    image.save(raw, kind, **options)
    return raw.getvalue()


FILES = {
    "colour": encoded(COLOUR, "PNG"),
    "grey": encoded(COLOUR.convert("L"), "PNG"),
    "one bit": encoded(COLOUR.convert("1"), "PNG"),
    "palette": encoded(COLOUR.quantize(16), "PNG"),
    "clear palette": encoded(COLOUR.quantize(16), "PNG", transparency=3),
    "clear": encoded(clear("RGBA"), "PNG"),
    "clear grey": encoded(clear("LA"), "PNG"),
    "inks": encoded(COLOUR.convert("CMYK"), "TIFF"),
    "lab": encoded(cielab(), "TIFF"),
}
TOO_DEEP = {
    "deep": encoded(DEEP, "PNG"),
    "dark but deep": encoded(DARK, "PNG"),
    "floats": encoded(Image.fromarray(np.asarray(DARK, np.float32)), "TIFF"),
}


def seen(raw):
    """What a person sees on a white page."""
    image = Image.open(io.BytesIO(raw))
    if image.mode in ("RGBA", "LA") or "transparency" in image.info:
        over = np.asarray(image.convert("RGBA")).astype(np.float64)
        share = over[..., 3:] / 255
        values = np.round(share * over[..., :3] + (1 - share) * 255).astype(np.uint8)
    else:
        values = np.asarray(image.convert("RGB"))
    return torch.tensor(values).permute(2, 0, 1)


def table(raw, mode=None):
    made = datasets.Dataset.from_dict({"image": [{"bytes": raw, "path": None}] * 2, "label": [0, 1]})
    return made.cast_column("image", datasets.Image(mode=mode))


def of_table(change, mode=None):
    return lambda raw, _: PixelDataset(change(table(raw, mode)), SIZE)[1]["pixel_values"]


def of_stream(change, mode=None):
    return lambda raw, _: next(iter(PixelStream(change(table(raw, mode).to_iterable_dataset()), SIZE)))["pixel_values"]


@functools.cache
def server():
    model = smoothed()
    return pipeline("certified-image-classification", model=model, image_processor=model.image_processor())


def of_pipeline(given):
    def read(raw, folder):
        return server().preprocess(given(raw, folder))["pixel_values"][0] * 255

    return read


def of_processor(kind, given):
    def read(raw, folder):
        made = kind(size=SIZE, do_normalize=False)([given(raw, folder)], return_tensors="pt")
        return made["pixel_values"][0] * 255

    return read


def path(raw, folder):
    (folder / "image").write_bytes(raw)
    return str(folder / "image")


def url(raw, folder):
    return "https://pictures.example/" + base64.urlsafe_b64encode(raw).decode()


TEXTS = {
    "path": path,
    "url": url,
    "base64": lambda raw, _: base64.b64encode(raw).decode(),
    "lines of base64": lambda raw, _: base64.encodebytes(raw).decode(),
    "data url": lambda raw, _: "data:image/png;base64," + base64.b64encode(raw).decode(),
}
GIVEN = TEXTS | {"opened": lambda raw, _: Image.open(io.BytesIO(raw))}
WAYS = {
    "list": lambda raw, _: PixelDataset([{"image": {"bytes": raw}}], SIZE)[0]["pixel_values"],
    "table": of_table(lambda data: data),
    "columns": of_table(lambda data: data.with_format("torch", columns=["label"])),
    "dtype": of_table(lambda data: data.with_format("numpy", dtype=np.float32)),
    "set": of_table(lambda data: data.set_format("torch") or data),
    "stream": of_stream(lambda data: data),
    "stream without a format": of_stream(lambda data: data.with_format(None)),
    **{f"table as {form}": of_table(lambda data, form=form: data.with_format(form)) for form in ("torch", "numpy", "pandas", "arrow")},
    **{f"stream as {form}": of_stream(lambda data, form=form: data.with_format(form)) for form in ("torch", "numpy", "pandas", "arrow")},
    **{f"table of {mode}": of_table(lambda data: data, mode) for mode in ("RGB", "RGBA")},
    "stream of RGB": of_stream(lambda data: data, "RGB"),
    "table of RGB as torch": of_table(lambda data: data.with_format("torch"), "RGB"),
    **{f"pipeline with {name}": of_pipeline(given) for name, given in GIVEN.items()},
    **{f"{kind.__name__} with {name}": of_processor(kind, given) for name, given in GIVEN.items() for kind in (NoisyImageProcessor, NoisyImageProcessorPil)},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _internet(monkeypatch):
    def get(address, **_):
        content = base64.urlsafe_b64decode(address.rsplit("/", 1)[1])
        return SimpleNamespace(content=content, raise_for_status=lambda: None)

    monkeypatch.setattr(huggingface_hub, "get_session", lambda: SimpleNamespace(get=get))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("file", FILES)
def test_a_file_gives_the_pixels_that_are_seen(file, way, tmp_path):
    found = WAYS[way](FILES[file], tmp_path)
    torch.testing.assert_close(found.float(), seen(FILES[file]).float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("way", [*WAYS, "table of L"])
@pytest.mark.parametrize("file", TOO_DEEP)
def test_a_file_of_more_bits_is_refused(file, way, tmp_path):
    read = (WAYS | {"table of L": of_table(lambda data: data, "L")})[way]
    with pytest.raises(ValueError, match="Images must have 8 bits per channel, got PIL mode"):
        read(TOO_DEEP[file], tmp_path)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("mode", [None, "L"])
def test_grey_is_that_of_what_is_seen(file, mode):
    grey = Image.fromarray(seen(FILES[file]).permute(1, 2, 0).numpy()).convert("L")
    found = PixelDataset(table(FILES[file], mode), Framing(SIZE, channels=1))[0]["pixel_values"]
    assert torch.equal(found[0], torch.tensor(np.asarray(grey)))
    if mode is not None:
        assert torch.equal(PixelDataset(table(FILES[file], mode), SIZE)[0]["pixel_values"], found.expand(3, -1, -1))


def test_labels_of_a_format_are_read_and_checked():
    for form in ("torch", "numpy", "pandas", "arrow"):
        made = PixelDataset(table(FILES["colour"]).with_format(form), SIZE, id2label={0: "a"}, labels="by-number")
        assert made[0]["labels"] == 0 and type(made[0]["labels"]) is int
        with pytest.raises(ValueError, match="Label of image 1"):
            made.check_labels()


def test_a_transform_is_kept():
    black = torch.zeros((SIZE, SIZE, 3), dtype=torch.uint8)
    data = table(FILES["colour"]).with_transform(lambda rows: {"image": [black for _ in rows["image"]]})
    with pytest.raises(ValueError, match="Label of image 0"):  # which the transform leaves out
        PixelDataset(data, SIZE)[0]
    assert int(PixelDataset(data.remove_columns("label"), SIZE)[0]["pixel_values"].max()) == 0


@pytest.mark.parametrize("given", ["no-such-file.png", "", "data:image/png;base64,AAAA", "cat " * 5000])
@pytest.mark.parametrize("way", ["pipeline", "processor"])
def test_other_texts_are_explained(given, way, tmp_path):
    read = of_pipeline(lambda *_: given) if way == "pipeline" else of_processor(NoisyImageProcessor, lambda *_: given)
    with pytest.raises(ValueError, match=r"must be the path of a file, a URL .* got '.*Check the path") as caught:
        read(b"", tmp_path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("given", [{"bytes": b""}, np.zeros((SIZE, SIZE, 3), np.uint8), None])
def test_the_pipeline_refuses_what_is_no_image(given, tmp_path):
    with pytest.raises(TypeError, match="takes PIL images, paths, URLs and base64, got .*Image.fromarray"):
        of_pipeline(lambda *_: given)(b"", tmp_path)

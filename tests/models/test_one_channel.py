"""Networks for grey images, end to end: wrapped, framed, trained, certified, saved, and served."""

import json
import re

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, PreTrainedConfig, PreTrainedModel, ViTImageProcessor, pipeline
from transformers.modeling_outputs import ImageClassifierOutput

from hf_smoothing import NoisyImageProcessor, PixelDataset, RobustTrainer, SmoothedClassifier, certify_dataset
from hf_smoothing.cli import main
from hf_smoothing.data.framing import Framing
from tests.support.tiny import arguments, plain


SIZE = 28
GREY = {"image_mean": [0.13], "image_std": [0.31]}
NAMES = ["zero", "one", "two"]


def digits(count=6, mode="L"):
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)).convert(mode) for _ in range(count)]


def table(images):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    labels = [i % 3 for i in range(len(images))]
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def network(kind="resnet"):
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    return plain(kind, num_channels=1, **labels, **({"image_size": SIZE} if kind == "vit" else {}))


def smoothed(kind="resnet", **settings):
    return SmoothedClassifier.from_base_pretrained(network(kind), sigma=0.25, **({"size": SIZE, **GREY} | settings))


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "LA"])
def test_grey_stays_grey(mode):
    images = digits(2, mode)
    made = PixelDataset(table(images), smoothed())
    expected = torch.stack([torch.tensor(np.asarray(image.convert("L")))[None] for image in images])
    assert torch.equal(made.decode(progress=False).pixels, expected)
    assert made.decode(progress=False).pixels.shape == (2, 1, SIZE, SIZE)
    assert PixelDataset(table(images), SIZE)[0]["pixel_values"].shape == (3, SIZE, SIZE)


def test_colour_becomes_luma_and_transparency_white():
    colour = Image.new("RGBA", (SIZE, SIZE), (255, 0, 0, 255))
    clear = Image.new("RGBA", (SIZE, SIZE), (255, 0, 0, 0))
    made = PixelDataset([{"image": colour}, {"image": clear}], Framing(SIZE, channels=1))
    assert made[0]["pixel_values"].unique().tolist() == [76]
    assert made[1]["pixel_values"].unique().tolist() == [255]


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_plain_checkpoint_with_a_processor_for_grey_images(kind, tmp_path):
    network(kind).save_pretrained(tmp_path)
    theirs = ViTImageProcessor(size={"height": SIZE, "width": SIZE}, do_convert_rgb=False, **GREY)
    theirs.save_pretrained(tmp_path)
    model = SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25)
    assert model.config.framing() == Framing(SIZE, channels=1) and model.config.image_mean == [0.13]
    image = digits(1)[0]
    seen = model.config.preprocessing()(PixelDataset([{"image": image}], model)[0]["pixel_values"][None] / 255)
    torch.testing.assert_close(seen, theirs(image, return_tensors="pt")["pixel_values"])


def test_it_is_trained_certified_saved_and_served(tmp_path):
    images = digits()
    (tmp_path / "data").mkdir()
    table(images).to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    pixels = PixelDataset(table(images), Framing(SIZE, channels=1)).decode(progress=False)
    loop = RobustTrainer(network(), arguments(tmp_path / "loop", noise="0.5", **GREY), train_dataset=pixels)
    loop.train()
    loop.save_model(str(tmp_path / "plain"))
    model = SmoothedClassifier.from_base_pretrained(tmp_path / "plain", sigma=0.25)
    assert model.config.framing() == Framing(SIZE, channels=1)
    model.save_pretrained(tmp_path / "model")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    assert processor.framing() == model.config.framing()

    model = SmoothedClassifier.from_pretrained(tmp_path / "model")
    run = certify_dataset(
        model, PixelDataset(table(images), model), tmp_path / "run", sigma=0.25, n0=4, n=20, progress=False
    )
    assert run.settings["resolution"] == [1, SIZE, SIZE] and len(run.rows) == 6
    for values in ({"task": "image-classification", "top_k": 3}, {"task": "certified-image-classification"}):
        serve = pipeline(model=str(tmp_path / "model"), **values)
        assert len(serve([images[0], images[0].convert("RGB")])) == 2

    command = ["certify", str(tmp_path / "model"), str(tmp_path / "data"), "--sigma", "0.25", "--n", "20", "--n0", "4"]
    assert main([*command, "--output-dir", str(tmp_path / "command")]) == 0
    record = json.loads((tmp_path / "command" / "run.json").read_text())
    assert record["model"]["preprocessing"]["framing"]["channels"] == 1


def test_training_by_a_processor_is_noted_for_grey_images(tmp_path):
    processor = NoisyImageProcessor(size=SIZE, num_channels=1, noise=0.5, **GREY)
    rows = table(digits()).with_transform(
        lambda batch: {**processor(batch["image"], do_noise=True, return_tensors="pt"), "labels": batch["label"]}
    )
    loop = RobustTrainer(
        network(), arguments(tmp_path, noise_owner="processor"), train_dataset=rows, processing_class=processor
    )
    loop.train()
    loop.save_model(str(tmp_path / "saved"))
    assert SmoothedClassifier.from_base_pretrained(tmp_path / "saved", sigma=0.5).config.image_mean == [0.13]


@pytest.mark.parametrize("given", [{"image_mean": [0.5] * 3, "image_std": [0.5] * 3}])
def test_means_of_other_channels_are_refused(given):
    with pytest.raises(ValueError, match="one value per channel, 1 for this 'resnet' network, got 3"):
        smoothed(**given)


def test_one_mean_is_for_all_channels_of_a_colour_network():
    model = SmoothedClassifier.from_base_pretrained(plain(), sigma=0.25, size=16, image_mean=0.5, image_std=[0.25])
    assert (model.config.image_mean, model.config.image_std) == ([0.5] * 3, [0.25] * 3)
    assert model.config.framing().channels == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_the_cure_of_a_normalisation_that_is_not_known_fits_the_network(channels):
    model = plain(num_channels=channels)
    with pytest.raises(ValueError, match="normalisation of this model is not known") as refused:
        SmoothedClassifier.from_base_pretrained(model, sigma=0.25, size=SIZE)
    cure = re.search(r"Pass (image_mean=\[.*?\]) and (image_std=\[.*?\])", str(refused.value))
    values = eval(f"dict({cure[1]}, {cure[2]})")
    made = SmoothedClassifier.from_base_pretrained(model, sigma=0.25, size=SIZE, **values)
    assert made.config.image_mean == [0.5] * channels


def test_the_cure_on_the_command_line_fits_a_grey_network(tmp_path, capsys):
    network().save_pretrained(tmp_path / "grey")
    folder = tmp_path / "images"
    folder.mkdir()
    table(digits()).to_parquet(folder / "test.parquet")
    how = [
        "certify",
        str(tmp_path / "grey"),
        str(folder),
        "--output-dir",
        str(tmp_path / "run"),
        "--size",
        str(SIZE),
        "--sigma",
        "0.25",
    ]
    few = ["--n0", "5", "--n", "20", "--device", "cpu"]
    assert main([*how, *few]) == 2
    cure = re.search(r"Pass (--image-mean [0-9. ]+) and (--image-std [0-9. ]+),", capsys.readouterr().err)
    assert main([*how, *few, *cure[1].split(), *cure[2].split()]) == 0


class Unknown(PreTrainedConfig):
    """A configuration without a number of channels."""

    model_type = "unknown-channels"


class UnknownNetwork(PreTrainedModel):
    config_class = Unknown

    def __init__(self, channels):
        super().__init__(Unknown(num_labels=3))
        self.first = torch.nn.Conv2d(channels, 4, 3)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, pixel_values, **kwargs):
        return ImageClassifierOutput(logits=self.head(self.first(pixel_values).mean((2, 3))))


ONE_VALUE = {"number": 0.5, "list": [0.5], "numpy": np.float32(0.5), "tensor": torch.tensor([0.5])}


@pytest.mark.filterwarnings("ignore:This classifier can be certified, but not saved")
@pytest.mark.parametrize("value", ONE_VALUE.values(), ids=ONE_VALUE)
@pytest.mark.parametrize("channels", [3, 1])
def test_one_value_is_for_colour_or_else_for_grey_where_the_channels_are_not_known(channels, value):
    model = SmoothedClassifier.from_base_pretrained(
        UnknownNetwork(channels), sigma=0.25, size=SIZE, image_mean=value, image_std=value
    )
    assert model.config.image_mean == model.config.image_std == [0.5] * channels
    assert model.config.framing().channels == channels
    assert len(model.certify(torch.zeros(1, channels, SIZE, SIZE), n=20)) == 1
    three = [0.4, 0.5, 0.6]
    if channels == 3:
        mixed = SmoothedClassifier.from_base_pretrained(
            UnknownNetwork(3), sigma=0.25, size=SIZE, image_mean=three, image_std=value
        )
        assert (mixed.config.image_mean, mixed.config.image_std) == (three, [0.5] * 3)


def test_channels_that_are_neither_name_the_values_to_pass():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 28, 28\).*one value per channel, such as \[0.5\] \* 3"):
        SmoothedClassifier.from_base_pretrained(
            UnknownNetwork(2), sigma=0.25, size=SIZE, image_mean=0.5, image_std=0.5
        )

"""A data set frames images as the model's processor does, remembers how, and warns where two framings differ."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from hf_smoothing import PixelDataset, PixelStream, SmoothedClassifier, certify_dataset, smoothed_ensemble
from hf_smoothing.data.framing import FramedSize, Framing, parse_framing
from hf_smoothing.pixels import warn_other_framing
from tests.support.tiny import MEAN, SIZE, STD, data, image_dataset, pil_images, plain, smoothed, trainer


CROPPED = Framing((SIZE, SIZE), 20, "bicubic")


def wide():
    """Grey, with white ends that lie outside the centre."""
    values = np.full((32, 64, 3), 100, np.uint8)
    values[:, :14] = values[:, -14:] = 255
    return Image.fromarray(values)


def brightest(dataset):
    return int(dataset[0]["pixel_values"].max())


@pytest.mark.parametrize(
    "source", ["framing", "dictionary", "model", "configuration", "size of it", "loaded", "processor"]
)
def test_a_data_set_frames_images_as_for_the_model(source, tmp_path):
    model = smoothed(size=CROPPED)
    model.save_pretrained(tmp_path)
    given = {
        "framing": CROPPED, "dictionary": CROPPED.to_dict(), "model": model, "configuration": model.config,
        "size of it": model.config.size, "loaded": SmoothedClassifier.from_pretrained(tmp_path),
        "processor": CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size={"height": SIZE, "width": SIZE}),
    }[source]  # fmt: skip
    rows = [{"image": wide()}]
    assert (
        brightest(PixelDataset(rows, given))
        == brightest(PixelStream(rows, given).__iter__() and _listed(rows, given))
        == 100
    )
    assert brightest(PixelDataset(rows, SIZE)) == 255
    assert PixelDataset(rows, given).framing == CROPPED


def _listed(rows, given):
    return list(PixelStream(rows, given))


def test_a_size_alone_resizes_whole_images_as_ever():
    image = wide()
    expected = torch.tensor(np.asarray(image.resize((12, SIZE), Image.Resampling.BILINEAR))).permute(2, 0, 1)
    assert torch.equal(PixelDataset([{"image": image}], (SIZE, 12))[0]["pixel_values"], expected)


def test_a_network_of_ones_own_says_nothing_and_its_text_is_not_shown():
    with pytest.raises(ValueError, match=r"got Linear, does not say .* Framing\(28, channels=1\) for grey images\.$"):
        PixelDataset([{"image": wide()}], torch.nn.Linear(2, 2))


def test_a_backbone_says_it_too():
    model = plain()
    with pytest.raises(ValueError, match="does not say how images become its pixels"):
        PixelDataset([{"image": wide()}], model)
    model.config.hf_smoothing = {
        "size": [SIZE, SIZE],
        "resize": 20,
        "resample": "bicubic",
        "image_mean": MEAN,
        "image_std": STD,
    }
    assert brightest(PixelDataset([{"image": wide()}], model)) == 100


def test_the_size_of_a_configuration_is_a_plain_pair_that_remembers():
    size = smoothed(size=CROPPED).config.size
    assert size == [SIZE, SIZE] and json.dumps(size) == "[16, 16]" and tuple(size) == (SIZE, SIZE)
    assert isinstance(copy.deepcopy(size), FramedSize) and parse_framing(copy.deepcopy(size)) == CROPPED


def test_the_framing_comes_back_with_the_configuration(tmp_path):
    smoothed(size=CROPPED).config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["size"], saved["resize"], saved["resample"]) == ([SIZE, SIZE], 20, "bicubic")
    config = type(smoothed().config).from_pretrained(tmp_path)
    assert config.framing() == CROPPED
    assert type(config).from_pretrained(tmp_path, size=8).framing() == Framing((8, 8), 10, "bicubic")
    assert type(config).from_pretrained(tmp_path, size=Framing(8)).framing() == Framing((8, 8))


@pytest.mark.parametrize(
    ("framing", "size", "expected"),
    [
        (Framing(224, 256), 32, Framing(32, 37)),
        (Framing(224, 224), 32, Framing(32, 32)),
        (Framing(224), 32, Framing(32)),
        (Framing(224, (256, 256)), 32, Framing(32, (37, 37))),
        (Framing(224, 256), 224, Framing(224, 256)),
        (Framing((200, 100), 220), (100, 50), Framing((100, 50), 110)),
        (Framing(224, 224), (32, 48), Framing((32, 48), 48)),
    ],
)
def test_another_size_takes_the_same_part_of_the_image(framing, size, expected):
    assert framing.scaled(size) == expected


def test_a_crop_alone_has_no_proportions():
    with pytest.raises(ValueError, match=r"cropped to \(224, 224\) without a resize.*size=Framing\(\(32, 32\)\)"):
        Framing(224, False).scaled(32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": None}, "`size` is needed"),
        ({"size": 0}, "`size` must be"),
        ({"size": 32, "resize": 31}, r"`resize` must cover the crop to `size` \(32, 32\), got 31"),
        ({"size": 32, "resize": (40, 31)}, "`resize` must cover"),
        ({"size": 32, "resize": True}, "`resize` must be"),
        ({"size": 32, "resample": "sharp"}, "`resample` must be one of .*bilinear.*got 'sharp'"),
        ({"size": 32, "channels": 4}, "`channels` must be 3"),
    ],
)
def test_a_framing_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Framing(**values)


def test_a_data_set_framed_for_another_is_warned_of(tmp_path, caplog):
    from hf_smoothing import certify_dataset

    model = smoothed(size=CROPPED)
    rows = [{"image": wide()}]
    with pytest.warns(
        UserWarning, match=r"pixels as .*resize=\(16, 16\).* is for .*resize=20.*PixelDataset\(dataset, model\)"
    ):
        certify_dataset(model, PixelDataset(rows, SIZE), tmp_path / "a", sigma=0.5, n0=2, n=20, progress=False)
    with caplog.at_level("INFO", logger="hf_smoothing"):
        certify_dataset(model, PixelDataset(rows, model), tmp_path / "b", sigma=0.5, n0=2, n=20, progress=False)
    assert "Certifying at (3, 16, 16) (channels, height, width), grid noise" in caplog.text
    with pytest.warns(UserWarning, match="is for .*resize=20"):
        trainer(model, tmp_path / "c", train_dataset=PixelDataset(image_dataset(6), SIZE).decode(progress=False))


@pytest.mark.parametrize("other", [Framing(SIZE, 20), Framing(SIZE, resample="nearest"), Framing(SIZE, False)])
def test_every_field_of_a_framing_is_compared(other, tmp_path):
    """Where data sets and members of an ensemble are put together, a new field would be forgotten."""
    model, alike = smoothed(size=Framing(SIZE)), PixelDataset(image_dataset(2), Framing(SIZE))
    with pytest.warns(UserWarning, match="The data set makes its pixels as"):
        warn_other_framing(model, PixelDataset(image_dataset(2), other))
    warn_other_framing(model, alike)  # a warning would be an error
    with pytest.raises(
        ValueError, match="must see the same pixels of an image, got .* Wrap them with one size=Framing"
    ):
        smoothed_ensemble([model, smoothed(size=other)], sigma=0.25)
    assert smoothed_ensemble([model, smoothed(seed=1, size=Framing(SIZE))], sigma=0.25).config.framing() == Framing(
        SIZE
    )


def test_enlarged_images_are_warned_of_once():
    made = PixelDataset(image_dataset(3), Framing(64, 72))
    with pytest.warns(UserWarning, match=r"Image 1 is 16 x 16, smaller .*\(64, 64\).* 4\.5 times larger.*size=16"):
        made[1]
    made[2]  # a second warning would be an error
    PixelDataset([{"image": wide()}], (40, 60))[0]  # smaller in one direction only
    quiet = PixelDataset(image_dataset(3), 64)
    assert quiet.original_size() == (16, 16)
    quiet[0]


def test_the_first_enlarged_image_is_warned_of_wherever_it_is_and_all_are_kept():
    mixed = [{"image": image} for image in (*pil_images(1, 40), *pil_images(2, 20), *pil_images(1, 8))]
    made = PixelDataset(mixed, 32)
    made[0]
    with pytest.warns(UserWarning, match=r"Image 2 is 20 x 20, smaller"):
        made[2]
    made.decode(progress=False)  # a second warning would be an error
    assert made.enlarged == {1: (20, 20), 2: (20, 20), 3: (8, 8)}


def test_training_notes_how_its_images_were_framed(tmp_path):
    images = PixelDataset(image_dataset(8), CROPPED).decode(progress=False)
    loop = trainer(plain(), tmp_path, train_dataset=images)
    loop.train()
    loop.save_model(str(tmp_path / "saved"))
    noted = json.loads((tmp_path / "saved" / "config.json").read_text())["hf_smoothing"]
    assert (noted["size"], noted["resize"], noted["resample"]) == ([SIZE, SIZE], 20, "bicubic")
    assert SmoothedClassifier.from_base_pretrained(tmp_path / "saved", sigma=0.25).config.framing() == CROPPED


def test_decoded_pixels_remember_their_framing():
    assert PixelDataset(image_dataset(2), CROPPED).decode(progress=False).framing == CROPPED
    assert data().framing is None


def ways_to(mixed):
    """Name -> data set of the same images."""
    made = PixelDataset(mixed, 32)
    return {
        "read": made,
        "decoded": made.decode(progress=False),
        "by processes": PixelDataset(mixed, 32).decode(progress=False, processes=2),
        "chosen": torch.utils.data.Subset(PixelDataset(mixed[::-1], 32), [3, 2, 1, 0]),
        "chosen of decoded": torch.utils.data.Subset(made.decode(progress=False), range(4)),
        "chained": torch.utils.data.ConcatDataset([PixelDataset(mixed[:2], 32), PixelDataset(mixed[2:], 32)]),
    }


@pytest.mark.filterwarnings("ignore:Image .* smaller than the certified resolution")
@pytest.mark.parametrize("way", ["read", "decoded", "by processes", "chosen", "chosen of decoded", "chained"])
def test_enlarged_images_are_counted_however_they_come(way, tmp_path):
    mixed = [{"image": image} for image in (*pil_images(1, 40), *pil_images(2, 20), *pil_images(1, 8))]
    dataset = ways_to(mixed)[way]
    run = certify_dataset(
        smoothed(size=32), dataset, tmp_path / "run", sigma=0.25, n0=5, n=20, mode="fixed", progress=False
    )
    assert run.settings["informative"]["enlarged"] == {"images": 3, "smallest": [8, 8]}
    few = certify_dataset(
        smoothed(size=32),
        dataset,
        tmp_path / "few",
        sigma=0.25,
        n0=5,
        n=20,
        mode="fixed",
        progress=False,
        indices=[2, 0],
    )
    assert few.settings["informative"]["enlarged"] == {"images": 1, "smallest": [20, 20]}


def test_processes_that_decode_leave_the_warning_to_the_one_that_asked(capfd):
    mixed = [{"image": image} for image in (*pil_images(1, 40), *pil_images(2, 20), *pil_images(1, 8))]
    made = PixelDataset(mixed, 32)
    # Beside another thread, of which Python warns when it forks.
    other = ThreadPoolExecutor(1)
    other.submit(int).result()
    with other, pytest.warns(UserWarning, match="Image 2 is 20 x 20, smaller") as told:
        found = made.decode(progress=False, indices=[0, 2, 3], processes=2)
    assert len(told) == 1 and capfd.readouterr().err == ""
    assert made.enlarged == {2: (20, 20), 3: (8, 8)} and found.enlarged == {1: (20, 20), 2: (8, 8)}

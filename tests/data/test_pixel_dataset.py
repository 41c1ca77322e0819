"""A pixel data set gives uint8 images and labels, finds its columns, and explains images and labels that it cannot read."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from hf_smoothing import NoisyImageProcessor, NoisyImageProcessorPil, PixelDataset
from tests.support.tiny import NAMES, SIZE, image_dataset, label_maps, pil_images, pixels


def rows(images, labels=None):
    return [{"image": image} | ({} if labels is None else {"label": labels[i]}) for i, image in enumerate(images)]


def test_items_are_uint8_pixels_and_labels():
    made = PixelDataset(image_dataset(5), SIZE)
    assert len(made) == 5
    item = made[4]
    assert item.keys() == {"pixel_values", "labels"}
    assert item["pixel_values"].dtype == torch.uint8
    assert torch.equal(item["pixel_values"], pixels(5)[4])
    assert item["labels"] == 1 and type(item["labels"]) is int


@pytest.mark.parametrize(
    ("size", "shape"), [(8, (3, 8, 8)), ((8, 12), (3, 8, 12)), ({"height": 20, "width": 9}, (3, 20, 9))]
)
def test_images_are_resized_as_the_processor_does(size, shape):
    made = PixelDataset(image_dataset(3), size)
    assert made[0]["pixel_values"].shape == shape
    height, width = shape[1:]
    # Where torchvision is installed, the processor runs on it, and it rounds a pixel in a hundred to the next level.
    for processor_class, tolerance in ((NoisyImageProcessorPil, 1e-6), (NoisyImageProcessor, 1.01 / 255)):
        processor = processor_class(size={"height": height, "width": width}, do_normalize=False)
        expected = processor(pil_images(3)[0], return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(made[0]["pixel_values"] / 255, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", [0, -3, (1, 2, 3), "32", True])
def test_a_bad_size_is_refused(size):
    with pytest.raises(ValueError, match="`size` must be"):
        PixelDataset(image_dataset(2), size)


def test_no_size_is_refused():
    with pytest.raises(ValueError, match="size"):
        PixelDataset(image_dataset(2), None)


def test_columns_are_found_by_type():
    made = PixelDataset(image_dataset(3, columns=("picture", "animal")), SIZE)
    assert made.label_column == "animal"
    assert torch.equal(made[2]["pixel_values"], pixels(3)[2])
    assert made[2]["labels"] == 2


def test_columns_called_image_and_label_come_first():
    columns = {"earlier": datasets.Image(), "fine": datasets.ClassLabel(names=["x", "y"])}
    features = datasets.Features(columns | image_dataset(3).features)
    images = {"earlier": pil_images(3, seed=1), "image": pil_images(3)}
    dataset = datasets.Dataset.from_dict(images | {"fine": [1, 1, 1], "label": [0, 1, 2]}, features=features)
    assert dataset.column_names[0] == "earlier"
    made = PixelDataset(dataset, SIZE)
    assert made.label_column == "label"
    assert torch.equal(made[0]["pixel_values"], pixels(3)[0])
    assert [made[index]["labels"] for index in range(3)] == [0, 1, 2]


def test_columns_can_be_named():
    dataset = image_dataset(3).add_column("other", [2, 2, 2])
    assert PixelDataset(dataset, SIZE, label_column="other")[0]["labels"] == 2


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_column_that_is_not_there_is_refused(kind):
    with pytest.raises(ValueError, match=rf"no column 'nothing'; it has \['image', 'label'\]. Pass {kind}_column"):
        PixelDataset(image_dataset(2), SIZE, **{f"{kind}_column": "nothing"})


def test_two_candidates_are_refused():
    features = datasets.Features({"left": datasets.Image(), "right": datasets.Image()})
    dataset = datasets.Dataset.from_dict({"left": pil_images(2), "right": pil_images(2)}, features=features)
    with pytest.raises(ValueError, match="image column is not clear.*Pass image_column"):
        PixelDataset(dataset, SIZE)
    labels = datasets.ClassLabel(names=["a", "b"])
    features = datasets.Features({"image": datasets.Image(), "fine": labels, "coarse": labels})
    dataset = datasets.Dataset.from_dict({"image": pil_images(2), "fine": [0, 1], "coarse": [0, 0]}, features=features)
    with pytest.raises(ValueError, match="label column is not clear.*Pass label_column"):
        PixelDataset(dataset, SIZE)


def test_without_images_it_is_refused():
    with pytest.raises(ValueError, match="image column is not clear"):
        PixelDataset(datasets.Dataset.from_dict({"text": ["a"]}), SIZE)


def test_without_labels_items_have_none():
    made = PixelDataset(image_dataset(2).remove_columns("label"), SIZE)
    assert made[0].keys() == {"pixel_values"}
    assert made.decode(progress=False)[0].keys() == {"pixel_values"}


def test_an_empty_data_set_is_refused():
    with pytest.raises(ValueError, match="The data set is empty"):
        PixelDataset(image_dataset(2).select([]), SIZE)
    with pytest.raises(ValueError, match="The data set is empty"):
        PixelDataset([], SIZE)


@pytest.mark.parametrize("label", [-1, 3, 77])
def test_labels_outside_the_classes_are_refused(label):
    made = PixelDataset(rows(pil_images(2), [0, label]), SIZE, id2label=label_maps()["id2label"], labels="by-number")
    for reading in (lambda: made[1], made.check_labels):
        with pytest.raises(ValueError, match=rf"Label of image 1 must be a class in \[0, 3\), got {label}"):
            reading()


def test_unlabelled_splits_are_named():
    features = image_dataset(1).features
    dataset = datasets.Dataset.from_dict({"image": pil_images(2), "label": [0, -1]}, features=features)
    made = PixelDataset(dataset, SIZE)
    assert made[0]["labels"] == 0
    with pytest.raises(ValueError, match="Label of image 1 .*-1 marks unlabelled"):
        made[1]


def test_a_missing_label_is_explained():
    features = image_dataset(1).features
    dataset = datasets.Dataset.from_dict({"image": pil_images(2), "label": [0, None]}, features=features)
    with pytest.raises(ValueError, match="[Ll]abel of image 1"):
        PixelDataset(dataset, SIZE)[1]


@pytest.mark.parametrize("label", ["cat", 1.5, [1]])
def test_labels_that_are_no_numbers_are_explained(label):
    with pytest.raises((ValueError, TypeError), match="[Ll]abel of image 0"):
        PixelDataset(rows(pil_images(1), [label]), SIZE)[0]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_other_image_modes_become_rgb(mode):
    image = pil_images(1)[0].convert(mode)
    made = PixelDataset(rows([image]), SIZE)
    assert torch.equal(made[0]["pixel_values"], torch.tensor(np.asarray(image.convert("RGB"))).permute(2, 0, 1))


def test_a_missing_image_is_explained():
    dataset = datasets.Dataset.from_dict(
        {"image": [pil_images(1)[0], None]}, features=datasets.Features({"image": datasets.Image()})
    )
    with pytest.raises(ValueError, match="Image 1 of column 'image' cannot be read"):
        PixelDataset(dataset, SIZE)[1]


def test_a_corrupt_image_is_explained():
    dataset = datasets.Dataset.from_dict(
        {"image": [{"bytes": b"no image at all", "path": None}]},
        features=datasets.Features({"image": datasets.Image()}),
    )
    with pytest.raises((ValueError, OSError), match="[Ii]mage"):
        PixelDataset(dataset, SIZE)[0]


@pytest.mark.parametrize("values", ["any", "only 0 and 1"])
def test_arrays_of_floats_are_refused(values):
    array = np.random.default_rng(0).random((SIZE, SIZE, 3)).astype(np.float32)
    made = PixelDataset(rows([array if values == "any" else array.round()]), SIZE)
    with pytest.raises(ValueError, match="uint8"):
        made[0]


def test_uint8_arrays_are_read_in_either_order():
    array = pixels(1)[0].numpy()
    for given in (array, array.transpose(1, 2, 0)):
        assert torch.equal(PixelDataset(rows([given]), SIZE)[0]["pixel_values"], pixels(1)[0])


@pytest.mark.parametrize(
    "shape", [(SIZE, SIZE), (SIZE, SIZE, 1), (SIZE, SIZE, 4)], ids=["grey", "one channel", "rgba"]
)
def test_arrays_of_other_channel_counts_are_converted_or_refused_but_alike_everywhere(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    made = PixelDataset(rows([array]), SIZE)
    try:
        item = made[0]["pixel_values"]
    except ValueError as error:
        assert "Image 0" in str(error)  # noqa: PT017 - either outcome is right
        return
    assert item.shape == (3, SIZE, SIZE)
    assert torch.equal(item, made.decode(progress=False).pixels[0])


def test_processes_decode_the_same():
    made = PixelDataset(image_dataset(150), 8)
    one, two = (made.decode(progress=False, indices=range(149, 1, -1), processes=count) for count in (1, 2))
    assert torch.equal(one.pixels, two.pixels) and torch.equal(one.labels, two.labels)
    with pytest.raises(ValueError, match="`processes` must be a positive number, got 0"):
        made.decode(progress=False, processes=0)


def test_decode_equals_the_items():
    dataset = image_dataset(7, size=20)
    made = PixelDataset(dataset, (SIZE, 12), id2label=dict(enumerate(reversed(NAMES))))
    decoded = made.decode(progress=False)
    assert len(decoded) == len(made) == 7
    assert decoded.pixels.dtype == torch.uint8 and decoded.pixels.shape == (7, 3, SIZE, 12)
    for index in range(7):
        assert torch.equal(decoded[index]["pixel_values"], made[index]["pixel_values"])
        assert decoded[index]["labels"] == made[index]["labels"]
    assert decoded.labels.tolist() == [2, 1, 0, 2, 1, 0, 2]


def test_numpy_integers_index_too():
    made = PixelDataset(image_dataset(3), SIZE)
    assert torch.equal(made[np.int64(2)]["pixel_values"], made[2]["pixel_values"])


def test_outside_the_data_set_is_an_index_error():
    with pytest.raises(IndexError):
        PixelDataset(image_dataset(3), SIZE)[3]


def test_images_of_sixteen_bits_are_not_clipped_to_white():
    deep = Image.fromarray(np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE))
    try:
        values = PixelDataset(rows([deep]), SIZE)[0]["pixel_values"]
    except ValueError:
        return
    assert float((values == 255).float().mean()) < 0.5

"""Columns are found by type or by a usual name, and what is no data set of rows is named."""

import datasets
import numpy as np
import pytest
import torch

from hf_smoothing import PixelDataset, PixelStream
from hf_smoothing.data import find_column
from tests.support.tiny import SIZE, data, image_dataset, pil_images


def dataset(**labels):
    features = {"image": datasets.Image()} | {name: feature for name, (feature, _) in labels.items()}
    values = {"image": pil_images(3)} | {name: column for name, (_, column) in labels.items()}
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


NUMBERS = (datasets.Value("int64"), [0, 1, 2])
TEXT = (datasets.Value("string"), ["a", "b", "c"])


@pytest.mark.parametrize("name", ["label", "labels", "Labels", "target", "targets", "class", "cls", "fine_label"])
@pytest.mark.parametrize("values", [NUMBERS, TEXT], ids=["numbers", "text"])
def test_labels_without_a_type_are_found_by_their_usual_names(name, values):
    assert find_column(dataset(**{name: values}), None, "label", required=False) == name


@pytest.mark.parametrize(
    "columns",
    [
        {"identity": NUMBERS},
        {"caption": TEXT},
        {"label_noise": NUMBERS},
        {"labels": (datasets.List(datasets.Value("int64")), [[0], [1], [2]])},
        {"labels": (datasets.Value("float32"), [0.5, 1.0, 2.0])},
    ],
    ids=str,
)
def test_other_columns_are_no_labels(columns):
    assert find_column(dataset(**columns), None, "label", required=False) is None
    with pytest.raises(ValueError, match="label column is not clear.*Pass label_column"):
        find_column(dataset(**columns), None, "label", required=True)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"labels": NUMBERS, "identity": NUMBERS}, "labels"),
        ({"label": NUMBERS, "fine_label": NUMBERS}, "label"),
        ({"labels": NUMBERS, "coarse_label": NUMBERS}, "labels"),
        ({"class": TEXT, "kind": (datasets.ClassLabel(names=["a", "b", "c"]), [0, 1, 2])}, "kind"),
    ],
)
def test_the_usual_name_wins(columns, found):
    assert find_column(dataset(**columns), None, "label", required=False) == found


@pytest.mark.parametrize(
    "columns",
    [
        {"fine_label": NUMBERS, "coarse_label": NUMBERS},
        {"target": NUMBERS, "class": TEXT},
        {name: (datasets.ClassLabel(names=["a", "b", "c"]), [0, 1, 2]) for name in ("fine_label", "coarse_label")},
    ],
    ids=["numbers", "usual", "typed"],
)
def test_two_that_may_be_it_are_asked_about(columns):
    names = list(columns)
    with pytest.raises(
        ValueError, match=rf"label column is not clear: .*of which \['{names[0]}', '{names[1]}'\] may be it"
    ):
        find_column(dataset(**columns), None, "label", required=False)


def test_images_beside_masks_are_found_by_their_name():
    features = datasets.Features({"mask": datasets.Image(), "img": datasets.Image()})
    both = datasets.Dataset.from_dict({"mask": pil_images(2), "img": pil_images(2)}, features=features)
    assert find_column(both, None, "image", required=True) == "img"
    rows = [{"jpg": image, "cls": 1} for image in pil_images(2)]
    made = PixelDataset(rows, SIZE)
    assert (made.image_column, made.label_column) == ("jpg", "cls")


@pytest.mark.parametrize("streamed", [False, True])
def test_several_splits_together_are_named(streamed):
    splits = {"train": image_dataset(2), "validation": image_dataset(2)}
    together = datasets.DatasetDict(splits)
    if streamed:
        together = datasets.IterableDatasetDict({name: split.to_iterable_dataset() for name, split in splits.items()})
    for kind in (PixelDataset, PixelStream):
        with pytest.raises(
            ValueError, match=r"A split of the data set is needed.*\['train', 'validation'\]: dataset\['train'\]"
        ):
            kind(together, SIZE)


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index > 1:
            raise IndexError
        return pil_images(2)[index], index


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image": pil_images(2), "label": [0, 1]}, "If these are columns, use datasets.Dataset.from_dict"),
        ({}, "must be a sequence of rows, got dict"),
        (Pairs(), r"must be mappings .*got tuple. Of pairs \(image, label\) make \[\{'image'"),
        (pil_images(2), "must be mappings .*got Image"),
        (np.zeros((2, 4, 4, 3), np.uint8), "must be mappings .*got ndarray"),
        (torch.zeros(2, 3, 4, 4), "must be mappings .*got Tensor"),
        (["a.png", "b.png"], "must be mappings .*got str"),
        (image_dataset(2).to_iterable_dataset(), "reads images by their index, got IterableDataset. Pass PixelStream"),
        ((row for row in ()), "reads images by their index, got generator"),
        ("examples/data", r"got str. .* load it first: datasets.load_dataset\(path"),
        (None, "reads images by their index, got NoneType"),
        ([], "The data set is empty"),
        (image_dataset(2).select([]), "The data set is empty"),
        (data(2), "holds 'pixel_values' already"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_is_no_data_set_of_rows_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        PixelDataset(wrong, SIZE)


def test_an_empty_stream_is_named():
    with pytest.raises(ValueError, match="The data set is empty"):
        PixelStream(datasets.IterableDataset.from_generator(lambda: iter([])), SIZE)


def test_a_transform_that_leaves_the_image_out_is_named():
    images = image_dataset(2).with_transform(lambda batch: {"pixel_values": [0] * len(batch["image"])})
    with pytest.raises(ValueError, match="Row 0 of the data set has no 'image', only .*without the transform"):
        PixelDataset(images, SIZE)[0]


def test_the_values_of_a_transformed_label_are_not_read_beforehand():
    images = image_dataset(3).with_transform(lambda batch: {**batch, "label": [2 for _ in batch["label"]]})
    made = PixelDataset(images, SIZE, id2label={0: "cat", 1: "dog", 2: "eel"})
    made.check_labels()
    assert [made[k]["labels"] for k in range(3)] == [2, 2, 2]


def test_images_without_classes_are_to_be_sorted_into_folders():
    with pytest.raises(
        ValueError, match="has the column 'image' alone.*sort the images into one sub-folder per class"
    ):
        find_column([{"image": None}], None, "label", required=True)

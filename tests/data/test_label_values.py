"""A class may be kept as a whole number of any type; what is no class of one image is refused with what it is."""

import datasets
import numpy as np
import pytest
import torch

from hf_smoothing import PixelDataset, PixelStream
from hf_smoothing.data import DataChoice
from hf_smoothing.data.label_values import class_number, is_missing
from hf_smoothing.data.opening import training_split
from hf_smoothing.training.collator import PixelCollator
from tests.support.tiny import SIZE, pil_images


MODEL = {0: "cat", 1: "dog", 2: "eel"}


def table(values):
    return datasets.Dataset.from_dict({"image": pil_images(len(values)), "label": values})


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1), (1.0, 1), (True, 1), (np.bool_(False), 0), (np.float32(2.0), 2), (np.int64(2), 2), (torch.tensor(1.0), 1), (torch.tensor(2), 2),
        (-1.0, -1), (1.5, None), (float("nan"), None), (float("inf"), None), (None, None), ("1", None), ([1], None), (np.ones(2), None),
    ],
)  # fmt: skip
def test_the_number_of_a_value(value, number):
    assert class_number(value) == number
    assert is_missing(value) == (value is None or value is not value or str(value) == "nan")


KEPT = {"floats": [0.0, 2.0, 1.0], "truth": [True, False, True], "numbers": [0, 2, 1]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("values", KEPT.values(), ids=KEPT)
def test_whole_numbers_of_any_type_are_labels(values, stream):
    dataset = table(values)
    how = {"id2label": MODEL, "labels": "by-number"}
    pixels = PixelStream(dataset.to_iterable_dataset(), SIZE, **how) if stream else PixelDataset(dataset, SIZE, **how)
    assert [item["labels"] for item in pixels] == [int(value) for value in values]


@pytest.mark.parametrize(
    ("values", "by_hand", "expected"),
    [
        ([0.0, 1.0], {"0.0": "eel", "1.0": 0}, [2, 0]),
        ([0.0, 1.0], {0.0: "eel", 1: 0}, [2, 0]),
        ([True, False], {"True": "eel", "False": 1}, [2, 1]),
        ([True, False], {True: "eel", "false": 1}, [2, 1]),
    ],
)
def test_a_map_by_hand_names_them_as_they_are_written(values, by_hand, expected):
    pixels = PixelDataset(table(values), SIZE, id2label=MODEL, label_map=by_hand)
    assert [item["labels"] for item in pixels] == expected


@pytest.mark.parametrize("kind", ["table", "rows", "stream", "stream without types"])
@pytest.mark.parametrize("labels", [None, "by-name"])
@pytest.mark.parametrize("names", [("True", "False"), ("false", "TRUE"), ("true", "unknown", "false")])
def test_truth_values_are_the_classes_that_are_called_so_as_text_is(kind, labels, names):
    model = dict(enumerate(names))
    for values in ([True, False, True], ["True", "False", "True"]):
        made = dataset = table(values)
        if kind == "rows":
            made = list(dataset)
        elif kind != "table":
            made = dataset.to_iterable_dataset() if kind == "stream" else datasets.IterableDataset.from_generator(lambda: iter(dataset))  # noqa: B023  # fmt: skip
        read = PixelStream if "stream" in kind else PixelDataset
        found = [item["labels"] for item in read(made, SIZE, id2label=model, labels=labels)]
        assert [names[label].lower() for label in found] == ["true", "false", "true"]


def test_truth_values_are_numbers_where_that_is_asked_for_and_classes_by_hand():
    model = {0: "True", 1: "False"}
    assert PixelDataset(table([True, False]), SIZE, id2label=model, labels="by-number")[0]["labels"] == 1
    by_hand = {True: "False", "false": "True"}
    assert PixelDataset(table([True, False]), SIZE, id2label=model, label_map=by_hand)[0]["labels"] == 1


REFUSED = {
    "measured": ([0.3, 1.0], "image 0 .*got 0.3. One class per image is needed, and fractions are a measured value"),
    "several": ([[0, 1], [1]], r"image 0 .*one class, got \[0, 1\]. One class per image is needed.*one-hot"),
    "one-hot": ([[0.0, 1.0], [1.0, 0.0]], r"image 0 .*one class, got \[0.0, 1.0\]. One class per image is needed"),
    "a gap": ([0, None, 1], "image 1 is missing, got None. Every image needs a class"),
    "a gap of pandas": ([0.0, float("nan"), 1.0], "image 1 is missing, got nan. Every image needs a class"),
    "a gap in text": (["cat", None], "image 1 is missing, got None"),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_class_is_said_of_the_image_that_has_none(values, message):
    how = {} if isinstance(values[0], str) else {"labels": "by-number"}
    with pytest.raises(ValueError, match=message):
        PixelDataset(table(values), SIZE, id2label=MODEL, **how).check_labels()


@pytest.mark.parametrize(("values", "names"), [(KEPT["floats"], ["0", "1", "2"]), (KEPT["truth"], ["0", "1"])])
def test_a_model_is_trained_on_them(values, names, tmp_path):
    (tmp_path / "data").mkdir()
    table(values).to_parquet(tmp_path / "data" / "train.parquet")
    dataset, classes = training_split(DataChoice(str(tmp_path / "data"), split="train"))
    assert classes == dict(enumerate(names))
    assert [item["labels"] for item in PixelDataset(dataset, SIZE, id2label=classes)] == [
        int(value) for value in values
    ]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (1.5, "`labels` must be an integer class, got 1.5. One class per image"),
        ([0.5, 0.5], "`labels` must be one class, got .*One class per image"),
        (float("nan"), "`labels` is missing"),
    ],
)  # fmt: skip
def test_a_batch_says_the_same(label, message):
    with pytest.raises(ValueError, match=message):
        PixelCollator(3)([{"pixel_values": torch.rand(3, 8, 8), "labels": label}])
    assert PixelCollator(3)([{"pixel_values": torch.rand(3, 8, 8), "labels": 1.0}])["labels"].tolist() == [1]

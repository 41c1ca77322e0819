"""Items are stacked to a batch with integer labels, or explained."""

import numpy as np
import pytest
import torch

from hf_smoothing import PixelDataset
from hf_smoothing.data import DecodedPixels
from hf_smoothing.training.collator import PixelCollator
from tests.support.tiny import SIZE, any_model, data, pil_images, plain, smoothed, trainer


def item(label=0, size=SIZE, **kwargs):
    return {"pixel_values": torch.zeros(3, size, size, dtype=torch.uint8), "labels": label, **kwargs}


def test_it_stacks():
    batch = PixelCollator(3)([data(4)[index] for index in range(4)])
    assert torch.equal(batch["pixel_values"], data(4).pixels)
    assert batch["pixel_values"].dtype == torch.uint8
    assert batch["labels"].tolist() == [0, 1, 2, 0] and batch["labels"].dtype == torch.int64


@pytest.mark.parametrize("label", [2, np.int64(2), torch.tensor(2)])
def test_labels_of_any_integer_type(label):
    assert PixelCollator(3)([item(label)])["labels"].tolist() == [2]


def test_the_column_may_be_called_label():
    rows = [{"pixel_values": item()["pixel_values"], "label": 2}]
    assert PixelCollator(3)(rows)["labels"].tolist() == [2]


def test_arrays_are_taken():
    rows = [{"pixel_values": np.zeros((3, SIZE, SIZE), dtype=np.float32), "labels": 1}]
    assert PixelCollator(3)(rows)["pixel_values"].dtype == torch.float32


def test_labels_are_not_needed_to_predict():
    assert PixelCollator(3)([{"pixel_values": item()["pixel_values"]}]).keys() == {"pixel_values"}


def test_items_without_pixels_are_refused():
    with pytest.raises(ValueError, match=r"needs 'pixel_values', got \['image', 'label'\]. Use PixelDataset"):
        PixelCollator(3)([{"image": None, "label": 0}])


def test_mixed_shapes_are_refused():
    with pytest.raises(ValueError, match="one size and channel count"):
        PixelCollator(3)([item(size=8), item(size=9)])


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_outside_the_classes_are_refused(label):
    with pytest.raises(ValueError, match=rf"classes in \[0, 3\), got {label}"):
        PixelCollator(3)([item(0), item(label)])


@pytest.mark.parametrize("label", [-1, None])
@pytest.mark.parametrize("kind", ["vit", "smoothed-vit"])
def test_predicting_unlabelled_images_names_the_cure(kind, label, tmp_path):
    rows = [{"pixel_values": image, "labels": label} for image in data(4).pixels]
    loop = trainer(any_model(kind), tmp_path)
    for ask in (loop.predict, loop.evaluate):
        with pytest.raises(ValueError, match="To predict them leave their labels out.*remove_columns"):
            ask(rows)
    cured = [{"pixel_values": row["pixel_values"]} for row in rows]
    assert loop.predict(cured).predictions.shape == (4, 3)
    with pytest.raises(ValueError, match="leave them out"):
        trainer(any_model(kind), tmp_path, train_dataset=rows).train()


def unlabelled(number, count=16, name="labels"):
    """Rows of which one has no label."""
    rows = [{"pixel_values": data(count)[k]["pixel_values"], name: k % 3} for k in range(count)]
    return [{"pixel_values": row["pixel_values"]} if k == number else row for k, row in enumerate(rows)]


@pytest.mark.parametrize("name", ["labels", "label"])
@pytest.mark.parametrize("number", [0, 1, 3])
def test_an_item_without_the_label_of_the_others_is_refused(number, name):
    with pytest.raises(ValueError, match="Where an image has a label each needs one, got one without.*leave them out"):
        PixelCollator(3)(unlabelled(number, 4, name))


@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("number", [0, 1, 8, 15])
def test_an_evaluation_with_labels_of_some_images_is_refused(number, size, tmp_path):
    """It would be of the others, without a word."""
    loop = trainer(plain(), tmp_path, per_device_eval_batch_size=size)
    for ask in (loop.evaluate, loop.predict):
        with pytest.raises(ValueError, match="label.*To predict them leave their labels out, of all images together"):
            ask(unlabelled(number))
    assert loop.evaluate(unlabelled(None))["eval_accuracy"] >= 0.0


def test_a_label_may_have_either_name_in_each_item():
    rows = [item(1), {"pixel_values": item()["pixel_values"], "label": 2}, item(None) | {"label": 0}]
    assert PixelCollator(3)(rows)["labels"].tolist() == [1, 2, 0]


PAIRS = {
    "tensors": [(image, k % 3) for k, image in enumerate(data(8).pixels)],
    "pictures": [(picture, k % 3) for k, picture in enumerate(pil_images(8))],
    "TensorDataset": torch.utils.data.TensorDataset(data(8).pixels, data(8).labels),
}


@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
def test_pairs_are_refused_with_their_cure(pairs, tmp_path):
    loop = trainer(plain(), tmp_path, train_dataset=pairs)
    for run in (loop.train, lambda: loop.evaluate(pairs), lambda: loop.predict(pairs)):
        with pytest.raises(TypeError, match=r"got tuple\. Of pairs .*PixelDataset\(.*DecodedPixels\(pixels, labels\)"):
            run()


def test_the_cure_for_pairs_is_one(tmp_path):
    dataset = PAIRS["pictures"]
    rows = PixelDataset([{"image": image, "label": label} for image, label in dataset], smoothed(), labels="by-number")
    trainer(smoothed(), tmp_path, train_dataset=rows).train()


def test_training_without_labels_is_explained(tmp_path):
    with pytest.raises(ValueError, match="[Ll]abel"):
        trainer(plain("vit"), tmp_path, train_dataset=DecodedPixels(data(8).pixels)).train()

"""Decoded pixels from which a whole batch is taken at once, on the device."""

import pytest
import torch

from hf_smoothing.data import DecodedPixels, PixelDataset
from hf_smoothing.training.collator import PixelCollator
from hf_smoothing.training.device_data import DevicePixels
from tests.support.tiny import SIZE, any_model, assert_same_tensors, data, image_dataset, plain, tensors, trainer


ALL = {"noise": "[0.25, 0.5]", "crop_padding": 2, "horizontal_flip": True}


def as_list(decoded):
    """The same images one by one, which the collator must stack."""
    return [
        {"pixel_values": image, "labels": int(label)}
        for image, label in zip(decoded.pixels, decoded.labels, strict=True)
    ]


def train(kind, folder, dataset, seed=0, resume=None, **kwargs):
    model = any_model(kind, seed)
    loop = trainer(model, folder, train_dataset=dataset, **(ALL | {"max_steps": 5} | kwargs))
    loop.train(resume_from_checkpoint=resume)
    return tensors(model)


class Batches:
    """An objective that remembers the batches that it was given."""

    def __init__(self):
        self.pixels, self.labels = [], []

    def __call__(self, model, batch, state):
        self.pixels.append(batch.pixels.clone())
        self.labels.append(batch.labels.clone())
        return torch.nn.functional.cross_entropy(model(batch.pixels), batch.labels), {}


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize(("batch", "accumulate"), [(1, 1), (4, 1), (32, 1), (3, 2)])
def test_the_same_weights_as_from_a_plain_data_set(batch, accumulate, on_device, tmp_path):
    settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulate}
    decoded = data(14)  # more than one epoch, whose last batch is not full
    expected = train("vit", tmp_path, as_list(decoded), **settings)
    found = train("vit", tmp_path, decoded, **settings, data_on_device=on_device)
    assert_same_tensors(found, expected)


class Inverted(DecodedPixels):
    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"pixel_values": 255 - item["pixel_values"]}


class Halved(DecodedPixels):
    def __len__(self):
        return len(self.pixels) // 2


class InvertedAtOnce(DecodedPixels):
    def __getitems__(self, indices):
        return [Inverted(self.pixels, self.labels)[index] for index in indices]


class Named(DecodedPixels):
    """One that reads as its parent does."""

    title = "fourteen images"


@pytest.mark.parametrize("kind", [Inverted, Halved, InvertedAtOnce, Named])
def test_a_subclass_is_read_in_its_own_way(kind, tmp_path):
    given = data(14)
    dataset = kind(given.pixels, given.labels)
    shown = {
        Inverted: DecodedPixels(255 - given.pixels, given.labels),
        Halved: DecodedPixels(given.pixels[:7], given.labels[:7]),
        InvertedAtOnce: DecodedPixels(255 - given.pixels, given.labels),
        Named: given,
    }[kind]
    assert_same_tensors(train("vit", tmp_path, dataset), train("vit", tmp_path, as_list(shown)))
    if kind is Named:
        assert_same_tensors(train("vit", tmp_path, dataset, data_on_device=True), train("vit", tmp_path, given))
    else:
        with pytest.raises(ValueError, match=f"no subclass that reads items in its own way .*got {kind.__name__}"):
            trainer(plain("vit"), tmp_path, train_dataset=dataset, data_on_device=True)


def test_other_images_give_other_weights(tmp_path):
    # Otherwise the test above would say little.
    found, other = (train("vit", tmp_path, data(14, seed=seed), data_on_device=True) for seed in (0, 1))
    assert not torch.equal(other["classifier.weight"], found["classifier.weight"])


@pytest.mark.parametrize("kind", ["resnet", "smoothed-resnet", "smoothed-vit"])
def test_the_same_weights_for_every_kind_of_model(kind, tmp_path):
    decoded = data(14)
    expected = train(kind, tmp_path, as_list(decoded))
    assert_same_tensors(train(kind, tmp_path, decoded, data_on_device=True), expected)


def test_the_same_weights_from_a_decoded_data_set(tmp_path):
    pixels = PixelDataset(image_dataset(6), SIZE)
    expected = train("vit", tmp_path, pixels)
    assert_same_tensors(train("vit", tmp_path, pixels.decode(), data_on_device=True), expected)


def test_the_same_weights_with_a_worker(tmp_path):
    settings = {"dataloader_num_workers": 1, "max_steps": 2}
    decoded = data(8)
    expected = train("vit", tmp_path, as_list(decoded), max_steps=2)
    assert_same_tensors(train("vit", tmp_path, decoded, **settings), expected)


@pytest.mark.parametrize("settings", [{"dataloader_drop_last": True}, {"remove_unused_columns": True}])
def test_other_settings_of_the_loader_are_kept(settings, tmp_path):
    decoded = data(10)
    expected = train("vit", tmp_path, as_list(decoded), **settings)
    assert_same_tensors(train("vit", tmp_path, decoded, **settings), expected)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize(("drop", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_an_epoch_holds_every_image_once(drop, sizes, on_device, tmp_path):
    decoded, objective = data(10), Batches()
    trainer(
        plain("vit"), tmp_path, train_dataset=decoded, objective=objective, data_on_device=on_device, max_steps=-1,
        num_train_epochs=2, dataloader_drop_last=drop,
    ).train()  # fmt: skip
    assert [len(batch) for batch in objective.pixels] == sizes * 2
    for epoch in range(2):
        part = slice(epoch * len(sizes), (epoch + 1) * len(sizes))
        seen, labels = torch.cat(objective.pixels[part]), torch.cat(objective.labels[part])
        distances = torch.cdist(seen.flatten(1), (decoded.pixels / 255).flatten(1))
        assert float(distances.min(dim=1).values.max()) < 1e-3
        which = distances.argmin(dim=1)
        assert len(set(which.tolist())) == sum(sizes)
        assert torch.equal(labels, decoded.labels[which])  # each image with its own label
    first, second = objective.pixels[0], objective.pixels[len(sizes)]
    assert not torch.equal(first, second)  # epochs are in another order


def test_resuming_is_bit_exact(tmp_path):
    settings = {"data_on_device": True, "save_strategy": "steps", "save_steps": 2}  # in the midst of an epoch
    whole = train("resnet", tmp_path / "whole", data(14), **settings)
    for step in (2, 4):
        checkpoint = str(tmp_path / "whole" / f"checkpoint-{step}")
        resumed = train("resnet", tmp_path / str(step), data(14), seed=1, resume=checkpoint, **settings)
        assert_same_tensors(whole, resumed)


def test_a_run_can_go_on_with_the_data_elsewhere(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 2}
    whole = train("vit", tmp_path / "whole", as_list(data(14)), **settings)
    checkpoint = str(tmp_path / "whole" / "checkpoint-2")
    assert_same_tensors(
        whole, train("vit", tmp_path / "part", data(14), seed=1, resume=checkpoint, data_on_device=True, **settings)
    )


def test_the_data_of_the_caller_stay_as_they_are(tmp_path):
    decoded = data(8)
    pixels, labels = decoded.pixels.clone(), decoded.labels.clone()
    train("vit", tmp_path, decoded, data_on_device=True)
    assert torch.equal(decoded.pixels, pixels) and torch.equal(decoded.labels, labels)


@pytest.mark.parametrize("dataset", [as_list(data(4)), PixelDataset(image_dataset(4), SIZE)])
def test_data_that_are_not_decoded_are_refused(dataset, tmp_path):
    with pytest.raises(
        ValueError, match=f"`data_on_device` needs decoded pixels,.*got {type(dataset).__name__}. .*decode"
    ):
        trainer(plain("vit"), tmp_path, train_dataset=dataset, data_on_device=True)


def test_a_collator_of_ones_own_is_refused_on_the_device_and_used_elsewhere(tmp_path):
    class Own(PixelCollator):
        calls = 0

        def __call__(self, items):
            Own.calls += 1
            assert isinstance(items, list) and len(items) == 4
            return super().__call__(items)

    with pytest.raises(ValueError, match="`data_on_device` needs decoded pixels, no data_collator of your own"):
        trainer(plain("vit"), tmp_path, train_dataset=data(4), data_collator=Own(3), data_on_device=True)
    found = train("vit", tmp_path, data(16), data_collator=Own(3))
    assert Own.calls >= 5
    assert_same_tensors(found, train("vit", tmp_path, as_list(data(16))))


def test_workers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`data_on_device` needs no workers, got dataloader_num_workers=2"):
        trainer(plain("vit"), tmp_path, data_on_device=True, dataloader_num_workers=2)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("wrong", [-1, 3, 255])
def test_labels_outside_the_classes_are_refused_at_once(wrong, on_device, tmp_path):
    decoded = data(8)
    decoded.labels[5] = wrong
    with pytest.raises(ValueError, match=rf"Labels must be classes in \[0, 3\), got {wrong}\."):
        trainer(plain("vit"), tmp_path, train_dataset=decoded, data_on_device=on_device)


def test_unlabelled_images_cannot_be_trained_on(tmp_path):
    unlabelled = DecodedPixels(data(8).pixels, None)
    assert DevicePixels(unlabelled, torch.device("cpu"), 3)[0].keys() == {"pixel_values"}
    with pytest.raises(ValueError, match="Training needs 'labels'"):
        train("vit", tmp_path, unlabelled, data_on_device=True)


def test_items_and_batches():
    decoded = data(7)
    on_device = DevicePixels(decoded, torch.device("cpu"), 3)
    assert len(on_device) == 7
    batch = on_device.__getitems__([6, 0, 6])
    assert batch["pixel_values"].dtype == torch.uint8 and batch["labels"].dtype == torch.int64
    assert torch.equal(batch["pixel_values"], decoded.pixels[[6, 0, 6]])
    assert torch.equal(batch["labels"], decoded.labels[[6, 0, 6]])
    item = on_device[4]
    assert torch.equal(item["pixel_values"], decoded.pixels[4]) and item["labels"] == decoded.labels[4]
    with pytest.raises(IndexError):
        on_device[7]


def test_nothing_is_pinned_on_the_device(tmp_path):
    loop = trainer(plain("vit"), tmp_path, data_on_device=True, dataloader_pin_memory=True)
    assert loop.args.dataloader_pin_memory is False

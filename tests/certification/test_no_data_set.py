"""What gives no images one by one is refused by every entry that takes a data set, with what to pass in its place."""

import datasets
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hf_smoothing import PixelDataset, certify_dataset
from hf_smoothing.attack_run import attack_run
from hf_smoothing.certification.images import check_data_set
from hf_smoothing.interval import certify_dataset_linf
from tests.support.classifiers import RUN, random_dataset, random_images
from tests.support.tiny import image_dataset, pil_images


ITEMS, BATCH, NAMED = random_dataset(2), random_images(2), image_dataset(3)
NETWORK = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
NETWORK.requires_grad_(False)[1].weight.zero_()  # one answer to all, so each image has a radius


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return certify_dataset(NETWORK, ITEMS, tmp_path_factory.mktemp("run"), **RUN)


WRONG = {
    "nothing": (None, "got a NoneType. Make one of images: PixelDataset"),
    "path": ("images/test", r"got the path 'images/test'. Load its images: PixelDataset\(datasets.load_dataset\(path"),
    "network": (NETWORK, "got a Sequential. Make one of images"),
    "class": (PixelDataset, "got a type. Make one of images"),
    "loader": (DataLoader(ITEMS, batch_size=2), "got a DataLoader. A run makes batches of its own: .* loader.dataset"),
    "batch": (BATCH, r"got a Tensor. Make items of a batch: \[\{'pixel_values': image\} for image in images\]; or certify"),
    "array": (BATCH.numpy(), "got a ndarray. Make items of a batch"),
    "splits": (datasets.DatasetDict(test=NAMED), r"got a DatasetDict. Pass one of its splits, such as dataset\['test'\]"),
    "columns": ({"pixel_values": BATCH, "labels": [0, 1]}, "got a dict. .* of columns make a datasets.Dataset first"),
    "images": (pil_images(), r"got Image. .* of images alone, PixelDataset\(\[\{'image': image\} for image in images\]"),
    "tensors": (list(BATCH), "got Tensor. Of a tensor and a label make one: {'pixel_values': pixels, 'labels': label}"),
    "pairs": (TensorDataset(BATCH, torch.zeros(2)), "got tuple. Of a tensor and a label make one"),
    "not pixels yet": (NAMED, r"got \['image', 'label'\]. PixelDataset\(dataset, model\) makes one"),
    "batches": ([{"pixel_values": BATCH}] * 2, r"one image, .* got \(2, 1, 4, 4\). Take the batch apart"),
    "grey": ([{"pixel_values": BATCH[0, 0]}] * 2, r"one image, .* got \(4, 4\). Grey images have one channel: pixels\[None\]"),
}  # fmt: skip


@pytest.mark.parametrize("entry", ["smoothing", "interval", "attack"])
@pytest.mark.parametrize(("wrong", "message"), WRONG.values(), ids=WRONG)
def test_what_gives_no_images_one_by_one_is_refused(entry, wrong, message, run, tmp_path):
    calls = {
        "smoothing": lambda: certify_dataset(NETWORK, wrong, tmp_path / "new", **RUN),
        "interval": lambda: certify_dataset_linf(NETWORK, wrong, tmp_path / "new", largest=0.01, progress=False),
        "attack": lambda: attack_run(NETWORK, wrong, run, steps=1, copies=1, n=100, progress=False),
    }
    with pytest.raises((TypeError, ValueError), match=message):
        calls[entry]()
    assert not (tmp_path / "new").exists()


def test_images_by_number_and_streams_are_data_sets():
    for fine in (ITEMS, dict(enumerate(ITEMS)), NAMED.to_iterable_dataset(), iter(ITEMS), TensorDataset(BATCH), []):
        check_data_set(fine)
    assert np.flatnonzero([False, True]).tolist() == [1]  # the cure for a mask

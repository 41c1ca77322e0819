"""Each row of a stream comes once, whatever it is and however many workers read it."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, get_worker_info

from hf_smoothing import PixelStream
from tests.support.tiny import image_dataset


def rows(places=range(7)):
    for place in places:
        yield {"image": Image.fromarray(np.full((8, 8, 3), place, np.uint8)), "label": place}


class Plain:
    def __iter__(self):
        return rows()


class SharedOut(torch.utils.data.IterableDataset):
    """As torch has it: it asks which worker it is."""

    def __iter__(self):
        info = get_worker_info()
        return rows(range(7) if info is None else range(info.id, 7, info.num_workers))


class MapStyle(torch.utils.data.Dataset):
    def __len__(self):
        return 7

    def __getitem__(self, index):
        return list(rows())[index]


SOURCES = {
    "plain iterable": Plain,
    "list": lambda: list(rows()),
    "map-style": MapStyle,
    "table": lambda: datasets.Dataset.from_list(list(rows())),
    "formatted table": lambda: datasets.Dataset.from_list(list(rows())).with_format("torch"),
    "torch stream": SharedOut,
    "stream of three shards": lambda: datasets.Dataset.from_list(list(rows())).to_iterable_dataset(num_shards=3),
}


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("source", SOURCES)
def test_each_row_comes_once(source, workers):
    stream = PixelStream(SOURCES[source](), 8, label_column="label")
    batches = list(DataLoader(stream, batch_size=2, num_workers=workers))
    labels = torch.cat([batch["labels"] for batch in batches])
    values = torch.cat([batch["pixel_values"] for batch in batches])[:, 0, 0, 0]
    assert sorted(labels.tolist()) == list(range(7))
    assert torch.equal(labels, values.to(labels.dtype)), "each label beside its image"


def test_more_workers_than_rows():
    stream = PixelStream(image_dataset(1), 8)
    assert sum(len(batch["labels"]) for batch in DataLoader(stream, num_workers=2)) == 1

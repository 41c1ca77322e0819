"""A head is neither trained nor evaluated on classes that it names otherwise, however the data set is put together."""

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, random_split

from hf_smoothing import PixelDataset
from hf_smoothing.data import PixelStream
from tests.support.tiny import NAMES, SIZE, data, image_dataset, label_maps, plain, trainer


def reversed_head(kind="resnet"):
    return plain(kind, **label_maps(NAMES[::-1]))


def raw(column):
    """A data set of `datasets` whose transform makes pixels, and whose labels the collator reads as they are."""
    source = image_dataset(columns=("image", column))
    return source.with_transform(
        lambda rows: {
            "pixel_values": [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in rows["image"]],
            column: rows[column],
        }
    )


NAMED = {
    "PixelDataset": lambda: PixelDataset(image_dataset(), SIZE),
    "decoded": lambda: PixelDataset(image_dataset(), SIZE).decode(progress=False),
    "stream": lambda: PixelStream(image_dataset().to_iterable_dataset(), SIZE),
    "labels": lambda: raw("labels"),
    "label": lambda: raw("label"),
    "Subset": lambda: Subset(PixelDataset(image_dataset(), SIZE), range(4)),
    "Subset of a Subset": lambda: Subset(Subset(raw("label"), range(5)), range(4)),
    "random_split": lambda: random_split(PixelDataset(image_dataset(), SIZE).decode(progress=False), [4, 2])[0],
    "ConcatDataset": lambda: ConcatDataset([data(4), Subset(PixelDataset(image_dataset(), SIZE), range(4))]),
    "sum": lambda: PixelDataset(image_dataset(), SIZE) + data(4),
    "by name": lambda: {"one": data(4), "two": Subset(PixelDataset(image_dataset(), SIZE), range(4))},
}


@pytest.mark.parametrize("kind", NAMED)
def test_other_classes_are_seen_in_parts_and_whatever_the_column(kind, tmp_path):
    named = NAMED[kind]()
    with pytest.raises(ValueError, match="same in another order"):
        trainer(reversed_head(), tmp_path, eval_dataset=named)
    if kind != "by name":
        with pytest.raises(ValueError, match="same in another order"):
            trainer(reversed_head(), tmp_path, train_dataset=named)
        loop = trainer(reversed_head(), tmp_path)
        for measure in (loop.evaluate, loop.predict):
            with pytest.raises(ValueError, match="same in another order"):
                measure(named)
    trainer(plain(), tmp_path, eval_dataset=named)


def test_names_that_a_transform_has_made_good_are_taken_away(tmp_path):
    with pytest.raises(ValueError, match=r"dataset.cast_column\('label', datasets.Value\('int64'\)\)"):
        trainer(reversed_head(), tmp_path, train_dataset=raw("label"))
    bare = raw("label").cast_column("label", datasets.Value("int64"))
    trainer(reversed_head(), tmp_path, train_dataset=bare).train()

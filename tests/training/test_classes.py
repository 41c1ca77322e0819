"""A head is neither trained nor evaluated on classes that it names otherwise, however the data set is put together."""

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, random_split

from hf_smoothing import PixelDataset
from hf_smoothing.data import PixelStream
from tests.support.tiny import NAMES, SIZE, data, image_dataset, label_maps, plain, trainer


def reversed_head(kind="resnet"):
    return plain(kind, **label_maps(NAMES[::-1]))


def raw(column, to=None, mapped=int):
    """A data set of `datasets` whose transform makes pixels, and labels from a column."""
    source = image_dataset(columns=("image", column))
    return source.with_transform(
        lambda rows: {
            "pixel_values": [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in rows["image"]],
            to or column: [mapped(label) for label in rows[column]],
        }
    )


class Renumbered(Dataset):
    """A data set that holds another and numbers its classes from the other end."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        item = self.dataset[index]
        return {**item, "labels": len(NAMES) - 1 - int(item["labels"])}


class RenumberedParts(ConcatDataset):
    """Several data sets together whose classes are numbered from the other end."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        return {**item, "labels": len(NAMES) - 1 - int(item["labels"])}


NAMED = {
    "PixelDataset": lambda: PixelDataset(image_dataset(), SIZE),
    "decoded": lambda: PixelDataset(image_dataset(), SIZE).decode(progress=False),
    "stream": lambda: PixelStream(image_dataset().to_iterable_dataset(), SIZE),
    "labels": lambda: raw("labels"),
    "Subset": lambda: Subset(PixelDataset(image_dataset(), SIZE), range(4)),
    "Subset of a Subset": lambda: Subset(Subset(raw("labels"), range(5)), range(4)),
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


NUMBERED_ANEW = {
    "wrapper": lambda: Renumbered(PixelDataset(image_dataset(), SIZE)),
    "part of a wrapper": lambda: Subset(Renumbered(data(6)), range(4)),
    "wrappers together": lambda: ConcatDataset([Renumbered(data(4)), Renumbered(data(4))]),
    "several together": lambda: RenumberedParts([data(4), data(4)]),
    "no features of datasets": lambda: Subset(WithFeatures(data(4), torch.ones(4, 3)), range(4)),
    "names of columns": lambda: Subset(WithFeatures(data(4), ["image", "label"]), range(4)),
}


class WithFeatures(Renumbered):
    def __init__(self, dataset, features):
        super().__init__(dataset)
        self.features = features


@pytest.mark.parametrize("kind", NUMBERED_ANEW)
def test_what_may_number_the_classes_anew_is_taken_as_it_is(kind, tmp_path):
    changed = NUMBERED_ANEW[kind]()
    loop = trainer(reversed_head(), tmp_path, train_dataset=changed, eval_dataset=changed)
    loop.train()
    loop.evaluate()


def test_names_that_a_transform_may_have_made_good_are_warned_of_and_can_be_taken_away(tmp_path):
    cure = r"dataset.cast_column\('labels?', datasets.Value\('int64'\)\)"
    with pytest.raises(ValueError, match=cure):
        trainer(reversed_head(), tmp_path, train_dataset=raw("labels"))
    for to in ("label", "labels"):
        with pytest.warns(UserWarning, match=cure):
            trainer(reversed_head(), tmp_path, train_dataset=raw("label", to))
    with pytest.raises(ValueError, match=cure):
        trainer(reversed_head(), tmp_path, train_dataset=raw("label").with_format(None))
    bare = raw("label").cast_column("label", datasets.Value("int64"))
    trainer(reversed_head(), tmp_path, train_dataset=bare).train()

"""A head that stays as it was trained keeps its names in its order: anything else is refused, or warned of where it may be meant."""

from __future__ import annotations

import warnings

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PilImage
from transformers import AutoConfig, AutoModelForImageClassification

from hf_smoothing import PixelDataset, SmoothedClassifier, SmoothedClassifierConfig
from hf_smoothing.models import new_head
from tests.support.tiny import MEAN, NAMES, SIZE, STD, label_maps, plain


KNOWN = {"sigma": 0.25, "size": SIZE, "image_mean": MEAN, "image_std": STD}
MOVED = dict(enumerate(("dog", "cat", "eel")))


def wrap(where, id2label, **kwargs):
    if not (where / "config.json").exists():
        plain().save_pretrained(where)
    return SmoothedClassifier.from_base_pretrained(where, **KNOWN, id2label=id2label, **kwargs)


def wrap_with_config(where, id2label):
    plain().save_pretrained(where)
    return SmoothedClassifier.from_base_pretrained(
        where, **KNOWN, config=AutoConfig.from_pretrained(where, id2label=id2label)
    )


def load(where, id2label, loader=SmoothedClassifier):
    SmoothedClassifier.from_base_pretrained(plain(), **KNOWN).save_pretrained(where)
    return loader.from_pretrained(where, id2label=id2label)


def construct(where, id2label):
    network = plain()
    return SmoothedClassifier(
        SmoothedClassifierConfig(base_config=network.config, id2label=id2label, **KNOWN), network
    )


WAYS = {
    "wrapping": wrap,
    "ignoring mismatches": lambda where, names: wrap(where, names, ignore_mismatched_sizes=True),
    "with label2id": lambda where, names: wrap(where, names, label2id={name: k for k, name in names.items()}),
    "as text": lambda where, names: wrap(where, {str(k): name for k, name in names.items()}),
    "configuration": wrap_with_config,
    "loading": load,
    "Auto": lambda where, names: load(where, names, AutoModelForImageClassification),
    "constructing": construct,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("names", [("dog", "cat", "eel"), ("Eel", "CAT", "DOG"), ("dog, hound", "eel", "cat")])
def test_the_same_names_in_another_order_are_refused(way, names, tmp_path):
    with pytest.raises(
        ValueError, match=r"in another order than `id2label`: class 0 is 'cat', not .* Leave id2label out"
    ):
        way(tmp_path, dict(enumerate(names)))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_names_that_partly_agree_are_warned_of(way, tmp_path):
    for names in (("cat", "dog", "fox"), ("cat", "fox", "dog")):
        with pytest.warns(UserWarning, match=r"(for other classes than `id2label` in part|stays under the names)"):
            assert way(tmp_path, dict(enumerate(names))).config.id2label == dict(enumerate(names))


@pytest.mark.parametrize("way", [wrap, wrap_with_config, load, construct])
@pytest.mark.parametrize(
    "names", [NAMES, ("Katze", "Hund", "Aal"), ("Cat", "DOG", "eel"), ("LABEL_0", "LABEL_1", "LABEL_2")]
)
def test_the_own_names_spelt_otherwise_and_other_names_are_welcome(way, names, tmp_path):
    assert way(tmp_path, dict(enumerate(names))).config.id2label == dict(enumerate(names))


def test_a_head_without_names_takes_any(tmp_path):
    plain(**label_maps(("LABEL_0", "LABEL_1", "LABEL_2"))).save_pretrained(tmp_path)
    assert wrap(tmp_path, MOVED).config.id2label == MOVED


def test_a_name_that_the_head_has_twice(tmp_path):
    plain(id2label=dict(enumerate(("cat", "cat", "eel")))).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="class 0 is 'cat', not 'eel'"):
        wrap(tmp_path, dict(enumerate(("eel", "cat", "cat"))))
    wrap(tmp_path, dict(enumerate(("cat", "cat", "eel"))))


def test_a_new_head_takes_any_order(tmp_path):
    """Of a backbone that was saved without its head, the configuration still has the names."""
    plain().resnet.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert wrap(tmp_path, MOVED, ignore_mismatched_sizes=True).config.id2label == MOVED


def test_the_cure_trains_and_certifies_a_data_set_in_another_order(tmp_path):
    plain().save_pretrained(tmp_path)
    model = SmoothedClassifier.from_base_pretrained(tmp_path, **KNOWN)
    features = Features(image=Image(), label=ClassLabel(names=list(MOVED.values())))
    images = Dataset.from_dict({"image": [PilImage.new("RGB", (SIZE, SIZE))] * 3, "label": [0, 1, 2]}, features)
    assert [int(PixelDataset(images, model)[k]["labels"]) for k in range(3)] == [1, 0, 2]
    before = model.base_network.classifier[1].weight.clone()
    new_head(model)
    assert not torch.equal(before, model.base_network.classifier[1].weight)

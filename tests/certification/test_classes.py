"""Labels that the classifier has no class for are refused, and classes under another's number warned of, whatever the data set."""

import warnings
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch

from hf_smoothing import PixelDataset, PixelStream, certify_dataset
from hf_smoothing.certification.behaviour import Answer
from hf_smoothing.certification.classes import check_class
from hf_smoothing.certification.labels import adopt_labels, warn_other_classes
from hf_smoothing.certification.survey import AHEAD, survey
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.records import read_run
from tests.support.classifiers import RUN, SEQUENTIAL, Linear, random_dataset
from tests.support.tiny import SIZE, image_dataset, label_maps, pil_images, smoothed


MESSAGE = r"must be classes of the classifier, in \[0, 3\), got 3 for image 2\. .* Pass PixelDataset the model in place of a size"
BRIEF = {"sigma": 0.5, "n0": 2, "n": 20, "progress": False}
LABELS = [1, 2, 3]


class Lazy:
    """A data set of which no more is known than what it gives for an index."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Draws(torch.nn.Module):
    """A classifier without a configuration that counts its calls."""

    def __init__(self, network):
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, pixels):
        self.calls += 1
        return self.network.classify(pixels)


def rows(labels=LABELS, names=None):
    feature = {"label": datasets.ClassLabel(names=list(names))} if names else {"label": datasets.Value("int64")}
    features = datasets.Features({"image": datasets.Image(), **feature})
    return datasets.Dataset.from_dict({"image": pil_images(len(labels)), "label": labels}, features=features)


WAYS = {
    "size": lambda: PixelDataset(rows(), SIZE),
    "more classes than the model": lambda: PixelDataset(rows(names=["thing", "box", "disc", "star"]), SIZE),
    "decoded": lambda: PixelDataset(rows(), SIZE).decode(progress=False),
    "list": lambda: list(PixelDataset(rows(), SIZE)),
    "numpy labels": lambda: [{**item, "labels": np.int64(item["labels"])} for item in PixelDataset(rows(), SIZE)],
    "lazy": lambda: Lazy(list(PixelDataset(rows(), SIZE))),
    "stream": lambda: PixelStream(rows().to_iterable_dataset(), SIZE),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_label_beyond_the_classes_is_refused_before_any_draw_is_recorded(way, tmp_path):
    with pytest.raises(ValueError, match=MESSAGE):
        certify_dataset(smoothed(), WAYS[way](), tmp_path / "run", **BRIEF)
    assert not list(tmp_path.rglob("certificates-*.jsonl")) or not read_run(tmp_path / "run").rows


@pytest.mark.parametrize("arguments", [RUN, SEQUENTIAL], ids=["fixed", "targets"])
def test_a_label_beyond_the_answer_of_a_function_leaves_no_folder(arguments, tmp_path):
    images = [{**item, "labels": 2} if index == 3 else item for index, item in enumerate(random_dataset(5))]
    with pytest.raises(ValueError, match=r"in \[0, 2\), got 2 for image 3"):
        certify_dataset(Linear(), images, tmp_path / "run", **arguments)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("way", ["size", "decoded", "list", "lazy"])
@pytest.mark.parametrize("stated", [True, False])
def test_interval_bounds_refuse_it_too(way, stated, tmp_path):
    network = smoothed()
    with pytest.raises(ValueError, match=MESSAGE):
        certify_dataset_linf(
            network if stated else Draws(network).eval(), WAYS[way](), tmp_path / "run", largest=0.01, progress=False
        )
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("way", ["size", "decoded", "list", "lazy", "numpy labels"])
def test_the_images_ahead_are_compared_with_the_classes(way):
    with pytest.raises(ValueError, match=MESSAGE):
        survey(WAYS[way](), [0, 1, 2], AHEAD, answer_of=lambda shape: Answer([], [], 3))
    # Only the chosen images count.
    assert survey(WAYS[way](), [0, 1], AHEAD, answer_of=lambda shape: Answer([], [], 3)).classes == 3
    assert survey(WAYS[way](), [0, 1, 2], AHEAD, answer_of=lambda shape: Answer([], [], 4)).labelled


@pytest.mark.parametrize("way", ["size", "decoded"])
def test_labels_that_need_no_image_are_compared_beyond_the_images_ahead(way):
    with pytest.raises(ValueError, match=MESSAGE):
        survey(WAYS[way](), [0, 1, 2], 1, answer_of=lambda shape: Answer([], [], 3))
    assert survey(WAYS["lazy"](), [0, 1, 2], 1, answer_of=lambda shape: Answer([], [], 3)).indices is None


def test_a_run_gains_no_label_beyond_the_classes(tmp_path):
    items = list(PixelDataset(rows(), SIZE))
    run = certify_dataset(smoothed(), [{"pixel_values": item["pixel_values"]} for item in items], tmp_path, **BRIEF)
    # The images ahead are fewer than all, so that the last label is met where rows are rewritten.
    seen = survey(Lazy(items), [0, 1, 2])
    limited = type(seen)(**{**vars(seen), "answer": Answer([], [], 3)})
    with pytest.raises(ValueError, match=MESSAGE):
        adopt_labels(tmp_path, run.settings, limited, Lazy(items))
    assert [row["label"] for row in read_run(tmp_path).rows.values()] == [None] * 3


def test_the_classes_are_those_of_the_answer_whatever_a_configuration_says(tmp_path):
    """A head of one's own on a backbone whose configuration keeps the default of two labels."""
    model = smoothed()
    wider = SimpleNamespace(classify=model.classify, config=SimpleNamespace(num_labels=2, id2label={}))
    images = list(PixelDataset(rows([0, 1, 2]), SIZE))
    assert len(certify_dataset(wider, images, tmp_path / "run", **BRIEF).rows) == 3
    check_class(None, 0, 3), check_class(7, 0, None), check_class(2, 0, 3)


IMAGENET = ("goldfish, Carassius auratus", "tench, Tinca tinca", "English springer, English springer spaniel", "cat")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["tench", "English springer", "goldfish"], "Label 0 of the data set is 'tench', which is class 1"),
        (["goldfish", "English_springer", "tench"], "Label 1 of the data set is 'English_springer', which is class 2"),
        (["bird", "Tinca tinca", "n02123045 cat"], "Label 2 of the data set is 'n02123045 cat', which is class 3"),
        (["goldfish", "tench", "springer"], None),
        (["goldfish", "tench", "English springer"], None),
        (["koi", "Tench", "dog"], None),
    ],
)
@pytest.mark.parametrize("made", ["data set", "decoded", "stream", "names alone"])
def test_classes_under_another_number_are_matched_as_a_data_set_matches_them(names, said, made):
    images = rows([0, 1, 2], names)
    pixels = {
        "data set": lambda: PixelDataset(images, SIZE),
        "decoded": lambda: PixelDataset(images, SIZE).decode(progress=False),
        "stream": lambda: PixelStream(images.to_iterable_dataset(), SIZE),
        "names alone": lambda: SimpleNamespace(names=names),
    }[made]()
    model = smoothed(base=label_maps(IMAGENET))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_other_classes(model, pixels)
    assert [said in str(warning.message) for warning in caught] == ([True] if said else [])


@pytest.mark.parametrize(
    ("names", "model_names", "warned"),
    [
        (["a", "crane", "b"], ["crane", "eel", "crane"], True),  # neither of both
        (["crane", "eel", "crane2"], ["crane", "eel", "crane"], False),  # by position
        (["1", "2", "3"], ["LABEL_0", "LABEL_1", "LABEL_2"], False),  # a model without names is met by number
        (["LABEL_1", "LABEL_0"], ["LABEL_0", "LABEL_1"], True),
        (["cat", "dog"], [], False),
    ],
)
def test_names_that_are_no_names_or_stand_twice(names, model_names, warned):
    model = SimpleNamespace(config=SimpleNamespace(id2label=dict(enumerate(model_names))))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_other_classes(model, SimpleNamespace(names=names))
    assert bool(caught) == warned


def test_a_data_set_matched_by_the_model_is_certified_without_a_word(tmp_path):
    images = image_dataset(3, names=("eel", "dog", "cat"))
    run = certify_dataset(smoothed(), PixelDataset(images, smoothed()), tmp_path, **BRIEF)
    assert [row["label"] for row in run.rows.values()] == [2, 1, 0]

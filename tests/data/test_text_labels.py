"""Labels that are text mean the same in a data set that is known whole, in a list, in a lazy data set and in a stream."""

import datasets
import pytest

from hf_smoothing import PixelDataset, PixelStream
from hf_smoothing.data import class_map
from hf_smoothing.spelling import numbers_of, plain
from tests.support.tiny import SIZE, pil_images


class Lazy:
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def labels_of(texts, model_names, made, **how):
    images = [{"image": image, "label": text} for image, text in zip(pil_images(len(texts)), texts, strict=True)]
    columns = datasets.Dataset.from_list(images)
    options = {"id2label": dict(enumerate(model_names)), **how}
    pixels = {
        "data set": lambda: PixelDataset(columns, SIZE, **options),
        "list": lambda: PixelDataset(images, SIZE, **options),
        "lazy": lambda: PixelDataset(Lazy(images), SIZE, **options),
        "stream": lambda: PixelStream(columns.to_iterable_dataset(), SIZE, **options),
    }[made]()
    return [item["labels"] for item in pixels]


MADE = ["data set", "list", "lazy", "stream"]
DEFAULT = [f"LABEL_{number}" for number in range(5)]


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize(
    ("texts", "model_names", "expected"),
    [
        (["1", "2", "1"], DEFAULT, [1, 2, 1]),
        (["03", "0"], DEFAULT, [3, 0]),
        (["LABEL_3", "label-0"], DEFAULT, [3, 0]),
        (["1", "2"], ["001.Albatross", "002.Laysan"], [0, 1]),
        (["Albatross", "Laysan"], ["001.Albatross", "002.Laysan"], [0, 1]),
        (["001.Albatross", "002.Laysan"], ["Laysan", "Albatross"], [1, 0]),
        (["-1", "1"], ["1", "-1"], [1, 0]),
        (["\u22121", "1"], ["1", "-1"], [1, 0]),
        (["-5 deg", "5 Deg"], ["5 deg", "-5 Deg"], [1, 0]),
        (["at_-.5", "at .5"], ["At .5", "At -.5"], [1, 0]),
        (["covid-19", "0-2"], ["0 2", "COVID_19"], [1, 0]),
    ],
)
def test_what_a_text_means(texts, model_names, expected, made):
    assert labels_of(texts, model_names, made) == expected


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize(
    ("texts", "model_names"),
    [
        (["001.Albatross", "002.Laysan"], DEFAULT),
        (["1 Albatross", "2: Laysan"], DEFAULT),
        (["1, Albatross"], DEFAULT),
        (["Albatross, 1"], DEFAULT),
        (["7 up"], [f"LABEL_{number}" for number in range(8)]),
        (["LABEL_1", "LABEL_2"], ["001.Albatross", "002.Laysan"]),
        (["-1", "1"], DEFAULT[:2]),
        (["\u20131", "1"], DEFAULT[:2]),
        (["-1"], ["1", "0"]),
        (["-1.5"], ["1.5", "0"]),
    ],
)
def test_numbers_in_a_text_are_not_those_of_the_classes(texts, model_names, made):
    with pytest.raises(ValueError, match=r"Class names of the data set do not match the model's: .* are not among"):
        labels_of(texts, model_names, made)


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize(
    ("texts", "model_names"),
    [
        (["cat", "dog", "Cat"], ["cat", "dog"]),
        (["Cat", "cat"], ["CAT", "dog"]),
        (["1", "0", "01"], DEFAULT),
        (["1", "LABEL_1"], DEFAULT),
        (["tench", "Tinca tinca"], ["tench, Tinca tinca", "cat"]),
        (["001.tench", "tench"], ["tench", "cat"]),
    ],
)
def test_two_texts_on_one_class_are_refused_and_named(texts, model_names, made):
    with pytest.raises(ValueError, match="Two labels of the data set fit one class of the model") as refusal:
        labels_of(texts, model_names, made)
    first, second = sorted({text for text in texts if repr(text) in str(refusal.value)})[:2]
    assert first != second


@pytest.mark.parametrize("made", MADE)
def test_by_hand_two_texts_may_be_one_class(made):
    names = ["cat", "dog"]
    assert labels_of(["cat", "kitten", "dog"], names, made, label_map={"kitten": "cat"}) == [0, 0, 1]
    assert labels_of(["Cat", "cat"], ["cat", "dog"], made, label_map={"Cat": "cat"}) == [0, 0]


@pytest.mark.parametrize("made", MADE)
def test_a_number_in_a_map_by_hand_is_the_text_of_that_number(made):
    """Texts have no order, so a number is no place among them."""
    assert labels_of(["10", "2"], ["a", "b"], made, label_map={10: "a", 2: "b"}) == [0, 1]
    assert labels_of(["10", "2"], ["a", "b"], made, label_map={"10": 1, "2": 0}) == [1, 0]


@pytest.mark.parametrize("made", MADE)
def test_a_map_by_hand_to_no_class_is_refused_at_once(made):
    with pytest.raises(ValueError, match="says 'owl', but the model has no such class"):
        labels_of(["cat", "eel"], ["cat", "dog"], made, label_map={"eel": "owl"})


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("text", ["-1", "cat"])
def test_by_number_a_text_needs_a_number(text, made):
    with pytest.raises(ValueError, match="which has no number"):
        labels_of(["0", text], ["cat", "dog"], made, labels="by-number")


def test_the_same_classes_have_the_same_numbers_as_text_and_as_class_labels_or_are_refused():
    names = [f"{number:03}.bird {number}" for number in range(1, 6)]
    assert class_map(names, dict(enumerate(DEFAULT))).to_model == (0, 1, 2, 3, 4)
    with pytest.raises(ValueError, match="do not match"):
        class_map(names, dict(enumerate(DEFAULT)), ordered=False)


def test_the_cure_for_numbers_within_names_is_one_that_works():
    names = ["class_1", "class_10", "class_2"]
    with pytest.raises(ValueError, match=r"Pass label_map=\{\.\.\.\} with .* takes 'class_1' for class 0"):
        class_map(names, dict(enumerate(DEFAULT[:3])))
    places = {name: place for place, name in enumerate(names)}
    assert class_map(names, dict(enumerate(DEFAULT[:3])), label_map=places).to_model == (0, 1, 2)


def test_minus_signs():
    assert plain("a-1") == plain("A_1") != plain("a -1")
    assert plain("-1") == plain("\u20111") == plain("\uff0d1") == "-1"
    assert plain("- one") == "one"
    assert numbers_of(["-1", "-2"]) is None and numbers_of(["class-1", "class-2"]) == [1, 2]

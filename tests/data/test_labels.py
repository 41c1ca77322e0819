"""Classes of a data set and of a model are matched by name, and what does not match is refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_smoothing import PixelDataset
from hf_smoothing.data import class_map, class_names
from tests.support.tiny import NAMES, SIZE, image_dataset


def model_map(*names):
    return dict(enumerate(names))


def test_equal_names_keep_their_numbers():
    assert class_map(NAMES, model_map(*NAMES)).to_model == (0, 1, 2)


def test_nothing_to_match():
    assert class_map(None, model_map(*NAMES)).to_model is None
    assert class_map(NAMES, None).to_model is None
    assert class_map(NAMES, {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}).how == ("by number",) * 3


def test_permuted_names_are_matched_by_name():
    assert class_map(["cat", "dog", "eel"], model_map("eel", "cat", "dog")).to_model == (1, 2, 0)


@given(
    st.permutations([f"class {letter}" for letter in "abcdefgh"]),
    st.permutations([f"class {letter}" for letter in "abcdefgh"]),
)
def test_every_class_keeps_its_name(ours, theirs):
    mapping = class_map(ours, model_map(*theirs)).to_model
    assert [theirs[number] for number in mapping] == list(ours)


def test_spelling_does_not_matter():
    assert class_map(["Polar_Bear", " cat", "DOG"], model_map("dog", "polar bear", "Cat")).to_model == (1, 2, 0)


def test_order_of_the_models_map_does_not_matter():
    assert class_map(["cat", "dog", "eel"], {2: "cat", 0: "dog", 1: "eel"}).to_model == (2, 0, 1)


def test_more_than_ten_classes_are_in_numerical_order():
    names = [f"n{number:02}" for number in range(12)]
    assert class_map(list(reversed(names)), model_map(*names)).to_model == tuple(reversed(range(12)))


def test_a_map_with_text_for_keys_as_in_config_json_is_read_right_or_refused():
    names = [f"n{number:02}" for number in range(12)]
    try:
        mapping = class_map(names, {str(index): name for index, name in enumerate(names)}).to_model
    except (ValueError, TypeError):
        return
    assert mapping == tuple(range(12))


def test_a_subset_of_the_models_classes_is_matched_by_name():
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert class_map(["cat", "dog", "ship"], model_map(*names)).to_model == (3, 5, 8)


def test_more_classes_than_the_model_has_are_refused_by_name():
    with pytest.raises(
        ValueError, match=r"\['eel'\] are not among \['cat', 'dog'\] \(3 classes in the data set, 2 in the model\)"
    ):
        class_map(NAMES, model_map("cat", "dog"))


def test_other_names_are_refused_and_named():
    with pytest.raises(ValueError, match=r"\['eel'\] are not among \['cat', 'dog', 'frog'\]"):
        class_map(NAMES, model_map("cat", "dog", "frog"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, r"`label_map` does not map \['eel'\], and the model has no class of that name .* Add them to the map"),
        ("by-number", r"there is none for \['eel'\] .*\. Add them to `label_map`, or use"),
    ],
)
def test_what_a_map_by_hand_lacks_is_named(labels, message):
    with pytest.raises(ValueError, match=message):
        class_map(NAMES, model_map("cat", "dog"), labels=labels, label_map={NAMES[0]: "dog"})


def test_names_that_are_not_unique_are_refused():
    with pytest.raises(ValueError, match=r"\['cat', 'cat'\] stand several times in the model"):
        class_map(["cat", "dog", "cat"], model_map("cat", "Cat", "dog"))


def test_class_names_of_a_column():
    dataset = image_dataset(2).add_column("number", [1, 2])
    assert class_names(dataset, "label") == list(NAMES)
    assert class_names(dataset, "number") is None
    assert class_names(dataset, None) is None


def test_a_data_set_speaks_the_models_numbers():
    made = PixelDataset(image_dataset(3, names=("cat", "dog", "eel")), SIZE, id2label=model_map("eel", "cat", "dog"))
    assert [made[index]["labels"] for index in range(3)] == [1, 2, 0]


def test_a_data_set_of_another_task_is_refused():
    with pytest.raises(ValueError, match="3 classes in the data set, 2 in the model"):
        PixelDataset(image_dataset(3), SIZE, id2label=model_map("a", "b"))
    with pytest.raises(ValueError, match="do not match"):
        PixelDataset(image_dataset(3), SIZE, id2label=model_map("a", "b", "c"))

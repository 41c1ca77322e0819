"""Which class of a model a class of a data set is: by name, by position, by number, by hand; and what is never guessed."""

import json
import time

import datasets
import pytest

from hf_smoothing import PixelDataset, PixelStream
from hf_smoothing.data import class_map
from tests.support.tiny import SIZE, image_dataset, label_maps, pil_images, smoothed


def numbered(*names):
    return dict(enumerate(names))


def to_model(names, model_names, **how):
    return list(class_map(names, numbered(*model_names), **how).to_model)


LABELS = [f"LABEL_{k}" for k in range(12)]
TEXT_ORDER = sorted(map(str, range(12)))


@pytest.mark.parametrize(
    ("names", "model_names", "expected"),
    [
        (["tench", "crane", "crane2"], ["tench", "crane", "crane"], [0, 1, 2]),
        (["crane", "tench", "crane 2"], ["crane", "tench", "crane"], [0, 1, 2]),
        (["maillot", "maillot, tank suit"], ["maillot", "maillot"], [0, 1]),
        (["maillot", "maillot_2", "cat"], ["maillot", "maillot, tank suit", "cat"], [0, 1, 2]),
        (["cat", "tench"], ["tench, Tinca tinca", "tabby, tabby cat", "cat"], [2, 0]),
        (["tench, Tinca tinca"], ["cat", "tench"], [1]),
        (["Tinca tinca"], ["cat", "tench, Tinca tinca"], [1]),
        (["n01440764", "n01443537"], ["n01443537", "n01440764"], [1, 0]),
        (["n01440764"], ["cat", "n01440764 tench, Tinca tinca"], [1]),
        (["n01440764_tench"], ["cat", "tench"], [1]),
        (["001.Black_footed_Albatross"], ["cat", "Black footed albatross"], [1]),
        (["caf\u00e9", "T-Shirt"], ["t_shirt", "cafe\u0301"], [1, 0]),
        (["STRASSE"], ["cat", "straße"], [1]),
        (["big\u2010cat", "Polar  Bear "], ["polar bear", "big cat"], [1, 0]),
        (TEXT_ORDER, [str(k) for k in range(12)], [int(name) for name in TEXT_ORDER]),
        (["00", "07"], [str(k) for k in range(10)], [0, 7]),
        (["3", "7"], ["0 - zero", *"123456", "7 - seven"], [3, 7]),
        (["Cat", "cat"], ["cat", "Cat"], [1, 0]),
    ],
)
def test_spellings_of_one_class(names, model_names, expected):
    assert to_model(names, model_names) == expected


@pytest.mark.parametrize(
    ("names", "model_names"),
    [
        (["tench", "crane"], ["tench", "crane", "crane"]),  # a subset has no positions
        (["crane2", "tench", "crane"], ["tench", "crane", "crane"]),  # other positions
        (["frog", "toad", "tench"], ["crane", "crane", "tench"]),  # other animals
        (["digit 1", "digit 3"], ["digit 2", "digit 4"]),
        (["panther"], ["leopard, panther", "jaguar, panther"]),
        (["puma, panther"], ["leopard, panther", "cat"]),
        (["dog, small", "dog, large"], ["dog", "cat"]),
        (["cafe"], ["café"]),
        (["0", "1", "2"], ["cat", "dog", "eel"]),
    ],
)
def test_what_could_be_another_class_is_refused(names, model_names):
    with pytest.raises(
        ValueError, match=r"Class names of the data set do not match the model's: .* Pass label_map=\{...\}"
    ):
        to_model(names, model_names)


def test_numbers_in_text_order_are_never_taken_silently():
    with pytest.raises(
        ValueError,
        match="class 2 of the data set is called '10' .* labels='by-name' to take '10' for LABEL_10, or label_map=.* takes '10' for class 2",
    ):
        to_model(TEXT_ORDER, LABELS)
    assert to_model(TEXT_ORDER, LABELS, labels="by-name") == [int(name) for name in TEXT_ORDER]
    places = {name: place for place, name in enumerate(TEXT_ORDER)}
    assert to_model(TEXT_ORDER, LABELS, labels="by-number", label_map=places) == list(range(12))


@pytest.mark.parametrize(
    "names", [["1", "2", "3"], ["class_1", "class_10", "class_2"], ["2", "5"], ["s1", "s10", "s9"]]
)
def test_numbers_that_are_not_those_of_the_model_are_not_taken_silently(names):
    with pytest.raises(ValueError, match="It is not clear which class"):
        to_model(names, LABELS[: len(names)])


@pytest.mark.parametrize(
    "names", [["0", "1", "2"], ["00", "01", "02"], ["a", "b", "c"], ["class0", "class1", "class2"]]
)
def test_a_model_without_names_is_met_by_number(names):
    made = class_map(names, numbered(*LABELS[:3]))
    assert made.to_model == (0, 1, 2) and set(made.how) == {"by number"}
    assert "0 " in made.describe() and "LABEL_0" in made.describe()


@pytest.mark.parametrize("names", [["a", "b"], ["cat1", "cat2"], ["n01440764", "n01443537"]])
def test_a_model_without_names_and_with_more_classes_is_refused(names):
    with pytest.raises(
        ValueError,
        match="(2 classes and the model 3|class 0 of the data set is called 'cat1' .*), and the model's classes have no names",
    ):
        to_model(names, LABELS[:3])


def test_by_hand():
    names, model_names = ["tench", "crane", "bird"], ["crane", "crane", "tench, Tinca tinca", "owl"]
    assert to_model(names, model_names, label_map={"crane": 1, "bird": "Owl"}) == [2, 1, 3]
    assert to_model(names, model_names, label_map={"1": "0", 2: 3}) == [2, 0, 3]
    assert to_model(["kitten", "cat"], ["dog", "cat"], label_map={"kitten": "cat"}) == [1, 1]
    assert to_model(["crane", "crane2"], ["crane", "crane"], label_map={"crane": 1, "crane2": 0}) == [1, 0]
    # A name comes before a number that is written the same.
    assert to_model(["1", "0"], ["a", "b"], label_map={"1": "b", "0": "a"}) == [1, 0]
    made = class_map(None, numbered("a", "b", "c"), label_map={1: "a", 2: "b", 3: "c"})
    assert made.to_model[1:] == (0, 1, 2)


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        ({"owl": 0}, "says 'owl', but the data set has no such class"),
        ({"cat": "owl"}, "says 'owl', but the model has no such class"),
        ({"cat": 7}, "says 7, but the model has no such class; its classes are 0 to 2"),
        ({"cat": -1}, "no such class"),
        ({"cat": True}, "no such class"),
        ({"cat": "crane"}, r"says 'crane', but classes \[1, 2\] of the model are called so. Give the number"),
        ({"cat": 0, "0": 1}, "names class 0 of the data set twice"),
        ([("cat", 0)], "`label_map` must be a mapping"),
    ],
)
def test_mistakes_in_a_map_by_hand(label_map, message):
    with pytest.raises(ValueError, match=message):
        to_model(["cat"], ["cat", "crane", "crane"], label_map=label_map)
    with pytest.raises(ValueError, match="Pass id2label"):
        class_map(["cat"], None, label_map={"cat": 0})
    with pytest.raises(ValueError, match="must be 'by-name' or 'by-number', got 'name'"):
        to_model(["cat"], ["cat"], labels="name")
    with pytest.raises(ValueError, match=r"`id2label` must name the classes 0 to 1, got the numbers \[0, 2\]"):
        class_map(["cat"], {0: "cat", 2: "dog"})


def test_by_number_needs_a_class_for_each():
    assert to_model(["a", "b"], ["x", "y", "z"], labels="by-number") == [0, 1]
    with pytest.raises(ValueError, match=r"The model has 2 classes, so there is none for \['c'\]"):
        to_model(["a", "b", "c"], ["x", "y"], labels="by-number")


def test_the_record_is_short_where_the_map_is_the_identity():
    same = class_map(["cat", "dog"], numbered("cat", "dog"))
    assert same.to_dict() == {"matched": "by name"}
    assert same.describe() == "Classes: 2 by name."
    some = class_map(["dog"], numbered("cat", "dog"))
    assert some.to_dict() == {"matched": "by name", "to_model": [1]}
    assert some.describe() == "Classes: 1 by name (the model has 2).\n  0 'dog' -> 1 'dog', by name"
    mixed = class_map(["tench", "crane", "crane2"], numbered("tench", "crane", "crane"))
    assert mixed.to_dict() == {"matched": {"by name": 1, "by position": 2}}
    assert "  2 'crane2' -> 2 'crane', by position" in mixed.describe()
    assert class_map(None, numbered("a", "b")).to_dict() == {"matched": "by number"}
    assert class_map(None, None).describe() == "Classes: by number, as they are."
    many = class_map([f"c{k}" for k in range(30)], numbered(*[f"c{29 - k}" for k in range(30)]))
    assert many.describe().endswith("... and 22 more")
    json.dumps(many.to_dict())


def test_many_classes_take_no_time():
    names = [f"class {k}, synonym {k}" for k in range(5_000)]
    began = time.perf_counter()
    assert to_model(names[::-1], [f"class {k}" for k in range(5_000)]) == list(range(5_000))[::-1]
    assert time.perf_counter() - began < 5


def dataset(labels, feature):
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    return datasets.Dataset.from_dict({"image": pil_images(len(labels)), "label": labels}, features=features)


def read(made):
    return [made[index]["labels"] for index in range(len(made))]


def test_a_class_without_images_may_be_missing_in_the_model():
    images = dataset([0, 2, 2], datasets.ClassLabel(names=["cat", "unicorn", "dog"]))
    made = PixelDataset(images, SIZE, id2label=numbered("dog", "cat"))
    assert read(made) == [1, 0, 0]
    assert made.facts() == {"labels": {"column": "label", "matched": "by name", "to_model": [1, None, 0]}}
    assert "'unicorn' -> none (no image has it)" in made.class_map.describe()
    with pytest.raises(ValueError, match=r"\['unicorn'\] are not among"):
        PixelDataset(dataset([0, 1], images.features["label"]), SIZE, id2label=numbered("dog", "cat"))


@pytest.mark.parametrize("made", ["list", "dataset", "stream of known type", "stream"])
def test_labels_that_are_text_are_matched_by_name(made):
    from hf_smoothing import PixelStream

    texts = ["dog", "Polar Bear", "dog"]
    source = dataset(texts, datasets.Value("string"))
    rows = [{"image": image, "label": text} for image, text in zip(pil_images(3), texts, strict=True)]
    if made == "stream of known type":
        source = source.to_iterable_dataset()
    elif made == "stream":
        source = datasets.IterableDataset.from_generator(lambda: iter(rows))
    elif made == "list":
        source = rows
    kind = PixelStream if made.startswith("stream") else PixelDataset
    model_names = numbered("polar_bear", "cat", "dog")
    pixels = kind(source, SIZE, id2label=model_names)
    assert [item["labels"] for item in pixels] == [2, 0, 2]
    assert pixels.facts()["labels"]["matched"] == "by name"
    by_hand = kind(source, SIZE, id2label=model_names, label_map={"dog": "cat"})
    assert [item["labels"] for item in by_hand] == [1, 0, 1]
    with pytest.raises(ValueError, match=r"'Polar Bear'\] are not among|\['Polar Bear'\]"):
        list(kind(source, SIZE, id2label=numbered("dog", "cat")))
    with pytest.raises(ValueError, match="must be an integer class, got 'dog'. Pass id2label"):
        list(kind(source, SIZE))


def test_numbers_written_as_text():
    source = dataset(["3", "10"], datasets.Value("string"))
    model = numbered(*LABELS)
    assert read(PixelDataset(source, SIZE, id2label=model)) == [3, 10]
    assert read(PixelDataset(source, SIZE, id2label=model, labels="by-number")) == [3, 10]
    with pytest.raises(ValueError, match="text such as 'cat', which has no number"):
        PixelDataset(dataset(["cat"], datasets.Value("string")), SIZE, id2label=model, labels="by-number")


def test_labels_that_begin_at_one():
    source = dataset([1, 2, 3], datasets.Value("int64"))
    with pytest.warns(UserWarning, match="labels are numbers without names"):
        made = PixelDataset(source, SIZE, id2label=numbered("a", "b", "c"))
    with pytest.raises(ValueError, match=r"Label of image 2 .* begin at 1 pass label_map=\{1: 0, 2: 1, ...\}"):
        made.check_labels()
    made = PixelDataset(source, SIZE, id2label=numbered("a", "b", "c"), label_map={1: 0, 2: 1, 3: 2})
    assert read(made) == [0, 1, 2]


def test_a_split_whose_labels_are_all_missing_is_unlabelled():
    for labels in ([-1, -1], [None, None]):
        made = PixelDataset(dataset(labels, datasets.ClassLabel(names=["cat", "dog"])), SIZE)
        assert made[0].keys() == {"pixel_values"} and made.unlabelled_column == "label" and made.facts() == {}
        with pytest.raises(ValueError, match="marks all images as unlabelled"):
            PixelDataset(made.dataset, SIZE, label_column="label")
        with pytest.raises(ValueError, match="the data set has none that is clear"):
            PixelDataset(made.dataset, SIZE, id2label=numbered("cat", "dog"), labels="by-name")


def wrapped(*names):
    """A tiny classifier with these classes."""
    return smoothed(base=label_maps(names))


def test_a_model_in_place_of_a_size_brings_its_classes():
    """As on the command line: nothing is taken by number where both have names."""
    model = wrapped("bird", "cat", "dog")
    source = dataset([0, 1], datasets.ClassLabel(names=["dog", "bird"]))
    for given in (model, model.config):
        assert read(PixelDataset(source, given)) == [2, 0]
    assert read(PixelDataset(source, model, id2label=None)) == [0, 1]
    assert read(PixelDataset(source, model, labels="by-number")) == [0, 1]
    assert read(PixelDataset(source, SIZE)) == [0, 1]
    with pytest.raises(ValueError, match="do not match the model's"):
        PixelDataset(dataset([0, 1], datasets.ClassLabel(names=["disc", "box"])), model)
    # Nothing to match: names of the kind LABEL_0.
    assert read(PixelDataset(source, wrapped("LABEL_0", "LABEL_1", "LABEL_2"))) == [0, 1]


def test_a_stream_takes_the_classes_of_the_model_as_well():
    source = dataset([0, 1], datasets.ClassLabel(names=["dog", "bird"])).to_iterable_dataset()
    assert [item["labels"] for item in PixelStream(source, wrapped("bird", "cat", "dog"))] == [2, 0]


def test_names_cannot_be_asked_for_where_no_model_is_known():
    with pytest.raises(ValueError, match="labels='by-name' asks for the classes of a model, which are not known"):
        PixelDataset(dataset([0], datasets.ClassLabel(names=["dog"])), SIZE, labels="by-name")


def nameless(way):
    """Three images with the labels 0, 1 and 2, which have lost their names on the way."""
    source = dataset([0, 1, 2], datasets.ClassLabel(names=["eel", "cat", "dog"]))
    stream = source.to_iterable_dataset()
    return {
        "list": lambda: list(source),
        "column": lambda: source.cast_column("label", datasets.Value("int64")),
        "stream": lambda: source.cast_column("label", datasets.Value("int64")).to_iterable_dataset(),
        "map": lambda: stream.map(lambda row: {**row, "more": 1}),
        "map and remove": lambda: stream.map(lambda row: {**row, "more": 1}).remove_columns("more"),
        "generator": lambda: datasets.IterableDataset.from_generator(lambda: iter(source)),
    }[way]()


NAMELESS = ["list", "column", "stream", "map", "map and remove", "generator"]


@pytest.mark.parametrize("way", NAMELESS)
def test_numbers_without_names_are_never_taken_for_classes_with_names_in_silence(way):
    source, model = nameless(way), wrapped("cat", "dog", "eel")
    kind = PixelDataset if hasattr(source, "__len__") else PixelStream
    with pytest.raises(ValueError, match="labels='by-name' needs names of .* Pass labels='by-number' if .*ClassLabel"):
        kind(source, model, labels="by-name")
    with pytest.warns(UserWarning, match="taken for the model's numbers: 0 for 'cat'.*labels='by-number'") as given:
        made = kind(source, model)
    assert len(given) == 1 and given[0].filename == __file__
    assert [item["labels"] for item in made] == [0, 1, 2]
    # Whoever has said it is not told.
    assert [item["labels"] for item in kind(source, model, labels="by-number")] == [0, 1, 2]
    assert [item["labels"] for item in kind(source, model, id2label=None)] == [0, 1, 2]
    by_hand = {0: "eel", 1: "cat", 2: "dog"}
    for labels in (None, "by-name"):
        assert [item["labels"] for item in kind(source, model, labels=labels, label_map=by_hand)] == [2, 0, 1]
    with pytest.raises(ValueError, match="labels='by-name' needs names|class 2 of the data set, which the model does"):
        list(kind(source, model, labels="by-name", label_map={0: "eel", 1: "cat"}))


@pytest.mark.parametrize("names", [["LABEL_0", "LABEL_1", "LABEL_2"], ["0", "1", "2"]])
def test_numbers_of_a_model_whose_classes_are_called_by_them_are_no_question(names):
    assert read(PixelDataset(nameless("column"), wrapped(*names))) == [0, 1, 2]
    assert class_map(None, numbered(*names), labels="by-name").to_model is None
    with pytest.warns(UserWarning, match="0 for '2'"):
        PixelDataset(nameless("column"), wrapped("2", "1", "0"))


def test_a_stream_that_keeps_its_features_keeps_its_names():
    """The cure that the warning names."""
    source = dataset([0, 1, 2], datasets.ClassLabel(names=["eel", "cat", "dog"])).to_iterable_dataset()
    model = wrapped("cat", "dog", "eel")
    kept = source.map(lambda row: row, features=source.features)
    cast = nameless("column").cast_column("label", datasets.ClassLabel(names=["eel", "cat", "dog"]))
    assert [item["labels"] for item in PixelStream(kept, model)] == [2, 0, 1]
    assert read(PixelDataset(cast, model)) == [2, 0, 1]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"cat": "a"}, ValueError, r"must map numbers of classes to their names.* got \['cat'\] for numbers\. Number them from 0"),
        ({"cat": 0, "dog": 1}, ValueError, "This is the inverse, label2id"),
        ({None: "a"}, ValueError, "must map numbers of classes"),
        (["cat", "dog"], TypeError, r"got list\. Of a list of names make one: dict\(enumerate\(names\)\)"),
    ],
)  # fmt: skip
def test_a_label_map_without_numbers_is_refused_in_our_words(given, error, message):
    with pytest.raises(error, match=message):
        PixelDataset(image_dataset(3), SIZE, id2label=given)


@pytest.mark.parametrize(("names", "advised"), [(["0", "2", "3"], False), (["0", "1", "10", "2"], False), (["0", "1", "2"], True), (["a", "b", "c"], True)])  # fmt: skip
def test_numbers_are_not_advised_where_they_would_shift_the_classes(names, advised):
    with pytest.raises(ValueError, match="are not among") as refused:
        class_map(names, {0: "cat", 1: "dog", 2: "eel", 3: "frog"})
    assert ("by-number" in str(refused.value)) == advised


ANIMALS = {0: "cat", 1: "dog", 2: "eel"}
MORE = {**ANIMALS, 3: "fox", 4: "gnu"}


@pytest.mark.parametrize(
    ("names", "model", "place"),
    [
        (["0", "2", "3"], ANIMALS, 1),
        (["0", "2", "3"], MORE, 1),
        (["0", "2", "3"], {k: f"LABEL_{k}" for k in range(3)}, 1),
        (["00", "02", "03"], ANIMALS, 1),
        (["1", "2", "3"], ANIMALS, 0),
        (["-1", "0", "1"], ANIMALS, 0),
        (["0", "2", "other"], ANIMALS, 1),
        (["class_0", "class_2", "class_3"], ANIMALS, 1),
        (["class_0", "class_1", "class_10", "class_2"], MORE, 2),
        (["class_1", "class_2"], ANIMALS, 0),
    ],
)
def test_places_are_not_taken_for_numbers_where_classes_are_called_by_others(names, model, place):
    said = rf"class {place} of the data set is called '{names[place]}' .*label_map=\{{...\}}.* takes '{names[place]}' for class {place}"
    with pytest.raises(ValueError, match=f"labels='by-number' takes the place .* but {said}"):
        class_map(names, model, labels="by-number")
    places = {name: number for number, name in enumerate(names)}
    assert class_map(names, model, labels="by-number", label_map=places).to_model == tuple(range(len(names)))


@pytest.mark.parametrize(
    ("names", "model"),
    [
        (["0", "1", "2"], MORE),
        (["00", "01", "02"], ANIMALS),
        (["class_0", "class_1"], ANIMALS),
        (["bird 1", "bird 2", "bird 3"], ANIMALS),
        (["1", "2", "3"], {0: "1", 1: "2", 2: "3"}),
        (["covid-19", "flu"], ANIMALS),
        (["n01440764", "n01443537"], ANIMALS),
    ],
)
def test_places_are_numbers_where_nothing_says_otherwise(names, model):
    assert class_map(names, model, labels="by-number").to_model == tuple(range(len(names)))


def test_names_with_gaps_are_not_placed_silently_in_a_model_without_names():
    with pytest.raises(ValueError, match="It is not clear .* class 1 of the data set is called 'class_2'"):
        class_map(["class_0", "class_2", "class_3"], {k: f"LABEL_{k}" for k in range(3)})

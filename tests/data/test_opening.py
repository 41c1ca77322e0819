"""Splits and configurations of data sets on disk, as a command line or an example names them."""

import gc
import io
import tarfile

import datasets
import pytest

from hf_smoothing.data import DataChoice, load_split, open_pixels
from hf_smoothing.data.opening import choice_text, chosen_images, training_split
from hf_smoothing.data.selection import hold_out, select_images, spread
from tests.support.tiny import NAMES, SIZE, image_dataset, parquet_folder, pil_images


MODEL = dict(enumerate(NAMES))


def labels(pixels):
    return [item["labels"] for item in pixels]


# `datasets` leaves the table open where it streams.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("streaming", [False, True])
def test_labels_in_a_table_beside_the_images(tmp_path, streaming):
    (tmp_path / "images" / "test").mkdir(parents=True)
    for place, image in enumerate(pil_images(3)):
        image.save(tmp_path / "images" / "test" / f"{place}.png")
    table = "file_name,label\n0.png,dog\n1.png,Cat\n2.png,eel\n"
    (tmp_path / "images" / "test" / "metadata.csv").write_text(table)
    assert labels(open_pixels(DataChoice(str(tmp_path / "images")), SIZE, MODEL, streaming=streaming)) == [1, 0, 2]
    gc.collect()  # datasets leaves the table open, which must not fall to the test that comes next


@pytest.mark.parametrize("streaming", [False, True])
def test_a_web_data_set(tmp_path, streaming):
    (tmp_path / "images").mkdir()
    with tarfile.open(tmp_path / "images" / "test-000.tar", "w") as tar:
        for place, image in enumerate(pil_images(3)):
            raw = io.BytesIO()
            image.save(raw, "PNG")
            for kind, content in (("png", raw.getvalue()), ("cls", str(2 - place).encode())):
                info = tarfile.TarInfo(f"{place:03}.{kind}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    choice = DataChoice(str(tmp_path / "images"), labels="by-number")
    pixels = open_pixels(choice, SIZE, MODEL, streaming=streaming)
    assert (pixels.image_column, pixels.label_column, labels(pixels)) == ("png", "cls", [2, 1, 0])


@pytest.mark.parametrize("streaming", [False, True])
def test_what_was_saved_to_disk(tmp_path, streaming):
    image_dataset(3).save_to_disk(tmp_path / "unnamed")
    assert labels(open_pixels(DataChoice(str(tmp_path / "unnamed")), SIZE, MODEL, streaming=streaming)) == [0, 1, 2]
    load_split(str(parquet_folder(tmp_path / "source", count=2)), "test").save_to_disk(tmp_path / "named")
    assert labels(open_pixels(DataChoice(str(tmp_path / "named")), SIZE, MODEL, streaming=streaming)) == [0, 1]
    with pytest.raises(
        ValueError, match=r"has no split 'train'; it has \['test'\]. Pass split='test'\. Accuracy counts only"
    ):
        load_split(str(tmp_path / "named"), "train", streaming=streaming)


@pytest.mark.parametrize(
    ("split", "streaming", "message"),
    [
        (
            "test",
            False,
            r"The split 'test' of .* is empty: it has no image. Pass another of \['train'\]\. Accuracy counts only on images by",
        ),
        (
            "test[:10%]",
            False,
            r"The split 'test\[:10%\]' of .* is empty: .* Pass more of it, or another of \['train'\]",
        ),
        ("train[:0]+test", False, "is empty: .* Pass more of it, or another data set"),
        ("train[:1]", True, r"A stream has no part of a split, .* Pass split='train' with max_images="),
        ("train[:1", False, r"cannot be read \(.*a part of one is written 'train\[:10%\]'"),
        ("tests[:2]", False, r"has no split 'tests'; it has .* Pass split='test'\.$"),
        ("tests[:2]", True, r"has no split 'tests'; it has .* Pass split='test'\.$"),
        ("train+tests", False, r"has no split 'tests'; it has .* Pass split='test'\."),
    ],
)
def test_splits_with_nothing_to_read_say_why(split, streaming, message, tmp_path):
    image_dataset(2).to_parquet(tmp_path / "train.parquet")
    image_dataset(2).select([]).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(ValueError, match=message):
        load_split(str(tmp_path), split, streaming=streaming)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["eval", "csv", "val"])
def test_a_folder_may_be_called_as_a_reader_of_datasets(name, streaming, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, image in enumerate(pil_images(2)):
        (tmp_path / name / NAMES[place]).mkdir(parents=True)
        image.save(tmp_path / name / NAMES[place] / "0.png")
    assert labels(open_pixels(DataChoice(name, split="train"), SIZE, MODEL, streaming=streaming)) == [0, 1]
    with pytest.raises(
        ValueError,
        match=rf"^{name} has no split 'test'; .*Pass split='train'\. .*A folder of images is 'train' unless",
    ):
        load_split(name, "test", streaming=streaming)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (None, "", "is a folder without one.*Folders that can be read: test/CLASS/IMAGE.png"),
        (
            "run.json",
            "{}",
            "is the folder of a run, where a data set is wanted. Pass the data set that its run.json names",
        ),
        ("rows.jsonl", '{"a": 1}\n{"b": 2}\n{', r"cannot be read .*\((?!An error occurred).*Folders that can be read"),
    ],
)
def test_folders_that_are_no_data_set_say_what_would_be(file, content, message, tmp_path):
    if file is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_split(str(tmp_path), "train")


def test_a_slice(tmp_path):
    assert len(load_split(str(parquet_folder(tmp_path / "images", count=4)), "test[:50%]")) == 2


def test_labels_of_a_shuffled_selection(tmp_path):
    texts = image_dataset(6).map(
        lambda row: {"label": "x"},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")}),
    )
    texts = (
        texts.map(lambda row, place: {"label": NAMES[place % 3]}, with_indices=True).shuffle(seed=0).select([0, 3, 5])
    )
    from hf_smoothing import PixelDataset

    assert labels(PixelDataset(texts, SIZE, id2label=MODEL)) == [NAMES.index(row["label"]) for row in texts]


@pytest.mark.parametrize(
    ("feature", "values", "names"),
    [
        (datasets.ClassLabel(names=["b", "a"]), [0, 1, 1, 0], {0: "b", 1: "a"}),
        (datasets.Value("string"), ["dog", "cat", "dog", "eel"], {0: "cat", 1: "dog", 2: "eel"}),
        (datasets.Value("int32"), [0, 3, 1, 3], {0: "0", 1: "1", 2: "2", 3: "3"}),
    ],
    ids=["ClassLabel", "text", "numbers"],
)
def test_classes_to_train_on(feature, values, names, tmp_path):
    features = datasets.Features({"img": datasets.Image(), "labels": feature})
    rows = datasets.Dataset.from_dict({"img": pil_images(4), "labels": values}, features=features)
    (tmp_path / "images").mkdir()
    rows.to_parquet(tmp_path / "images" / "train-00000-of-00001.parquet")
    dataset, found = training_split(DataChoice(str(tmp_path / "images"), split="train", max_images=2))
    assert found == names and dataset["labels"][:] == [values[0], values[2]]
    choice = DataChoice(str(tmp_path / "images"), split="train", label_column="img")
    with pytest.raises(ValueError, match="no column 'image'"):
        training_split(DataChoice(choice.dataset, split="train", label_column="image"))


def train_folder(folder, values, feature):
    folder.mkdir(parents=True)
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    rows = datasets.Dataset.from_dict({"image": pil_images(len(values)), "label": values}, features=features)
    rows.to_parquet(folder / "train-00000-of-00001.parquet")
    return DataChoice(str(folder), split="train")


@pytest.mark.parametrize(
    ("feature", "values", "message"),
    [
        (datasets.Value("float32"), [0.5, 1.0, 2.0], "one class per image, as text or a whole number .* got 0.5"),
        (datasets.List(datasets.Value("int64")), [[0], [1], [2]], r"one class per image.* got \[0\]"),
        (datasets.Value("int64"), [-1, -1, None], "has no label to train on"),
        (datasets.ClassLabel(names=["a", "b"]), [-1, -1, -1], "has no label to train on"),
        (datasets.Value("string"), [None, None, None], "has no label to train on"),
        (datasets.Value("int64"), [3_000_000, 1, 2], r"fewer than there are images \(3\), got 3000000"),
        (datasets.Value("int64"), [10**9, 1, 2], "got 1000000000"),
        (datasets.Value("int64"), [-2, 0, 1], "from 0 on.* got -2"),
    ],
    ids=str,
)
def test_labels_that_are_no_classes_are_refused(feature, values, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        training_split(train_folder(tmp_path / "images", values, feature))


def test_images_without_a_label_count_for_no_class(tmp_path):
    choice = train_folder(tmp_path / "images", [-1, 1, None, 0], datasets.Value("int64"))
    assert training_split(choice)[1] == {0: "0", 1: "1"}


def test_the_summary(tmp_path):
    folder = str(parquet_folder(tmp_path / "images", count=4))
    for options, words in (
        ({}, "4 images of"),
        ({"max_images": 2}, "2 of 4 images of"),
        ({"max_images": 1}, "1 of 4 images of"),
    ):
        choice = DataChoice(folder, **options)
        pixels = open_pixels(choice, SIZE, MODEL)
        assert words in choice_text(choice, pixels, chosen_images(choice, pixels))


@pytest.mark.parametrize(
    ("count", "total", "expected"), [(4, 10, [0, 2, 5, 7]), (10, 10, list(range(10))), (20, 3, [0, 1, 2]), (1, 9, [0])]
)
def test_spread(count, total, expected):
    assert spread(count, total) == expected
    assert select_images(total, max_images=count) == expected


@pytest.mark.parametrize(
    ("images", "share", "message"),
    [
        (1, 0.1, "leave images to train on and to hold out, got 0.1 of 1"), (0, 0.1, "got 0.1 of 0"), (4, 0.0, "got 0.0 of 4"),
        (4, 1.0, "got 1.0 of 4"), (4, 0.9, "got 0.9 of 4"), (4, 10, r"a share in \[0, 1\], got 10. 10 looks like a percentage: pass 0.1"),
        (4, -0.5, r"a share in \[0, 1\]"), (4, float("nan"), r"a share in \[0, 1\]"),
    ],
)  # fmt: skip
def test_shares_to_hold_out_that_leave_nothing_are_refused(images, share, message):
    with pytest.raises(ValueError, match=f"`validation_share` must .*{message}"):
        hold_out(image_dataset(4).select(range(images)), share, 0)


@pytest.mark.parametrize("share", [0.02, 0.25, 0.5, 0.74])
def test_what_is_held_out_and_what_is_left_are_the_whole(share):
    rows = datasets.Dataset.from_dict({"number": list(range(4))})
    parts = hold_out(rows, share, 0)
    assert all(len(part) for part in parts) and sorted(parts[0]["number"][:] + parts[1]["number"][:]) == [0, 1, 2, 3]


def test_every_part_of_a_split_gives_its_share():
    chosen = select_images(1_000, stride=2, max_images=50)
    assert len(set(chosen)) == 50 and all(index % 2 == 0 for index in chosen)
    assert {sum(low <= index < low + 100 for index in chosen) for low in range(0, 1_000, 100)} == {5}
    for wrong in ({"stride": 0}, {"max_images": 0}, {"max_images": -1}):
        with pytest.raises(ValueError, match="must be at least 1"):
            select_images(10, **wrong)

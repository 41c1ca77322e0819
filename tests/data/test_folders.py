"""Folders of images that `datasets` reads otherwise than their owner means: nothing is certified or trained on before that is said."""

import gc
import re
import warnings

import datasets.data_files
import pytest

from hf_smoothing.data import DataChoice, load_split, open_pixels
from hf_smoothing.data.folders import KEYWORDS, missed_splits, split_of
from hf_smoothing.data.opening import choice_text, training_split
from tests.support.tiny import SIZE, image_dataset, pil_images


def folder_of(root, *files):
    for number, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        pil_images(1, seed=number)[0].save(root / file)
    return root


def in_classes(root, *folders):
    return folder_of(
        root, *(f"{folder}/{name}/{number}.png" for folder in folders for name in ("cat", "dog") for number in (0, 1))
    )


def test_the_words_of_datasets():
    known = {str(split): set(words) for split, words in datasets.data_files.SPLIT_KEYWORDS.items()}
    assert known == {split: set(words) for split, words in KEYWORDS.items()}
    assert [split_of(name) for name in ("train", "test_set", "my-val.2", "Test", "trainset")] == [
        "train",
        "test",
        "validation",
        None,
        None,
    ]


MERGED = {
    ("TRAIN", "TEST"): {"TRAIN": "train", "TEST": "test"},
    ("Training", "Testing"): {"Training": "train", "Testing": "test"},
    ("Train", "Val", "Test"): {"Train": "train", "Val": "validation", "Test": "test"},
    ("TrainSet", "TestSet"): {"TrainSet": "train", "TestSet": "test"},
    ("seen", "unseen"): {"seen": "train", "unseen": "test"},
}  # fmt: skip


@pytest.mark.parametrize(("folders", "missed"), MERGED.items(), ids=str)
def test_splits_that_are_read_as_one_are_refused(folders, missed, tmp_path):
    path = str(in_classes(tmp_path / "images", *folders))
    assert missed_splits(path) == missed
    for name, split in missed.items():
        with pytest.raises(
            ValueError, match=rf"has no split 'test'.*not read as splits: .*rename .*{name!r} to {split!r}"
        ):
            load_split(path, "test")
        for split_asked in ("train", "train[:50%]"):
            with pytest.raises(ValueError, match=rf"read together, as the split .*rename .*{name!r} to {split!r}"):
                load_split(path, split_asked)
    with pytest.raises(ValueError, match="read together"):
        training_split(DataChoice(path, split="train"))
    assert len(load_split(f"{path}/{folders[0]}", "train")) == 4  # the other cure


def test_folds_are_read_together_with_a_warning(tmp_path):
    path = str(in_classes(tmp_path / "images", "fold1", "fold2"))
    with pytest.raises(
        ValueError, match="'fold1' and 'fold2' are not read as splits.*To read all together: Pass split='train'"
    ):
        load_split(path, "test")
    with pytest.warns(UserWarning, match="'fold1' and 'fold2' .* are read together"):
        assert len(load_split(path, "train")) == 8


@pytest.mark.parametrize("other", ["Test", "holdout"])
def test_a_folder_beside_the_splits_is_named(other, tmp_path):
    path = str(in_classes(tmp_path / "images", "train", other))
    with pytest.raises(ValueError, match=f"'{other}' is not read as a split: rename '{other}' to 'test'") as refused:
        load_split(path, "test")
    assert "Pass split" not in str(refused.value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_split(path, "train")) == 4  # these alone


@pytest.mark.parametrize(
    "files",
    [
        ("cat/0.png", "dog/0.png"),
        ("Train/0.png", "Car/0.png", "Test tube/0.png"),
        ("animals/cat/0.png", "places/beach/0.png"),
        ("train/cat/0.png", "validation/cat/0.png"),
        ("0.png", "1.png"),
    ],
    ids=str,
)  # fmt: skip
def test_classes_are_no_splits(files, tmp_path):
    path = str(folder_of(tmp_path / "images", *files))
    assert missed_splits(path) == {}
    with pytest.raises(
        ValueError,
        match=r"has no split 'test'; it has \[.*\]\. Pass split='train'( or another)?\. Accuracy counts only",
    ):
        load_split(path, "test")


@pytest.mark.parametrize(
    ("classes", "split"), [(("train", "bus", "car"), "train"), (("valid", "invalid"), "validation"), (("dev", "ops"), "validation")], ids=str
)  # fmt: skip
def test_classes_beside_one_that_is_read_as_a_split_are_said_to_be_missing(classes, split, tmp_path):
    path = str(folder_of(tmp_path / "images", *(f"{name}/{k}.png" for name in classes for k in range(2))))
    others = " and ".join(sorted(repr(name) for name in classes[1:]))
    with pytest.warns(
        UserWarning, match=f"The images of {others} .* are not read: .* takes '{classes[0]}' for a split"
    ):
        assert len(load_split(path, split)) == 2


def test_classes_whose_names_say_one_split_are_not_to_be_renamed(tmp_path):
    path = str(folder_of(tmp_path / "images", "test_positive/0.png", "test_negative/0.png"))
    with pytest.raises(
        ValueError, match=r"has no split 'train'; it has \['test'\]\. Pass split='test'\. Accuracy counts only"
    ):
        load_split(path, "train")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("test/cat/0.png", "test/cat/1.png"), "a single class, 'cat'.*metadata.csv .* file_name and label"),
        (("test/cat/0.png", "test/dog/0.png", "test/dog/more/1.png"), "different depths .test/cat/0.png and test/dog/more/1.png.*at one depth"),
        (("test/0.png", "test/1.png"), "sort the images into one sub-folder per class"),
    ],
    ids=["one class", "depths", "none"],
)  # fmt: skip
def test_why_a_folder_has_no_labels(files, said, tmp_path):
    choice = DataChoice(str(folder_of(tmp_path / "images", *files)))
    pixels = open_pixels(choice, SIZE)
    text = choice_text(choice, pixels, range(len(pixels)))
    assert pixels.label_column is None
    assert re.search(said, text)
    assert "label_column" not in text  # there is no other column
    with pytest.raises(ValueError, match="at least two, with all images at one depth"):
        training_split(choice)


def test_folders_below_those_of_the_classes(tmp_path):
    path = str(folder_of(tmp_path / "images", "test/red fox/a/0.png", "test/red fox/b/0.png", "test/hare/a/0.png"))
    with pytest.raises(
        ValueError, match="'a', 'b'.* innermost folder, here 'a' of hare/a: if 'hare' is the class, move"
    ):
        open_pixels(DataChoice(path), SIZE, {0: "red fox", 1: "hare"})


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_metadata_without_the_names_of_files(tmp_path):
    root = folder_of(tmp_path / "images", "test/0.png")
    (root / "test" / "metadata.csv").write_text("file,label\n0.png,cat\n")
    with pytest.raises(ValueError, match=r"metadata\.csv must have a column file_name, .*got the columns file,label"):
        load_split(str(root), "test")
    gc.collect()  # datasets leaves the table open, which must not fall to the test that comes next


@pytest.mark.parametrize("streaming", [False, True])
def test_a_saved_data_set_without_a_split_takes_no_other_name(streaming, tmp_path):
    image_dataset(3).save_to_disk(tmp_path / "saved")
    for split in ("bogus", "test[:1]"):
        with pytest.raises(ValueError, match="saved without the name of a split, and is read whole"):
            load_split(str(tmp_path / "saved"), split, streaming=streaming)

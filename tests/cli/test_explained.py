"""A command says what it warns of, and what it refuses, in its own words: flags, no source lines; and `~` is the home folder however it comes."""

import subprocess
import warnings
from pathlib import Path

import pytest

from hf_smoothing.cli import main
from hf_smoothing.cli.explained import explained, warnings_in_flags
from hf_smoothing.pixels import check_image_batch
from tests.cli.test_errors import start
from tests.repository.test_examples import BACKBONE, run
from tests.support.commands import certify, command, model_and_images
from tests.support.tiny import pil_images


@pytest.fixture
def folder(tmp_path):
    return model_and_images(tmp_path, count=3)


def numbered(folder, *labels):
    """A folder of images whose labels are as they stand in a table."""
    (folder / "train").mkdir(parents=True)
    for number, image in enumerate(pil_images(len(labels))):
        image.save(folder / "train" / f"{number}.png")
    rows = "".join(f"{number}.png,{label}\n" for number, label in enumerate(labels))
    (folder / "train" / "metadata.csv").write_text(f"file_name,label\n{rows}")
    return folder


def test_a_warning_is_one_line_with_flags():
    before = warnings.formatwarning
    with warnings_in_flags("hf-smoothing certify", ["labels"]):
        ours = warnings.formatwarning("Pass labels='by-number', or size=3.", UserWarning, "opening.py", 3)
        other = warnings.formatwarning("other", DeprecationWarning, "opening.py", 3)
    assert ours == "hf-smoothing certify: warning: Pass --labels by-number, or size=3.\n"
    assert "opening.py:3" in other
    assert warnings.formatwarning is before


def test_certify_warns_in_its_own_words(folder, tmp_path):
    images = numbered(tmp_path / "numbers", 0, 1, 2)
    words = ["certify", folder / "model", images, "--split", "train", "--sigma", "0.25", "--n", "20", "--n0", "5"]
    done = start(*map(str, words), "--output-dir", "run", cwd=tmp_path, stdout=subprocess.DEVNULL)
    error = done.stderr.decode()
    assert done.returncode == 0, error
    assert (
        "hf-smoothing certify: warning: The data set's labels are numbers" in error and "--labels by-number" in error
    )
    assert "opening.py" not in error and "UserWarning" not in error and "labels=" not in error


@pytest.mark.parametrize("verb", ["report", "card"])
def test_a_run_without_labels_names_no_python(verb, folder, tmp_path, capsys):
    import datasets

    images = datasets.load_dataset(str(folder / "images"), split="test").remove_columns("label")
    (tmp_path / "bare").mkdir()
    images.to_parquet(tmp_path / "bare" / "test.parquet")
    assert certify(folder / "model", tmp_path / "bare", tmp_path / "run") == 0
    words = {
        "report": ["report", tmp_path / "run", "--output-dir", tmp_path],
        "card": ["card", folder / "model", tmp_path / "run"],
    }
    capsys.readouterr()
    assert command(*words[verb]) == 2
    error = capsys.readouterr().err
    assert "has no label" in error and "label_column" not in error and "Give the command of the run again" in error


def test_a_script_ends_with_the_message_alone(capsys):
    def refused():
        check_image_batch(3)

    def other():
        raise ValueError("of the script itself")

    with pytest.raises(SystemExit) as ended:
        explained(refused)
    assert ended.value.code == 2 and "must be a torch tensor" in capsys.readouterr().err
    with pytest.raises(ValueError, match="of the script itself"):
        explained(other)


@pytest.mark.parametrize(
    ("labels", "said"), [(["cat", "", "dog"], "--label"), ([0.5, 1.5, 2.5], "one class per image"), (["", "", ""], "no label to train on")]
)  # fmt: skip
def test_an_example_explains_without_a_traceback(labels, said, tmp_path):
    images = numbered(tmp_path / "images", *labels)
    words = ["--backbone", BACKBONE, "--dataset", str(images), "--validation_share", "0.4", "--output-dir", "out"]
    error = run("finetune.py", *words, "--use_cpu", "true", cwd=tmp_path, fails=True)
    assert "Traceback" not in error and "label_column" not in error
    assert "finetune.py: " in error and said in error.replace("is missing", "--label")


@pytest.mark.parametrize("config", [False, True], ids=["word", "file"])
def test_the_home_folder(config, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.yaml").write_text("output-dir: ~/run\n")
    output = ["--config=~/new.yaml"] if config else ["--output-dir=~/run"]
    words = ["certify", "~/model", "~/images", "--sigma", "0.25", "--n", "20", "--n0", "5", "--device", "cpu", *output]
    assert main(words) == 0, capsys.readouterr().err
    assert (tmp_path / "run" / "run.json").is_file() and not Path("~").exists()
    assert main(["report", "~/run", "--output-dir", "~/page"]) == 0
    assert (tmp_path / "page" / "report.md").is_file() and not Path("~").exists()

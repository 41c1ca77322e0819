"""Whatever a person mistypes: exit status 2, an explanation on stderr, no traceback, nothing half-written."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from hf_smoothing.cli import main
from hf_smoothing.models import NoisyImageProcessor
from tests.support.processes import ROOT
from tests.support.tiny import parquet_folder, plain, smoothed
from tests.support.written_runs import SEQUENTIAL, written_run


@pytest.fixture
def shown(tmp_path):
    """A run whose table has daggers, of a model whose name few encodings have."""
    return written_run(tmp_path / "run", rule=SEQUENTIAL, model={"id": "net†ł"})


def start(*words, cwd, **options):
    """The command line in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **options.pop("variables", {})}
    command = [sys.executable, "-m", "hf_smoothing.cli", *words]
    return subprocess.run(command, cwd=cwd, env=environment, stderr=subprocess.PIPE, check=False, **options)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "cp1252", "utf-8"])
def test_a_table_is_printed_in_any_encoding(encoding, shown, tmp_path):
    """Whatever a terminal cannot show: an hour's work is no error because of a dagger."""
    words = ["report", str(shown), "--html", "--output-dir", str(tmp_path / "out\udcff")]
    done = start(*words, cwd=tmp_path, stdout=subprocess.PIPE, variables={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "50.0 (6.8-93.2)" in done.stdout.decode(encoding)
    assert "net†ł" in (tmp_path / "out\udcff" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("words", [["report", "RUN"], ["--help"], ["report", "--help"]])
def test_a_reader_that_leaves_is_no_error(words, unbuffered, shown, tmp_path):
    """As in `hf-smoothing report RUN | head -1`."""
    read, write = os.pipe()
    os.close(read)
    words = [str(shown) if word == "RUN" else word for word in words]
    with os.fdopen(write, "wb") as gone:
        done = start(*words, cwd=tmp_path, stdout=gone, variables={"PYTHONUNBUFFERED": unbuffered})
    assert done.stderr == b"" and done.returncode in ((0, 141) if "--help" in words else (141,))


def test_a_full_disk_behind_a_redirection_is_said(shown, tmp_path):
    with open("/dev/full", "wb") as full:
        done = start("report", str(shown), cwd=tmp_path, stdout=full)
    assert done.returncode == 2 and b"No space is left" in done.stderr and b"Traceback" not in done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    smoothed("vit").save_pretrained(folder / "model")
    plain("resnet").save_pretrained(folder / "plain")
    plain("resnet", problem_type="regression").save_pretrained(folder / "regression")
    for name in ("plain", "regression"):
        NoisyImageProcessor(size=16).save_pretrained(folder / name)
    plain("resnet").save_pretrained(folder / "unknown-size")
    pickled = plain("resnet")
    pickled.config.save_pretrained(folder / "pickle")
    torch.save(pickled.state_dict(), folder / "pickle" / "pytorch_model.bin")
    wrapped = smoothed("resnet")
    wrapped.config.save_pretrained(folder / "smoothed-pickle")
    torch.save(wrapped.state_dict(), folder / "smoothed-pickle" / "pytorch_model.bin")
    parquet_folder(folder / "images", count=3)
    parquet_folder(folder / "four-classes", count=4, names=("cat", "dog", "eel", "fox"))
    parquet_folder(folder / "other-names", count=3, names=("cat", "dog", "elk"))
    (folder / "empty").mkdir()
    (folder / "logs").mkdir()
    (folder / "logs" / "sigma_0.50").write_text("idx\tlabel\tpredict\tradius\n0\t3\t3\t1.5\n")
    (folder / "logs" / "notes").write_text("of the logs")
    (folder / "models").mkdir()
    plain("resnet").save_pretrained(folder / "models" / "last")
    (folder / "file").write_text("in the way")
    return folder


def certify(place, tmp_path, model="model", images="images", output=None, **options):
    values = {
        "sigma": "0.25",
        "n": "20",
        "n0": "5",
        "device": "cpu",
        "output-dir": output or tmp_path / "run",
    } | options
    words = [str(word) for name, value in values.items() for word in (f"--{name}", value)]
    return main(["certify", str(place / model), str(place / images), *words])


def test_a_folder_whose_name_is_no_text_is_named(place, tmp_path, capsys):
    shutil.copytree(place / "images", place / "caf\udce9")
    assert certify(place, tmp_path, images="caf\udce9") == 2
    said = capsys.readouterr().err
    assert "must be UTF-8" in said and "udce9" in said and "Rename" in said


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"split": "train"}, ["has no split 'train'", "['test']", "Pass --split test."]),
        ({"image-column": "picture"}, ["no column 'picture'", "['image', 'label']"]),
        ({"label-column": "digit"}, ["no column 'digit'", "['image', 'label']"]),
        ({"sigma": "0"}, ["sigma", "got 0"]),
        ({"sigma": "-0.5"}, ["sigma", "got -0.5"]),
        ({"sigma": "nan"}, ["sigma"]),
        ({"mode": "fixed", "n": "9"}, ["--n must be at least 10", "alpha = 0.001", "got 9"]),
        ({"mode": "fixed", "n0": "0"}, ["--n0 must be at least 1"]),
        ({"n": "9"}, ["--n must be at least 10", "alpha = 0.001", "got 9"]),
        ({"n": "10", "n0": "0"}, ["--n must be at least 11", "alpha = 0.001", "got 10"]),
        ({"n0": "-1"}, ["--n0 must be at least 0", "got -1"]),
        ({"targets": "9"}, ["Target radius 9 is out of reach", "No n reaches it"]),
        ({"targets": "-0.25"}, ["list of target radii >= 0"]),
        ({"mode": "fixed", "targets": "0.1"}, ["belong to the sequential rules", "--mode targets"]),
        ({"mode": "curve", "targets": "0.1"}, ["--mode curve chooses the radii itself"]),
        ({"bound": "runner-up"}, ["fixed number of draws", "--mode fixed"]),
        ({"alpha": "1"}, ["alpha"]),
        ({"n": "100000000"}, ["--n0 + --n must be at most"]),
        ({"stride": "0"}, ["--stride must be at least 1, got 0"]),
        ({"max-images": "0"}, ["--max-images must be at least 1, got 0"]),
        ({"copies-per-batch": "0"}, ["--copies-per-batch must be at least 1"]),
        ({"size": "8"}, ["is certified at (16, 16)", "leave --size out", "from_base_pretrained(..., size=8)"]),
        ({"device": "abacus"}, ["abacus", "Try --device cpu"]),
        ({"model": "nowhere"}, ["nowhere"]),
        ({"model": "empty"}, ["empty is not the folder of a model: it has no config.json. Pass the folder"]),
        ({"model": "models"}, ["it has no config.json. Pass one of the models in it: ", "models/last"]),
        ({"model": "unknown-size"}, ["certified resolution", "not known", "Pass --size", "--size 224"]),
        ({"model": "regression"}, ["single-label classification"]),
        ({"model": "pickle"}, ["no safetensors weights"]),
        ({"model": "smoothed-pickle"}, ["safetensors"]),
        ({"images": "nowhere"}, ["nowhere"]),
        ({"images": "empty"}, ["empty"]),
        ({"images": "four-classes"}, ["['fox'] are not among", "4 classes in the data set, 3 in the model"]),
        ({"images": "other-names"}, ["['elk'] are not among"]),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_mistakes_are_explained(wrong, words, place, tmp_path, capsys):
    assert certify(place, tmp_path, **wrong) == 2
    error = capsys.readouterr().err
    message = error[error.index("hf-smoothing certify: ") :]
    assert all(word in message for word in words), message
    assert "Traceback" not in error
    assert not list((tmp_path / "run").glob("certificates*")) if (tmp_path / "run").exists() else True


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_explained(place, tmp_path, capsys):
    assert certify(place, tmp_path, device="cuda") == 2
    assert "hf-smoothing certify: " in capsys.readouterr().err


@pytest.mark.parametrize("output", ["file", "file/below", "file/far/below"])
def test_an_output_folder_that_cannot_be_written_is_explained(output, place, tmp_path, capsys):
    assert certify(place, tmp_path, output=place / output) == 2
    error = capsys.readouterr().err
    assert f"The output folder {place / output} cannot be written" in error and "Choose another one" in error
    assert "Traceback" not in error
    assert (place / "file").read_text() == "in the way"


def test_a_folder_with_rows_but_no_run_is_not_used(place, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "certificates-0.jsonl").write_text('{"index": 0}\n')
    assert certify(place, tmp_path) == 2
    assert "it is not a run folder" in capsys.readouterr().err


def test_a_corrupt_run_is_not_continued(place, tmp_path, capsys):
    assert certify(place, tmp_path) == 0
    (tmp_path / "run" / "run.json").write_text("{")
    assert certify(place, tmp_path) == 2
    assert "run.json is corrupt" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["certify"],
        ["certify", "m", "d", "--output-dir", "o", "--sigma", "1", "--mode", "fast"],
        ["certify", "m", "d", "--output-dir", "o", "--method", "magic"],
        ["certify", "m", "d", "--output-dir", "o", "--sigma", "1", "--noise-kind", "laplace"],
        ["nothing"],
        ["report"],
        ["attack"],
    ],
)
def test_usage_errors_have_status_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert ("usage: hf-smoothing" in error) != ("invalid choice" in error and "--help lists the options." in error)


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["certify", "--help"], ["report", "--help"], ["attack", "--help"]]
)
def test_help(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip()


def test_ctrl_c_has_status_130(place, tmp_path, capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_smoothing.certification.certify_dataset", interrupted)
    assert certify(place, tmp_path) == 130
    assert "Interrupted" in capsys.readouterr().err


def test_ctrl_c_in_the_middle_keeps_what_is_done(place, tmp_path, capsys, monkeypatch):
    from hf_smoothing.records import RunWriter, read_run

    append, written = RunWriter.append, []

    def third_time(self, row):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(row)
        append(self, row)

    monkeypatch.setattr(RunWriter, "append", third_time)
    assert certify(place, tmp_path) == 130
    assert len(read_run(tmp_path / "run").rows) == 2
    monkeypatch.undo()
    assert certify(place, tmp_path) == 0
    assert len(read_run(tmp_path / "run").rows) == 3
    capsys.readouterr()


def test_label_aware_evaluation_selects_no_class(place, tmp_path, capsys):
    words = ["certify", place / "model", place / "images", "--sigma", "0.25", "--output-dir", tmp_path / "run"]
    assert main([*map(str, words), "--device", "cpu", "--n", "20", "--n0", "5", "--label-aware"]) == 2
    assert "has no selection draws, got n0 = 5. Leave n0 out" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images"], "is not a run folder: it has no run.json"),
        (["nowhere"], "nowhere does not exist"),
        (
            ["logs"],
            "logs is not a run folder: it has no run.json. It holds published logs: name the log files, such as ",
        ),
        (["file"], "is not a run folder, and the header of a published log must name the columns"),
    ],
)
def test_report_of_something_else_is_explained(words, message, place, tmp_path, capsys):
    assert main(["report", *(str(place / word) for word in words), "--output-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hf-smoothing report: ") and message in error
    assert not (tmp_path / "report.md").exists()


def test_report_into_a_folder_that_cannot_be_written_is_explained(place, tmp_path, capsys):
    assert certify(place, tmp_path) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path / "run"), "--output-dir", str(place / "file" / "below")]) == 2
    assert "hf-smoothing report: " in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["model", "data set"])
def test_what_is_neither_here_nor_on_the_hub_is_named(kind, tmp_path, capsys):
    smoothed().save_pretrained(tmp_path / "model")
    model, dataset = (
        ("no-such-model", "x") if kind == "model" else (str(tmp_path / "model"), str(tmp_path / "no-such-data"))
    )
    status = main(["certify", model, dataset, "--sigma", "0.25", "--output-dir", str(tmp_path / "run")])
    message = capsys.readouterr().err
    assert status == 2
    assert f"No {kind} could be read from" in message
    assert "there is no folder" in message

"""The example programs run end to end, on a few images."""

import json
import re
from pathlib import Path

import pytest
import torch
from datasets import Dataset, Image, Value, load_dataset
from safetensors.torch import load_file, save_file
from transformers import PvtConfig, ResNetConfig, ResNetForImageClassification

from examples.pretrain import Pretraining, first_network
from examples.studies.tradeoff import ratio_at
from tests.support.forks import fork_python
from tests.support.processes import ROOT


BACKBONE = str(ROOT / "model_cards" / "resnet-mixture-small")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of two classes' worth of nothing much: 40 images to train, 4 to test."""
    path = tmp_path_factory.mktemp("images")
    for split, count in (("train", 40), ("test", 4)):
        part = load_dataset(str(ROOT / "examples" / "data"), split=split).select(range(count))
        part.to_parquet(path / f"{split}-00000-of-00001.parquet")
    return str(path)


def run(program: str, *arguments: str, cwd: Path, fails: bool = False) -> str:
    """What an example prints; what it complains of, where it should fail."""
    done = fork_python(ROOT / "examples" / program, *arguments, cwd=cwd)
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return done.stderr if fails else done.stdout


def test_pretrain_finetune_certify(folder, tmp_path):
    quick = ["--max_steps", "2", "--per_device_train_batch_size", "8", "--use_cpu", "true", "--disable_tqdm", "true"]
    mixture = '{"sigmas": [0, 1], "clean": 0.25, "distribution": "uniform"}'
    out = run(
        "pretrain.py", "--dataset", folder, "--validation_share", "0.25", "--widths", "8", "16", "--noise", mixture,
        "--output-dir", "backbone", *quick, cwd=tmp_path,
    )  # fmt: skip
    assert "eval_certified_accuracy_sigma0.5_r0" in out
    gone_on = ["--weights", "backbone", "--output-dir", "again", *quick, "--learning_rate", "0", "--optim", "sgd"]
    run("pretrain.py", "--dataset", folder, "--validation_share", "0.5", "--noise", mixture, *gone_on, cwd=tmp_path)
    notes = [json.loads((tmp_path / name / "preprocessor_config.json").read_text()) for name in ("backbone", "again")]
    assert notes[0] == notes[1]  # the pixels of the weights, whatever the images are that they go on with
    first, again = (load_file(tmp_path / name / "model.safetensors") for name in ("backbone", "again"))
    assert all(torch.equal(first[name], value) for name, value in again.items() if "norm" not in name)
    assert len(first) == len(again)
    # The small network has two stages: the default of finetune.py, the fourth, must be replaced.
    run(
        "finetune.py", "--backbone", "backbone", "--dataset", folder, "--trainable", "stages.1", "classifier",
        "--output-dir", "finetuned", *quick, cwd=tmp_path,
    )  # fmt: skip
    out = run(
        "certify.py", "--model", "finetuned", "--dataset", folder, "--n", "20", "--output-dir", "run", cwd=tmp_path
    )
    assert "'num_images': 4" in out
    assert (tmp_path / "run" / "run.json").exists()


NAMES = {0: "cat", 1: "dog", 2: "eel"}


def of_config(config, **more):
    names = more.pop("id2label", NAMES)
    return config(id2label=names, label2id={name: number for number, name in names.items()}, **more)


def weights_in(path, kind):
    """A folder of weights that must not be trained on from, or not as they are."""
    names = {"order": {0: "eel", 1: "dog", 2: "cat"}, "two": {0: "cat", 1: "dog"}}.get(kind, NAMES)
    config = of_config(
        ResNetConfig, id2label=names, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    model = ResNetForImageClassification(config)
    model.save_pretrained(path)
    tensors = load_file(path / "model.safetensors")
    if kind == "half":
        save_file({name: value for name, value in tensors.items() if "stages.1" not in name}, path / "model.safetensors", {"format": "pt"})  # fmt: skip
    if kind == "pickle":
        (path / "model.safetensors").unlink()
        torch.save(tensors, path / "pytorch_model.bin")
    return model


@pytest.mark.parametrize(
    ("kind", "message"),
    [("pickle", "has no safetensors weights"), ("half", "tensors are missing: .*stages.1"), ("order", "in another order")],
)  # fmt: skip
def test_pretraining_starts_from_no_weights_that_the_library_refuses(kind, message, tmp_path):
    weights_in(tmp_path / kind, kind)
    with pytest.raises(ValueError, match=message):
        first_network(Pretraining(weights=str(tmp_path / kind)), NAMES)


def test_pretraining_goes_on_from_weights_of_other_classes_with_a_new_head(tmp_path):
    before = weights_in(tmp_path / "two", "two").state_dict()
    model = first_network(Pretraining(weights=str(tmp_path / "two")), NAMES)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if "resnet" in name)
    assert model.config.id2label == NAMES and model.classifier[1].out_features == 3


def test_pretraining_makes_a_head_for_the_classes_of_the_data_where_the_number_stands_beside_the_names(tmp_path):
    PvtConfig(hidden_sizes=[8] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, dtype="float16").save_pretrained(
        tmp_path
    )
    model = first_network(Pretraining(network=str(tmp_path)), NAMES)
    assert model.config.id2label == NAMES and model.classifier.out_features == 3 and model.dtype == torch.float32


@pytest.mark.parametrize(
    ("program", "more", "message"),
    [
        ("accelerate_loop.py", ["--batch_size", "64"], "no step to train: 40 images make 0 whole batches of --batch_size 64"),
        ("accelerate_loop.py", ["--batch_size", "8", "--epochs", "0"], "no step to train: .* in --epochs 0"),
        ("finetune.py", ["--validation_share", "10"], "finetune.py: .*validation_share.* looks like a percentage: pass 0.1"),
    ],
)  # fmt: skip
def test_trainings_of_nothing_are_refused_without_a_traceback(program, more, message, folder, tmp_path):
    told = run(program, "--backbone", BACKBONE, "--dataset", folder, "--output-dir", "out", *more, cwd=tmp_path, fails=True)  # fmt: skip
    assert re.search(message, told) and "Traceback" not in told


@pytest.fixture(scope="module")
def unusual(folder, tmp_path_factory):
    """The same images in a data set with a configuration, other splits and columns, and one that is damaged."""
    path = tmp_path_factory.mktemp("unusual")
    for split, name in (("train", "learn"), ("test", "check")):
        part = (
            load_dataset(folder, split=split)
            .cast_column("image", Image(decode=False))
            .rename_columns({"image": "img", "label": "labels"})
        )
        part = part.cast_column("labels", Value("int64"))
        rows = [row if k != 1 else {**row, "img": {"bytes": b"<html>", "path": "1.png"}} for k, row in enumerate(part)]
        Dataset.from_list(rows, features=part.features).to_parquet(path / "some" / f"{name}-00000-of-00001.parquet")
    files = "".join(f"  - {{split: {name}, path: some/{name}-*}}\n" for name in ("learn", "check"))
    (path / "README.md").write_text(
        f"---\nconfigs:\n- config_name: some\n  data_files:\n{files}- config_name: other\n  data_files: []\n---\n"
    )
    return str(path)


def test_every_example_takes_any_data_set(unusual, tmp_path):
    data = ["--dataset", unusual, "--dataset-config", "some", "--skip_unreadable"]
    quick = [
        "--max_steps",
        "1",
        "--per_device_train_batch_size",
        "8",
        "--use_cpu",
        "true",
        "--disable_tqdm",
        "true",
        "--split",
        "learn",
    ]
    run(
        "pretrain.py", *data, *quick, "--validation_share", "0.25", "--widths", "8", "16", "--noise", "0.25", "--max_images", "20",
        "--output-dir", "backbone", cwd=tmp_path,
    )  # fmt: skip
    run(
        "finetune.py", "--backbone", "backbone", *data, *quick, "--trainable", "stages.1", "classifier", "--output-dir", "finetuned",
        cwd=tmp_path,
    )  # fmt: skip
    out = run(
        "certify.py",
        "--model",
        "finetuned",
        *data,
        "--split",
        "check",
        "--n",
        "20",
        "--output-dir",
        "run",
        cwd=tmp_path,
    )
    assert "4 images of" in out and "labels in 'labels'" in out and "'num_images': 3" in out
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["dataset"]["config"] == "some" and facts["informative"]["unreadable"] == [1]
    error = run(
        "certify.py",
        "--model",
        "finetuned",
        "--dataset",
        unusual,
        "--n",
        "20",
        "--output-dir",
        "no",
        cwd=tmp_path,
        fails=True,
    )
    assert "has several configurations; choose one of ['some', 'other']" in error


@pytest.mark.slow
def test_adaptive_certified_training_is_resumed(folder, tmp_path):
    arguments = [
        "adaptive_certified_training.py", "--dataset", folder, "--size", "16", "--largest", "0.01", "--thresholds", "0.005", "--width", "2", "--epochs", "1",
        "--kappas", "0.5", "--batch_size", "8", "--held_out", "8", "--max_images", "3", "--published", "cifar10", "--compare_at", "50", "--docs", "docs",
    ]  # fmt: skip
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "interval.md").write_text("<!-- table linf networks -->\nold\n<!-- end -->\n")
    run(*arguments, "--output-dir", "linf", "--kinds", "adaptive", cwd=tmp_path)
    model = tmp_path / "linf" / "adaptive-kappa0.5-seed0" / "model" / "model.safetensors"
    before = model.stat().st_mtime_ns
    out = run(*arguments, "--output-dir", "linf", cwd=tmp_path)
    assert model.stat().st_mtime_ns == before  # trained once
    rows = [line.split(" | ")[0].strip("| ") for line in out.splitlines() if line.startswith("|")]
    assert rows == ["training", "---", "adaptive", "fixed"]
    assert "certified at 0.005" in out
    assert f"3 of 4 images of {folder} test, evenly spread" in out
    kept = json.loads((tmp_path / "docs" / "results" / "interval.json").read_text())["linf"]
    assert "| adaptive | 0.5 | 0 |" in (tmp_path / "docs" / "interval.md").read_text()
    assert "At 50% accuracy ACR is" in out
    assert kept["acr_over_that_of_fixed_at_accuracy"].keys() == {"50"}
    assert [network["kind"] for network in kept["networks"]] == ["adaptive", "fixed"]
    assert (tmp_path / "docs" / "figures" / "interval" / "linf.png").stat().st_size > 1000
    out = run(*arguments, "--output-dir", "linf", "--epochs", "2", cwd=tmp_path, fails=True)
    assert "was trained otherwise: epochs was 1, is 2" in out
    other = ["--loss", "mtl-ibp", "--kappas", "0", "--kinds", "fixed", "--strengths", "0.25", "--attack_steps", "2"]
    out = run(*arguments, "--output-dir", "linf", *other, "--backward", "crown-ibp", cwd=tmp_path)
    rows = [line.split(" | ")[0].strip("| ") for line in out.splitlines() if line.startswith("|")]
    assert rows == ["training", "---", "adaptive", "fixed", "mtl-ibp, fixed, alpha 0.25"]
    out = run(*arguments, "--output-dir", "linf", *other, "--at", "0.002", cwd=tmp_path)
    assert "| IBP, adaptive | IBP, fixed |" in out
    assert "not tested" not in out.split("| verdict, points |")[0]
    kept = json.loads((tmp_path / "docs" / "results" / "linf_frontier.json").read_text())
    assert {point["method"] for point in kept[f"{Path(folder).name}_0.002"]} == {
        "IBP, adaptive",
        "IBP, fixed",
        "MTL-IBP, fixed",
    }
    folder = tmp_path / "linf" / "mtl-ibp-fixed-alpha0.25-kappa0-seed0"
    objective = json.loads((folder / "model" / "config.json").read_text())["hf_smoothing"]["objective"]
    assert (objective["name"], objective["alpha"], objective["steps"]) == ("mtl-ibp", 0.25, 2)
    other[-1] = "3"
    out = run(*arguments, "--output-dir", "linf", *other, cwd=tmp_path, fails=True)
    assert "was trained otherwise: loss.steps was 2, is 3" in out
    on = [
        "--kinds",
        "adaptive",
        "--start_from",
        "linf/adaptive-kappa0.5-seed0/model",
        "--clean_share",
        "0",
        "--ramp_share",
        "0",
    ]
    run(*arguments, "--output-dir", "on", *on, "--learning_rate", "1e-9", cwd=tmp_path)
    ends = [
        load_file(tmp_path / where / "adaptive-kappa0.5-seed0" / "model" / "model.safetensors")
        for where in ("linf", "on")
    ]
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-6) for name in ends[0] if name.endswith("weight"))
    out = run(*arguments, "--output-dir", "wide", *on, "--width", "3", cwd=tmp_path, fails=True)
    assert "--start-from must be a network of this width, size and classes, [3, 16, " in out
    out = run(*arguments, "--output-dir", "new", "--attack_steps", "2", cwd=tmp_path, fails=True)
    assert "`objective_args` names 'steps'; this objective has" in out
    assert not (tmp_path / "new").exists()


def test_accelerate_loop(unusual, tmp_path):
    out = run(
        "accelerate_loop.py", "--backbone", BACKBONE, "--dataset", unusual, "--dataset-config", "some", "--train_split", "learn", "--split", "check",
        "--skip_unreadable", "--output-dir", "loop", "--epochs", "1", "--batch_size", "8", "--n", "20", cwd=tmp_path,
    )  # fmt: skip
    assert "1 of 4 left out since they cannot be read" in out
    assert "Certified accuracy in %" in out


def test_acr_at_equal_accuracy():
    def network(kind, kappa, accuracy, acr):
        return {"kind": kind, "kappa": kappa, "images": 100, "right": {"0": accuracy}, "acr_percent": acr}

    results = [
        network("fixed", 0, 60.0, 40.0), network("fixed", 1, 80.0, 4.0), network("fixed", 1, 80.0, 6.0),
        network("adaptive", 0, 65.0, 45.0), network("adaptive", 1, 85.0, 5.0),
    ]  # fmt: skip
    assert ratio_at(results, 70.0) == round(35.0 / 22.5, 2)
    assert ratio_at(results, 62.0) is None
    assert ratio_at(results[:3], 70.0) is None

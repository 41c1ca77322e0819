"""Deterministic certificates in run folders: resumed, reported, and never in one table with others."""

import json
from collections import OrderedDict
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput

from hf_smoothing import certify_dataset, read_run
from hf_smoothing.attack_run import attack_run
from hf_smoothing.certification.probes import probe_images
from hf_smoothing.cli import build_parser, main, verbs_of
from hf_smoothing.interval import UnsupportedOperationError, certify_dataset_linf, linf_certificates
from hf_smoothing.interval.search import BACKWARD
from hf_smoothing.records import RunError
from hf_smoothing.reports import report
from tests.support.bounded_networks import network
from tests.support.tiny import data, parquet_folder, plain, smoothed


def rows(run):
    return {index: {**row, "seconds": None} for index, row in run.rows.items()}


def test_rows_hold_what_the_function_says(tmp_path):
    model, images = smoothed("resnet"), data(10)
    run = certify_dataset_linf(model, images, tmp_path / "run", largest=0.05, batch_size=4, progress=False)
    classes, radii = linf_certificates(model, images.pixels, largest=0.05)
    assert [run.rows[k]["prediction"] for k in range(10)] == classes.tolist()
    assert [run.rows[k]["radius"] for k in range(10)] == pytest.approx(radii.tolist(), abs=2e-8)
    assert [run.rows[k]["label"] for k in range(10)] == images.labels.tolist()
    settings = run.settings
    assert (settings["method"], settings["norm"], settings["deterministic"]) == ("interval-bounds", "linf", True)
    assert settings["rule"]["largest"] == 0.05
    assert len(settings["model"]["weights_sha256"]) == 64


def test_rows_say_which_bound_certified(tmp_path):
    model, images = network("mlp"), data(10, size=8)
    classes, _ = linf_certificates(model, images.pixels, largest=0.05)
    images.labels[:5] = classes[:5]
    run = certify_dataset_linf(
        model, images, tmp_path / "run", largest=0.05, backward="optimised", steps=4, batch_size=4, progress=False
    )
    _, radii = linf_certificates(model, images.pixels, largest=0.05, backward="optimised", steps=4)
    assert [run.rows[k]["radius"] for k in range(10)] == pytest.approx(radii.tolist(), abs=2e-8)
    assert {row["backward"] for row in run.rows.values()} == {"crown", "optimised"}
    assert (run.settings["rule"]["backward"], run.settings["rule"]["steps"]) == ("optimised", 4)
    at_one = certify_dataset_linf(
        model, images, tmp_path / "one", largest=0.001, backward="crown", tolerance=1.0, progress=False
    )
    assert {row["radius"] for row in at_one.rows.values()} <= {0.0, 0.001}
    right = certify_dataset_linf(
        model, images, tmp_path / "right", largest=0.05, backward="optimised", steps=4, only_right=True, progress=False
    )
    for index, row in right.rows.items():
        is_right = row["prediction"] == row["label"]
        assert row["radius"] == pytest.approx(run.rows[index]["radius"] if is_right else 0.0, abs=2e-8)
    assert {row["prediction"] == row["label"] for row in right.rows.values()} == {True, False}
    assert right.settings["rule"]["only_right"]
    images.labels = None
    with pytest.raises(ValueError, match=r"`only_right` needs labels, and images have none\. Use a labelled split"):
        certify_dataset_linf(model, images, tmp_path / "unlabelled", largest=0.05, only_right=True, progress=False)
    assert not (tmp_path / "unlabelled").exists()
    with pytest.raises(ValueError, match=r"one of none, crown-ibp, crown, optimised, got 'lirpa'"):
        certify_dataset_linf(model, images, tmp_path / "bad", largest=0.02, backward="lirpa")


@pytest.mark.parametrize(("change", "said"), [("pixels", "is not the one"), ("labels", "but the label changed")])
def test_another_image_or_label_than_a_row_names_is_refused(change, said, tmp_path):
    model, images = network("mlp"), data(10, size=8)
    certify_dataset_linf(model, images, tmp_path, largest=0.05, progress=False)
    getattr(images, change)[7] += 1
    with pytest.raises(RunError, match=f"Image 7 of the data set .*{said}"):
        certify_dataset_linf(model, images, tmp_path, largest=0.05, progress=False)


class Odd(nn.Module):
    """A network in whose middle something happens."""

    def __init__(self, odd):
        super().__init__()
        self.mix, self.head, self.odd = nn.Linear(48, 8), nn.Linear(8, 4), odd

    def forward(self, x):
        return self.head(self.odd(torch.relu(self.mix(x.flatten(1)))))


UNBOUNDED = {
    "layer norm": (lambda h: nn.functional.layer_norm(h, (8,)), {}, r"no sound bound for 'layer_norm'"),
    "sorted": (lambda h: h.sort(1).values, {"backward": "optimised"}, r"no sound bound for 'sort'"),
    "batch mean": (lambda h: h - h.mean(0), {}, "judge each image by itself"),
    "no box": (lambda h: h if type(h) is torch.Tensor else h * 2, {}, "outside their own bounds"),
}


@pytest.mark.parametrize(("odd", "how", "message"), UNBOUNDED.values(), ids=UNBOUNDED)
def test_a_network_without_bounds_leaves_no_run(tmp_path, odd, how, message):
    """Its record would say that the same command finishes it."""
    with pytest.raises(ValueError, match=message):
        certify_dataset_linf(Odd(odd).eval(), data(4, size=4), tmp_path / "run", largest=0.01, progress=False, **how)
    assert not (tmp_path / "run").exists()


def test_each_kind_of_bounds_is_tried_before_the_folder_is_made(tmp_path, monkeypatch):
    """A cheaper kind may decide the first image and leave others to a kind that the network has none of."""
    from hf_smoothing.interval import margins

    def refuse(*_):
        raise UnsupportedOperationError("no backward bound")

    monkeypatch.setattr(margins, "backward_margins", refuse)
    model, images = Odd(torch.sigmoid).eval(), data(4, size=4)
    certify_dataset_linf(model, images, tmp_path / "intervals", largest=1e-6, progress=False)
    with pytest.raises(UnsupportedOperationError, match="no backward bound"):
        certify_dataset_linf(model, images, tmp_path / "run", largest=1e-6, backward="crown", progress=False)
    assert not (tmp_path / "run").exists()


def test_the_command_line_leaves_no_run_of_a_network_without_bounds(tmp_path, capsys):
    smoothed("vit").save_pretrained(tmp_path / "vit")
    folder = parquet_folder(tmp_path / "data")
    words = ["--method", "interval", "--largest", "0.01", "--output-dir", str(tmp_path / "run")]
    assert main(["certify", str(tmp_path / "vit"), str(folder), *words]) == 2
    assert "There is no sound bound for 'layer_norm'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_cut_off_goes_on_and_another_is_refused(tmp_path):
    model, images = smoothed("resnet"), data(10)
    whole = certify_dataset_linf(model, images, tmp_path / "whole", largest=0.05, batch_size=10, progress=False)
    certify_dataset_linf(model, images, tmp_path / "cut", largest=0.05, batch_size=10, progress=False)
    file = tmp_path / "cut" / "certificates-0.jsonl"
    lines = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join(lines[:4]) + b'\n{"index": 4, "lab')
    again = certify_dataset_linf(model, images, tmp_path / "cut", largest=0.05, batch_size=10, progress=False)
    assert sorted(again.rows) == list(range(10))
    for index, row in rows(whole).items():
        assert again.rows[index]["radius"] == pytest.approx(row["radius"], abs=2e-8)
        assert again.rows[index]["prediction"] == row["prediction"]
    with pytest.raises(RunError, match="other settings.*largest"):
        certify_dataset_linf(model, images, tmp_path / "cut", largest=0.04, progress=False)


def test_reports_keep_deterministic_and_probabilistic_certificates_apart(tmp_path):
    model, images = smoothed("resnet"), data(6)
    certify_dataset_linf(model, images, tmp_path / "linf", largest=0.04, progress=False)
    certify_dataset(model, images, tmp_path / "l2", sigma=0.25, n=200, targets=[0.0], progress=False)
    text = report([tmp_path / "linf", tmp_path / "l2"], output_dir=tmp_path / "report")
    assert "2 tables that must not be compared" in text
    assert "linf radii; interval bounds" in text
    assert "deterministic" in text
    assert "r = 0.02" in report([tmp_path / "linf"])
    assert (tmp_path / "report" / "certified_accuracy_1.png").exists()


def test_selection_and_refusals(tmp_path):
    model, images = smoothed("resnet"), data(6)
    run = certify_dataset_linf(model, images, tmp_path / "some", largest=0.04, indices=[5, 1], progress=False)
    assert sorted(run.rows) == [1, 5]
    with pytest.raises(ValueError, match="train mode"):
        certify_dataset_linf(smoothed("resnet").train(), images, tmp_path / "none", largest=0.04)
    with pytest.raises(ValueError, match="`largest` must be above 0 and at most 1.*got 8"):
        certify_dataset_linf(model, images, tmp_path / "none", largest=8)
    for flag in ("cover_run", "only_right"):
        with pytest.raises(TypeError, match=f"`{flag}` must be True or False, got 'no'"):
            certify_dataset_linf(model, images, tmp_path / "none", largest=0.04, **{flag: "no"})
    for wrong, cure in ((1.0, "Pass 1"), (0.5, "Images are counted from 0")):
        with pytest.raises(
            ValueError, match=f"`indices` must be whole numbers, those of images, got {wrong!r}. {cure}"
        ):
            certify_dataset_linf(model, images, tmp_path / "none", largest=0.04, indices=[wrong])
    with pytest.raises(ValueError, match="got a stream"):
        certify_dataset_linf(
            model, datasets.IterableDataset.from_generator(lambda: iter([])), tmp_path / "none", largest=0.04
        )
    with pytest.raises(ValueError, match="How ResNetForImageClassification normalises"):
        certify_dataset_linf(plain("resnet"), images, tmp_path / "none", largest=0.04)
    assert not (tmp_path / "none").exists()
    module = network("max pool")
    small = data(3, size=8)
    assert len(certify_dataset_linf(module, small, tmp_path / "module", largest=0.04, progress=False).rows) == 3


def test_the_command_offers_every_bound():
    (offered,) = (a.choices for a in verbs_of(build_parser())["certify"]._actions if a.dest == "backward")
    assert tuple(offered) == BACKWARD


def test_the_command(tmp_path, capsys):
    smoothed("resnet").save_pretrained(tmp_path / "model")
    parquet_folder(tmp_path / "images")
    command = [
        "certify",
        str(tmp_path / "model"),
        str(tmp_path / "images"),
        "--method",
        "interval",
        "--output-dir",
        str(tmp_path / "run"),
    ]
    assert main(command) == 2
    assert "--method interval needs --largest" in capsys.readouterr().err
    assert main([*command, "--largest", "0.04", "--sigma", "0.5"]) == 2
    assert "leave --sigma out" in capsys.readouterr().err
    assert main([*command, "--method", "smoothing", "--sigma", "0.5", "--no-cover-run"]) == 2
    assert "leave --no-cover-run out" in capsys.readouterr().err
    assert (
        main([*command, "--largest", "0.04", "--n", "17", "--alpha", "0.5", "--noise-kind", "grid", "--seed", "3"])
        == 2
    )
    assert (
        "makes no draws and runs the network in its own dtype: leave --n, --alpha, --noise-kind, --seed out"
        in capsys.readouterr().err
    )
    assert (
        main(
            [
                *command[:3],
                "--sigma",
                "0.5",
                "--largest",
                "0.3",
                "--backward",
                "crown",
                "--output-dir",
                str(tmp_path / "other"),
            ]
        )
        == 2
    )
    assert "draws noise: leave --largest, --backward out" in capsys.readouterr().err
    assert main([*command, "--largest", "0.04", "--steps", "5"]) == 2
    assert "--steps is for --backward optimised, got --backward none" in capsys.readouterr().err
    assert main([*command, "--largest", "0.04", "--label-aware"]) == 2
    assert "leave --label-aware out. Certified accuracy in less time: --only-right" in capsys.readouterr().err
    assert main([*command, "--largest", "0.04"]) == 0
    out = capsys.readouterr().out
    assert "deterministic" in out
    run = read_run(tmp_path / "run")
    assert run.rows
    assert json.loads((tmp_path / "run" / "run.json").read_text())["dataset"]["split"] == "test"
    assert main([*command[:3], "--output-dir", str(tmp_path / "other")]) == 2
    assert "--method smoothing needs --sigma" in capsys.readouterr().err


class Flat(nn.Module):
    """Linear in the pixels, with numbers of its own that no state dict holds."""

    def __init__(self, mean=0.4914, eps=1e-5):
        super().__init__()
        torch.manual_seed(1)
        self.mean, self.norm, self.last = mean, nn.BatchNorm2d(3, eps=eps), nn.Linear(192, 3)
        self.norm.running_var.fill_(0.05)

    def forward(self, x):
        return self.last(self.norm((x - self.mean) / 0.25).flatten(1))


@pytest.mark.parametrize("other", [{"mean": 0.491}, {"mean": 0.4915}, {"eps": 3e-4}, {"eps": 5e-5}], ids=str)
def test_a_run_is_no_other_network_s_however_near(other, tmp_path):
    """A vote over noise hardly notices; every exact radius is another."""
    images = data(4, size=8)
    run = certify_dataset_linf(Flat().eval(), images, tmp_path, largest=0.1, progress=False)
    with pytest.raises(RunError, match="answers to fixed images"):
        certify_dataset_linf(Flat(**other).eval(), images, tmp_path, largest=0.1, progress=False)
    with pytest.raises(RunError, match="another network: the network.s answers to fixed images"):
        attack_run(Flat(**other).eval(), images, run, steps=1, progress=False)


@pytest.mark.parametrize("model", [lambda: smoothed("resnet"), lambda: network("max pool").float()])
def test_a_run_is_its_network_s_in_any_memory_format_and_number_of_threads(model, tmp_path):
    images = data(3, size=16 if "resnet" in type(model()).__name__.lower() or hasattr(model(), "config") else 8)
    whole = certify_dataset_linf(model(), images, tmp_path, largest=0.01, progress=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        other = model().to(memory_format=torch.channels_last)
        again = certify_dataset_linf(other, images, tmp_path, largest=0.01, progress=False)
        assert again.rows == whole.rows
        assert not any(found.broken for found in attack_run(other, images, again, steps=1, progress=False))
    finally:
        torch.set_num_threads(threads)


class Scaled(nn.Module):
    """Matrices of one dtype beside numbers and vectors of another, as numpy makes them; parameters or buffers."""

    def __init__(self, own, scale, buffers=False):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.Linear(192, 3).to(own)
        tensors = {
            "scale": torch.tensor(2.0, dtype=scale),
            "offset": torch.zeros(3, dtype=scale),
            **layer.state_dict(),
        }
        for name, value in tensors.items():
            if buffers:
                self.register_buffer(name, value)
            else:
                self.register_parameter(name, nn.Parameter(value))

    def forward(self, x):
        return nn.functional.linear(x.flatten(1), self.weight, self.bias) * self.scale + self.offset.to(x.dtype)


@pytest.mark.parametrize("buffers", [False, True])
@pytest.mark.parametrize(("own", "scale"), [
    (torch.float32, torch.float64), (torch.float64, torch.float32), (torch.float64, torch.float64), (torch.float32, torch.float32),
])  # fmt: skip
def test_one_dtype_from_certificate_to_attack(own, scale, buffers, tmp_path):
    model, images = Scaled(own, scale, buffers).eval(), data(3, size=8)
    run = certify_dataset_linf(model, images, tmp_path, largest=0.1, progress=False)
    assert run.settings["rule"]["name"] == f"interval bounds, for {str(own).removeprefix('torch.')} runs"
    assert certify_dataset_linf(model, images, tmp_path, largest=0.1, progress=False).rows == run.rows
    found = attack_run(model, images, run, steps=5, progress=False, seed=0)
    assert len(found) == 3 and not any(item.broken for item in found)


class Own(nn.Module):
    """A network with attributes and an output of its own."""

    def __init__(self, output=lambda logits: logits, **attributes):
        super().__init__()
        torch.manual_seed(0)
        self.last, self.output = nn.Linear(192, 3), output
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.output(self.last(x.flatten(1)))


class Classifying(Own):
    def classify(self, x):
        return -super().forward(x)


@pytest.mark.parametrize(("model", "sign"), [
    (Own(), 1), (Classifying(), -1), (Classifying(base_network=nn.Identity(), config={}), -1), (Own(base_network=nn.Identity()), 1),
    (Own(config={"hf_smoothing": None}), 1), (Own(config=SimpleNamespace(hf_smoothing={})), 1), (Own(lambda y: {"logits": y}), 1),
    (Own(lambda y: OrderedDict(loss=None, logits=y)), 1), (Own(lambda y: ImageClassifierOutput(logits=y)), 1),
    (Own(lambda y: SimpleNamespace(logits=y)), 1),
], ids=["plain", "classify", "all", "base_network", "config", "config object", "dict", "ordered", "output", "object"])  # fmt: skip
def test_one_function_everywhere(model, sign, tmp_path):
    model, images = model.eval(), data(5, size=8)
    pixels = images.pixels.float() / 255
    wanted = (sign * model.last(pixels.flatten(1))).argmax(1).tolist()
    classes, radii = linf_certificates(model, images.pixels, largest=0.5)
    assert classes.tolist() == wanted
    run = certify_dataset_linf(model, images, tmp_path / "run", largest=0.5, progress=False)
    assert [run.rows[k]["prediction"] for k in range(5)] == wanted
    assert [run.rows[k]["radius"] for k in range(5)] == pytest.approx(radii.tolist(), abs=2e-8)
    assert not any(item.broken for item in attack_run(model, images, run, steps=5, progress=False, seed=0))
    image = probe_images((3, 8, 8))[0]
    assert run.settings["model"]["probe_logits"][0] == pytest.approx(
        (sign * model.last(image.flatten())).tolist(), abs=1e-4
    )
    if isinstance(model.output(pixels), torch.Tensor):  # smoothing takes nothing else
        noisy = certify_dataset(model, images, tmp_path / "l2", sigma=0.02, n=200, n0=10, progress=False)
        assert all(noisy.rows[k]["prediction"] in (wanted[k], -1) for k in range(5))


def test_numbers_of_numpy_and_torch_are_recorded_as_plain_ones(tmp_path):
    dataset = data(2)
    arguments = {"largest": 0.125, "tolerance": 0.0078125, "backward": BACKWARD[-1], "steps": 2, "batch_size": 2}
    plain = certify_dataset_linf(smoothed("resnet"), dataset, tmp_path / "plain", **arguments, progress=False)
    for kind in (np.asarray, torch.tensor):
        made = {name: value if isinstance(value, str) else kind(value) for name, value in arguments.items()}
        run = certify_dataset_linf(smoothed("resnet"), dataset, tmp_path / kind.__name__, **made, progress=False)
        assert run.settings["rule"] == plain.settings["rule"]
        assert [row["radius"] for row in run.rows.values()] == [row["radius"] for row in plain.rows.values()]
    for name in ("largest", "tolerance", "steps", "batch_size"):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            certify_dataset_linf(
                smoothed("resnet"), dataset, tmp_path / "no", **{**arguments, name: torch.tensor(True)}
            )

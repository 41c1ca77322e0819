"""`hf-smoothing robustness-transfer` from three checkpoints to one page, resumed, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from hf_smoothing.cli import main
from hf_smoothing.robustness_transfer.records import Key, read_analysis
from hf_smoothing.robustness_transfer.sentences import sentences
from tests.support.tiny import label_maps, parquet_folder, smoothed


@pytest.fixture
def folder(tmp_path):
    smoothed("resnet", 0, base=label_maps(("p", "q", "r", "s"))).save_pretrained(tmp_path / "pretrained")
    smoothed("resnet", 1).save_pretrained(tmp_path / "finetuned")
    smoothed("vit", 2).save_pretrained(tmp_path / "standard")
    parquet_folder(tmp_path / "images", count=30)
    return tmp_path


def transfer(folder, *options, **paths):
    places = {role: paths.get(role, folder / role) for role in ("pretrained", "finetuned", "standard")}
    words = [
        "robustness-transfer",
        "--dataset",
        paths.get("dataset", folder / "images"),
        "--output-dir",
        folder / "out",
        "--device",
        "cpu",
    ]
    for role, path in places.items():
        words += [f"--{role}", path]
    return main(
        [str(word) for word in [*words, "--steps", "2", "--attacks", "pgd", "fgsm", "--batch-size", "16", *options]]
    )


def test_three_checkpoints_to_one_page_and_on_again(folder, capsys):
    assert transfer(folder, "--max-images", "24") == 0
    out = capsys.readouterr().out
    page = (folder / "out" / "report.html").read_text()
    for heading in (
        "Accuracy under attack",
        "Universal perturbations",
        "Representation similarity",
        "Low and high frequencies",
    ):
        assert heading in page
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page  # needs no other file
    about, records = read_analysis(folder / "out")
    assert not about["settings"]["same_classes"]
    assert {key.kind for key in records if key.subject == "pretrained"} == {"universal"}  # it has other classes
    assert len(records[Key("attack", "finetuned", "pgd", "linf")]["right"][0]) == 24
    assert (
        len(records[Key("universal", "pretrained", norm="linf")]["changed"]["standard"]) == 12
    )  # those it was not crafted on
    for text in sentences(records).values():
        assert text in out
    times = {file: file.stat().st_mtime_ns for file in (folder / "out" / "records").iterdir()}
    next(iter(file for file in times if "similarity" in file.name)).unlink()  # as if it had been cut off
    assert transfer(folder, "--max-images", "24") == 0
    again = {file: file.stat().st_mtime_ns for file in (folder / "out" / "records").iterdir()}
    assert again.keys() == times.keys()
    assert sum(again[file] != times[file] for file in times) == 1
    assert transfer(folder, "--max-images", "20") == 2
    assert "holds the records of another analysis: images, data_sha256 differ" in capsys.readouterr().err


def test_what_is_refused(folder, capsys, tmp_path):
    smoothed("resnet", 1, base=label_maps(("cat", "eel", "dog"))).save_pretrained(tmp_path / "other")
    assert transfer(folder, standard=tmp_path / "other") == 2
    told = capsys.readouterr().err
    assert "must have the same classes in the same order, got 3 and 3 classes; class 1 is" in told
    assert "set id2label where only the names differ" in told
    smoothed("resnet", 1, size=20).save_pretrained(tmp_path / "large")
    assert transfer(folder, pretrained=tmp_path / "large") == 2
    assert "must take images of one size, got {'pretrained': (20, 20)" in capsys.readouterr().err
    assert transfer(folder, "--epsilons", "0", "2", "8") == 2
    assert "look like steps of 0..255. Divide them by 255" in capsys.readouterr().err
    assert transfer(folder, "--max-images", "7") == 2
    assert "--max-images must be at least 8" in capsys.readouterr().err
    assert transfer(folder, "--attacks", "cw") == 2
    assert "--attacks knows fgsm, bim" in capsys.readouterr().err
    assert transfer(folder, "--layers", "nowhere") == 2
    there = (
        capsys.readouterr()
        .err.split("There is no module 'nowhere'. There are: ")[1]
        .strip()
        .rstrip(".")
        .removesuffix(" ...")
    )
    modules = dict(smoothed("resnet", 1).named_modules())
    assert all(name.strip() in modules for name in there.split(","))  # none is cut
    assert transfer(folder, "--layers", "base_network.clasifier") == 2
    assert "Did you mean base_network.classifier" in capsys.readouterr().err
    assert transfer(folder, "--layers", "") == 2
    assert "There is no module ''" in capsys.readouterr().err
    assert transfer(folder, "--max-images", "12", "--layers", "base_network") == 2
    assert "A layer to compare must give a tensor" in capsys.readouterr().err
    spoilt = smoothed("resnet", 1)
    next(spoilt.parameters()).data.fill_(torch.nan)
    spoilt.save_pretrained(tmp_path / "nan")
    assert transfer(folder, standard=tmp_path / "nan") == 2
    assert f"The weights of {tmp_path / 'nan'} must be finite" in capsys.readouterr().err
    (tmp_path / "nan" / "model.safetensors").write_bytes(b"no weights")
    assert transfer(folder, standard=tmp_path / "nan") == 2
    assert f"The weights of {tmp_path / 'nan'} are damaged" in capsys.readouterr().err

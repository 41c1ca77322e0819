"""`hf-smoothing transfer` from three checkpoints to one page, resumed, and what it refuses."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pytest
import torch
from tiny import label_maps, parquet_folder, smoothed

from hf_smoothing.cli import main
from hf_smoothing.transfer.findings import robustness, sentences, universal
from hf_smoothing.transfer.keeping import bits, from_bits, read_analysis


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


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
        "transfer",
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
        "What the networks listen to",
    ):
        assert heading in page
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page  # needs no other file
    about, records = read_analysis(folder / "out")
    assert not about["settings"]["same_classes"]
    assert not any(
        name.startswith(("attack-pretrained", "frequency-pretrained")) for name in records
    )  # it has other classes
    assert len(records["attack-finetuned-pgd-linf"]["right"][0]) == 24
    assert len(records["universal-pretrained-linf"]["changed"]["standard"]) == 12  # those it was not crafted on
    for text in sentences(records).values():
        assert text in out
    times = {file: file.stat().st_mtime_ns for file in (folder / "out" / "records").iterdir()}
    next(iter(file for file in times if "similarity" in file.name)).unlink()  # as if it had been cut off
    assert transfer(folder, "--max-images", "24") == 0
    again = {file: file.stat().st_mtime_ns for file in (folder / "out" / "records").iterdir()}
    assert again.keys() == times.keys()
    assert sum(again[file] != times[file] for file in times) == 1
    assert transfer(folder, "--max-images", "20") == 1
    assert "holds the records of another analysis: images, data_sha256 differ" in capsys.readouterr().err


def test_what_is_refused(folder, capsys, tmp_path):
    smoothed("resnet", 1, base=label_maps(("cat", "eel", "dog"))).save_pretrained(tmp_path / "other")
    assert transfer(folder, standard=tmp_path / "other") == 1
    told = capsys.readouterr().err
    assert "must have the same classes in the same order, got 3 and 3 classes; class 1 is" in told
    assert "set id2label where only the names differ" in told
    smoothed("resnet", 1, size=20).save_pretrained(tmp_path / "large")
    assert transfer(folder, pretrained=tmp_path / "large") == 1
    assert "must take images of one size, got {'pretrained': (20, 20)" in capsys.readouterr().err
    assert transfer(folder, "--epsilons", "0", "2", "8") == 1
    assert "look like steps of 0..255. Divide them by 255" in capsys.readouterr().err
    assert transfer(folder, "--max-images", "7") == 1
    assert "--max-images must be at least 8" in capsys.readouterr().err
    assert transfer(folder, "--attacks", "cw") == 1
    assert "--attacks knows fgsm, bim" in capsys.readouterr().err
    assert transfer(folder, "--layers", "nowhere") == 1
    assert "There is no module 'nowhere'" in capsys.readouterr().err
    assert transfer(folder, "--layers", "") == 1
    assert "There is no module ''" in capsys.readouterr().err
    assert transfer(folder, "--max-images", "12", "--layers", "base_network") == 1
    assert "A layer to compare must give a tensor" in capsys.readouterr().err
    spoilt = smoothed("resnet", 1)
    next(spoilt.parameters()).data.fill_(torch.nan)
    spoilt.save_pretrained(tmp_path / "nan")
    assert transfer(folder, standard=tmp_path / "nan") == 1
    assert f"The weights of {tmp_path / 'nan'} must be finite" in capsys.readouterr().err
    (tmp_path / "nan" / "model.safetensors").write_bytes(b"no weights")
    assert transfer(folder, standard=tmp_path / "nan") == 1
    assert f"The weights of {tmp_path / 'nan'} are damaged" in capsys.readouterr().err


def record(rng, accuracies, count=400):
    """An attack's record in which each image falls at a radius of its own."""
    places = rng.permutation(count) / count
    return {"epsilons": [0.0, 0.1, 0.2], "right": [bits(places < accuracy) for accuracy in accuracies]}


def test_the_verdict_compares_what_both_get_right_without_an_attack():
    rng = np.random.default_rng(0)
    records = {
        "attack-finetuned-pgd-linf": record(rng, (0.9, 0.3, 0.1)),
        "attack-standard-pgd-linf": record(rng, (0.7, 0.5, 0.3)),
        "attack-finetuned-pgd-l2": record(rng, (0.9, 0.5, 0.2)),
        "attack-standard-pgd-l2": record(rng, (0.7, 0.39, 0.16)),
    }
    first, second = robustness(records)
    assert (first.norm, first.verdict) == ("linf", "less")
    assert (second.norm, second.verdict) == ("l2", "as")
    flags = [
        np.array([from_bits(row) for row in records[f"attack-{role}-pgd-linf"]["right"]])
        for role in ("finetuned", "standard")
    ]
    both = flags[0][0] & flags[1][0]
    assert first.matched_images == both.sum()
    assert first.matched["finetuned"][2] == pytest.approx(flags[0][2][both].mean())
    assert first.decline["standard"][2] == pytest.approx((0.7 - 0.3) / 0.7)
    assert first.area["finetuned"] == pytest.approx((0.9 + 2 * 0.3 + 0.1) / 4)
    assert (
        "less robust than the standard one under pgd (linf); not told apart from" in sentences(records)["robustness"]
    )


def test_what_is_carried_over_is_paired():
    rng = np.random.default_rng(0)
    base = rng.random(500)
    changed = {"pretrained": base < 0.9, "finetuned": base < 0.6, "standard": base < 0.5}
    noise = {"pretrained": base < 0.1, "finetuned": base < 0.15, "standard": base < 0.1}
    records = {
        f"universal-{source}-linf": {
            "epsilon": 0.03,
            "changed": {role: bits(flags) for role, flags in flagged.items()},
        }
        for source, flagged in (("pretrained", changed), ("random", noise))
    }
    (found,) = universal(records)
    gains = [changed[target].mean() - noise[target].mean() for target in ("finetuned", "standard")]
    assert found.carried.value == pytest.approx(gains[0] - gains[1])
    assert found.carried.low > 0
    assert "more often than the standard one" in sentences(records)["universal linf"]
    assert json.dumps(records)


def test_few_images_give_no_verdict():
    rng = np.random.default_rng(0)
    records = {
        "attack-finetuned-pgd-linf": record(rng, (1.0, 0.0, 0.0), count=20),
        "attack-standard-pgd-linf": record(rng, (1.0, 1.0, 1.0), count=20),
        **{
            f"universal-{source}-linf": {"epsilon": 0.03, "changed": {"finetuned": a, "standard": "0000"}}
            for source, a in (("pretrained", "1111"), ("random", "0000"))
        },
        "similarity-clean": {
            pair: {"images": 16, "cka": [[value]]}
            for pair, value in (("pretrained-finetuned", 0.9), ("pretrained-standard", 0.1))
        },
        **{
            f"frequency-{role}": {part: [{"right": bits([role == "standard"] * 4)}] for part in ("low", "high")}
            for role in ("finetuned", "standard")
        },
    }
    said = sentences(records)
    assert "not judged, for want of 30 such images, under pgd (linf)" in said["robustness"]
    assert "was tried on too few images (fewer than 30) to say" in said["universal linf"]
    assert said["similarity"].startswith("CKA of 16 images is too noisy")
    assert "not judged, on fewer than 30 images" in said["frequency"]

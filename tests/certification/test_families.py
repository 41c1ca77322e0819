"""One network says the same of itself in every process: attributes of small networks of `transformers`, saved, loaded elsewhere and used."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageClassification

from hf_smoothing.certification.behaviour import answer_to_probe
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.identity import classifier_identity
from tests.support.architectures import ARCHITECTURES
from tests.support.processes import run_python


FAMILIES = (
    "Beit", "CLIP", "ConvNext", "DeiT", "Dinov2", "Levit", "MobileNetV2", "PoolFormer", "RegNet", "ResNet", "Segformer", "Siglip", "Swin", "Swinv2", "ViT",
)  # fmt: skip


class Pixels(nn.Module):
    """A network of `transformers` as a classifier, with graded answers or hard ones, and a configuration that holds a set."""

    def __init__(self, network: nn.Module, hard: bool) -> None:
        super().__init__()
        self.network, self._hard, self.names = network, hard, {"cat", "dog", "eel", "fox"}
        said = {"names": self.names, "list": [self.names], "size": 32}
        self.config = SimpleNamespace(to_dict=lambda: said)

    def extra_repr(self) -> str:
        return f"names={self.names}"

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(pixels).logits
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float() if self._hard else logits


def said(network: nn.Module, hard: bool, size: int) -> dict[str, Any]:
    network = Pixels(network, hard).eval()
    return classifier_identity(network) | answer_to_probe(resolve_classifier(network), (3, size, size)).to_dict()


def main(folder: str) -> None:
    """Print what each network in the folders says of itself, the second time it is asked."""
    found = {}
    for path in sorted(Path(folder).iterdir()):
        network, size = AutoModelForImageClassification.from_pretrained(path), int(path.name.split("-")[1])
        said(network, False, size)
        found[path.name] = [said(network, hard, size) for hard in (False, True)]
    print(json.dumps(found))


def test_networks_say_the_same_in_another_process(tmp_path):
    chosen = {one.config: one for one in ARCHITECTURES if one.config in FAMILIES and not one.kind}
    assert len(chosen) == len(FAMILIES)
    here = {}
    for config, architecture in chosen.items():
        network, name = architecture.build(), f"{config}-{architecture.size}"
        network.save_pretrained(tmp_path / name)
        here[name] = [said(network, hard, architecture.size) for hard in (False, True)]
    done = run_python(__file__, tmp_path, PYTHONHASHSEED="1")
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout.splitlines()[-1])
    for name in here:
        for first, second in zip(here[name], there[name], strict=True):
            one, other = first.pop("attributes"), second.pop("attributes")
            both = one.keys() & other.keys()
            assert len(both) > 5
            assert {key for key in both if one[key] != other[key]} == set()
            for key in ("weights_sha256", "config", "config_sha256"):
                assert first[key] == second[key]


if __name__ == "__main__":
    main(sys.argv[1])

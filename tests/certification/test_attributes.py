"""Plain attributes tell modules with the same hard votes apart; those that the answers cannot depend on do not."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_smoothing.certification import Execution, agreement, certify_dataset
from hf_smoothing.certification.behaviour import answer_to_probe
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.identity import check_network_of_run, classifier_identity
from hf_smoothing.certification.noise_kinds import noise_facts
from hf_smoothing.certification.structure import attribute_hashes, attributes_of
from hf_smoothing.noise import GridStream
from hf_smoothing.records import RunError
from tests.support.classifiers import RUN, random_dataset


class Voting(nn.Module):
    """Hard votes of a linear classifier, and whatever else it says of itself."""

    def __init__(self, printed: Any = "", **attributes: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self._printed, self.last = printed, nn.Linear(16, 3)
        vars(self).update(attributes)

    def forward(self, pixels: Tensor) -> Tensor:
        return nn.functional.one_hot(self.last(pixels.flatten(1)).argmax(1), 3).float()

    def extra_repr(self) -> str:
        return str(self._printed)


def local() -> Any:
    """Another function, elsewhere in memory, at each call."""
    return lambda pixels: pixels


KEPT = [local(), local()]
PASSING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a device": ({"device": "cuda:0"}, {"device": "cuda:1"}),
    "another device": ({"where": "cpu"}, {"where": "cuda"}),
    "a printed device": ({"printed": "bins=4, device=cuda:0"}, {"printed": "bins=4, device=cpu"}),
    "a device object": ({"printed": torch.device("cuda", 0)}, {"printed": torch.device("cpu")}),
    "a folder": ({"log_dir": tempfile.gettempdir()}, {"log_dir": "/nowhere/at/all"}),
    "a printed folder": ({"printed": "cache=/tmp/a1/b"}, {"printed": "cache=/var/tmp/c2"}),
    "a printed function": ({"printed": KEPT[0]}, {"printed": KEPT[1]}),
    "a text with an address": ({"made_by": repr(KEPT[0])}, {"made_by": repr(KEPT[1])}),
    "the process": ({"local_rank": 0, "world_size": 2}, {"local_rank": 1, "world_size": 4}),
    "gradient checkpointing": ({"gradient_checkpointing": True}, {"gradient_checkpointing": False}),
    "an underscore": ({"_created": 1.0}, {"_created": 2.0}),
}


@pytest.mark.parametrize(("first", "second"), PASSING.values(), ids=PASSING)
def test_what_cannot_decide_an_answer_is_left_out(first, second, tmp_path):
    assert repr(first) != repr(second)
    one, other = Voting(**first).eval(), Voting(**second).eval()
    run = certify_dataset(one, random_dataset(2), tmp_path, **RUN)
    certify_dataset(other, random_dataset(2), tmp_path, **RUN)
    check_network_of_run(other, run)
    known = {"model": classifier_identity(one) | answer_to_probe(resolve_classifier(one), (1, 4, 4)).to_dict()}
    stream = GridStream(0, (1, 4, 4), sigma=0.5)
    agreement.check_same(resolve_classifier(other), stream, known | noise_facts(stream), Execution())


NAMED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a threshold": ("threshold", {"threshold": 0.5}, {"threshold": 0.50001}),
    "a moment": ("created", {"created": time.time() - 60}, {"created": time.time()}),
    "a process": ("process", {"process": os.getpid()}, {"process": os.getpid() + 1}),
    "a text": ("rule", {"rule": "strict"}, {"rule": "lenient"}),
    "one more": ("steps", {}, {"steps": 3}),
    "what is printed": ("class", {"printed": "bins=4"}, {"printed": "bins=5"}),
    "a ratio that is printed": ("class", {"printed": "scale=1/2"}, {"printed": "scale=1/4"}),
}


@pytest.mark.parametrize(("name", "first", "second"), NAMED.values(), ids=NAMED)
def test_an_attribute_that_differs_is_named_with_a_cure(name, first, second, tmp_path):
    one, other = Voting(**first).eval(), Voting(**second).eval()
    run = certify_dataset(one, random_dataset(2), tmp_path, **RUN)
    cure = r"\(begin the names of attributes that decide no answer with an underscore\)"
    with pytest.raises(RunError, match=rf"another network: attributes\.{name} {cure} differ"):
        check_network_of_run(other, run)
    with pytest.raises(
        RunError, match=rf"the attribute {name} of .* \(model\.attributes\.{name}\) was .*, is .* {cure}\. Use"
    ):
        certify_dataset(other, random_dataset(2), tmp_path, **RUN)
    certify_dataset(one, random_dataset(2), tmp_path, **RUN)


def test_one_name_in_many_modules_has_one_hash():
    said = attributes_of(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    swapped = attributes_of(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3)))
    first, second = attribute_hashes(said), attribute_hashes(swapped)
    assert first.keys() == {"class", "in_features", "out_features"}
    assert {name for name in first if first[name] != second[name]} == {"class", "in_features", "out_features"}

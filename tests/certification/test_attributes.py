"""Plain attributes tell modules with the same hard votes apart; those that the answers cannot depend on do not."""

from __future__ import annotations

import json
import os
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hf_smoothing.certification import Execution, agreement, certify_dataset
from hf_smoothing.certification.behaviour import answer_to_probe
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.identity import check_network_of_run, classifier_identity
from hf_smoothing.certification.noise_kinds import noise_facts
from hf_smoothing.certification.structure import attribute_hashes, attributes_of, moving
from hf_smoothing.noise import GridStream
from hf_smoothing.records import RunError, read_run
from tests.support.classifiers import RUN, random_dataset


class Voting(nn.Module):
    """Hard votes of a linear classifier, and whatever else it says of itself."""

    def __init__(self, printed: Any = "", **attributes: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self._printed, self._graded, self.last = printed, False, nn.Linear(16, 3)
        vars(self).update(attributes)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.last(pixels.flatten(1))
        return logits if self._graded else nn.functional.one_hot(logits.argmax(1), 3).float()

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
    "a map of devices": ({"hf_device_map": {"": 0}}, {"hf_device_map": {"": "cpu"}}),
    "a device in a list": ({"where": ["cpu"]}, {"where": ["cuda:1"]}),
    "a cache": ({"bias_cache": {"cpu": [1.0]}}, {"bias_cache": {"cuda": [2.0]}}),
    "a printed set": ({"printed": "{'a', 'b'}"}, {"printed": "{'b', 'a'}"}),
    "a device or none": ({"device": None}, {"device": "cuda:1"}),
    "how an adapter is named": ({"active_adapter": "default"}, {"active_adapter": ["default"]}),
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


NAMED: dict[str, tuple[str, Any, Any]] = {
    "a threshold": ("threshold", 0.5, 0.50001),
    "a moment": ("created", time.time() - 60, time.time()),
    "a process": ("process", os.getpid(), os.getpid() + 1),
    "a text": ("rule", "strict", "lenient"),
    "a list": ("shift", [0.0], [0.05]),
    "a tuple in a dictionary": ("shift", {"by": (0.0, 1)}, {"by": (0.05, 1)}),
    "a set": ("names", {"a", "b"}, {"a", "c"}),
    "a number of numpy": ("shift", np.float32(0.0), np.float32(0.05)),
    "an array": ("shift", np.zeros(3), np.full(3, 0.05)),
    "a large array": ("table", np.linspace(0, 1, 99), np.linspace(0, 1.001, 99)),
    "a tensor": ("shift", torch.zeros(1), torch.tensor([0.05])),
    "none and a number": ("threshold", None, 0.93),
    "a number and none": ("threshold", 0.93, None),
    "a device and a word": ("pooling", "meta", "mean"),
    "a path and a word": ("pooling", "/mean", "mean"),
    "a function and none": ("activation", torch.relu, None),
    "a permutation": ("order", torch.arange(99), torch.arange(99).roll(1)),
    "beside a function": ("parts", {"by": 0.0, "f": torch.relu}, {"by": 0.05, "f": torch.relu}),
    "a namespace": ("parts", SimpleNamespace(by=0.0), SimpleNamespace(by=0.05)),
    "what was stored": ("cached_threshold", 0.0, 0.05),
    "the adapters of peft": ("_disable_adapters", False, True),
}


@pytest.mark.parametrize("graded", [False, True], ids=["hard", "graded"])
@pytest.mark.parametrize(("name", "first", "second"), NAMED.values(), ids=NAMED)
def test_an_attribute_that_differs_is_named_with_a_cure(name, first, second, graded, tmp_path):
    one, other = (Voting(_graded=graded, **{name: value}).eval() for value in (first, second))
    run = certify_dataset(one, random_dataset(2), tmp_path, **RUN)
    cure = r"\((begin the names of attributes that decide no answer with an underscore|switch the network's adapters .*)\)"
    with pytest.raises(RunError, match=rf"another network: attributes\.Voting\.{name} {cure} differ"):
        check_network_of_run(other, run)
    with pytest.raises(
        RunError, match=rf"the attribute {name} of .* \(model\.attributes\.Voting\.{name}\) was .*, is .* {cure}\. Use"
    ):
        certify_dataset(other, random_dataset(2), tmp_path, **RUN)
    certify_dataset(one, random_dataset(2), tmp_path, **RUN)


@pytest.mark.parametrize(
    ("first", "second"), [("bins=4", "bins=5"), ("scale=1/2", "scale=1/4")], ids=["a number", "a ratio"]
)
def test_what_is_printed_is_named_with_a_cure_of_its_own(first, second, tmp_path):
    run = certify_dataset(Voting(first).eval(), random_dataset(2), tmp_path, **RUN)
    with pytest.raises(RunError, match=r"attributes\.Voting\.extra_repr \(let extra_repr of Voting print nothing but"):
        check_network_of_run(Voting(second).eval(), run)
    with pytest.raises(RunError, match="what modules of the class Voting print of themselves"):
        certify_dataset(Voting(second).eval(), random_dataset(2), tmp_path, **RUN)


def test_other_classes_are_named(tmp_path):
    class Other(Voting):
        pass

    run = certify_dataset(Voting().eval(), random_dataset(2), tmp_path, **RUN)
    with pytest.raises(RunError, match=r"attributes\.classes \(build the network of modules of the same classes\)"):
        check_network_of_run(Other().eval(), run)


class Keeping(Voting):
    """Keeps a number in a buffer that is not saved."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([number]), persistent=False)


def test_buffers_that_are_not_saved_count(tmp_path):
    run = certify_dataset(Keeping(0.0).eval(), random_dataset(2), tmp_path, **RUN)
    with pytest.raises(RunError, match=r"attributes\.Keeping\.shift"):
        check_network_of_run(Keeping(0.05).eval(), run)


EQUAL: dict[str, tuple[Any, Any]] = {
    "whole": (1, 1.0), "of numpy": (0.5, np.float64(0.5)), "whole of numpy": (3, np.int64(3)), "of torch": (0.5, torch.tensor(0.5)),
    "a tuple": ([1, 2], (1.0, 2)), "an array": (np.ones(3), torch.ones(3)), "no number": (object(), object()), "a large table": (
        torch.linspace(0, 1, 99), torch.linspace(0, 1, 99) * (1 + 1e-7)),
}  # fmt: skip


@pytest.mark.parametrize(("first", "second"), EQUAL.values(), ids=EQUAL)
def test_equal_values_are_equal_whatever_holds_them(first, second, tmp_path):
    run = certify_dataset(Voting(held=first).eval(), random_dataset(1), tmp_path, **RUN)
    check_network_of_run(Voting(held=second).eval(), run)


@pytest.mark.parametrize(("first", "second"), [({}, {"steps": 3}), ({"steps": 3}, {})], ids=["more", "less"])
def test_a_name_that_one_side_lacks_tells_nothing(first, second, tmp_path):
    run = certify_dataset(Voting(**first).eval(), random_dataset(1), tmp_path, **RUN)
    before = (tmp_path / "run.json").read_text()
    check_network_of_run(Voting(**second).eval(), run)
    certify_dataset(Voting(**second).eval(), random_dataset(1), tmp_path, **RUN)
    assert (tmp_path / "run.json").read_text() == before


def test_one_hash_of_all_attributes_is_not_compared(tmp_path):
    certify_dataset(Voting().eval(), random_dataset(1), tmp_path, **RUN)
    settings = json.loads((tmp_path / "run.json").read_text())
    del settings["model"]["attributes"]
    settings["model"]["attributes_sha256"] = "0" * 64
    (tmp_path / "run.json").write_text(json.dumps(settings))
    certify_dataset(Voting().eval(), random_dataset(1), tmp_path, **RUN)
    check_network_of_run(Voting().eval(), read_run(tmp_path))


class Growing(Voting):
    """Keeps the largest batch so far."""

    def forward(self, pixels: Tensor) -> Tensor:
        self.largest = max(getattr(self, "largest", 0), len(pixels))
        return super().forward(pixels)


def test_what_grows_and_then_stays_is_no_part_of_the_network(tmp_path):
    network = Growing().eval()
    for one in (network, network, Growing().eval()):
        check_network_of_run(one, certify_dataset(one, random_dataset(2), tmp_path, **RUN))


class Part(nn.Module):
    """A number that decides, or that counts passes."""

    def __init__(self, number: float, counts: bool, most: float = float("inf")) -> None:
        super().__init__()
        self.number, self._counts, self._most = number, counts, most

    def forward(self, pixels: Tensor) -> Tensor:
        self.number = min(self.number + 1, self._most) if self._counts else self.number
        return pixels


def beside_a_counter(number: float, most: float = float("inf")) -> nn.Module:
    return nn.Sequential(Part(number, False), Part(0, True, most), Voting()).eval()


def test_what_counts_hides_no_module_of_its_class(tmp_path):
    run = certify_dataset(beside_a_counter(0.93), random_dataset(2), tmp_path, **RUN)
    assert run.settings["model"]["attributes"]["Part.number"].endswith(" without 1")
    certify_dataset(beside_a_counter(0.93), random_dataset(2), tmp_path, **RUN)
    with pytest.raises(RunError, match=r"attributes\.Part\.number"):
        check_network_of_run(beside_a_counter(5.0), run)


def test_what_counts_and_then_stays_is_compared_with_neither(tmp_path):
    network = beside_a_counter(0.93, most=3)
    first = certify_dataset(network, random_dataset(2), tmp_path / "first", **RUN)
    again = certify_dataset(network, random_dataset(2), tmp_path / "again", **RUN)
    assert "without" not in again.settings["model"]["attributes"]["Part.number"]
    for one in (network, beside_a_counter(0.93, most=3)):
        check_network_of_run(one, first)
        check_network_of_run(one, again)


def test_the_network_itself_may_be_what_changes():
    before = frozenset({("Part.number", "", "0"), ("Part.number", "a", "1")})
    after = frozenset({("Part.number", "", "2"), ("Part.number", "a", "1")})
    used, fresh = attribute_hashes(after), attribute_hashes(before, moving(before, after))
    assert used != fresh
    assert attribute_hashes(before, moving(before, after), used) == used
    assert attribute_hashes(after, {}, fresh) == fresh


@pytest.mark.parametrize("graded", [False, True], ids=["hard", "graded"])
def test_a_buffer_that_counts_and_is_saved_is_named_at_once(graded, tmp_path):
    class Counting(Voting):
        def __init__(self, persistent: bool) -> None:
            super().__init__(_graded=graded)
            self.register_buffer("passes", torch.zeros((), dtype=torch.long), persistent=persistent)

        def forward(self, pixels: Tensor) -> Tensor:
            self.passes += 1
            return super().forward(pixels)

    with pytest.warns(UserWarning, match=r"change passes of the network.*persistent=False"):
        certify_dataset(Counting(True).eval(), random_dataset(2), tmp_path / "saved", **RUN)
    network = Counting(False).eval()
    for _ in range(2):
        certify_dataset(network, random_dataset(2), tmp_path / "unsaved", **RUN)


def test_a_network_that_cannot_be_printed_is_certified(tmp_path):
    class Broken(Voting):
        def extra_repr(self) -> str:
            return str(self.nowhere)

    run = certify_dataset(Broken().eval(), random_dataset(1), tmp_path, **RUN)
    check_network_of_run(Broken().eval(), run)


def test_one_name_in_the_modules_of_a_class_has_one_hash():
    said = attributes_of(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    swapped = attributes_of(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3)))
    first, second = attribute_hashes(said), attribute_hashes(swapped)
    assert first.keys() == {"classes", "Linear.extra_repr", "Linear.in_features", "Linear.out_features"}
    assert {name for name in first if first[name] != second[name]} == first.keys() - {"classes"}

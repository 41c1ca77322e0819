"""How the network is run never changes a vote, leaves the network alone, and is written down."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from torch import nn

from hf_smoothing.certification import Draws, agreement, certify_dataset, count_votes, execution
from hf_smoothing.certification.execution import Execution, probe_batch_size
from hf_smoothing.certification.noise_kinds import make_stream
from hf_smoothing.records import RunWriter
from tests.support.classifiers import RUN, Linear, Ranges, Watched, random_dataset, results


SHAPE = (3, 6, 6)
CPU = torch.device("cpu")


class Whole(nn.Module):
    """A convolutional network on whole steps of 1/255 with whole weights: every sum is exact in float32, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.last = nn.Conv2d(8, 4, 2, bias=False)
        generator = torch.Generator().manual_seed(0)
        for layer in (self.conv, self.last):
            whole = torch.randint(-3, 4, layer.weight.shape, generator=generator).float()
            layer.weight = nn.Parameter(whole)
        self.formats: list[bool] = []

    def forward(self, pixels):
        self.formats.append(pixels.is_contiguous(memory_format=torch.channels_last) and not pixels.is_contiguous())
        return self.last(self.conv((pixels * 255).round()).relu()).flatten(1)


def memory(module: nn.Module) -> dict:
    return {name: (weight.data_ptr(), weight.stride(), weight.clone()) for name, weight in module.named_parameters()}


def assert_as_found(module: nn.Module, before: dict) -> None:
    for name, weight in module.named_parameters():
        pointer, stride, values = before[name]
        assert (weight.data_ptr(), weight.stride()) == (pointer, stride), name
        assert torch.equal(weight, values)


def counts(classifier, **options):
    images = torch.cat([item["pixel_values"][None] for item in random_dataset(3, SHAPE)]).float() / 255
    stream = make_stream("grid", seed=0, shape=SHAPE, device=CPU, sigma=0.5)
    how = Execution(**options)
    with how.prepare(classifier) as classify:
        return count_votes(classify, images, [Draws(i, i, 0, 150) for i in range(3)], stream=stream, execution=how)


# --- Checks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "`dtype` of the network must be one of float32, bfloat16, float16, got 'int8'"),
        ({"dtype": torch.bfloat16}, "`dtype` of the network must be one of"),
        ({"copies_per_batch": 0}, "`copies_per_batch` must be at least 1, got 0"),
        ({"copies_per_batch": -5}, "`copies_per_batch` must be at least 1, got -5"),
        ({"copies_per_batch": 1.5}, "copies_per_batch"),
        ({"copies_per_batch": "many"}, "copies_per_batch"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Execution(**options)


def test_settings_and_sizes():
    how = Execution("bfloat16", channels_last=True, compile=True, copies_per_batch=7)
    assert how.to_dict() == {"dtype": "bfloat16", "channels_last": True, "compile": True}
    assert how.size_on(CPU) == how.size_on(torch.device("cuda")) == 7
    assert Execution().size_on(CPU) < Execution().size_on(torch.device("cuda"))
    with how.autocast(CPU):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16 and torch.is_autocast_enabled("cpu")
    with Execution().autocast(CPU):
        assert not torch.is_autocast_enabled("cpu")


# --- channels_last ---------------------------------------------------------------------------------------------------


def test_channels_last_changes_no_vote_of_exact_arithmetic():
    model = Whole().eval()
    plain = counts(model)
    assert not any(model.formats)
    model.formats.clear()
    assert np.array_equal(counts(model, channels_last=True), plain)
    assert all(model.formats)
    assert (plain > 0).sum() > 6, "votes must be mixed for this to be a test"
    for size in (1, 7, 64):
        assert np.array_equal(counts(model, channels_last=True, copies_per_batch=size), plain)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_channels_last_leaves_the_parameters_as_found(error):
    model = Whole().eval()
    model.last.weight.data = model.last.weight.data.to(memory_format=torch.channels_last)  # found in either format
    before = memory(model)

    def inside():
        with Execution(channels_last=True).prepare(model) as classify:
            assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
            assert not model.conv.weight.is_contiguous()
            assert torch.equal(model.conv.weight, before["conv.weight"][2])
            classify(torch.rand(2, *SHAPE))
            if error is not None:
                raise error

    if error is None:
        inside()
    else:
        with pytest.raises(error):
            inside()
    assert_as_found(model, before)


@pytest.mark.parametrize("kind", ["plain", "bound method", "shared"])
def test_channels_last_of_any_kind_of_classifier(kind):
    model = Whole().eval()
    if kind == "shared":
        model.twin = model.conv
    before = memory(model)
    classifier = model.forward if kind == "bound method" else model
    with Execution(channels_last=True).prepare(classifier):
        assert not model.conv.weight.is_contiguous()
    assert_as_found(model, before)
    if kind == "plain":
        with Execution(channels_last=True).prepare(Linear()) as classify:
            assert callable(classify)


@pytest.mark.parametrize("where", ["network", "disk"])
def test_a_run_that_breaks_off_leaves_the_parameters_as_found(tmp_path, monkeypatch, where):
    model = Whole().eval()
    before = memory(model)

    def broken(*arguments):
        raise OSError("No space left on device")

    if where == "disk":
        monkeypatch.setattr(RunWriter, "append", broken)
    else:
        model.conv.register_forward_hook(broken)
    with pytest.raises(OSError, match="No space left") as caught:
        certify_dataset(model, random_dataset(3, SHAPE), tmp_path, **RUN, channels_last=True)
    assert_as_found(model, before)  # while the error, and with it every frame, is still held
    assert caught.value is not None


# --- compiled --------------------------------------------------------------------------------------------------------


@pytest.fixture
def compiled(monkeypatch):
    """torch.compile as a stub that records how it was asked and every batch that it got."""
    calls = []

    def stub(classify, **options):
        watched = Watched(classify)
        calls.append((watched, options))
        return watched

    monkeypatch.setattr(torch, "compile", stub)
    return calls


@pytest.mark.parametrize("mode", ["fixed", "targets"])
def test_a_compiled_network_sees_one_shape_and_padding_is_not_counted(tmp_path, compiled, mode):
    arguments = {**RUN, "mode": mode, "copies_per_batch": 37, "n": 300}
    dataset = random_dataset(5)
    plain = certify_dataset(Ranges(), dataset, tmp_path / "plain", **arguments)
    assert compiled == []
    run = certify_dataset(Ranges(), dataset, tmp_path / "compiled", **arguments, compile=True)
    assert results(run) == results(plain)
    ((watched, options),) = compiled
    assert options == {"dynamic": False}
    assert {tuple(batch.shape) for batch in watched.batches} == {(37, 1, 4, 4)}
    draws = sum(row["draws"] for row in run.rows.values())
    assert len(watched.batches) * 37 > draws, "some batch must have been padded for this to be a test"
    padding = sum(int((batch.flatten(1) == 0).all(1).sum()) for batch in watched.batches)
    assert padding == len(watched.batches) * 37 - draws


def test_nan_in_the_padding_is_nobodys(compiled):
    def undefined_at_zero(pixels):
        return Ranges(4)(pixels) / pixels.abs().sum((1, 2, 3))[:, None].clamp_max(1.0)

    assert torch.isnan(undefined_at_zero(torch.zeros(1, *SHAPE))).any()
    assert np.array_equal(
        counts(undefined_at_zero, compile=True, copies_per_batch=64), counts(undefined_at_zero, copies_per_batch=64)
    )


def test_a_really_compiled_module_votes_alike(tmp_path, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda classify, **options: compile_(classify, backend="eager", **options))
    dataset, model = random_dataset(3, SHAPE), Whole().eval()
    plain = certify_dataset(model, dataset, tmp_path / "plain", **RUN)
    both = certify_dataset(model, dataset, tmp_path / "both", **RUN, compile=True, channels_last=True)
    assert results(plain) == results(both)
    assert both.settings["compile"] and both.settings["channels_last"]
    assert both.settings["model"] == plain.settings["model"]


# --- The trial of batch sizes ----------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the network moves."""
    fake = types.SimpleNamespace(now=0.0)
    fake.perf_counter = lambda: fake.now
    monkeypatch.setattr(execution, "time", fake)
    return fake


class Costly:
    """Takes `cost(batch size)` seconds per image; out of memory above a limit."""

    def __init__(self, clock, cost, limit: int = 1 << 20) -> None:
        self.clock, self.cost, self.limit, self.sizes = clock, cost, limit, []

    def __call__(self, pixels):
        self.sizes.append(len(pixels))
        if len(pixels) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.clock.now += len(pixels) * self.cost(len(pixels))
        return torch.zeros(len(pixels), 2)


@pytest.mark.parametrize("size", [1, 48, 100_000])
def test_a_given_size_is_untouched_and_nothing_is_tried(clock, size):
    costly = Costly(clock, lambda size: 1e-3)
    assert probe_batch_size(costly, SHAPE, Execution("bfloat16", copies_per_batch=size)) == (
        Execution("bfloat16", copies_per_batch=size),
        {},
    )
    assert costly.sizes == []


def test_nothing_is_tried_where_each_size_would_be_compiled(clock):
    how, speeds = probe_batch_size(Costly(clock, lambda size: 1e-3), SHAPE, Execution(compile=True))
    assert (how.copies_per_batch, speeds, how.compile) == (Execution().size_on(CPU), {}, True)


@pytest.mark.parametrize(
    ("speeds", "best"),
    [
        ({16: 100, 32: 200, 64: 300, 128: 400, 256: 500}, 256),
        ({16: 100, 32: 200, 64: 391, 128: 400, 256: 395}, 64),  # within 3%
        ({16: 100, 32: 200, 64: 385, 128: 400, 256: 395}, 128),  # not
        ({16: 500, 32: 500, 64: 500, 128: 500, 256: 500}, 16),
        ({16: 490, 32: 500, 64: 450, 128: 410, 256: 395}, 16),
    ],
)
def test_the_smallest_size_within_three_percent_of_the_fastest(clock, speeds, best):
    costly = Costly(clock, lambda size: 1.0 / speeds[size])
    how, tried = probe_batch_size(costly, SHAPE, Execution(channels_last=True))
    assert how == Execution(channels_last=True, copies_per_batch=best)
    assert {int(size): speed for size, speed in tried.items()} == speeds


def test_the_trial_stops_where_it_gets_slower(clock):
    speeds = {16: 500, 32: 1000, 64: 790, 128: 2000, 256: 2000}
    costly = Costly(clock, lambda size: 1.0 / speeds[size])
    how, tried = probe_batch_size(costly, SHAPE, Execution())
    assert how.copies_per_batch == 32
    assert sorted(map(int, tried)) == [16, 32, 64] and max(costly.sizes) == 64


def test_the_trial_of_a_slow_network_is_short(clock):
    """ViT-B/16 on a CPU: 4 images per second, and every size as fast as the others."""
    costly = Costly(clock, lambda size: 1 / 4)
    how, tried = probe_batch_size(costly, SHAPE, Execution(), seconds=0.2)
    assert (how.copies_per_batch, list(tried), clock.now) == (16, ["16"], 12.0)


@pytest.mark.parametrize(("limit", "tried"), [(20, [16]), (100, [16, 32, 64]), (255, [16, 32, 64, 128])])
def test_the_trial_stops_where_memory_ends(clock, limit, tried):
    costly = Costly(clock, lambda size: 1e-3 / size, limit)
    how, speeds = probe_batch_size(costly, SHAPE, Execution())
    assert sorted(map(int, speeds)) == tried
    assert how.copies_per_batch == tried[-1]
    assert costly.sizes.count(min(size for size in (32, 128, 256) if size > limit)) == 1, "not tried again"


def test_memory_that_is_short_from_the_start_is_explained(clock):
    with pytest.raises((ValueError, torch.OutOfMemoryError), match="(?i)memory"):
        probe_batch_size(Costly(clock, lambda size: 1e-3, limit=8), SHAPE, Execution())


def test_the_trial_leaves_the_network_as_found():
    model = Whole().eval()
    before = memory(model)
    probe_batch_size(model, SHAPE, Execution(channels_last=True), seconds=0.0)
    assert all(model.formats)
    assert_as_found(model, before)


def test_the_run_keeps_size_and_trial(tmp_path, monkeypatch):
    dataset, arguments = random_dataset(3), {**RUN, "copies_per_batch": None}
    short = certify_dataset(Ranges(), dataset, tmp_path / "short", **arguments).settings["informative"]
    assert short["copies_per_batch"] is None and "images_per_second_by_batch_size" not in short
    given = certify_dataset(Ranges(), dataset, tmp_path / "given", **RUN)
    assert given.settings["informative"]["copies_per_batch"] == 16
    monkeypatch.setattr(agreement, "PROBE_DRAWS", 3 * 310)
    tried = certify_dataset(Ranges(), dataset, tmp_path / "tried", **arguments)
    facts = tried.settings["informative"]
    assert str(facts["copies_per_batch"]) in facts["images_per_second_by_batch_size"]
    assert results(tried) == results(given), "the size changes no vote"
    assert certify_dataset(Ranges(), dataset, tmp_path / "tried", **RUN).settings == tried.settings, (
        "nor is it compared"
    )
    assert (
        "images_per_second_by_batch_size"
        not in certify_dataset(Ranges(), dataset, tmp_path / "again", **RUN).settings["informative"]
    )
    monkeypatch.setattr(agreement, "PROBE_DRAWS", 3 * 310 + 1)
    assert (
        "images_per_second_by_batch_size"
        not in certify_dataset(Ranges(), dataset, tmp_path / "below", **arguments).settings["informative"]
    )


def test_a_network_that_cannot_be_run_as_asked_leaves_no_run(tmp_path):
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(108, 4)

        def forward(self, x):
            return self.head(x.view(len(x), -1))

    with pytest.raises(RuntimeError, match="view size is not compatible"):
        certify_dataset(
            Viewing().eval(),
            random_dataset(4, SHAPE),
            tmp_path / "run",
            sigma=0.25,
            n=100,
            channels_last=True,
            progress=False,
        )
    assert not (tmp_path / "run").exists()

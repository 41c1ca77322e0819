"""What must hold on every device: the noise, the votes, and runs that go on. On a CPU always; on a GPU with `-m gpu`."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from hf_smoothing import certify, certify_dataset, predict
from hf_smoothing.attacks import round_to_grid
from hf_smoothing.certification import Draws, Execution, count_votes, make_stream
from hf_smoothing.noise import GaussianStream, GridStream, NoiseMixture, process_generator, training_generator
from hf_smoothing.pixels import grid_to_unit, to_unit_pixels
from tests.support.tiny import smoothed


SHAPE = (3, 8, 8)


@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    return torch.device("cuda")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    return torch.device("cpu") if request.param == "cpu" else request.getfixturevalue("cuda")


def images(count=6):
    return torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@contextlib.contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("context", [default_device, torch.device])
@pytest.mark.parametrize("noise_kind", ["grid", "gaussian"])
@pytest.mark.parametrize("ask", ["a network", "hard votes"])
def test_where_tensors_are_made_by_default_decides_nothing(context, noise_kind, ask, tmp_path):
    model = smoothed("resnet", base={"num_labels": 20})
    shape = (3, *model.config.size)
    pixels = torch.randint(0, 256, (2, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    dataset = [{"pixel_values": image, "labels": 1} for image in pixels]

    def votes(batch):
        logits = model.classify(batch)
        return (logits == logits.amax(1, keepdim=True)).float()

    classifier = votes if ask == "hard votes" else model
    options = {"sigma": 0.5, "noise_kind": noise_kind, "seed": 0}

    def asked(folder):
        run = certify_dataset(classifier, dataset, folder, **options, n=20, n0=5, progress=False)
        return (
            [replace(found, seconds=0.0) for found in certify(classifier, pixels, **options, n=20, n0=5)],
            predict(classifier, pixels, **options, n=20),
            [{**row, "seconds": None} for row in run.rows.values()],
            model(pixels, seed=0, num_samples=3).logits,
            NoiseMixture((0.25, 0.5)).add(pixels / 255, training_generator(0, 0, 0, 1, "cpu"))[0],
        )

    *expected, logits, noisy = asked(tmp_path / "plain")
    with context("meta"):
        *found, logits_found, noisy_found = asked(tmp_path / "run")
        process_generator("cpu")
        asked(tmp_path / "run")  # resumed
    assert found == expected and torch.equal(logits, logits_found) and torch.equal(noisy, noisy_found)


def drawn(stream, image, start, count):
    out = torch.empty(count, *SHAPE, device=stream.device)
    stream.draw(out, image, start)
    return out.cpu()


def brightest(pixels):
    """Exact on the 8-bit grid, whatever the order of summation: which of three fixed pixels is largest."""
    return pixels[:, :, 0, 0]


def test_grid_noise_is_the_same_as_on_a_cpu(device):
    here, there = (GridStream(3, SHAPE, where, sigma=0.5) for where in (device, torch.device("cpu")))
    clean = images(1).to(device).float() / 255
    copies = []
    for stream, pixels in ((here, clean), (there, clean.cpu())):
        out = torch.empty(64, *SHAPE, device=stream.device)
        stream.noisy_copies(out, pixels, [Draws(0, 7, 32, 96)])
        copies.append(out.cpu())
    assert torch.equal(*copies)


def test_float_noise_does_not_depend_on_how_it_is_cut(device):
    stream = GaussianStream(3, SHAPE, device, sigma=0.5)
    whole = drawn(stream, 5, 0, 300)
    parts = torch.cat([drawn(stream, 5, start, 50) for start in range(0, 300, 50)])
    assert torch.equal(whole, parts)
    assert abs(float(whole.mean())) < 5 / whole.numel() ** 0.5
    assert float(whole.std()) == pytest.approx(1.0, abs=5 / whole.numel() ** 0.5)


def test_votes_on_the_grid_are_those_of_a_cpu(device):
    votes = []
    for where in (device, torch.device("cpu")):
        stream = make_stream("grid", seed=1, shape=SHAPE, device=where, sigma=0.5)
        pixels = images().to(where).float() / 255
        requests = [Draws(slot, slot, 0, 200) for slot in range(len(pixels))]
        votes.append(count_votes(brightest, pixels, requests, stream=stream))
    assert (votes[0] == votes[1]).all()


@pytest.mark.parametrize("noise", ["grid", "gaussian"])
def test_a_run_goes_on_to_the_same_rows(device, noise, tmp_path):
    model = smoothed("resnet", size=8).eval().to(device)
    options = {"sigma": 0.5, "n": 300, "noise_kind": noise, "copies_per_batch": 32, "progress": False}
    whole = certify_dataset(model, Items(), tmp_path / "whole", **options)
    items = Items(breaks_at=3)
    with pytest.raises(ConnectionError):
        certify_dataset(model, items, tmp_path / "parts", **options)
    items.breaks_at = None
    parts = certify_dataset(model, items, tmp_path / "parts", **options)
    assert {k: strip(row) for k, row in parts.rows.items()} == {k: strip(row) for k, row in whole.rows.items()}


class Items:
    """A data set whose storage may fail while the run goes on: after it has been looked through once."""

    def __init__(self, breaks_at=None):
        self.breaks_at, self.reads = breaks_at, 0

    def __len__(self):
        return 6

    def __getitem__(self, index):
        self.reads += 1
        if index == self.breaks_at and self.reads > len(self):
            raise ConnectionError("storage is gone")
        return {"pixel_values": images()[index], "labels": 0}


def strip(row):
    return {key: value for key, value in row.items() if key != "seconds"}


@pytest.mark.parametrize("execution", [Execution("bfloat16"), Execution("bfloat16", channels_last=True)])
def test_half_precision_certifies(device, execution):
    model = smoothed("resnet", size=8).eval().to(device)
    how = {"dtype": execution.dtype, "channels_last": execution.channels_last}
    first, again = (certify(model, images(2).to(device), sigma=0.5, n=200, seed=0, **how) for _ in range(2))
    assert [c.prediction for c in first] == [c.prediction for c in again]
    assert all(c.draws > 0 for c in first)


@pytest.mark.gpu
def test_compiled_on_a_gpu(cuda):
    model = smoothed("resnet", size=8).eval().to(cuda)
    plain, compiled = (
        certify(model, images(2).to(cuda), sigma=0.5, n=200, seed=0, compile=flag) for flag in (False, True)
    )
    assert [c.prediction for c in plain] == [c.prediction for c in compiled]


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["grid", "gaussian"])
def test_a_stream_of_its_own_draws_the_same(kind, cuda):
    own, found = torch.cuda.Stream(), []
    for where in (torch.cuda.current_stream(), own):
        with torch.cuda.stream(where):
            stream = make_stream(kind, seed=1, shape=SHAPE, device=cuda, sigma=0.5)
            out = torch.empty(64, *SHAPE, device=cuda)
            stream.noisy_copies(out, torch.zeros(1, *SHAPE, device=cuda), [Draws(0, 0, 0, 64)])
        torch.cuda.synchronize()
        found.append(out.cpu())
    assert torch.equal(*found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_of_grey_levels_are_the_nearest_numbers(device, dtype):
    """CUDA divides by a Python number otherwise than by a tensor: 1 ulp off for some of these."""
    levels = torch.arange(-1000, 1256, dtype=dtype)
    exact = torch.tensor([float(Fraction(int(k), 255)) for k in levels], dtype=torch.float64)
    assert torch.equal(grid_to_unit(levels.to(device)).cpu(), exact.to(dtype))


def test_what_8_bit_images_become_is_the_same_as_on_a_cpu(device):
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    exact = torch.tensor([Fraction(k, 255) for k in range(256)], dtype=torch.float32).reshape(1, 1, 16, 16)
    assert torch.equal(to_unit_pixels(levels.to(device)).cpu(), exact)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(to_unit_pixels(exact.to(dtype).to(device)).cpu(), exact)
    moved = round_to_grid(exact.to(device) * 0.5, exact.to(device), 0.5, "linf")
    assert torch.equal(moved.cpu(), round_to_grid(exact * 0.5, exact, 0.5, "linf"))

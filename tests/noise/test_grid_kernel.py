"""One kernel draws grid noise on a GPU; its numbers are those of torch's operations. Triton's interpreter runs it on a CPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hf_smoothing.noise import Draws, GridStream, grid


TWIN = """
import torch
from hf_smoothing.noise import MAX_DRAWS, MAX_IMAGES, Draws, GridStream

class Pretended(torch.Tensor):
    is_cuda = True

for sigma in (0.001, 0.25, 3.0):  # from two thresholds to thousands
    for shape in ((3, 5, 7), (1, 1, 1), (3, 32, 33)):  # words that are not filled, one pixel, several blocks of pixels
        for seed in (3, 2**70 + 1):
            stream = GridStream(seed, shape, sigma=sigma)
            images = torch.randint(0, 256, (3, *shape)).float() / 255
            draws = [Draws(2, MAX_IMAGES - 1, MAX_DRAWS - 4, MAX_DRAWS), Draws(0, 5, 7, 12), Draws(1, 77, 0, 3)]
            by_torch, by_kernel = torch.empty(12, *shape), torch.empty(12, *shape)
            noise, kernel_noise = torch.empty(12, *shape), torch.empty(12, *shape)
            stream.noisy_copies(by_torch, images, draws)
            stream._fill(noise, draws)
            stream._kernel = stream._tried()
            assert stream._kernel is not None
            stream.noisy_copies(by_kernel.as_subclass(Pretended), images.to(memory_format=torch.channels_last), draws)
            stream._fill(kernel_noise.as_subclass(Pretended), draws)
            assert torch.equal(by_torch, by_kernel) and torch.equal(noise, kernel_noise), (sigma, shape, seed)
print("the same")
"""


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton, which torch for CUDA brings, is not installed"
)
def test_the_kernel_draws_what_torch_draws():
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TWIN], capture_output=True, text=True, timeout=300,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert run.stdout.strip() == "the same", run.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("sigma", [0.001, 0.25, 3.0])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 1), (3, 61, 67)])
def test_on_a_gpu_the_kernel_is_used_and_draws_what_a_cpu_draws(sigma, shape):
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    images = torch.randint(0, 256, (3, *shape)).float() / 255
    draws = [Draws(2, 9, 4, 300), Draws(0, 5, 7, 12)]
    here, there = GridStream(3, shape, sigma=sigma), GridStream(3, shape, "cuda", sigma=sigma)
    copies, on_gpu = torch.empty(301, *shape), torch.empty(301, *shape, device="cuda")
    here.noisy_copies(copies, images, draws)
    there.noisy_copies(on_gpu, images.cuda(), draws)
    assert there._kernel is not None
    assert torch.equal(copies, on_gpu.cpu())


class Pretended(torch.Tensor):
    """A tensor of the CPU that says that it is on a GPU."""

    is_cuda = True


@pytest.mark.parametrize("fault", ["missing", "broken", "other numbers"])
def test_without_a_kernel_that_can_be_trusted_torch_draws(fault, monkeypatch, caplog):
    def kernel(out, *_):
        if fault == "broken":
            raise RuntimeError("Failed to find C compiler")
        out.fill_(1.0)

    fake = None if fault == "missing" else type(sys)("hf_smoothing.noise.grid_kernel")
    if fake is not None:
        fake.draw_grid = kernel
    monkeypatch.setitem(sys.modules, "hf_smoothing.noise.grid_kernel", fake)
    images, draws = torch.rand(1, 3, 8, 8).mul(255).round() / 255, [Draws(0, 2, 0, 20)]
    expected = torch.empty(20, 3, 8, 8)
    GridStream(1, (3, 8, 8), sigma=0.5).noisy_copies(expected, images, draws)
    monkeypatch.setattr(grid, "_WITHOUT_KERNEL", set())
    stream = GridStream(1, (3, 8, 8), sigma=0.5)
    found = torch.empty(20, 3, 8, 8).as_subclass(Pretended)
    with caplog.at_level("INFO"):
        stream.noisy_copies(found, images, draws)
    assert torch.equal(found.as_subclass(torch.Tensor), expected)
    assert stream._kernel is None and {torch.device("cpu")} == grid._WITHOUT_KERNEL
    assert ("other numbers" in caplog.text) == (fault == "other numbers")


def test_want_of_memory_is_said_and_says_nothing_of_the_kernel(monkeypatch):
    monkeypatch.setattr(grid, "_WITHOUT_KERNEL", set())
    stream = GridStream(1, (3, 8, 8), sigma=0.5)

    def tried():
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(stream, "_tried", tried)
    with pytest.raises(torch.OutOfMemoryError):
        stream.draw(torch.empty(2, 3, 8, 8).as_subclass(Pretended), 0, 0)
    assert not grid._WITHOUT_KERNEL


@pytest.mark.parametrize(
    ("out", "draws", "said"),
    [
        (torch.empty(8, 3, 4, 4)[::2], [Draws(0, 0, 0, 4)], "contiguous float32 tensor with room for the 4 copies"),
        (torch.empty(4, 3, 4, 4).half(), [Draws(0, 0, 0, 4)], r"got torch.float16 \(4, 3, 4, 4\)"),
        (torch.empty(5, 3, 4, 4), [Draws(0, 0, 0, 4)], "room for the 4 copies asked for"),
        (torch.empty(4, 3, 4, 4), [Draws(2, 0, 0, 4)], "one of the 2 images given, got slot 2"),
        (torch.empty(4, 3, 4, 4), [Draws(-1, 0, 0, 4)], "got slot -1"),
    ],
)
def test_what_a_kernel_would_read_or_write_beside_its_tensors_is_refused(out, draws, said):
    stream = GridStream(1, (3, 4, 4), sigma=0.5)
    with pytest.raises(ValueError, match=said):
        stream.noisy_copies(out, torch.zeros(2, 3, 4, 4), draws)

"""No two workers, epochs or processes share the noise of a `NoisyImageProcessor`."""

import multiprocessing

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from hf_smoothing import NoisyImageProcessor


HALF = {"sigmas": [0.5]}


def tensor(processor, images, **kwargs):
    return processor(images, return_tensors="pt", **kwargs)["pixel_values"]


class Noisy(Dataset):
    """Flat images through a noisy processor, so that what comes back is noise."""

    def __init__(self, count=8):
        self.processor = NoisyImageProcessor(size=16, noise=HALF, do_normalize=False)
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return tensor(self.processor, Image.new("RGB", (16, 16)), do_noise=True)[0]


def smallest_distance(noise):
    flat = noise.flatten(1)
    return float(torch.cdist(flat, flat).fill_diagonal_(99.0).min())


def epochs(loader, count=2):
    return torch.cat([batch for _ in range(count) for batch in loader])


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_and_epochs_have_noise_of_their_own(persistent):
    torch.manual_seed(0)
    noisy = Noisy()
    noisy[0]  # the parent has a generator, which a fork copies
    draws = epochs(DataLoader(noisy, batch_size=2, num_workers=2, persistent_workers=persistent))
    assert len(draws) == 16
    assert smallest_distance(draws) > 1.0


def test_workers_draw_the_same_under_the_same_global_seed():
    def run():
        torch.manual_seed(5)
        return epochs(DataLoader(Noisy(4), batch_size=1, num_workers=2), 1)

    assert torch.equal(run(), run())


def _draw(processor, queue):
    queue.put(tensor(processor, Image.new("RGB", (16, 16)), do_noise=True).numpy())


def test_forked_processes_have_noise_of_their_own():
    # As in datasets.map(num_proc=2), which forks without telling torch.
    torch.manual_seed(0)
    processor = NoisyImageProcessor(size=16, noise=HALF, do_normalize=False)
    mine = [torch.as_tensor(tensor(processor, Image.new("RGB", (16, 16)), do_noise=True))]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_draw, args=(processor, queue)) for _ in range(2)]
    for child in children:
        child.start()
    theirs = [torch.as_tensor(queue.get(timeout=30)) for _ in children]
    for child in children:
        child.join()
    assert smallest_distance(torch.cat(mine + theirs)) > 1.0

"""Gaussian draws are a function of seed, image and draw, and no two blocks, ranks or workers share a stream."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_smoothing.noise import MAX_DRAWS, MAX_IMAGES, Draws, GaussianStream, fresh_seed, stream_keys
from hf_smoothing.noise.streams import (
    BLOCK_BITS,
    DRAWS_PER_BLOCK,
    _scramble,
    process_generator,
    training_generator,
)


SHAPE = (1, 2, 3)


def gaussian(seed: int = 0, sigma: float = 1.0) -> GaussianStream:
    return GaussianStream(seed, SHAPE, sigma=sigma)


def draws(image: int, start: int, count: int, seed: int = 0, stream: GaussianStream | None = None) -> torch.Tensor:
    out = torch.empty(count, *SHAPE)
    (stream or gaussian(seed)).draw(out, image, start)
    return out


def low_words(keys: np.ndarray) -> np.ndarray:
    """What torch's CPU generator keeps of a seed."""
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def test_no_two_blocks_of_a_large_run_share_a_stream():
    # 2,000 images with 100,000 draws each: random 32-bit keys would collide several thousand times.
    images, blocks = 2_000, 100_000 // DRAWS_PER_BLOCK + 1
    keys = low_words(stream_keys(3, np.arange(images)[:, None], np.arange(blocks)[None, :])).ravel()
    keys.sort()
    assert not np.any(keys[1:] == keys[:-1])


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=200, unique=True))
def test_scramble_never_maps_two_words_to_one(words):
    assert len(set(_scramble(np.array(words, dtype=np.uint32)).tolist())) == len(words)


def test_scramble_is_a_bijection_on_ranges_with_few_changing_bits():
    for shift in (0, 8, 12):
        words = np.sort(_scramble(np.arange(1 << 19, dtype=np.uint32) << np.uint32(shift)))
        assert not np.any(words[1:] == words[:-1])


def test_scramble_golden():
    # fmix32 of MurmurHash3's reference implementation: fmix32(0) = 0 and fmix32(1) = 0x514e28b7.
    assert [hex(int(x)) for x in _scramble(np.array([0, 1], dtype=np.uint32))] == ["0x0", "0x514e28b7"]


def test_keys_differ_between_seeds_in_both_halves():
    keys = np.stack([stream_keys(seed, np.arange(100), 0) for seed in range(5)])
    assert len(np.unique(keys >> np.uint64(32))) == 5
    assert len(np.unique(low_words(keys))) == 500


@pytest.mark.parametrize(
    ("image", "block", "message"),
    [
        (-1, 0, rf"Image indices of one run must lie in \[0, {MAX_IMAGES}\), got -1 to -1. Make runs of parts"),
        ([0, MAX_IMAGES], 0, f"got 0 to {MAX_IMAGES}"),
        (0, 1 << BLOCK_BITS, f"at most {MAX_DRAWS:,} draws in all; draw {MAX_DRAWS:,} is beyond"),
        (0, -1, "at most"),
    ],
)
def test_beyond_the_limits_is_refused(image, block, message):
    with pytest.raises(ValueError, match=message):
        stream_keys(0, image, block)


def test_the_last_image_and_draw_are_reached():
    assert draws(MAX_IMAGES - 1, MAX_DRAWS - 1, 1).isfinite().all()
    with pytest.raises(ValueError, match="is beyond"):
        draws(0, MAX_DRAWS - 1, 2)


@given(st.integers(0, 200), st.lists(st.integers(1, 70), min_size=1, max_size=8), st.integers(0, 5))
def test_draws_do_not_depend_on_how_they_are_cut(start, pieces, image):
    whole = draws(image, start, sum(pieces))
    stream = gaussian()
    cut, position = [], start
    for piece in pieces:
        cut.append(draws(image, position, piece, stream=stream))
        position += piece
    assert torch.equal(torch.cat(cut), whole)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 130)), min_size=1, max_size=20))
def test_draws_do_not_depend_on_what_was_asked_before(requests):
    stream = gaussian()
    for image, draw in requests:
        assert torch.equal(draws(image, draw, 1, stream=stream), draws(image, draw, 1))


@pytest.mark.parametrize("sigma", [0.12, 3.0])
def test_noisy_copies_are_the_image_and_sigma_times_its_draws(sigma):
    pixels = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1))
    for stream in (gaussian(5, sigma), gaussian(5, sigma)):
        for start, count in ((0, 40), (40, 3), (43, 64)):
            out = torch.empty(count, *SHAPE)
            stream.noisy_copies(out, pixels[None], [Draws(0, 7, start, start + count)])
            assert torch.equal(out, pixels + sigma * draws(7, start, count, seed=5))


def test_global_generator_is_neither_read_nor_advanced():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = draws(0, 0, 40)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(draws(0, 0, 40), first)


def test_draws_are_standard_normal_and_independent():
    stream = gaussian(11)
    values = torch.stack([draws(image, 0, 1000, stream=stream) for image in range(4)]).double()
    assert stats.kstest(values.flatten().numpy(), stats.norm.cdf).pvalue > 1e-3
    count = values.numel()
    assert abs(float(values.mean())) < 4 / count**0.5
    assert abs(float((values**2).mean()) - 1) < 4 * (2 / count) ** 0.5
    # Neighbouring draws (also across the ends of blocks), images and pixels must not be correlated.
    for left, right in [
        (values[:, 1:], values[:, :-1]),
        (values[1:], values[:-1]),
        (values[..., 1:], values[..., :-1]),
        (values[:, DRAWS_PER_BLOCK:], values[:, :-DRAWS_PER_BLOCK]),
    ]:
        assert abs(float((left * right).mean())) < 4 / left.numel() ** 0.5


def test_every_image_and_seed_has_its_own_draws():
    seen = torch.cat([draws(image, 0, 64, seed=seed) for seed in range(4) for image in range(4)])
    assert len(seen.flatten().unique()) > 0.999 * seen.numel()


def test_training_generators_differ_over_ranks_and_steps():
    for world_size in (1, 2, 5):
        first = [
            int(torch.randint(2**62, (1,), generator=training_generator(1, step, rank, world_size, "cpu")))
            for step in range(60)
            for rank in range(world_size)
        ]
        assert len(set(first)) == len(first)
    same = [training_generator(1, 2, 1, 3, "cpu") for _ in range(2)]
    assert torch.equal(torch.rand(4, generator=same[0]), torch.rand(4, generator=same[1]))
    assert training_generator(1, 0, 0, 1, "cpu").initial_seed() != training_generator(2, 0, 0, 1, "cpu").initial_seed()


@pytest.mark.parametrize(
    ("step", "rank", "world_size"), [(-1, 0, 1), (0, 2, 2), (0, -1, 2), (2**32, 0, 1), (2**31, 0, 2)]
)
def test_training_generator_limits(step, rank, world_size):
    with pytest.raises(ValueError, match=f"at most {2**32} forward passes, got step {step} of rank {rank}"):
        training_generator(0, step, rank, world_size, "cpu")


def first_numbers(seed: int) -> list[torch.Tensor]:
    """From the first two generators of a process that was seeded so."""
    torch.manual_seed(seed)
    return [torch.rand(4, generator=process_generator("cpu")) for _ in range(2)]


def test_process_generator_differs_between_ranks_that_are_seeded_alike(monkeypatch):
    values = []
    for rank in (None, "1", "2", "3"):
        if rank is None:
            monkeypatch.delenv("RANK", raising=False)
        else:
            monkeypatch.setenv("RANK", rank)
        numbers = first_numbers(5)
        assert all(torch.equal(a, b) for a, b in zip(numbers, first_numbers(5), strict=True))
        values += numbers
    values += first_numbers(6)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(values, 2))


class _Probe(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.rand(2, generator=process_generator("cpu"))


def test_process_generator_differs_between_workers():
    loader = torch.utils.data.DataLoader(
        _Probe(), batch_size=1, num_workers=2, generator=torch.Generator().manual_seed(0)
    )
    epochs = [[tuple(item.flatten().tolist()) for item in loader] for _ in range(2)]
    assert epochs[0][0] != epochs[0][1]
    assert not set(epochs[0]) & set(epochs[1])


def test_fresh_seed_is_fresh_unless_given():
    assert fresh_seed(3) == 3
    assert fresh_seed(0) == 0
    assert len({fresh_seed(None) for _ in range(20)}) == 20

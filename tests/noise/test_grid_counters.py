"""No two numbers of grid noise share a counter, and counters are mixed by a bijection."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_smoothing.noise import MAX_DRAWS, MAX_IMAGES, GridStream
from hf_smoothing.noise import grid as grid_module
from hf_smoothing.noise.grid import _mix
from tests.support.grid_noise import draws, on_pretended_gpu


def unmix(word: int, key: tuple[int, int]) -> int:
    """The inverse of `_mix`, in Python's integers: its existence is the proof that `_mix` is a bijection."""
    modulus = 1 << 64

    def undo_shift(x: int, bits: int) -> int:
        result = x
        for _ in range(64 // bits + 1):
            result = x ^ (result >> bits)
        return result

    word = undo_shift(word, 31) * pow(0x94D049BB133111EB, -1, modulus) % modulus
    word = (undo_shift(word, 27) - key[1]) * pow(0xBF58476D1CE4E5B9, -1, modulus) % modulus
    return (undo_shift(word, 30) * pow(0x9E3779B97F4A7C15, -1, modulus) - key[0]) % modulus


def unsigned(words: torch.Tensor) -> list[int]:
    return [word % (1 << 64) for word in words.flatten().tolist()]


signed_words = st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.lists(signed_words, min_size=1, max_size=50), signed_words, signed_words)
def test_mix_is_a_bijection(words, first, second):
    mixed = _mix(torch.tensor(words), (first, second))
    assert [unmix(word, (first, second)) for word in unsigned(mixed)] == [word % (1 << 64) for word in words]


def test_mix_golden():
    # SplitMix64 from seed 0, whose state after i steps is i times the golden gamma: its well-known first outputs.
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert unsigned(_mix(torch.arange(1, 5), (0, 0))) == expected


def counters_used(monkeypatch, stream: GridStream, pairs) -> list[int]:
    """Every counter that draws on these (image, draw) pairs feed to the mixer."""
    seen: list[int] = []

    def watching(words, key):
        seen.extend(unsigned(words))
        return _mix(words, key)

    monkeypatch.setattr(grid_module, "_mix", watching)
    for image, start in pairs:
        draws(stream, image, start, 1)
    monkeypatch.undo()
    return seen


EDGES = (0, 1, 2, 255, 256, 1 << 16)


def test_no_two_numbers_share_a_counter(monkeypatch):
    pairs = list(
        itertools.product((*EDGES, MAX_IMAGES - 2, MAX_IMAGES - 1), (*EDGES, 1 << 18, MAX_DRAWS - 2, MAX_DRAWS - 1))
    )
    stream = on_pretended_gpu(GridStream(1, (3, 5, 7), sigma=0.25))
    seen = counters_used(monkeypatch, stream, pairs)
    # 105 pixels: 27 words of four lanes, and a counter for the rest of each.
    assert len(seen) == len(pairs) * (27 + 105)
    assert len(set(seen)) == len(seen)


def test_counters_are_what_the_class_says(monkeypatch):
    # 18 bits for the image, 19 for the draw, 27 within the draw, of which the upper half is for the rest of the law.
    stream = on_pretended_gpu(GridStream(1, (1, 2, 3), sigma=0.25))
    for image, draw in ((0, 0), (3, 5), (MAX_IMAGES - 1, MAX_DRAWS - 1)):
        base = image << 46 | draw << 27
        expected = [base, base + 1, *(base + (1 << 26) + element for element in range(6))]
        assert counters_used(monkeypatch, stream, [(image, draw)]) == expected
    assert MAX_IMAGES == 1 << 18 and MAX_DRAWS == 1 << 19


def test_the_largest_image_has_room_for_its_counters():
    limit = 1 << 26
    with pytest.raises(ValueError, match="at most 67,108,864 pixels, got 67,108,865"):
        GridStream(0, (1, 1, limit + 1), sigma=0.25)
    assert -(-limit // 4) <= 1 << 26  # words end where the rest begins
    assert (1 << 26) + limit <= 1 << 27  # and the rest where the next draw begins

"""A noise mixture draws its sigmas by its shares, leaves clean images alone, and survives JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_smoothing.noise import NoiseMixture


mixtures = st.one_of(
    st.builds(NoiseMixture, sigmas=st.lists(st.floats(0, 3), min_size=1, max_size=5), clean=st.floats(0, 1)),
    st.builds(
        lambda ends, clean, kind: NoiseMixture(tuple(sorted(ends)), clean, kind),
        st.tuples(st.floats(0.01, 2), st.floats(0.01, 2)),
        st.floats(0, 1),
        st.sampled_from(["uniform", "log_uniform"]),
    ),
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(mixtures)
def test_dictionary_and_json_round_trip(mixture):
    assert NoiseMixture.parse(mixture.to_dict()) == mixture
    assert NoiseMixture.parse(json.dumps(mixture.to_dict())) == mixture
    assert NoiseMixture.parse(mixture) is mixture


@pytest.mark.parametrize("value", [None, "clean", " None ", "null", ""])
def test_no_noise(value):
    assert NoiseMixture.parse(value) is None


@pytest.mark.parametrize(
    ("value", "sigmas"),
    [
        (0.5, (0.5,)),
        (1, (1.0,)),
        ("0.5", (0.5,)),
        ([0.25, 1], (0.25, 1.0)),
        ("[0.25, 1]", (0.25, 1.0)),
        ({"sigmas": 0.5}, (0.5,)),
        ('{"sigmas": [0.5]}', (0.5,)),
    ],
)
def test_sigmas_alone_are_a_mixture_without_clean_images(value, sigmas):
    assert NoiseMixture.parse(value) == NoiseMixture(sigmas=sigmas, clean=0.0, distribution="list")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigmas": ()}, "`sigmas` must be a non-empty list of noise levels >= 0"),
        ({"sigmas": (0.5, -0.1)}, "`sigmas` must be a non-empty list of noise levels >= 0"),
        ({"sigmas": (float("nan"),)}, "`sigmas` must be a non-empty list of noise levels >= 0"),
        ({"sigmas": (float("inf"),)}, "`sigmas` must be a non-empty list of noise levels >= 0"),
        ({"sigmas": (0.5,), "clean": 1.5}, r"`clean` must be a share in \[0, 1\], got 1.5"),
        ({"sigmas": (0.5,), "clean": float("nan")}, r"`clean` must be a share in \[0, 1\], got nan"),
        ({"sigmas": (0.5,), "distribution": "normal"}, "'list', 'uniform' or 'log_uniform', got 'normal'"),
        ({"sigmas": (0.5,), "distribution": "uniform"}, r"must be \(lowest, highest\) with distribution 'uniform'"),
        ({"sigmas": (1.0, 0.5), "distribution": "uniform"}, r"must be \(lowest, highest\)"),
        ({"sigmas": (0.1, 0.2, 0.3), "distribution": "log_uniform"}, r"must be \(lowest, highest\)"),
        ({"sigmas": (0.0, 1.0), "distribution": "log_uniform"}, "log-uniform sigma needs a positive lowest value"),
    ],
)
def test_mixtures_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NoiseMixture(**arguments)


@pytest.mark.parametrize("sigmas", [0.5, None, "half", ("half",)])
def test_sigmas_that_are_no_numbers_are_refused(sigmas):
    with pytest.raises((TypeError, ValueError), match="`sigmas` must be a non-empty list of noise levels"):
        NoiseMixture(sigmas=sigmas)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("half", "must be 'clean', a sigma, or JSON such as"),
        ("0.5,1.0", "must be 'clean', a sigma, or JSON such as"),
        ({"sigma": 0.5}, r"keys 'sigmas' \(required\), 'clean' and 'distribution', got \['sigma'\]"),
        ({"sigmas": 0.5, "share": 0.5}, r"got \['share', 'sigmas'\]"),
        ({"clean": 0.5}, r"got \['clean'\]"),
        (True, "cannot be read from bool True"),
        ("true", "cannot be read from bool True"),
        (object, "cannot be read from type"),
        ('"half"', "noise mixture"),
        (["half"], "noise levels"),
        ({"sigmas": "half"}, "noise levels"),
        ({"sigmas": True}, "noise levels"),
    ],
)
def test_what_is_no_mixture_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        NoiseMixture.parse(value)


def test_shares_of_a_list_are_as_stated():
    count = 40_000
    mixture = NoiseMixture(sigmas=(0.25, 0.5, 1.0), clean=0.4)
    sigmas = mixture.sample_sigmas(count, generator(1))
    assert set(sigmas.tolist()) == {0.0, 0.25, 0.5, 1.0}
    for sigma, share in [(0.0, 0.4), (0.25, 0.2), (0.5, 0.2), (1.0, 0.2)]:
        hits = int((sigmas == sigma).sum())
        assert stats.binomtest(hits, count, share).pvalue > 1e-3


@pytest.mark.parametrize(
    ("kind", "law"),
    [("uniform", stats.uniform(0.1, 0.9)), ("log_uniform", stats.loguniform(0.1, 1.0))],
)
def test_law_of_random_sigmas(kind, law):
    mixture = NoiseMixture(sigmas=(0.1, 1.0), clean=0.25, distribution=kind)
    sigmas = mixture.sample_sigmas(20_000, generator(2)).double()
    noisy = sigmas[sigmas > 0].numpy()
    assert stats.binomtest(len(noisy), 20_000, 0.75).pvalue > 1e-3
    assert stats.kstest(noisy, law.cdf).pvalue > 1e-3
    assert noisy.min() >= 0.1 - 1e-7
    assert noisy.max() <= 1.0 + 1e-6


@given(mixtures)
def test_mean_sigma_is_the_mean_of_many(mixture):
    sigmas = mixture.sample_sigmas(20_000, generator(3)).double()
    low, high = mixture.sigmas[0], mixture.sigmas[-1]
    mean = sum(mixture.sigmas) / len(mixture.sigmas)
    if mixture.distribution == "log_uniform" and low < high:
        mean = (high - low) / math.log(high / low)
    noisy = 1.0 - mixture.clean
    # Five standard errors at most, and ten images, where hardly any is noisy.
    error = max(mixture.sigmas) * (5 * (noisy / 20_000) ** 0.5 + 10 / 20_000) + 1e-6
    assert float(sigmas.mean()) == pytest.approx(noisy * mean, abs=error)


def test_clean_images_are_untouched_and_the_others_get_their_sigma():
    pixels = torch.rand(400, 3, 8, 8, generator=generator(4))
    before = pixels.clone()
    noisy, sigmas = NoiseMixture(sigmas=(0.25, 1.0), clean=0.5).add(pixels, generator(5))
    clean = sigmas == 0
    assert 150 < int(clean.sum()) < 250
    assert torch.equal(noisy[clean].view(torch.int32), before[clean].view(torch.int32))
    assert torch.equal(pixels, before)
    for sigma in (0.25, 1.0):
        draws = ((noisy - before)[sigmas == sigma] / sigma).double().flatten().numpy()
        assert stats.kstest(draws, stats.norm.cdf).pvalue > 1e-3
    assert noisy.min() < -0.5, "noise must not be clamped"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_noise_is_float32_whatever_the_pixels_are(dtype):
    pixels = torch.zeros(64, 3, 8, 8, dtype=dtype)
    noisy, sigmas = NoiseMixture(sigmas=(1.0,)).add(pixels, generator(6))
    assert (noisy.dtype, sigmas.dtype) == (torch.float32, torch.float32)
    # Half precision would leave at most 2 ** 11 values in a binade; float32 noise hardly ever repeats a value.
    assert len(noisy.unique()) > 0.99 * noisy.numel()
    assert torch.equal(noisy, NoiseMixture(sigmas=(1.0,)).add(torch.zeros(64, 3, 8, 8), generator(6))[0])


def test_the_generator_alone_decides():
    pixels = torch.rand(8, 3, 4, 4, generator=generator(7))
    mixture = NoiseMixture(sigmas=(0.1, 1.0), clean=0.5, distribution="uniform")
    first, again, other = (mixture.add(pixels, generator(seed))[0] for seed in (8, 8, 9))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_noise_of_two_mixtures_differs_in_scale_only():
    pixels = torch.zeros(16, 1, 4, 4)
    half, _ = NoiseMixture(sigmas=(0.5,)).add(pixels, generator(10))
    whole, _ = NoiseMixture(sigmas=(1.0,)).add(pixels, generator(10))
    assert torch.equal(2 * half, whole)


def test_memory_format_is_kept():
    pixels = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    noisy, _ = NoiseMixture(sigmas=(0.5,)).add(pixels, generator(11))
    assert noisy.is_contiguous(memory_format=torch.channels_last)


def test_no_image_has_no_sigma():
    assert np.asarray(NoiseMixture(sigmas=(0.5,)).sample_sigmas(0, generator(12))).shape == (0,)

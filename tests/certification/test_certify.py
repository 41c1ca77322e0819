from __future__ import annotations

import dataclasses

import pytest
import torch
from classifiers import Constant, Linear, Ranges, Watched, coin, random_images
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_smoothing.certification import Draws, FixedRule, certify, count_votes, predict
from hf_smoothing.certification.rounds import vote_in_rounds
from hf_smoothing.certification.rules import Votes
from hf_smoothing.noise import GaussianStream
from hf_smoothing.statistics import ABSTAIN, max_radius


def timeless(certificates):
    return [dataclasses.replace(certificate, seconds=0.0) for certificate in certificates]


# --- Slow twins: the pseudocode of arXiv 1902.02918, section 3.2, one draw at a time ----------------------------------


def sample_under_noise(f, x, draws, sigma, seed, image) -> list[int]:
    counts = None
    for j in draws:
        epsilon = torch.empty(1, *x.shape)
        GaussianStream(seed, tuple(x.shape)).fill(epsilon, image, j)
        logits = f(x[None] + sigma * epsilon)[0]
        counts = counts or [0] * len(logits)
        counts[int(logits.argmax())] += 1
    return counts


def slow_certify(f, x, sigma, n0, n, alpha, seed, image):
    counts0 = sample_under_noise(f, x, range(n0), sigma, seed, image)
    c_hat = counts0.index(max(counts0))
    counts = sample_under_noise(f, x, range(n0, n0 + n), sigma, seed, image)
    k = counts[c_hat]
    p_lower = stats.beta.ppf(alpha, k, n - k + 1) if k > 0 else 0.0
    if p_lower > 0.5:
        return c_hat, sigma * stats.norm.ppf(p_lower), (tuple(counts0), tuple(counts))
    return ABSTAIN, 0.0, (tuple(counts0), tuple(counts))


def slow_predict(f, x, sigma, n, alpha, seed, image):
    counts = sample_under_noise(f, x, range(n), sigma, seed, image)
    n_a, n_b = sorted(counts, reverse=True)[:2]
    if stats.binomtest(n_a, n_a + n_b, 0.5).pvalue <= alpha:
        return counts.index(n_a), tuple(counts)
    return ABSTAIN, tuple(counts)


cases = st.fixed_dictionaries(
    {
        "sigma": st.sampled_from([0.1, 0.5, 1.0]),
        "alpha": st.sampled_from([0.05, 0.2]),
        "n": st.integers(6, 40),
        "seed": st.integers(0, 2**40),
        "batch_size": st.integers(1, 50),
    }
)
classifiers = st.sampled_from([Linear(), Linear(seed=1), Ranges(3), Ranges(5), Constant(), coin])


@given(classifiers, cases, st.integers(1, 12), st.integers(0, 100))
def test_certify_equals_the_pseudocode(classifier, case, n0, seed):
    images = random_images(2, seed=seed)
    made = certify(classifier, images, n0=n0, indices=[5, 3], **case)
    case.pop("batch_size")
    for image, index, certificate in zip(images, (5, 3), made, strict=True):
        prediction, radius, looks = slow_certify(classifier, image, n0=n0, image=index, **case)
        assert (certificate.index, certificate.prediction, certificate.looks) == (index, prediction, looks)
        assert certificate.radius == pytest.approx(radius, rel=1e-10)
        assert certificate.draws == n0 + case["n"]
        assert certificate.abstained == (prediction == ABSTAIN)


@given(classifiers, cases, st.integers(0, 100))
def test_predict_equals_the_pseudocode(classifier, case, seed):
    images = random_images(2, seed=seed)
    made = predict(classifier, images, **case)
    case.pop("batch_size")
    for index, (image, answer) in enumerate(zip(images, made, strict=True)):
        assert (answer.prediction, answer.counts) == slow_predict(classifier, image, image=index, **case)
        assert answer.alpha == case["alpha"]


# --- Known answers ----------------------------------------------------------------------------------------------------


def test_certified_radius_of_a_linear_classifier_is_false_at_most_alpha_of_the_time():
    classifier, sigma, alpha, count = Linear(), 0.5, 0.05, 600
    distances = torch.linspace(-0.8, 0.8, count)
    # Around middle grey, where the pixels of all of these stay within [0, 1].
    images = torch.stack([classifier.image_at(float(d)) for d in distances])
    made = certify(classifier, images, sigma=sigma, n0=20, n=200, alpha=alpha, seed=1)
    false = sum(
        not c.abstained and (c.prediction != classifier.label(x) or c.radius > classifier.exact_radius(x))
        for c, x in zip(made, images, strict=True)
    )
    assert stats.binomtest(false, count, alpha, alternative="greater").pvalue > 1e-3
    # The same count finds out a radius made from the observed share, without a bound.
    naive = sum(
        sigma * stats.norm.ppf(max(c.looks[1]) / 200) > classifier.exact_radius(x)
        for c, x in zip(made, images, strict=True)
    )
    assert stats.binomtest(naive, count, alpha, alternative="greater").pvalue < 1e-3


@pytest.mark.parametrize("distance", [-0.8, 0.2, 0.5])
def test_certified_radius_of_a_linear_classifier_is_nearly_exact_with_many_draws(distance):
    classifier, sigma, n, alpha = Linear(), 0.5, 50_000, 0.001
    image = classifier.image_at(distance)
    assert classifier.exact_radius(image) == pytest.approx(abs(distance), abs=1e-5)
    (made,) = certify(classifier, image[None], sigma=sigma, n=n, alpha=alpha, batch_size=1000, seed=0)
    assert made.prediction == (distance > 0)
    # The bound that goes with an unlucky count, one that only one run in a thousand falls below.
    k = stats.binom.ppf(1e-3, n, stats.norm.cdf(abs(distance) / sigma))
    assert sigma * stats.norm.ppf(stats.beta.ppf(alpha, k, n - k + 1)) <= made.radius <= abs(distance)


@pytest.mark.parametrize(("n", "alpha", "sigma"), [(10, 0.001, 0.25), (100, 0.001, 1.0), (1000, 0.05, 0.5)])
def test_constant_classifier_meets_the_ceiling(n, alpha, sigma):
    (made,) = certify(Constant(label=2), random_images(1), sigma=sigma, n0=1, n=n, alpha=alpha)
    assert made.prediction == 2
    assert made.radius == float(max_radius(n, alpha, sigma))
    assert made.looks == ((0, 0, 1), (0, 0, n))


def test_coin_abstains():
    images = torch.full((40, 1, 2, 2), 0.5)
    for made in certify(coin, images, sigma=0.5, n=400, seed=0):
        assert (made.prediction, made.radius, made.abstained) == (ABSTAIN, 0.0, True)
    assert {made.prediction for made in predict(coin, images, sigma=0.5, n=400, seed=0)} == {ABSTAIN}


def test_predict_answers_wrongly_at_most_alpha_of_the_time_on_a_coin():
    alpha, count = 0.1, 1000
    answers = predict(coin, torch.full((count, 1, 1, 1), 0.5), sigma=0.5, n=60, alpha=alpha, seed=3)
    answered = sum(answer.prediction != ABSTAIN for answer in answers)
    assert stats.binomtest(answered, count, alpha, alternative="greater").pvalue > 1e-3
    assert answered > 0


# --- What the result depends on, and what it does not -----------------------------------------------------------------

SETTING = {"sigma": 0.5, "n0": 10, "n": 60, "seed": 4}


@pytest.mark.parametrize("batch_size", [7, 64])
def test_batch_size_does_not_matter(batch_size):
    images = random_images(3)
    one = timeless(certify(Ranges(), images, batch_size=1, **SETTING))
    assert timeless(certify(Ranges(), images, batch_size=batch_size, **SETTING)) == one


def test_company_and_order_do_not_matter():
    images = random_images(4)
    together = timeless(certify(Ranges(), images, indices=[7, 1, 9, 0], **SETTING))
    backwards = timeless(certify(Ranges(), images.flip(0), indices=[0, 9, 1, 7], **SETTING))
    alone = [
        timeless(certify(Ranges(), images[i : i + 1], indices=[7, 1, 9, 0][i : i + 1], **SETTING))[0] for i in range(4)
    ]
    assert together == backwards[::-1] == alone


def test_bytes_and_their_floats_are_the_same_image():
    images = (random_images(2) * 255).to(torch.uint8)
    assert timeless(certify(Ranges(), images, **SETTING)) == timeless(certify(Ranges(), images / 255, **SETTING))


def test_selection_and_estimation_use_different_draws():
    images = random_images(2)
    short, long = (certify(Ranges(), images, **{**SETTING, "n": n}) for n in (20, 50))
    for index, (a, b) in enumerate(zip(short, long, strict=True)):
        assert a.looks[0] == b.looks[0]
        estimation = count_votes(
            Ranges(),
            images,
            [Draws(index, index, 10, 60)],
            sigma=0.5,
            stream=GaussianStream(4, (1, 4, 4)),
            batch_size=9,
        )
        assert list(b.looks[1]) == estimation[0].tolist()


def test_without_a_seed_every_call_draws_afresh():
    for call in (certify, predict):
        seen = []
        for seed in (None, None, 3, 3):
            watched = Watched(Ranges())
            call(watched, random_images(1), sigma=0.5, n=20, seed=seed)
            seen.append(watched.batches[0])
        assert not torch.equal(seen[0], seen[1])
        assert torch.equal(seen[2], seen[3])


@given(st.integers(1, 6), st.integers(1, 40), st.integers(10, 80), st.integers(1, 5))
def test_no_batch_is_larger_than_asked_and_none_but_the_last_is_smaller(count, batch_size, n, window):
    watched = Watched(Ranges())
    rule = FixedRule(sigma=0.5, n0=5, n=n)
    pending = ((Votes(i), image) for i, image in enumerate(random_images(count)))
    finished, drawn = 0, 0
    for touched in vote_in_rounds(watched, pending, rule, seed=0, batch_size=batch_size, window=window):
        sizes = watched.sizes
        assert max(sizes) <= batch_size
        assert all(size == batch_size for size in sizes[:-1])
        drawn += sum(sizes)
        watched.batches.clear()
        finished += sum(not rule.segments(votes.drawn) for votes in touched)
    assert finished == count
    assert drawn == count * (5 + n)


def test_whole_call_is_packed_into_full_batches():
    watched = Watched(Ranges())
    predict(watched, random_images(5), sigma=0.5, n=33, batch_size=20)
    assert watched.sizes == [20] * (5 * 33 // 20) + [5 * 33 % 20]


def test_no_more_images_are_read_than_the_window_holds():
    rule, window, read = FixedRule(sigma=0.5, n0=5, n=300), 3, []

    def pending():
        for index, image in enumerate(random_images(12)):
            read.append(index)
            yield Votes(index), image

    finished = 0
    for touched in vote_in_rounds(Ranges(), pending(), rule, seed=0, batch_size=8, window=window):
        assert len(read) - finished <= window
        finished += sum(not rule.segments(votes.drawn) for votes in touched)
    assert finished == 12

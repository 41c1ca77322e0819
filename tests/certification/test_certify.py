"""`certify` and `predict` equal the paper's pseudocode, meet known answers, and depend on nothing but seed, index and image."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_smoothing.certification import Draws, Execution, certify, count_votes, predict
from hf_smoothing.noise import GaussianStream
from hf_smoothing.statistics import ABSTAIN, max_radius
from tests.support.certificates import noisy_copy, timeless
from tests.support.classifiers import Constant, Linear, Ranges, Watched, bytes_of, coin, random_images


# Float images on purpose; where that is no purpose, the library warns.
pytestmark = pytest.mark.filterwarnings("ignore:noise_kind='auto' draws float32 noise")


# --- Slow twins: the pseudocode of arXiv 1902.02918, section 3.2, one draw at a time ----------------------------------


def sample_under_noise(f, x, draws, sigma, noise, seed, image) -> list[int]:
    counts = None
    for j in draws:
        logits = f(noisy_copy(x, sigma, noise, seed, image, j))[0]
        counts = counts or [0] * len(logits)
        counts[int(logits.argmax())] += 1
    return counts


def slow_certify(f, x, sigma, n0, n, alpha, noise_kind, seed, image):
    counts0 = sample_under_noise(f, x, range(n0), sigma, noise_kind, seed, image)
    c_hat = counts0.index(max(counts0))
    counts = sample_under_noise(f, x, range(n0, n0 + n), sigma, noise_kind, seed, image)
    k = counts[c_hat]
    p_lower = stats.beta.ppf(alpha, k, n - k + 1) if k > 0 else 0.0
    if p_lower > 0.5:
        return c_hat, sigma * stats.norm.ppf(p_lower), (tuple(counts0), tuple(counts))
    return ABSTAIN, 0.0, (tuple(counts0), tuple(counts))


def slow_predict(f, x, sigma, n, alpha, noise_kind, seed, image):
    counts = sample_under_noise(f, x, range(n), sigma, noise_kind, seed, image)
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
        "copies_per_batch": st.integers(1, 50),
        "noise_kind": st.sampled_from(["gaussian", "grid"]),
    }
)
# Eight-bit and other images: grid noise fits only the former, Gaussian noise all of them.
kinds = st.booleans()


def images_for(noise: str, eight_bit: bool, seed: int) -> torch.Tensor:
    images = random_images(2, seed=seed)
    return bytes_of(images) / 255 if eight_bit or noise == "grid" else images


classifiers = st.sampled_from([Linear(), Linear(seed=1), Ranges(3), Ranges(5), Constant(), coin])


@given(classifiers, cases, st.integers(1, 12), st.integers(0, 100), kinds)
def test_certify_equals_the_pseudocode(classifier, case, n0, seed, eight_bit):
    images = images_for(case["noise_kind"], eight_bit, seed)
    made = certify(classifier, images, mode="fixed", n0=n0, indices=[5, 3], **case)
    case.pop("copies_per_batch")
    for image, index, certificate in zip(images, (5, 3), made, strict=True):
        prediction, radius, looks = slow_certify(classifier, image, n0=n0, image=index, **case)
        assert (certificate.index, certificate.prediction, certificate.counts_by_look) == (index, prediction, looks)
        if case["noise_kind"] == "grid":
            # The exact law is missed by less than 1e-10, of which the certificate takes account.
            assert certificate.radius <= radius
            assert certificate.radius == pytest.approx(radius, rel=1e-8, abs=1e-8)
        else:
            # The bound is rounded down by a share below 1e-9.
            assert certificate.radius <= radius * (1 + 1e-9)
            assert certificate.radius == pytest.approx(radius, rel=1e-9, abs=1e-9)
        assert certificate.draws == n0 + case["n"]
        assert certificate.abstained == (prediction == ABSTAIN)


@given(classifiers, cases, st.integers(0, 100), kinds)
def test_predict_equals_the_pseudocode(classifier, case, seed, eight_bit):
    images = images_for(case["noise_kind"], eight_bit, seed)
    made = predict(classifier, images, mode="fixed", **case)
    case.pop("copies_per_batch")
    for index, (image, answer) in enumerate(zip(images, made, strict=True)):
        assert (answer.prediction, answer.counts) == slow_predict(classifier, image, image=index, **case)
        assert (answer.alpha, answer.draws) == (case["alpha"], case["n"])
        n_a, n_b = sorted(answer.counts, reverse=True)[:2]
        p_value = stats.binomtest(n_a, n_a + n_b, 0.5).pvalue if n_a else 1.0
        assert answer.p_value == pytest.approx(p_value, rel=1e-9)


# --- Known answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode",
    [{"mode": "fixed"}, {}, {"mode": "curve"}, {"spending": True}, {"n0": 0}],
    ids=["fixed", "default", "curve", "spending", "no selection"],
)
def test_certified_radius_of_a_linear_classifier_is_false_at_most_alpha_of_the_time(mode):
    classifier, sigma, alpha, count = Linear(), 0.5, 0.05, 600
    distances = torch.linspace(-0.8, 0.8, count)
    # Around middle grey, where the pixels of all of these stay within [0, 1].
    images = torch.stack([classifier.image_at(float(d)) for d in distances])
    made = certify(classifier, images, **{"sigma": sigma, "n0": 20, "n": 200, "alpha": alpha, "seed": 1, **mode})
    assert sum(not c.abstained for c in made) > count / 2
    assert all(not c.certified_targets or max(c.certified_targets) <= c.radius for c in made)
    false = sum(
        not c.abstained and (c.prediction != classifier.label(x) or c.radius > classifier.exact_radius(x))
        for c, x in zip(made, images, strict=True)
    )
    assert stats.binomtest(false, count, alpha, alternative="greater").pvalue > 1e-3
    if mode != {"mode": "fixed"}:
        return
    # The same count finds out a radius made from the observed share, without a bound.
    naive = sum(
        sigma * stats.norm.ppf(max(c.counts_by_look[1]) / 200) > classifier.exact_radius(x)
        for c, x in zip(made, images, strict=True)
    )
    assert stats.binomtest(naive, count, alpha, alternative="greater").pvalue < 1e-3


@pytest.mark.parametrize("distance", [-0.8, 0.2, 0.5])
def test_certified_radius_of_a_linear_classifier_is_nearly_exact_with_many_draws(distance):
    classifier, sigma, n, alpha = Linear(), 0.5, 50_000, 0.001
    image = classifier.image_at(distance)
    assert classifier.exact_radius(image) == pytest.approx(abs(distance), abs=1e-5)
    (made,) = certify(
        classifier, image[None], mode="fixed", sigma=sigma, n=n, alpha=alpha, copies_per_batch=1000, seed=0
    )
    assert made.prediction == (distance > 0)
    # The bound that goes with an unlucky count, one that only one run in a thousand falls below.
    k = stats.binom.ppf(1e-3, n, stats.norm.cdf(abs(distance) / sigma))
    assert sigma * stats.norm.ppf(stats.beta.ppf(alpha, k, n - k + 1)) <= made.radius <= abs(distance)


@pytest.mark.parametrize(("n", "alpha", "sigma"), [(10, 0.001, 0.25), (100, 0.001, 1.0), (1000, 0.05, 0.5)])
def test_constant_classifier_meets_the_ceiling(n, alpha, sigma):
    (made,) = certify(Constant(label=2), random_images(1), mode="fixed", sigma=sigma, n0=1, n=n, alpha=alpha)
    assert made.prediction == 2
    assert made.radius == float(max_radius(n, alpha, sigma))
    assert made.counts_by_look == ((0, 0, 1), (0, 0, n))


@pytest.mark.parametrize("mode", [{}, {"mode": "fixed"}], ids=["default", "fixed"])
def test_coin_abstains(mode):
    images = torch.full((40, 1, 2, 2), 0.5)
    for made in certify(coin, images, sigma=0.5, n=400, seed=0, **mode):
        assert (made.prediction, made.radius, made.abstained) == (ABSTAIN, 0.0, True)
    assert {made.prediction for made in predict(coin, images, sigma=0.5, n=400, seed=0, **mode)} == {ABSTAIN}


@pytest.mark.parametrize("mode", [{}, {"mode": "fixed"}], ids=["default", "fixed"])
def test_predict_answers_wrongly_at_most_alpha_of_the_time_on_a_coin(mode):
    alpha, count = 0.1, 1000
    answers = predict(coin, torch.full((count, 1, 1, 1), 0.5), sigma=0.5, n=60, alpha=alpha, seed=3, **mode)
    answered = sum(answer.prediction != ABSTAIN for answer in answers)
    assert stats.binomtest(answered, count, alpha, alternative="greater").pvalue > 1e-3
    assert answered > 0


# --- What the result depends on, and what it does not -----------------------------------------------------------------


SETTING = {"mode": "fixed", "sigma": 0.5, "n0": 10, "n": 60, "seed": 4}
SEQUENTIAL = {**SETTING, "mode": "targets", "targets": [0.0, 0.25, 0.5], "n": 200}


@pytest.fixture(params=["fixed", "targets"])
def ask(request):
    """Certify with either rule: images, other arguments -> certificates, times excepted."""
    classifier, setting = (Ranges(), SETTING) if request.param == "fixed" else (Linear(), SEQUENTIAL)
    return lambda images, **arguments: timeless(certify(classifier, images, **setting, **arguments))


@pytest.fixture(params=["floats", "bytes"])
def four(request):
    """Images that get Gaussian noise, or grid noise."""
    return random_images(4) if request.param == "floats" else bytes_of(random_images(4))


@pytest.mark.parametrize("batch_size", [7, 64])
def test_batch_size_does_not_matter(ask, four, batch_size):
    assert ask(four, copies_per_batch=batch_size) == ask(four, copies_per_batch=1)


def test_company_and_order_do_not_matter(ask, four):
    together = ask(four, indices=[7, 1, 9, 0])
    backwards = ask(four.flip(0), indices=[0, 9, 1, 7])
    alone = [ask(four[i : i + 1], indices=[7, 1, 9, 0][i : i + 1])[0] for i in range(4)]
    assert together == backwards[::-1] == alone


@pytest.mark.parametrize("noise", ["auto", "grid", "gaussian"])
def test_bytes_and_their_floats_are_the_same_image(ask, noise):
    images = bytes_of(random_images(2))
    assert ask(images, noise_kind=noise) == ask(images / 255, noise_kind=noise)


def test_the_two_settings_differ_in_when_they_stop(four):
    assert {certificate.draws for certificate in certify(Ranges(), four, **SETTING)} == {70}
    assert len({certificate.draws for certificate in certify(Linear(), four, **SEQUENTIAL)}) > 1


def test_selection_and_estimation_use_different_draws():
    images = random_images(2)
    short, long = (certify(Ranges(), images, **{**SETTING, "n": n}) for n in (20, 50))
    for index, (a, b) in enumerate(zip(short, long, strict=True)):
        assert a.counts_by_look[0] == b.counts_by_look[0]
        estimation = count_votes(
            Ranges(),
            images,
            [Draws(index, index, 10, 60)],
            stream=GaussianStream(4, (1, 4, 4), sigma=0.5),
            execution=Execution(copies_per_batch=9),
        )
        assert list(b.counts_by_look[1]) == estimation[0].tolist()


@pytest.mark.parametrize("mode", [{}, {"mode": "fixed"}], ids=["default", "fixed"])
@pytest.mark.parametrize("call", [certify, predict])
@pytest.mark.parametrize("images", [random_images(1), bytes_of(random_images(1))], ids=["floats", "bytes"])
def test_without_a_seed_every_call_draws_afresh(call, mode, images):
    seen = []
    for seed in (None, None, 3, 3):
        watched = Watched(Ranges())
        call(watched, images, sigma=0.5, n=20, seed=seed, **mode)
        seen.append(watched.batches[0])
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], seen[3])

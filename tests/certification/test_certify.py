from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_smoothing.certification import (
    Draws,
    Execution,
    FixedRule,
    SequentialRule,
    Votes,
    certify,
    certify_dataset,
    count_votes,
    predict,
    vote_in_rounds,
)
from hf_smoothing.noise import GaussianStream, GridStream
from hf_smoothing.statistics import ABSTAIN, max_radius
from tests.support.classifiers import Constant, Linear, Ranges, Watched, coin, random_images


# Float images on purpose; where that is no purpose, the library warns.
pytestmark = pytest.mark.filterwarnings("ignore:noise_kind='auto' draws float32 noise")


def timeless(certificates):
    return [dataclasses.replace(certificate, seconds=0.0) for certificate in certificates]


def bytes_of(images):
    return (images * 255).to(torch.uint8)


# --- Slow twins: the pseudocode of arXiv 1902.02918, section 3.2, one draw at a time ----------------------------------


def noisy_copy(x, sigma, noise, seed, image, j):
    drawn = torch.empty(1, *x.shape)
    if noise == "gaussian":
        GaussianStream(seed, tuple(x.shape), sigma=sigma).draw(drawn, image, j)
        return x[None] + sigma * drawn
    GridStream(seed, tuple(x.shape), sigma=sigma).draw(drawn, image, j)
    return ((255 * x[None]).round() + drawn) / 255


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
            assert certificate.radius == pytest.approx(radius, rel=1e-10)
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


@pytest.mark.parametrize("call", [certify, predict])
def test_eight_bit_images_get_grid_noise_and_others_gaussian_noise_unless_told(call):
    images = random_images(2)
    for pixels, fitting in ((images, "gaussian"), (bytes_of(images) / 255, "grid"), (bytes_of(images), "grid")):
        for noise in (
            {},
            {"noise_kind": "auto"},
            {"noise_kind": "gaussian"},
            *([{"noise_kind": "grid"}] if fitting == "grid" else []),
        ):
            kind = {"auto": fitting}.get(noise.get("noise_kind", "auto"), noise.get("noise_kind"))
            watched = Watched(Ranges())
            call(watched, pixels, mode="fixed", sigma=0.5, n=20, seed=4, indices=[8, 9], copies_per_batch=1, **noise)
            image = (pixels / 255 if pixels.dtype == torch.uint8 else pixels)[0]
            for j in range(20):
                assert torch.equal(watched.batches[j], noisy_copy(image, 0.5, kind, 4, 8, j))


EIGHT_BIT = bytes_of(random_images(2, shape=(3, 8, 8)))
THREATS = {"grid": "8-bit at the certified resolution", "gaussian": "floating-point rounding is neglected"}


@pytest.mark.filterwarnings("error:noise_kind='auto'")
@pytest.mark.parametrize(
    "images",
    [
        EIGHT_BIT / 255,
        (EIGHT_BIT.double() / 255),
        torch.from_numpy((EIGHT_BIT.numpy() / 255.0).astype("float32")),
        EIGHT_BIT * torch.tensor(1 / 255),
        (EIGHT_BIT / 255).half(),
        (EIGHT_BIT / 255).bfloat16(),
        EIGHT_BIT.half() / 255,
        EIGHT_BIT.bfloat16() / 255,
    ],
    ids=["float32", "float64", "numpy", "times 1/255", "half", "bfloat16", "divided in half", "divided in bfloat16"],
)
def test_eight_bit_images_are_known_in_any_dtype(images):
    """And give the certificates of the same images as bytes."""
    options = {"sigma": 0.5, "n": 100, "seed": 1}
    found, expected = certify(Ranges(), images, **options), certify(Ranges(), EIGHT_BIT, **options)
    assert timeless(found) == timeless(expected)
    assert {c.noise_kind for c in found} == {"grid"} and all(THREATS["grid"] in c.threat_model for c in found)
    answers = predict(Ranges(), images, sigma=0.5, n=100, seed=1)
    assert {a.noise_kind for a in answers} == {"grid"} and all(THREATS["grid"] in a.threat_model for a in answers)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (random_images(1), "these images lie off the 1/255 grid"),
        (random_images(1).half(), "these images lie off the 1/255 grid"),
        (EIGHT_BIT[:1] / 256, "on multiples of 1/256, not of 1/255: divide 0..255 by 255"),
        (EIGHT_BIT[:1].half() * torch.tensor(1 / 255).half(), "near, but off the 1/255 grid"),
        (torch.nn.functional.interpolate(EIGHT_BIT[:1] / 255, size=(5, 5), mode="bilinear"), "off the 1/255 grid"),
    ],
    ids=["floats", "half", "1/256", "nearly", "resized"],
)
@pytest.mark.parametrize("mode", ["fixed", None])
def test_falling_back_to_float_noise_is_a_warning_with_the_cure(images, words, mode):
    for call, usual in ((certify, "targets"), (predict, "sequential")):
        options = {"sigma": 0.5, "n": 100, "seed": 1, "mode": mode or usual}
        with pytest.warns(
            UserWarning, match=f"noise_kind='auto' draws float32 noise.*{words}.*round.*or pass noise_kind='gaussian'"
        ):
            (found,) = call(Ranges(), images, **options)
        assert found.noise_kind == "gaussian" and THREATS["gaussian"] in found.threat_model
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (told,) = call(Ranges(), images, noise_kind="gaussian", **options)
        assert told.noise_kind == "gaussian"


def test_a_run_names_the_image_that_costs_it_the_grid(tmp_path):
    dataset = [{"pixel_values": image} for image in (EIGHT_BIT[0], EIGHT_BIT[1] / 256, EIGHT_BIT[1] / 255)]
    with pytest.warns(UserWarning, match="image 1 lies on multiples of 1/256"):
        run = certify_dataset(Ranges(), dataset, tmp_path / "run", sigma=0.5, n=100, progress=False)
    assert run.settings["noise_kind"] == "gaussian"
    with pytest.raises(ValueError, match="Grid noise certifies 8-bit images, but image 1 lies on multiples of 1/256"):
        certify_dataset(Ranges(), dataset, tmp_path / "other", sigma=0.5, n=100, noise_kind="grid", progress=False)


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


def gaussian(sigma: float = 0.5) -> GaussianStream:
    return GaussianStream(0, (1, 4, 4), sigma=sigma)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(10, 80), st.integers(1, 5))
def test_no_batch_is_larger_than_asked_and_none_but_the_last_is_smaller(count, batch_size, n, window):
    watched = Watched(Ranges())
    rule = FixedRule(sigma=0.5, n0=5, n=n)
    pending = ((Votes(i), image) for i, image in enumerate(random_images(count)))
    execution = Execution(copies_per_batch=batch_size)
    finished = 0
    for touched in vote_in_rounds(watched, pending, rule, gaussian(), execution=execution, window=window):
        finished += sum(rule.wanted(votes) == votes.drawn for votes in touched)
    # Not only within a round: 8 * window images always fill a batch here, so none but the very last is short.
    assert max(watched.sizes) <= batch_size
    assert all(size == batch_size for size in watched.sizes[:-1])
    assert finished == count
    assert sum(watched.sizes) == count * (5 + n)


@given(st.integers(1, 15), st.integers(1, 40), st.integers(1, 3))
def test_batches_of_a_sequential_rule_are_full_until_the_images_end(count, batch_size, window):
    watched = Watched(Linear())
    rule = SequentialRule(sigma=0.5, targets=(0.0, 0.25), n0=5, n=100)
    images, read = random_images(count), []

    def pending():
        for index, image in enumerate(images):
            read.append(index)
            yield Votes(index), image

    finished, drawn = 0, {}
    execution = Execution(copies_per_batch=batch_size)
    for touched in vote_in_rounds(watched, pending(), rule, gaussian(), execution=execution, window=window):
        short = [size for size in watched.sizes if size != batch_size]
        assert all(size < batch_size for size in short)
        assert len(short) <= (len(read) == count or len(read) - finished == 8 * window)
        watched.batches.clear()
        finished += sum(rule.wanted(votes) == votes.drawn for votes in touched)
        drawn |= {votes.index: votes.drawn for votes in touched}
    assert finished == count
    certificates = certify(Linear(), images, sigma=0.5, targets=(0.0, 0.25), n0=5, n=100, seed=0)
    assert [drawn[index] for index in range(count)] == [certificate.draws for certificate in certificates]


def test_whole_call_is_packed_into_full_batches():
    for call, options in ((predict, {"n": 33}), (certify, {"n0": 3, "n": 30})):
        watched = Watched(Ranges())
        call(watched, random_images(5), mode="fixed", sigma=0.5, copies_per_batch=20, **options)
        assert watched.sizes == [20] * (5 * 33 // 20) + [5 * 33 % 20]


@pytest.mark.parametrize(
    ("n", "batch_size", "most"),
    [
        (300, 8, 3),  # three images have enough to draw
        (10, 100, 8),  # what is left of one, and seven more
        (10, 1000, 24),  # the limit
    ],
)
def test_no_more_images_are_read_than_fill_a_round(n, batch_size, most):
    rule, window, count, read = FixedRule(sigma=0.5, n0=5, n=n), 3, 50, []

    def pending():
        for index, image in enumerate(random_images(count)):
            read.append(index)
            yield Votes(index), image

    rounds = vote_in_rounds(
        Ranges(), pending(), rule, gaussian(), execution=Execution(copies_per_batch=batch_size), window=window,
        round_seconds=0.0,  # so that every round is one batch
    )  # fmt: skip
    left = dict.fromkeys(range(count), 5 + n)
    at_hand = []
    for touched in rounds:
        unfinished = [index for index in left if left[index] > 0]
        needed = next(
            (k for k in range(1, len(unfinished) + 1) if sum(left[index] for index in unfinished[:k]) >= batch_size),
            len(unfinished),
        )
        at_hand.append(sum(left[index] > 0 for index in read))
        assert at_hand[-1] == min(max(needed, window), 8 * window, len(unfinished))
        left |= {votes.index: rule.wanted(votes) - votes.drawn for votes in touched}
    assert max(at_hand) == most
    assert set(left.values()) == {0}

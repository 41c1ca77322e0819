"""Cross-entropy and agreement between noisy copies of an image."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_smoothing import NoiseMixture
from hf_smoothing.training import Batch, ObjectiveState
from hf_smoothing.training.objectives import OBJECTIVES, consistency, find_objective
from tests.support.tiny import any_model, data, plain, trainer


CLASSES = 5
APART = 20.0
"""How much brighter each image is than the one before, so that a copy can be distinguished from the copies of others."""
NOISE = NoiseMixture((0.5,))


def images(count, size=4):
    values = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(3))
    return values + APART * torch.arange(count)[:, None, None, None]


def state(noise=NOISE, seed=0, **kwargs):
    return ObjectiveState(noise, torch.Generator().manual_seed(seed), **kwargs)


def image_of(copy):
    """Which of `images` this is a noisy copy of."""
    return round((float(copy.mean()) - 0.5) / APART)


def copies_of(noisy, count):
    """The noisy copies of each image, whatever their order."""
    found = [[] for _ in range(count)]
    for copy in noisy:
        found[image_of(copy)].append(copy)
    return found


def slow_consistency(weight, noisy, labels, copies, divergence_weights, entropy_weight, smoothing):
    """mean_i CE(F_i, y) + lambda mean_i KL(F || F_i) + eta H(F), image by image, copy by copy, class by class, in float64."""
    total = {"cross_entropy": 0.0, "divergence": 0.0, "entropy": 0.0}
    weighted = 0.0
    for own, label, own_weight in zip(copies_of(noisy, len(labels)), labels.tolist(), divergence_weights, strict=True):
        assert len(own) == copies
        softmaxes = []
        for copy in own:
            scores = copy.double().flatten() @ weight
            exponentials = (scores - scores.max().detach()).exp()
            softmaxes.append(exponentials / exponentials.sum())
        mean = sum(softmaxes) / copies
        for softmax in softmaxes:
            for k in range(CLASSES):
                target = (1 - smoothing) * (k == label) + smoothing / CLASSES
                total["cross_entropy"] = total["cross_entropy"] - target * softmax[k].log() / copies
                apart = mean[k] * (mean[k] / softmax[k]).log() / copies
                total["divergence"], weighted = total["divergence"] + apart, weighted + own_weight * apart
        for k in range(CLASSES):
            total["entropy"] = total["entropy"] - mean[k] * mean[k].log()
    parts = {name: value / len(labels) for name, value in total.items()}
    loss = parts["cross_entropy"] + weighted / len(labels) + entropy_weight * parts["entropy"]
    return loss, parts


def random_weight(scale=0.02):
    """Of a linear model; small, since the images are as bright as `APART` makes them."""
    values = scale * torch.randn(48, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return values.requires_grad_()


mixtures = st.builds(
    NoiseMixture,
    st.sampled_from([(0.25,), (0.1, 1.0), (0.0, 0.5)]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from(["list"]),
) | st.sampled_from([NoiseMixture((0.0, 1.0), 0.25, "uniform"), NoiseMixture((0.1, 1.0), 0.5, "log_uniform")])


@settings(max_examples=30)
@given(
    copies=st.integers(2, 4),
    weight=st.sampled_from([0.0, 1.0, 20.0]) | st.floats(0.0, 30.0),
    entropy=st.sampled_from([0.0, 0.5]) | st.floats(0.0, 5.0),
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    noise=mixtures,
    count=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_loss_and_gradient_equal_their_slow_twins(copies, weight, entropy, smoothing, noise, count, seed):
    pixels, labels = images(count), torch.arange(count) % CLASSES
    seen = []
    fast, slow = random_weight(), random_weight()

    def model(x):
        seen.append(x)
        return x.double().flatten(1) @ fast

    loss, logs = consistency(
        model, Batch(pixels, labels), state(noise, seed, label_smoothing=smoothing),
        copies=copies, weight=weight, entropy=entropy,
    )  # fmt: skip
    (noisy,) = seen  # one forward pass
    expected, parts = slow_consistency(slow, noisy, labels, copies, [weight] * count, entropy, smoothing)
    # The weight multiplies the rounding of the divergence, which is float32.
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-5 * max(1.0, weight / 10))
    assert {name: value.item() for name, value in logs.items()} == {
        name: pytest.approx(value.item(), rel=1e-5, abs=1e-6) for name, value in parts.items()
    }
    loss.backward()
    expected.backward()
    torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-4, atol=1e-5 * float(slow.grad.abs().max()) + 1e-9)


@pytest.mark.parametrize("order", [[0.25, 0.5, 1.0], [1.0, 0.5, 0.25], [0.5, 0.25, 1.0]])
@pytest.mark.parametrize("clean", [0.0, 0.4])
def test_each_sigma_may_have_its_own_weight(clean, order):
    noise, weights, count = NoiseMixture(order, clean), {0.0: 2.0, 0.25: 2.0, 0.5: 5.0, 1.0: 10.0}, 14
    sigmas = noise.sample_sigmas(count, torch.Generator().manual_seed(7)).tolist()
    assert len(set(sigmas)) > 2
    seen, fast, slow, labels = [], random_weight(), random_weight(), torch.arange(count) % CLASSES

    def model(x):
        seen.append(x)
        return x.double().flatten(1) @ fast

    loss, _ = consistency(
        model, Batch(images(count), labels), state(noise, 7), weight=[weights[sigma] for sigma in order]
    )
    own = [weights[sigma] for sigma in sigmas]
    expected, _ = slow_consistency(slow, seen[0], labels, 2, own, 0.5, 0.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-4, atol=1e-5 * float(slow.grad.abs().max()))


@pytest.mark.parametrize(
    ("noise", "weight", "message"),
    [
        (NoiseMixture((0.25, 0.5)), [1.0], r"one number for each sigma of the mixture, \[0.25, 0.5\], got \[1.0\]"),
        (NoiseMixture((0.1, 1.0), 0.0, "uniform"), [1.0, 2.0], "which has no list of them"),
        (NoiseMixture((0.25, 0.5)), [1.0, -2.0], "must be >= 0, or a list"),
        (NOISE, -1.0, "must be >= 0, or a list"),
        (NOISE, ["a"], "must be >= 0, or a list"),
    ],
)
def test_weights_that_do_not_fit_the_mixture_are_refused(noise, weight, message):
    with pytest.raises(ValueError, match=message):
        consistency(lambda x: x.flatten(1), Batch(images(2), torch.arange(2)), state(noise), weight=weight)


def test_a_list_of_weights_comes_from_the_arguments():
    assert find_objective("consistency", OBJECTIVES, {"weight": [2.0, 5]}).keywords == {"weight": [2.0, 5]}
    with pytest.raises(ValueError, match="must give a finite number for 'weight'"):
        find_objective("consistency", OBJECTIVES, {"weight": [2.0, "five"]})
    with pytest.raises(ValueError, match="must give a finite number for 'entropy'"):
        find_objective("consistency", OBJECTIVES, {"entropy": [0.5]})


def test_every_part_has_a_gradient_of_its_own():
    """Otherwise the twin above could agree because a part vanishes."""
    gradients = []
    for weight, entropy in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):
        linear = random_weight(0.1)
        loss, _ = consistency(
            lambda x, w=linear: x.double().flatten(1) @ w, Batch(images(4) - 10.0, torch.arange(4)), state(),
            weight=weight, entropy=entropy,
        )  # fmt: skip
        loss.backward()
        gradients.append(linear.grad)
    assert float((gradients[1] - gradients[0]).norm()) > 1e-3
    assert float((gradients[2] - gradients[0]).norm()) > 1e-3


def noise_of_copies(noise, count, copies, size=16, seed=0):
    """What was added to each image: `count` lists of `copies` tensors."""
    pixels, seen = images(count, size), []

    def model(x):
        seen.append(x.clone())
        return x.flatten(1)[:, :CLASSES]

    consistency(model, Batch(pixels, torch.zeros(count, dtype=torch.int64)), state(noise, seed), copies=copies)
    return [[copy - image for copy in own] for own, image in zip(copies_of(seen[0], count), pixels, strict=True)]


def test_copies_share_their_sigma_but_not_their_noise():
    levels = {0.0: 0, 0.1: 0, 1.0: 0}
    drawn = noise_of_copies(NoiseMixture((0.1, 1.0), clean=0.3), count=40, copies=3)
    for own in drawn:
        assert len(own) == 3
        stds = [float(noise.std()) for noise in own]
        (level,) = {min(levels, key=lambda known, std=std: abs(known - std)) for std in stds}
        levels[level] += 1
        assert stds == [pytest.approx(level, rel=0.15, abs=1e-4)] * 3
        if level:
            for first, second in ((0, 1), (0, 2), (1, 2)):
                correlation = torch.corrcoef(torch.stack([own[first].flatten(), own[second].flatten()]))[0, 1]
                assert abs(float(correlation)) < 0.2
    assert min(levels.values()) > 3  # clean images and both sigmas were drawn


def test_other_images_draw_other_noise():
    flat = torch.stack([noise.flatten() for own in noise_of_copies(NOISE, 6, 2) for noise in own])
    assert float(torch.cdist(flat, flat).fill_diagonal_(99.0).min()) > 5.0


def test_the_generator_alone_decides_the_noise():
    first, same, other = (noise_of_copies(NOISE, 2, 2, seed=seed)[0][0] for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.allclose(first, other)


def test_a_constant_model_diverges_from_nothing():
    scores = torch.tensor([1.0, 0.0, -2.0])
    loss, logs = consistency(
        lambda x: scores.expand(len(x), -1), Batch(images(4), torch.tensor([0, 1, 2, 0])), state(),
        copies=4, weight=1e4, entropy=0.5,
    )  # fmt: skip
    p = [math.exp(score) / sum(math.exp(s) for s in scores.tolist()) for score in scores.tolist()]
    entropy = -sum(value * math.log(value) for value in p)
    cross_entropy = -(2 * math.log(p[0]) + math.log(p[1]) + math.log(p[2])) / 4
    assert float(logs["divergence"]) == pytest.approx(0.0, abs=1e-7)
    assert float(logs["entropy"]) == pytest.approx(entropy, rel=1e-5)
    assert float(loss) == pytest.approx(cross_entropy + 0.5 * entropy, rel=1e-3)


def test_two_certain_copies_that_disagree_diverge_by_log_2():
    def model(x):
        logits = torch.full((len(x), CLASSES), -1e4)
        logits[torch.arange(len(x)), (torch.arange(len(x)) >= len(x) // 2).long()] = 1e4
        return logits

    # One image, so that its copies are the two rows in whichever order.
    loss, logs = consistency(model, Batch(images(1), torch.tensor([0])), state())
    assert float(logs["divergence"]) > 1e3  # the mean is far from impossible for the other copy
    assert float(logs["entropy"]) == pytest.approx(math.log(2), rel=1e-4)
    assert math.isfinite(float(loss))


def test_half_precision_logits_are_read_in_float32():
    weight = random_weight().detach()
    batch = Batch(images(4), torch.arange(4))
    exact, _ = consistency(lambda x: (x.double().flatten(1) @ weight).bfloat16().double(), batch, state())
    half, logs = consistency(lambda x: (x.double().flatten(1) @ weight).bfloat16(), batch, state())
    assert half.dtype == torch.float32 and all(value.dtype == torch.float32 for value in logs.values())
    assert float(half) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize("wrong", [{"copies": 1}, {"copies": 0}, {"entropy": -1.0}, {"copies": 1, "weight": -1.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="a whole number of at least 2 copies and an entropy weight >= 0, got"):
        consistency(lambda x: x.flatten(1), Batch(images(2), torch.arange(2)), state(), **wrong)


def test_without_noise_it_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no noise. Set `noise`.*objective='mixture'"):
        consistency(lambda x: x.flatten(1), Batch(images(2), torch.arange(2)), state(None))
    with pytest.raises(ValueError, match="there is no noise"):
        trainer(plain(), tmp_path, objective="consistency").train()


@pytest.mark.parametrize("noise", [NOISE, NoiseMixture((0.5,), clean=1.0)])
def test_the_clean_pixels_are_not_changed_in_place(noise):
    pixels = images(4)
    before = pixels.clone()
    # A model that writes into its input must not reach the batch either.
    consistency(lambda x: x.mul_(0.01).flatten(1), Batch(pixels, torch.arange(4)), state(noise))
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("kind", ["resnet", "smoothed-resnet"])
def test_training_with_it(kind, tmp_path):
    model, counts = any_model(kind), []
    backbone = model.base_network if "-" in kind else model
    backbone.register_forward_pre_hook(
        lambda _m, _a, kwargs: counts.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    loop = trainer(
        model, tmp_path, noise='{"sigmas": [0.25, 0.5], "clean": 0.2}', objective_args={"copies": 3, "weight": 5.0},
        label_smoothing_factor=0.1, logging_strategy="steps", logging_steps=2, max_steps=4, eval_dataset=data(4),
        gradient_accumulation_steps=2, objective="consistency",
    )  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loop.train()
    assert counts == [12] * 8
    assert not all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    logged = [entry for entry in loop.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in logged] == [2, 4]
    for entry in logged:
        assert entry["divergence"] > 0.0 and 0.0 < entry["entropy"] < math.log(3) + 1e-6
        expected = entry["cross_entropy"] + 5.0 * entry["divergence"] + 0.5 * entry["entropy"]
        assert entry["loss"] == pytest.approx(expected, rel=1e-4)
    assert "divergence" not in loop.evaluate()

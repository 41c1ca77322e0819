"""A smoothed classifier returns logits of its base in training, vote shares in evaluation, and certificates on its defaults."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hf_smoothing import ABSTAIN, certify, predict
from hf_smoothing.certification import Draws, Execution, count_votes
from hf_smoothing.noise import GaussianStream, GridStream
from hf_smoothing.statistics import l2_radius, lower_bound, max_radius
from tests.support.classifiers import Constant, Watched
from tests.support.tiny import MEAN, SIZE, STD, pixels, plain, smoothed


def normalised(images):
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return (images - mean[:, None, None]) / std[:, None, None]


@pytest.fixture(scope="module", params=["resnet", "vit"])
def kind(request):
    return request.param


@pytest.fixture
def floats():
    return pixels() / 255


def undecided(**kwargs):
    """A classifier whose votes are spread over the classes; a freshly made tiny ViT always says the same."""
    model = smoothed("vit", **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20.0)
    return model


@torch.no_grad()
def test_classify_is_normalise_then_backbone(kind, floats):
    noisy = floats + 0.5 * torch.randn(floats.shape, generator=torch.Generator().manual_seed(1))
    expected = plain(kind)(pixel_values=normalised(noisy)).logits
    torch.testing.assert_close(smoothed(kind).classify(noisy), expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_classify_resizes_after_the_noise_when_the_backbone_sees_another_size(floats):
    small = F.interpolate(floats, size=(8, 8), mode="bilinear", align_corners=False, antialias=True)
    model = smoothed("vit", size=8, model_size=SIZE)
    expected = plain("vit")(pixel_values=normalised(F.interpolate(small, size=(SIZE, SIZE), mode="bilinear"))).logits
    torch.testing.assert_close(model.classify(small), expected, rtol=1e-5, atol=1e-6)


def test_train_mode_returns_the_logits_of_classify(kind, floats):
    model = smoothed(kind).train()
    # A ResNet in train mode updates its running statistics, so the twin starts from a copy.
    twin = copy.deepcopy(model)
    torch.testing.assert_close(model(floats).logits, twin.classify(floats))


def test_train_mode_takes_uint8_and_noisy_floats(floats):
    model = smoothed("vit").train()
    torch.testing.assert_close(model(pixels()).logits, model(floats).logits)
    assert model(floats * 3 - 1).logits.shape == (4, 3)


def test_eval_mode_returns_log_vote_shares(kind):
    model, images, seed, count = smoothed(kind, num_samples=37, sigma=0.5), pixels(), 5, 37
    votes = count_votes(
        model, images / 255, [Draws(slot, slot, 0, count) for slot in range(4)],
        stream=GaussianStream(seed, (3, SIZE, SIZE), sigma=0.5), execution=Execution(copies_per_batch=10),
    )  # fmt: skip
    expected = [[math.log((vote + 1 / 6) / (count + 1 / 2)) for vote in row] for row in votes.tolist()]
    logits = model(images, seed=seed).logits
    torch.testing.assert_close(logits, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits.exp().sum(dim=1), torch.ones(4))


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_a_unanimous_vote_is_nearly_certain_whatever_the_number_of_classes(classes):
    base = {"id2label": {k: f"c{k}" for k in range(classes)}, "label2id": {f"c{k}": k for k in range(classes)}}
    model = smoothed("resnet", num_samples=100, base=base)
    model.classify = Constant(1, classes)
    logits = model(pixels()).logits
    shares = logits.exp()
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(4))
    assert (shares[:, 1] > 0.995).all() and (shares[:, 1] < 1.0).all()


def test_the_number_of_copies_can_be_given():
    model = smoothed("resnet", num_samples=20)
    model.classify = watched = Watched(Constant(1))
    model(pixels(2), num_samples=7)
    model(pixels(2))
    assert watched.sizes == [14, 40]


@pytest.mark.parametrize("truth", [True, np.True_, torch.tensor(True)])
@pytest.mark.parametrize(
    ("name", "odd", "least"), [("num_samples", (0, -3), 1), ("first_index", (-1,), 0), ("seed", (), None)]
)
def test_counts_of_forward_are_whole_numbers(name, odd, least, truth):
    model = smoothed("resnet", num_samples=2)
    for value in (truth, 1.5, "1"):
        with pytest.raises(ValueError, match=f"`{name}` must be a whole number, got"):
            model(pixels(1), **{name: value})
    for value in odd:
        with pytest.raises(ValueError, match=f"`{name}` must be at least {least}, got {value}"):
            model(pixels(1), **{name: value})
    model(pixels(1), **{name: np.int64(1)})


def test_eval_mode_is_the_same_under_a_seed_and_fresh_without():
    model, images = undecided(num_samples=200, sigma=3.0), torch.full((8, 3, SIZE, SIZE), 0.5)
    first = model(images, seed=3).logits
    assert len(first.unique()) > 8  # else two draws could be equal by chance
    assert torch.equal(first, model(images, seed=3).logits)
    assert not torch.equal(first, model(images, seed=4).logits)
    torch.manual_seed(0)
    fresh = model(images).logits
    torch.manual_seed(0)
    assert not torch.equal(fresh, model(images).logits)


def test_eval_mode_leaves_the_global_random_state_alone(floats):
    model = smoothed("vit")
    state = torch.get_rng_state()
    model(floats, seed=0)
    model(floats)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_cross_entropy_of_the_logits(training, floats):
    model, labels = smoothed("vit").train(training), torch.tensor([0, 1, 2, 0])
    out = model(floats, labels=labels, **({} if training else {"seed": 0}))
    torch.testing.assert_close(out.loss, F.cross_entropy(out.logits, labels))
    assert out.loss.requires_grad is training


@pytest.mark.parametrize("training", [True, False])
def test_a_tuple_comes_back_when_asked_for(training, floats):
    out = smoothed("vit").train(training)(floats, labels=torch.tensor([0, 1, 2, 0]), return_dict=False)
    assert isinstance(out, tuple)
    assert out[0].shape == () and out[1].shape == (4, 3)


def test_no_labels_no_loss(floats):
    assert smoothed("vit")(floats).loss is None


@pytest.mark.parametrize("call", [lambda m, x: m.classify(x), lambda m, x: m.train()(x), lambda m, x: m(x)])
def test_another_resolution_is_refused(call):
    with pytest.raises(ValueError, match=r"certified resolution \(16, 16\), got \(20, 16\)"):
        call(smoothed("resnet"), torch.rand(2, 3, 20, 16))


def test_classify_does_not_compute_with_bytes():
    model = smoothed("resnet")
    try:
        logits = model.classify(pixels())
    except (ValueError, TypeError):
        return
    torch.testing.assert_close(logits, model.classify(pixels() / 255))


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.randn(2, 3, SIZE, SIZE), ValueError, "already normalised"),
        (torch.rand(2, 3, SIZE, SIZE) * 255, ValueError, "divide by 255"),
        (torch.full((2, 3, SIZE, SIZE), float("nan")), ValueError, "nan"),
        (torch.rand(3, SIZE, SIZE), ValueError, "batch dimension"),
        (torch.rand(2, 4, SIZE, SIZE), ValueError, "1 or 3 channels"),
        (
            torch.rand(2, 1, SIZE, SIZE),
            ValueError,
            r"got images of shape \(1, 16, 16\), of 1 channel. .* pixels.expand\(-1, 3",
        ),
        (torch.ones(2, 3, SIZE, SIZE, dtype=torch.int64), TypeError, "int64"),
        (None, TypeError, "must be a torch tensor"),
    ],
    ids=["normalised", "255", "nan", "one image", "rgba", "grey", "int64", "nothing"],
)
def test_bad_pixels_are_refused_in_eval_mode(images, error, message):
    with pytest.raises(error, match=message):
        smoothed("resnet")(images)


def test_certify_and_predict_use_the_defaults_of_the_configuration():
    model = smoothed("resnet", sigma=0.3, n0=7, n=40, alpha=0.02)
    fixed = model.certify(pixels(1), mode="fixed", seed=1)[0]
    assert (fixed.sigma, fixed.alpha, fixed.draws) == (0.3, 0.02, 47)
    for mode in ("fixed", "targets"):
        certificate = model.certify(pixels(1), mode=mode, seed=1)[0]
        direct = certify(model, pixels(1), sigma=0.3, mode=mode, n0=7, n=40, alpha=0.02, seed=1)[0]
        assert replace(certificate, seconds=0.0) == replace(direct, seconds=0.0)
    prediction = model.predict(pixels(1), mode="fixed", seed=1)[0]
    assert prediction.alpha == 0.02 and sum(prediction.counts) == prediction.draws == 10_000
    assert model.predict(pixels(1), seed=1)[0] == predict(model, pixels(1), sigma=0.3, alpha=0.02, seed=1)[0]


def test_certify_and_predict_take_other_values():
    model = smoothed("resnet", sigma=0.3, n0=7, n=40, alpha=0.02)
    certificate = model.certify(pixels(1), sigma=0.5, mode="fixed", n0=3, n=50, alpha=0.01, seed=1)[0]
    assert (certificate.sigma, certificate.alpha, certificate.draws) == (0.5, 0.01, 53)
    prediction = model.predict(pixels(1), sigma=0.5, mode="fixed", n=60, alpha=0.01, seed=1)[0]
    assert (prediction.alpha, sum(prediction.counts)) == (0.01, 60)
    assert prediction == predict(model, pixels(1), sigma=0.5, mode="fixed", n=60, alpha=0.01, seed=1)[0]
    other = model.certify(pixels(1), sigma=0.5, targets=[0.1], n0=0, n=50, alpha=0.01, noise_kind="gaussian", seed=1)[
        0
    ]
    direct = certify(
        model, pixels(1), sigma=0.5, targets=[0.1], n0=0, n=50, alpha=0.01, noise_kind="gaussian", seed=1
    )[0]
    assert replace(other, seconds=0.0) == replace(direct, seconds=0.0)
    assert (other.sigma, other.alpha, len(other.counts_by_look)) == (0.5, 0.01, len(direct.counts_by_look))


@pytest.mark.parametrize("wrong", [0.0, -1.0, [0.25, 0.5], True, ".25", math.nan, (0.25,)])
def test_a_sigma_that_is_none_is_refused_and_not_replaced_by_the_default(wrong):
    for method in (smoothed("resnet").certify, smoothed("resnet").predict):
        with pytest.raises(ValueError, match="sigma"):
            method(pixels(1), sigma=wrong)


def test_a_confident_backbone_reaches_the_ceiling_and_an_undecided_one_abstains():
    model = smoothed("vit", sigma=0.25)
    with torch.no_grad():
        model.base_network.classifier.weight.zero_()
        model.base_network.classifier.bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
    lost = GridStream(0, (3, SIZE, SIZE), sigma=0.25).total_variation
    for noise, slack in (("gaussian", 0.0), ("grid", lost)):
        certificate = model.certify(pixels(1), mode="fixed", noise_kind=noise, n=100, seed=0)[0]
        assert certificate.prediction == 1 and certificate.counts_by_look[1] == (0, 100, 0)
        root = float(l2_radius(0.001 ** (1 / 100), 0.25, slack))
        assert certificate.radius == float(l2_radius(lower_bound(100, 100, 0.001), 0.25, slack))
        assert (1 - 1e-10) * root <= certificate.radius <= root
        assert certificate.radius <= float(max_radius(100, 0.001, 0.25))
    assert slack > 0.0 and certificate.radius == pytest.approx(float(max_radius(100, 0.001, 0.25)), rel=1e-8)
    grey = undecided().certify(torch.full((4, 3, SIZE, SIZE), 128 / 255), mode="fixed", n=100, sigma=3.0, seed=0)
    assert any(c.prediction == ABSTAIN and c.radius == 0.0 for c in grey)
    assert all(c.radius < 2.0 for c in grey)


def test_certify_in_train_mode_is_refused():
    with pytest.raises(ValueError, match="eval mode"):
        smoothed("resnet").train().certify(pixels(1), n=100)


def test_no_part_of_it_has_a_name_that_ends_as_heads_do():
    assert not any(name.endswith("classifier") for name, _ in smoothed("resnet").named_children())

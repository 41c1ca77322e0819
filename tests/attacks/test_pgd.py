"""Projected gradient descent stays in its ball and in the pixel range, crosses linear boundaries at their radius, and refuses what makes no sense."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_smoothing.attacks import distance, pgd, smoothed_logits
from tests.support.attacks import NORMS, SHAPE, exact_norms, generator, levels, loss, radii, waves
from tests.support.classifiers import Linear, Watched, coin, random_images


ZERO = torch.zeros(1, dtype=torch.int64)
batches = st.lists(st.lists(levels, min_size=16, max_size=16), min_size=1, max_size=3).map(
    lambda rows: torch.tensor(rows, dtype=torch.float32).reshape(-1, *SHAPE)
)


@given(batches, st.data(), st.sampled_from(NORMS), st.booleans(), st.sampled_from(["best", "last"]))
def test_every_output_is_in_the_ball_and_in_the_range(clean, data, norm, random_start, keep):
    epsilon = torch.tensor([data.draw(radii) for _ in clean], dtype=torch.float64)
    epsilon = epsilon.clamp(max=1.0 if norm == "linf" else 4.0)  # the diameter of the cube of 16 pixels
    labels = torch.zeros(len(clean), dtype=torch.int64)
    moved = pgd(
        waves,
        clean,
        labels,
        epsilon=epsilon,
        norm=norm,
        steps=3,
        random_start=random_start,
        generator=generator(),
        keep=keep,
    )
    assert moved.dtype == torch.float32
    assert moved.shape == clean.shape
    assert not moved.requires_grad
    assert float(moved.min()) >= 0.0
    assert float(moved.max()) <= 1.0
    assert (exact_norms(moved, clean, norm) <= epsilon.numpy()).all()


@pytest.mark.parametrize("norm", NORMS)
def test_many_pixels_do_not_leave_the_ball_by_rounding(norm):
    clean = random_images(2, (3, 64, 64))
    moved = pgd(lambda x: x.flatten(1)[:, ::500], clean, ZERO.expand(2), epsilon=0.03, norm=norm, steps=2)
    norms = exact_norms(moved, clean, norm)
    assert (norms <= 0.03).all()
    assert (norms > 0.029).all()


def test_black_images_do_not_leave_the_ball_by_rounding():
    # Near 0 float32 is so fine that rounding towards the clean image leaves no margin.
    weight = random_images(1, (3, 64, 64)).flatten()
    clean = torch.zeros(1, 3, 64, 64)
    moved = pgd(
        lambda x: x.flatten(1)[:, None] @ weight * torch.tensor([-1.0, 1.0]), clean, ZERO, epsilon=0.03, steps=2
    )
    assert 0.03 * (1 - 1e-7) <= exact_norms(moved, clean, "l2")[0] <= 0.03


def exact_radius(linear, image, norm):
    return abs(float(linear.score(image[None]))) / float(linear.weight.double().norm(p=2 if norm == "l2" else 1))


@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_a_linear_boundary_is_crossed_from_outside_its_radius_only(norm, random_start):
    for seed in range(5):
        linear = Linear(SHAPE, seed)
        distances = (0.15, -0.1, 0.02, -0.2)
        clean = torch.stack([linear.image_at(d) for d in distances] * 2)
        labels = linear(clean).argmax(1)
        assert set(labels.tolist()) == {0, 1}
        exact = torch.tensor([exact_radius(linear, image, norm) for image in clean], dtype=torch.float64)
        factor = torch.tensor([1.05] * 4 + [0.99] * 4)
        moved = pgd(
            linear,
            clean,
            labels,
            epsilon=factor * exact,
            norm=norm,
            random_start=random_start,
            generator=generator(seed),
        )
        assert (linear(moved).argmax(1) != labels).tolist() == [True] * 4 + [False] * 4
        if norm == "l2":  # the twin's radius is the one that is certified
            assert exact.tolist() == pytest.approx([linear.exact_radius(image) for image in clean])


def test_one_step_is_the_normalised_gradient_or_its_sign():
    clean, labels = random_images(2) * 0.5 + 0.25, torch.tensor([1, 3])
    point = clean.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(waves, point, labels).sum(), point)
    unit = gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    for norm, direction in (("l2", unit), ("linf", gradient.sign())):
        arguments = {"epsilon": 0.1, "norm": norm, "steps": 1, "random_start": False, "keep": "last"}
        moved = pgd(waves, clean, labels, step_size=torch.tensor([0.01, 0.02]), **arguments)
        expected = clean + torch.tensor([0.01, 0.02])[:, None, None, None] * direction
        torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)
        # 2.5 times the radius, so that the one default step ends on the border.
        assert distance(pgd(waves, clean, labels, **arguments), clean, norm).tolist() == pytest.approx(
            [0.1, 0.1], rel=1e-5
        )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("restarts", [1, 3])
def test_best_keeps_the_largest_loss_seen(norm, restarts):
    clean, labels = random_images(6), torch.arange(6) % 4
    seen = Watched(waves)
    # Steps as long as the ball is wide: the loss goes up and down.
    arguments = {"epsilon": 0.5, "norm": norm, "steps": 5, "step_size": 1.0}
    moved = pgd(seen, clean, labels, restarts=restarts, generator=generator(), **arguments)
    assert len(seen.batches) == 6 * restarts
    losses = torch.stack([loss(waves, batch.detach(), labels) for batch in seen.batches])
    torch.testing.assert_close(loss(waves, moved, labels), losses.max(0).values)
    assert (losses.argmax(0) != len(losses) - 1).any()


def test_last_is_the_point_after_the_last_step():
    clean, labels = random_images(2), ZERO.expand(2)
    seen, longer = Watched(waves), Watched(waves)
    last = pgd(seen, clean, labels, epsilon=0.5, steps=3, step_size=0.4, generator=generator(), keep="last")
    pgd(longer, clean, labels, epsilon=0.5, steps=4, step_size=0.4, generator=generator())
    assert len(seen.batches) == 3
    torch.testing.assert_close(last, longer.batches[3].detach(), atol=0, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_the_start_is_uniform_in_the_ball(norm):
    clean = torch.full((4000, 1, 1, 2), 0.5)
    seen = Watched(lambda x: x.flatten(1))
    pgd(seen, clean, ZERO.expand(4000), epsilon=0.1, norm=norm, steps=1, generator=generator())
    lengths = exact_norms(seen.batches[0].detach(), clean, norm) / 0.1
    # In the plane the norm of a uniform point is at most t with probability t^2; 4000 draws are within 4 standard errors of it.
    for t in (0.3, 0.5, 0.8):
        assert (lengths <= t).mean() == pytest.approx(t**2, abs=4 * 0.5 / math.sqrt(4000))
    means = (seen.batches[0].detach() - 0.5).mean(0).flatten()
    assert means.abs().max() < 0.1 * 4 / math.sqrt(4000)


@pytest.mark.parametrize("norm", NORMS)
def test_the_generator_decides_the_result(norm):
    clean, labels = random_images(3), torch.tensor([0, 1, 2])

    def attack(seed):
        return pgd(waves, clean, labels, epsilon=0.3, norm=norm, steps=2, generator=generator(seed))

    assert torch.equal(attack(1), attack(1))
    assert not torch.equal(attack(1), attack(2))


def test_uint8_images_are_taken_as_pixels():
    image = (random_images(1) * 255).to(torch.uint8)
    moved = pgd(waves, image, ZERO, epsilon=0.2, generator=generator())
    assert torch.equal(moved, pgd(waves, image.float() / 255, ZERO, epsilon=0.2, generator=generator()))


@pytest.mark.parametrize("norm", NORMS)
def test_zero_gradients_make_no_nan(norm):
    def dead_below(pixels):
        total = pixels.flatten(1).sum(1)
        return torch.stack([torch.relu(total - 8), 0 * total], dim=1)

    clean = torch.stack([torch.full(SHAPE, 0.2), torch.full(SHAPE, 0.8)])
    moved = pgd(dead_below, clean, torch.tensor([0, 0]), epsilon=0.1, norm=norm, random_start=False)
    assert torch.equal(moved[0], clean[0])
    assert float(moved[1].mean()) < 0.78
    assert bool(torch.isfinite(pgd(dead_below, clean, torch.tensor([0, 0]), epsilon=0.1, norm=norm)).all())


@pytest.mark.parametrize("norm", NORMS)
def test_losses_that_float32_takes_for_0_are_distinguished(norm):
    linear = Linear(SHAPE)
    clean = linear.image_at(0.1)[None]
    scale = 14 / float(linear.score(clean))  # the loss is log(1 + exp(-28))
    moved = pgd(
        lambda x: (scale * linear(x)).float(), clean, ZERO + 1, epsilon=0.01, norm=norm, steps=5, random_start=False
    )
    assert float(distance(moved, clean, norm)) == pytest.approx(0.01, rel=1e-5)


def test_gradients_whose_squares_underflow_give_full_steps():
    moved = pgd(
        lambda x: 1e-30 * x.flatten(1),
        torch.full((1, *SHAPE), 0.5),
        ZERO,
        epsilon=0.1,
        random_start=False,
        keep="last",
    )
    assert float(distance(moved, torch.full((1, *SHAPE), 0.5), "l2")) == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_an_infinite_loss_is_kept_and_not_an_error(norm):
    def impossible(pixels):
        total = pixels.flatten(1).sum(1)
        return torch.stack([(8 - total).clamp_min(0).log(), 0 * total], dim=1)

    clean = torch.full((1, *SHAPE), 0.49)
    moved = pgd(impossible, clean, ZERO, epsilon=0.08, norm=norm, random_start=False)
    assert float(loss(impossible, moved, ZERO)) == math.inf
    last = pgd(impossible, clean, ZERO, epsilon=0.08, norm=norm, random_start=False, keep="last")
    assert bool(torch.isfinite(last).all())


def test_parameters_and_pixels_keep_their_gradients():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    model[1].bias.grad = torch.ones(3)
    clean = random_images(2).requires_grad_()
    moved = pgd(model, clean, torch.tensor([0, 1]), epsilon=0.3)
    assert model[1].weight.grad is None
    assert torch.equal(model[1].bias.grad, torch.ones(3))
    assert clean.grad is None
    assert clean.requires_grad
    assert not torch.equal(moved, clean)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off(context):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    arguments = {"epsilon": 0.3, "steps": 3}
    expected = pgd(model, random_images(2), torch.tensor([0, 1]), generator=generator(), **arguments)
    with context():
        # Made inside, so that under inference_mode they are inference tensors.
        arguments["epsilon"] = torch.tensor([0.3, 0.3])
        moved = pgd(model, random_images(2), torch.tensor([0, 1]), generator=generator(), **arguments)
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)


class Classifies:
    """`forward` is not what gets certified."""

    def classify(self, pixels):
        return waves(pixels)

    def __call__(self, pixels):
        raise AssertionError("the votes of forward have no gradient")


def test_classify_goes_before_the_call():
    clean = random_images(2)
    moved = pgd(Classifies(), clean, ZERO.expand(2), epsilon=0.3, generator=generator())
    assert torch.equal(moved, pgd(waves, clean, ZERO.expand(2), epsilon=0.3, generator=generator()))
    soft = smoothed_logits(Classifies(), 0.2, 3, generator())(clean)
    assert torch.equal(soft, smoothed_logits(waves, 0.2, 3, generator())(clean))


# Bad input
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"norm": "l1"}, ValueError, r"`norm` must be 'l2' or 'linf', got 'l1'\. 'linf' bounds"),
        ({"epsilon": -0.1}, ValueError, r"`epsilon` must be finite and >= 0 .* got -0\.1\. Leave out"),
        ({"epsilon": math.nan}, ValueError, r"`epsilon` must be finite .* got nan"),
        ({"epsilon": math.inf}, ValueError, r"`epsilon` must be finite .* got inf"),
        ({"epsilon": torch.tensor([0.1, -1.0])}, ValueError, r"`epsilon` must be finite"),
        (
            {"epsilon": torch.tensor([0.1])},
            ValueError,
            r"`epsilon` must be one number, or one per image of shape \(2,\), got",
        ),
        ({"epsilon": torch.ones(2, 1)}, ValueError, r"got shape \(2, 1\)\. Flatten it"),
        (
            {"epsilon": "8/255"},
            TypeError,
            r"`epsilon` must be a number, or a tensor of one per image, got '8/255'\. Pass",
        ),
        ({"epsilon": None}, TypeError, r"`epsilon` must be a number, or a tensor of one per image, got None"),
        ({"step_size": -1.0}, ValueError, r"`step_size` must be finite and >= 0"),
        ({"labels": [0, 1]}, TypeError, r"`labels` must be a tensor of whole numbers, got list\. Use torch\.tensor"),
        ({"labels": torch.tensor([0.0, 1.0])}, TypeError, r"`labels` must be .* got torch\.float32"),
        ({"labels": torch.tensor([True, False])}, TypeError, r"`labels` must be .* got torch\.bool"),
        (
            {"labels": torch.tensor([0])},
            ValueError,
            r"`labels` must have shape \(batch,\) = \(2,\), got \(1,\)\. Pass one",
        ),
        ({"labels": torch.tensor([[0, 1]])}, ValueError, r"got \(1, 2\)"),
        ({"labels": torch.tensor([0, -1])}, ValueError, r"`labels` must be classes >= 0, got -1\. Leave out"),
        (
            {"labels": torch.tensor([0, 4])},
            ValueError,
            r"`labels` must be below the number of classes, 4, got 4\. Count",
        ),
        ({"steps": 0}, ValueError, r"`steps` must be at least 1, got 0\. To attack nothing"),
        ({"steps": 1.5}, ValueError, r"`steps` must be a whole number, got 1\.5"),
        ({"restarts": 0}, ValueError, r"`restarts` must be at least 1, got 0"),
        ({"keep": "first"}, ValueError, r"`keep` must be 'best', or 'last' .* got 'first'"),
        (
            {"keep": "last", "restarts": 2},
            ValueError,
            r"'last' with a single ascent, got 'last' with restarts=2\. Use keep",
        ),
        ({"pixels": torch.zeros(1, 4, 4)}, ValueError, r"`pixels` must have shape \(batch, channels, height, width\)"),
        ({"pixels": torch.full((2, 1, 4, 4), 2.0)}, ValueError, r"`pixels` must hold pixels in \[0, 1\]"),
        (
            {"pixels": torch.full((2, 1, 4, 4), 1.0005)},
            ValueError,
            r"\[0, 1\] without tolerance.* 1\.0005\. .*clamp\(0, 1\)",
        ),
        ({"pixels": [0.5]}, TypeError, r"`pixels` must be a torch tensor"),
        (
            {"logits_of": lambda x: waves(x).detach()},
            ValueError,
            r"depend differentiably .* without torch\.no_grad\(\)",
        ),
        ({"logits_of": coin}, ValueError, r"got logits without a gradient"),
        ({"logits_of": lambda x: waves(x) * math.nan}, ValueError, r"got nan in the loss.* Check the weights"),
        (
            {"logits_of": lambda x: (0 * waves(x)).sqrt()},
            ValueError,
            r"must have finite gradients, got nan.*square root",
        ),
        (
            {"logits_of": lambda x: {"logits": waves(x)}},
            TypeError,
            r"must return a tensor of logits .* got dict\. Wrap",
        ),
        (
            {"logits_of": lambda x: waves(x)[0]},
            ValueError,
            r"logits of shape \(batch, num_labels\) = \(2, \.\.\.\), got \(4,\)",
        ),
        ({"logits_of": lambda x: waves(x)[:1]}, ValueError, r"got \(1, 4\)"),
    ],
)
def test_bad_input_of_pgd(changes, error, message):
    arguments = {
        "logits_of": waves,
        "pixels": random_images(2),
        "labels": torch.tensor([0, 1]),
        "epsilon": 0.1,
    } | changes
    with pytest.raises(error, match=message):
        pgd(arguments.pop("logits_of"), arguments.pop("pixels"), arguments.pop("labels"), **arguments)

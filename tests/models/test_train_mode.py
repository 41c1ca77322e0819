"""`SmoothedClassifier` in train mode: noise of its own, copies, gradient checkpointing, dtypes."""

import copy

import pytest
import torch

from tests.support.tiny import MEAN, NAMES, SIZE, STD, pixels, plain, smoothed


@pytest.fixture
def floats():
    return pixels() / 255


def test_noise_of_the_model_is_added_in_train_mode_and_only_there(floats):
    model = smoothed("vit", noise=0.5).train()
    seen = []
    model.base_network.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
    )
    model(pixels())
    model(pixels())
    noise = [batch * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None] - floats for batch in seen]
    for drawn in noise:
        assert 0.45 < drawn.std() < 0.55
        assert abs(float(drawn.mean())) < 0.05
    assert not torch.equal(noise[0], noise[1])
    assert not torch.allclose(noise[0][0], noise[0][1])
    with torch.no_grad():
        torch.testing.assert_close(model.eval().classify(floats), smoothed("vit").classify(floats))


def test_noise_of_the_model_is_reproducible_under_the_global_seed():
    def draws():
        torch.manual_seed(11)
        model = smoothed("vit", noise=0.5).train()
        return torch.stack([model(pixels()).logits for _ in range(2)])

    assert torch.equal(draws(), draws())


def test_noise_of_the_model_needs_clean_pixels():
    with pytest.raises(ValueError, match=r"in \[0, 1\] before noise"):
        smoothed("vit", noise=0.5).train()(torch.randn(2, 3, SIZE, SIZE))


def test_a_copy_works_like_the_original():
    model = smoothed("vit", noise=0.5).train()
    model(pixels())
    twin = copy.deepcopy(model)
    loss = twin(pixels(), labels=torch.tensor([0, 1, 2, 0])).loss
    loss.backward()
    assert all(parameter.grad is not None for parameter in twin.base_network.classifier.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model.eval()(pixels(), seed=0).logits, twin.eval()(pixels(), seed=0).logits)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_gradient_checkpointing_is_offered_where_the_base_classifier_has_it(kind):
    assert smoothed(kind).supports_gradient_checkpointing == plain(kind).supports_gradient_checkpointing


def test_gradient_checkpointing_does_not_change_gradients():
    model, labels = smoothed("vit").train(), torch.tensor([0, 1, 2, 0])
    model(pixels(), labels=labels).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    # The old name is deprecated where the new one exists.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    model(pixels(), labels=labels).loss.backward()
    assert len(expected) > 10
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name])


def test_bfloat16_weights_still_get_float32_noise():
    model = smoothed("vit").to(torch.bfloat16)
    seen = []
    model.base_network.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs["pixel_values"].dtype), with_kwargs=True
    )
    assert torch.isfinite(model(pixels(), seed=0).logits).all()
    assert set(seen) == {torch.bfloat16}
    assert model(pixels(), seed=0).logits.dtype == torch.float32
    assert model.config.id2label == dict(enumerate(NAMES))

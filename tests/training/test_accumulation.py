"""Accumulated micro-steps train as one step of their mean loss."""

import pytest
import torch

from tests.support.tiny import KINDS, any_model, data, tensors, trainer


# Plain gradient descent: the change of the weights is the gradient. Adam would hide a factor.
ONE_STEP = {
    "max_steps": 1,
    "optim": "sgd",
    "learning_rate": 1.0,
    "max_grad_norm": 0.0,
    "lr_scheduler_type": "constant",
}


def change(kind, folder, batch, accumulate, **kwargs):
    model = any_model(kind)
    before = tensors(model)
    # Batch statistics depend on the micro-batch, so a ResNet is compared with those of the checkpoint.
    loop = trainer(
        model, folder, **ONE_STEP, train_dataset=data(8), per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate, freeze_batch_norm=True, **kwargs,
    )  # fmt: skip
    loop.train()
    assert loop.state.global_step == 1
    after = tensors(model)
    return {name: after[name] - before[name] for name in before if before[name].is_floating_point()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch", "accumulate"), [(4, 2), (2, 4)])
def test_accumulated_gradients_are_averaged(kind, batch, accumulate, tmp_path):
    whole, parts = change(kind, tmp_path, 8, 1), change(kind, tmp_path, batch, accumulate)
    assert max(float(value.abs().max()) for value in whole.values()) > 1e-2
    for name in whole:
        torch.testing.assert_close(
            parts[name], whole[name], rtol=1e-3, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_the_change_is_the_gradient_of_the_mean_loss(tmp_path):
    model = any_model("vit").train()
    examples = data(8)
    loop = trainer(any_model("vit"), tmp_path)
    logits = model(pixel_values=loop.preprocessing(examples.pixels / 255)).logits
    torch.nn.functional.cross_entropy(logits, examples.labels).backward()
    changed = change("vit", tmp_path, 4, 2)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(changed[name], -parameter.grad, rtol=1e-3, atol=1e-6)


def test_label_smoothing_counts_once(tmp_path):
    whole = change("vit", tmp_path, 8, 1, label_smoothing_factor=0.2)
    parts = change("vit", tmp_path, 4, 2, label_smoothing_factor=0.2)
    hard = change("vit", tmp_path, 8, 1)
    torch.testing.assert_close(parts["classifier.bias"], whole["classifier.bias"], rtol=1e-3, atol=1e-6)
    assert not torch.allclose(hard["classifier.bias"], whole["classifier.bias"], rtol=1e-2)


def test_the_logged_loss_is_a_mean_too(tmp_path):
    losses = []
    for batch, accumulate in ((8, 1), (2, 4)):
        loop = trainer(
            any_model("vit"), tmp_path, **ONE_STEP, train_dataset=data(8), per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulate, logging_strategy="steps", logging_steps=1,
        )  # fmt: skip
        loop.train()
        losses.append(loop.state.log_history[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)

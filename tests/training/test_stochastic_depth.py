"""Stochastic depth and mixup."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import beta, kstest
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import TrainerCallback
from transformers.modeling_outputs import BaseModelOutput

from hf_smoothing import NoiseMixture, denoised_classifier, smoothed_ensemble
from hf_smoothing.noise import training_generator
from hf_smoothing.training import Batch, ObjectiveState
from hf_smoothing.training.objectives import mixture_cross_entropy
from hf_smoothing.training.stochastic_depth import stochastic_depth
from tests.support.architectures import ARCHITECTURES
from tests.support.tiny import data, plain, smoothed, trainer


def test_blocks_drop_out_at_their_rate_and_means_stay():
    model = plain("vit", num_hidden_layers=3).train()
    steps = iter(range(1000))
    layers = model.vit.layers
    given, put_out = [], []
    # Before and after the hooks of the method, which run in the order in which they were added.
    layers[2].register_forward_hook(lambda block, came, went: given.append((came[0].detach(), went.detach())))
    stochastic_depth(model, 0.5, lambda: torch.Generator().manual_seed(next(steps)))
    layers[2].register_forward_hook(lambda block, came, went: put_out.append(went.detach()))
    assert [len(layer._forward_hooks) for layer in layers] == [0, 1, 3]
    with torch.no_grad():
        for _ in range(40):
            model(pixel_values=torch.rand(50, 3, 16, 16))
    came, went = (torch.cat(parts) for parts in zip(*given, strict=True))
    shift = torch.cat(put_out) - came
    skipped = (shift == 0).flatten(1).all(1)
    assert float(skipped.float().mean()) == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(shift[~skipped], 2 * (went - came)[~skipped], atol=1e-5, rtol=1e-4)
    put_out.clear()
    with torch.no_grad():
        model.eval()(pixel_values=torch.rand(50, 3, 16, 16))
    assert torch.equal(put_out[0], given[-1][1])


def test_drop_path_where_it_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="skips blocks that keep the shape"):
        trainer(plain("resnet"), tmp_path, train_dataset=data(), drop_path=0.2).train()
    with pytest.raises(ValueError, match=r"`drop_path` must be in \[0, 1\)"):
        trainer(plain("vit"), tmp_path, train_dataset=data(), drop_path=1.0)


def test_networks_of_several_have_no_blocks_to_skip(tmp_path):
    both = smoothed_ensemble([smoothed("vit", 0), smoothed("resnet", 1)], sigma=0.25)
    for model in (both, denoised_classifier(both, sigma=0.25)):
        with pytest.raises(ValueError, match="EnsembleForImageClassification is made of several networks"):
            trainer(model, tmp_path, drop_path=0.2).train()


def test_a_single_block_has_the_rate_of_the_last_one():
    model = plain("vit", num_hidden_layers=1).train()
    came, put_out = [], []
    stochastic_depth(model, 0.5, lambda: generator)
    model.vit.layers[0].register_forward_hook(lambda _, given, out: came.append(given[0]) or put_out.append(out))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model(pixel_values=torch.rand(400, 3, 16, 16))
    skipped = (came[0] == put_out[0]).flatten(1).all(1)
    assert float(skipped.float().mean()) == pytest.approx(0.5, abs=0.07)


class Block(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.linear, self.way = nn.Linear(4, 4), way

    def forward(self, hidden):
        out = self.linear(hidden)
        return {"bare": out, "tuple": (out, 1), "nested": ((out,), 1, 2), "other": {"out": out}}[self.way]


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("way", ["bare", "tuple", "nested", "other"])
def test_blocks_that_give_tuples_or_are_called_by_name(way, by_name):
    model = nn.Module()
    model.base_model_prefix, model.body = "body", nn.Module()
    model.body.blocks = nn.ModuleList([Block(way), Block(way)])
    generator = torch.Generator().manual_seed(0)
    stochastic_depth(model.train(), 0.5, lambda: generator)
    hidden = torch.rand(200, 4)

    def run():
        block = model.body.blocks[1]
        return block(hidden=hidden) if by_name else block(hidden)

    if way == "other":
        with pytest.raises(ValueError, match=r"keep the shape .* Block turns \(200, 4\) into dict"):
            run()
        return
    out = run()
    assert out[1:] == {"tuple": (1,), "nested": (1, 2)}.get(way, out[1:]) if way != "bare" else True
    value = out if way == "bare" else out[0] if way == "tuple" else out[0][0]
    assert 60 < int((value == hidden).all(1).sum()) < 140


def test_blocks_of_every_kind_are_skipped_or_refused_by_shape(tmp_path):
    pvt = next(a for a in ARCHITECTURES if a.config == "PvtV2").build()
    with pytest.raises(ValueError, match=r"PvtV2EncoderLayer turns \(2, 16, 8, 8\) into \(2, 16, 16\)"):
        stochastic_depth(pvt.train(), 0.5, lambda: torch.Generator()) and pvt(pixel_values=torch.rand(2, 3, 32, 32))


def test_mixup_equals_the_loss_of_mixed_labels():
    weight = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
    batch = Batch(torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 1, 2, 0]))
    noise = NoiseMixture((0.3,))
    loss, _ = mixture_cross_entropy(
        lambda x: x.flatten(1) @ weight, batch, ObjectiveState(noise, torch.Generator().manual_seed(7)), mixup=0.8
    )
    generator = torch.Generator().manual_seed(7)
    share = float(beta.ppf(float(torch.rand((), generator=generator)), 0.8, 0.8))
    labels = torch.eye(3)[batch.labels]
    mixed = share * batch.pixels + (1 - share) * batch.pixels.flip(0)
    target = share * labels + (1 - share) * labels.flip(0)
    noisy = noise.add(mixed, generator)[0]
    expected = -(target * (noisy.flatten(1) @ weight).log_softmax(1)).sum(1).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_the_share_of_mixup_has_its_distribution():
    shares = []
    state = ObjectiveState(None, torch.Generator().manual_seed(0))
    batch = Batch(torch.stack([torch.zeros(1, 1, 1), torch.ones(1, 1, 1)]), torch.tensor([0, 1]))

    def model(x):
        shares.append(float(x[1]))
        return torch.zeros(2, 2)

    for _ in range(400):
        mixture_cross_entropy(model, batch, state, mixup=0.4)
    assert kstest(shares, beta(0.4, 0.4).cdf).pvalue > 0.01


def test_mixup_that_makes_no_sense():
    with pytest.raises(ValueError, match="`mixup` must be >= 0"):
        mixture_cross_entropy(
            lambda x: x,
            Batch(torch.rand(1, 1, 1, 1), torch.tensor([0])),
            ObjectiveState(None, torch.Generator()),
            mixup=-1.0,
        )


def test_blocks_drop_out_only_while_their_trainer_trains(tmp_path):
    model = plain("vit", num_hidden_layers=2)
    first = trainer(model, tmp_path, train_dataset=data(), drop_path=0.5)
    trainer(model, tmp_path, train_dataset=data()).train()  # the first trainer, which never trained, adds nothing
    first.train()
    assert all(not layer._forward_hooks for layer in model.vit.layers)


def gradients(model, folder, **kwargs):
    """Of the first step of a training with stochastic depth."""
    found = {}

    class Look(TrainerCallback):
        def on_pre_optimizer_step(self, *args, **more):
            found.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})

    loop = trainer(
        model, folder, drop_path=0.8, max_steps=1, max_grad_norm=0.0, per_device_train_batch_size=8, callbacks=[Look()], **kwargs
    )  # fmt: skip
    loop.train()
    return found


def checkpointed(model, reentrant, several):
    """The model, whose blocks are run again in the backward pass: one by one as `transformers` does it, or all together."""
    if not several:
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        return model

    def blocks(hidden):
        for block in model.vit.layers:
            hidden = block(hidden)
        return hidden

    def forward(pixel_values, **kwargs):
        hidden = checkpoint(blocks, model.vit.embeddings(pixel_values), use_reentrant=reentrant)
        return BaseModelOutput(last_hidden_state=model.vit.layernorm(hidden))

    model.vit.forward = forward
    return model


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")  # the names that the lowest version knows
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
def test_blocks_that_are_run_again_skip_the_same_images(reentrant, several, tmp_path):
    expected = gradients(plain("vit", num_hidden_layers=4), tmp_path)
    found = gradients(checkpointed(plain("vit", num_hidden_layers=4), reentrant, several), tmp_path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")  # the names that the lowest version knows
def test_checkpointing_of_the_arguments_goes_with_it(tmp_path):
    expected = gradients(plain("vit", num_hidden_layers=4), tmp_path)
    found = gradients(plain("vit", num_hidden_layers=4), tmp_path, gradient_checkpointing=True)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_steps_blocks_and_ranks_skip_other_images():
    hidden, seen = torch.rand(64, 4), set()
    for step in range(3):
        for rank in range(2):
            model = nn.Module()
            model.base_model_prefix, model.body = "body", nn.Module()
            model.body.blocks = nn.ModuleList([Block("bare") for _ in range(3)])
            generator = training_generator(0, step, rank, 2, "cpu")
            stochastic_depth(model.train(), 0.5, lambda g=generator: g)
            for block in model.body.blocks[1:]:
                seen.add(tuple((block(hidden) == hidden).all(1).tolist()))
    assert len(seen) == 3 * 2 * 2

"""LoRA inside a smoothed classifier: what is trained, saved, loaded and merged."""

from __future__ import annotations

import pytest
import torch
from tiny import smoothed, trainer

from hf_smoothing import SmoothedClassifier, denoised_classifier, smoothed_ensemble
from hf_smoothing.certification.identity import classifier_identity
from hf_smoothing.models import add_lora, load_adapters, merge_lora, save_adapters
from hf_smoothing.models.activations import head_of


pytest.importorskip("peft", reason="peft is not installed, so LoRA was NOT tested: pip install hf_smoothing[peft]")
PIXELS = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def trained(tmp_path, kind="vit", channels_last=False, **kwargs):
    """A classifier with adapters that have been trained a little, and its frozen weights before."""
    model = smoothed(kind)
    add_lora(model, rank=2, **kwargs)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    trainer(model, tmp_path, noise="0.25", max_steps=5, learning_rate=0.05, channels_last=channels_last).train()
    return model.eval(), before


@torch.no_grad()
def logits(model):
    return model.eval().classify(PIXELS)


@pytest.mark.parametrize(("kind", "more"), [("vit", {}), ("resnet", {"target_modules": ["convolution"]})])
def test_only_updates_and_head_are_trained(kind, more, tmp_path):
    untouched = logits(smoothed(kind))
    fresh = smoothed(kind)
    share = add_lora(fresh, rank=2, **more)
    torch.testing.assert_close(logits(fresh), untouched)  # updates start at 0
    assert 0.0 < share < 0.6
    head = {id(p) for p in head_of(fresh).parameters()}
    for name, parameter in fresh.named_parameters():
        assert parameter.requires_grad == (".lora_" in name or id(parameter) in head), name
    model, before = trained(tmp_path, kind, **more)
    now = dict(model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in before.items())
    assert not torch.allclose(logits(model), untouched)


@pytest.mark.parametrize("more", [{"protocol": "last-stage"}, {"train_last": 0}, {"trainable": ["classifier"]}])
def test_nobody_else_settles_what_is_trained(more, tmp_path):
    model = smoothed("vit")
    add_lora(model, rank=2)
    with pytest.raises(ValueError, match="add_lora has settled what is trained"):
        trainer(model, tmp_path, noise="0.25", **more)


def test_a_plain_checkpoint_with_adapters_is_refused(tmp_path):
    model, _ = trained(tmp_path / "run")
    model.base_network.save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match="has LoRA adapters that a plain checkpoint cannot hold"):
        SmoothedClassifier.from_base_pretrained(tmp_path / "plain", sigma=0.25, size=16)


def test_saved_loaded_and_merged_it_answers_the_same(tmp_path):
    model, _ = trained(tmp_path / "run")
    expected = logits(model)
    model.save_pretrained(tmp_path / "whole")
    torch.testing.assert_close(logits(SmoothedClassifier.from_pretrained(tmp_path / "whole")), expected)
    save_adapters(model, tmp_path / "adapters.safetensors")
    assert (tmp_path / "adapters.safetensors").stat().st_size < 0.5 * (
        tmp_path / "whole" / "model.safetensors"
    ).stat().st_size
    again = smoothed("vit")
    add_lora(again, rank=2)
    load_adapters(again, tmp_path / "adapters.safetensors")
    torch.testing.assert_close(logits(again), expected)
    merge_lora(model)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
    assert not any("lora" in name for name in model.state_dict())
    model.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(
        logits(SmoothedClassifier.from_pretrained(tmp_path / "merged")), expected, rtol=1e-4, atol=1e-5
    )
    first = model.certify(PIXELS[:1], n=50, n0=10, seed=0)[0]
    assert first.prediction in (-1, 0, 1, 2)


def test_adapters_of_a_network_with_batch_norm_come_back_whole(tmp_path):
    model, _ = trained(tmp_path / "run", "resnet", target_modules=["convolution"], channels_last=True)
    save_adapters(model, tmp_path / "adapters.safetensors")
    again = smoothed("resnet")
    add_lora(again, rank=2, target_modules=["convolution"])
    load_adapters(again, tmp_path / "adapters.safetensors")
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-4, atol=1e-4)


def test_what_is_trainable_survives_saving_and_merging_frees_all(tmp_path):
    model = smoothed("vit")
    add_lora(model, rank=2)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    model.save_pretrained(tmp_path)
    again = SmoothedClassifier.from_pretrained(tmp_path)
    assert {name for name, p in again.named_parameters() if p.requires_grad} == trainable
    merge_lora(again)
    assert all(p.requires_grad for p in again.parameters())


def test_wrapping_a_base_classifier_with_adapters_is_refused():
    model = smoothed("vit")
    add_lora(model, rank=2)
    for wrap in (
        lambda: smoothed_ensemble([model], sigma=0.25),
        lambda: denoised_classifier(model, sigma=0.25),
        lambda: SmoothedClassifier.from_base_pretrained(model.base_network, sigma=0.25, size=16),
    ):
        with pytest.raises(ValueError, match=r"which would be lost\. Call merge_lora\(model\) first"):
            wrap()


def test_what_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"no layer called nowhere to adapt\. Give target_modules out of: .*q_proj|query"
    ):
        add_lora(smoothed("vit"), target_modules=["nowhere"])
    with pytest.raises(ValueError, match=r"Give target_modules out of: .*convolution"):
        add_lora(smoothed("resnet"))
    for wrong in ({"alpha": -1.0}, {"alpha": float("nan")}, {"alpha": "8"}, {"dropout": 1.0}, {"rank": 0}):
        with pytest.raises(ValueError, match="a finite alpha > 0 and a dropout in"):
            add_lora(smoothed("vit"), **wrong)
    for wrong in ("4", 2.5, True):
        with pytest.raises(ValueError, match="`rank` must be a whole number"):
            add_lora(smoothed("vit"), rank=wrong)
    with pytest.raises(ValueError, match="No layer to adapt has a rank above 16, got rank=17"):
        add_lora(smoothed("vit"), rank=17)
    with pytest.raises(ValueError, match="`target_modules` is empty"):
        add_lora(smoothed("vit"), target_modules=[])
    with pytest.raises(TypeError, match="needs a SmoothedClassifier, got ViTForImageClassification"):
        add_lora(smoothed("vit").base_network)
    with pytest.raises(ValueError, match="rank >= 1"):
        add_lora(smoothed("vit"), rank=0)
    for call in (merge_lora, lambda m: save_adapters(m, tmp_path / "x"), lambda m: load_adapters(m, tmp_path / "x")):
        with pytest.raises(ValueError, match="has no LoRA adapters"):
            call(smoothed("vit"))
    model = smoothed("vit")
    add_lora(model, rank=2)
    with pytest.raises(ValueError, match="adapters already"):
        add_lora(model)
    save_adapters(model, tmp_path / "two")
    other = smoothed("vit")
    add_lora(other, rank=3)
    with pytest.raises(
        ValueError, match="holds other adapters than this classifier has: made with .*2.*, but here are .*3"
    ):
        load_adapters(other, tmp_path / "two")


def test_a_classifier_without_adapters_is_the_one_it_was_before_they_existed():
    model = smoothed("vit")
    before = classifier_identity(model)
    del model.config.lora
    assert classifier_identity(model) == before
    model.config.lora = None
    add_lora(model, rank=2)
    assert classifier_identity(model) != before

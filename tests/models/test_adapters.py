"""LoRA inside a smoothed classifier: what is trained, saved, loaded and merged."""

from __future__ import annotations

import pytest
import torch
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher, Trainer, TrainingArguments

from hf_smoothing import SmoothedClassifier, denoised_classifier, smoothed_ensemble
from hf_smoothing.certification.structure import weights_sha256
from hf_smoothing.models import add_lora, load_adapters, merge_lora, save_adapters
from hf_smoothing.models.network import heads_of
from tests.support.architectures import ARCHITECTURES, label
from tests.support.tiny import plain, smoothed, trainer, trainer_values


pytest.importorskip("peft", reason="peft is not installed, so LoRA was NOT tested: pip install hf_smoothing[peft]")
# peft 0.21 asks transformers 5.23 for it.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
PIXELS = torch.randint(0, 256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0)) / 255


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
    head = {id(p) for one in heads_of(fresh).values() for p in one.parameters()}
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
        with pytest.raises(ValueError, match=r"which would be lost\. Merge them first: .*merge_lora\(model\)"):
            wrap()


def test_what_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"no layer called nowhere to adapt\. Give target_modules out of: .*q_proj|query"
    ):
        add_lora(smoothed("vit"), target_modules=["nowhere"])
    with pytest.raises(ValueError, match=r"Give target_modules out of: .*convolution"):
        add_lora(smoothed("resnet"))
    with pytest.raises(ValueError, match=r"no layer called 1 to adapt\. Give target_modules out of: convolution\."):
        add_lora(smoothed("resnet"), target_modules=["1"])  # its head, which is trained whole
    for wrong in ({"alpha": -1.0}, {"alpha": float("nan")}, {"alpha": "8"}, {"dropout": 1.0}, {"rank": 0}):
        with pytest.raises(ValueError, match="a finite alpha > 0 and a dropout in"):
            add_lora(smoothed("vit"), **wrong)
    for wrong in ("4", 2.5, True):
        with pytest.raises(ValueError, match="`rank` must be a whole number"):
            add_lora(smoothed("vit"), rank=wrong)
    with pytest.raises(ValueError, match=r"No layer to adapt has a rank above 16, got rank=17\. Take 16 at most"):
        add_lora(smoothed("vit"), rank=17)
    add_lora(smoothed("vit"), rank=16)
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


@pytest.mark.parametrize("change", ["seed", "dtype", "one number"])
def test_adapters_are_loaded_into_the_backbone_alone_in_which_they_were_trained(change, tmp_path):
    model = smoothed("vit")
    add_lora(model, rank=2)
    save_adapters(disturbed(model), tmp_path / "adapters")
    other = smoothed("vit", 1 if change == "seed" else 0)
    if change == "dtype":
        other.to(torch.bfloat16)
    if change == "one number":
        with torch.no_grad():
            next(iter(other.parameters())).view(-1)[0] += 1e-3
    add_lora(other, rank=2)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match="trained in a base classifier of other weights. Load them into that one"):
        load_adapters(other, tmp_path / "adapters")
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_adapters_of_members_that_are_one_network_come_back(tmp_path):
    made = []
    for _ in range(2):
        network = smoothed("vit")
        made.append(smoothed_ensemble([network, network], sigma=0.25))
        add_lora(made[-1], rank=2)
    save_adapters(disturbed(made[0]), tmp_path / "adapters")
    load_adapters(made[1], tmp_path / "adapters")
    assert torch.equal(logits(made[1]), logits(made[0]))


def test_files_that_hold_no_adapters_are_refused_with_their_name(tmp_path):
    model = smoothed("vit")
    add_lora(model, rank=2)
    (tmp_path / "junk").write_bytes(b"junk" * 10)
    for name in ("junk", ".", "none"):
        with pytest.raises(ValueError, match=r"cannot be read as adapters \(.*Pass the file that save_adapters wrote"):
            load_adapters(model, tmp_path / name)
    for name in (".", "none/adapters"):
        with pytest.raises(
            ValueError, match=r"cannot be written to .* Pass the name of a file in a folder that exists"
        ):
            save_adapters(model, tmp_path / name)


def of_peft(model, **kwargs):
    from peft import LoraConfig, get_peft_model

    values = {"target_modules": ["q_proj", "v_proj"], "r": 2, "modules_to_save": ["classifier"]}
    return get_peft_model(model, LoraConfig(**values | kwargs))


def disturbed(model):
    """Every trainable parameter moved, as by training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("make", [smoothed, lambda kind: denoised_classifier(smoothed(kind), sigma=0.25)])
def test_the_recipe_of_peft_trains_updates_and_head_alone_and_comes_back(make, tmp_path):
    from peft import PeftModel

    torch.manual_seed(0)
    plain_one = make("vit")
    plain_one.save_pretrained(tmp_path / "plain")
    model = of_peft(plain_one)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names == {n for n, _ in model.named_parameters() if ".lora_" in n or ".modules_to_save." in n}
    assert sum(p.numel() for n, p in model.named_parameters() if ".modules_to_save." in n) == 16 * 3 + 3  # one head
    expected = logits(disturbed(model))
    assert model.certify(PIXELS[:1], n=20, n0=5, seed=0)[0].prediction in (-1, 0, 1, 2)
    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(SmoothedClassifier.from_pretrained(tmp_path / "plain"), tmp_path / "adapter")
    assert torch.equal(logits(again), expected)
    merged = again.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected)
    merged.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(SmoothedClassifier.from_pretrained(tmp_path / "merged")), expected)


def test_the_stock_trainer_trains_a_peft_model_around_a_wrapper(tmp_path):
    model = of_peft(smoothed("vit", noise="0.25"))
    values = trainer_values(tmp_path) | {"save_strategy": "steps", "save_steps": 2, "label_names": ["labels"]}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    rows = [{"pixel_values": image, "labels": k % 3} for k, image in enumerate(PIXELS)]
    Trainer(model, TrainingArguments(**values), train_dataset=rows).train()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed and all(".lora_" in name or ".modules_to_save." in name for name in changed)
    assert (tmp_path / "checkpoint-2" / "adapter_model.safetensors").is_file()


def test_robust_trainer_names_what_it_takes_instead_of_a_peft_model(tmp_path):
    model = of_peft(smoothed("vit"))
    with pytest.raises(TypeError, match=r"A PeftModel has adapters .*merge_and_unload\(\).*add_lora\(wrapper\)"):
        trainer(model, tmp_path, noise="0.25")
    for inside in (model.get_base_model(), added_to(plain("vit"))):
        with pytest.raises(ValueError, match=r"has adapters of peft.*add_lora\(wrapper\)"):
            trainer(inside, tmp_path, noise="0.25")


def added_to(model):
    """`add_adapter` of transformers, instead of a `PeftModel`."""
    from peft import LoraConfig

    model.add_adapter(LoraConfig(target_modules=["q_proj", "v_proj"], r=2, modules_to_save=["classifier"]))
    return disturbed(model).eval()


WRAPS = [
    lambda network: SmoothedClassifier.from_base_pretrained(
        network, sigma=0.25, size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ),
    lambda network: denoised_classifier(network, sigma=0.25),
    lambda network: smoothed_ensemble([network], sigma=0.25),
]


@pytest.mark.parametrize("wrap", WRAPS)
def test_adapters_of_peft_in_what_is_wrapped_are_refused_with_both_cures(wrap, tmp_path):
    advice = r"merge_and_unload\(\) of a PeftModel, merge_lora\(model\).*add_lora"
    with pytest.raises(TypeError, match=f"A PeftModel has adapters.*{advice}"):
        wrap(of_peft(plain("vit")))
    with pytest.raises(ValueError, match=f"This ViTForImageClassification has adapters.*{advice}"):
        wrap(added_to(plain("vit")))
    of_peft(plain("vit")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds an adapter of peft, not a network\. .*merge_and_unload\(\)"):
        wrap(tmp_path)


def test_both_cures_work():
    first = of_peft(plain("vit"))
    disturbed(first).eval()
    with torch.no_grad():
        expected = first(PIXELS).logits
    merged = first.merge_and_unload()
    torch.testing.assert_close(merged(PIXELS).logits, expected)
    WRAPS[0](merged)
    second = added_to(plain("vit"))
    with torch.no_grad():
        expected = second(PIXELS).logits
    merge_lora(second)
    torch.testing.assert_close(second(PIXELS).logits, expected)
    assert not any("lora" in name or "modules_to_save" in name for name, _ in second.named_modules())
    assert all(parameter.requires_grad for parameter in second.parameters())
    WRAPS[0](second)
    with pytest.raises(TypeError, match=r"merges itself: model = model\.merge_and_unload\(\)"):
        merge_lora(of_peft(plain("vit")))


def test_an_adapter_that_is_switched_off_is_not_merged():
    model = added_to(plain("vit"))
    model.disable_adapters()
    merge_lora(model)
    assert torch.equal(model(PIXELS).logits, plain("vit")(PIXELS).logits)


def test_an_adapter_added_to_the_wrapper_is_saved_alone_and_comes_back(tmp_path):
    model = added_to(smoothed("vit"))
    model.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    again = smoothed("vit")
    again.load_adapter(tmp_path)
    assert torch.equal(logits(again), logits(model))


def test_adapters_inside_a_peft_model_are_not_saved_under_names_that_nothing_loads(tmp_path):
    inside = of_peft(smoothed("vit")).get_base_model()
    with pytest.raises(ValueError, match=r"not saved\. .*merge_and_unload\(\) or merge_lora"):
        inside.save_pretrained(tmp_path)


def test_both_heads_of_a_network_with_a_teacher_are_trained():
    config = DeiTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4
    )
    model = WRAPS[0](DeiTForImageClassificationWithTeacher(config).eval())
    add_lora(model, rank=2)
    heads = {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad and ".lora_" not in name}
    assert heads == {"cls_classifier", "distillation_classifier"}


def test_the_heads_of_all_members_of_an_ensemble_are_trained():
    both = smoothed_ensemble([smoothed("vit", 0), smoothed("vit", 1)], sigma=0.25)
    add_lora(both, rank=2)
    trained = {name for name, p in both.named_parameters() if p.requires_grad and ".lora_" not in name}
    assert trained == {f"base_network.members.{k}.classifier.{what}" for k in range(2) for what in ("weight", "bias")}


def wrapped(architecture):
    return SmoothedClassifier.from_base_pretrained(
        architecture.build(), sigma=0.25, size=architecture.size, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


@pytest.mark.parametrize(
    "architecture",
    [a for a in ARCHITECTURES if not (a.absent or a.refused or a.slow or a.config == "Bit")],
    ids=label,
)
def test_every_name_that_is_offered_is_adapted_trained_and_merged(architecture, tmp_path):
    with pytest.raises(ValueError, match="Give target_modules out of") as refused:
        add_lora(wrapped(architecture), target_modules=["nowhere"])
    pixels = torch.rand(2, 3, architecture.size, architecture.size, generator=torch.Generator().manual_seed(0))
    for name in str(refused.value).split("out of: ")[1].rstrip(".").split(", "):
        model = wrapped(architecture)
        add_lora(model, rank=1, target_modules=[name])
        disturbed(model).eval()
        answers = model.classify(pixels)
        answers.sum().backward()
        assert any(p.grad is not None for key, p in model.named_parameters() if ".lora_" in key), name
        merge_lora(model)
        with torch.no_grad():
            scale = float(answers.detach().abs().max())
            torch.testing.assert_close(model.classify(pixels), answers.detach(), rtol=1e-3, atol=1e-4 * scale)


def state_of(model):
    return [(name, type(module)) for name, module in model.named_modules()], [
        (name, p.requires_grad) for name, p in model.named_parameters()
    ]


class Weighed(torch.nn.Conv2d):
    """Normalises its weight: not linear in it, so that an update could not be added."""

    def forward(self, x):
        return self._conv_forward(x, self.weight / self.weight.norm(), self.bias)


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False),
        torch.nn.Conv2d(8, 8, 3, padding=2, dilation=2, bias=False),
        torch.nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", bias=False),
        torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv2d(8, 8, 3, padding=1, bias=False)),
        Weighed(8, 8, 3, padding=1, bias=False),
    ],
    ids=["groups", "holes", "reflecting", "parametrised", "of another class"],
)
def test_layers_that_cannot_be_adapted_stay_as_they_are(layer):
    network = plain("resnet", embedding_size=8, hidden_sizes=[8, 8])
    network.resnet.encoder.stages[0].layers[0].layer[0].convolution = layer
    model = SmoothedClassifier.from_base_pretrained(
        network, sigma=0.25, size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    add_lora(model, rank=2, target_modules=["convolution"])
    disturbed(model).eval()
    assert network.resnet.encoder.stages[0].layers[0].layer[0].convolution is layer
    expected = logits(model)
    merge_lora(model)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)


def test_a_network_without_a_layer_to_adapt_is_refused():
    bit = next(a for a in ARCHITECTURES if a.config == "Bit")
    with pytest.raises(
        ValueError, match=r"Outside its head it has no linear layer, and no convolution without groups"
    ):
        add_lora(wrapped(bit))


@pytest.mark.parametrize("after", [True, False])
def test_what_is_not_added_whole_is_not_added(after, monkeypatch):
    """Whatever peft does on its way."""
    import peft

    inject = peft.inject_adapter_in_model

    def broken(config, network):
        config.target_modules = config.target_modules if after else config.target_modules.split("|")[0]
        inject(config, network)
        raise RuntimeError("half-way")

    model = smoothed("vit")
    before, answers = state_of(model), logits(model)
    monkeypatch.setattr(peft, "inject_adapter_in_model", broken)
    with pytest.raises(RuntimeError, match="half-way"):
        add_lora(model, rank=2)
    monkeypatch.undo()
    assert state_of(model) == before and model.config.lora is None
    assert torch.equal(logits(model), answers)
    add_lora(model, rank=2)


def test_adapters_are_not_added_to_adapters_of_peft():
    with pytest.raises(ValueError, match=r"has adapters of peft.*Merge them first: .*merge_lora\(model\)"):
        add_lora(added_to(smoothed("vit")))


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups")
@pytest.mark.parametrize("fault", ["groups", "nan"])
def test_what_cannot_all_be_merged_is_not_merged(fault):
    from peft import LoraConfig

    regnet = next(a for a in ARCHITECTURES if a.values.get("layer_type") == "x")
    network = regnet.build()
    target = ["convolution"] if fault == "groups" else r".*\.layer\.0\.convolution"
    network.add_adapter(LoraConfig(target_modules=target, r=4))
    disturbed(network).eval()
    if fault == "nan":
        last = [p for name, p in network.named_parameters() if ".lora_B" in name][-1]
        last.data.fill_(torch.nan)
    before, tensors = state_of(network), {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"adapters of regnet\..* cannot be merged \(.*\), so none was"):
        merge_lora(network)
    assert state_of(network) == before
    now = network.state_dict()
    assert all(torch.equal(now[name].nan_to_num(), value.nan_to_num()) for name, value in tensors.items())


def test_a_classifier_that_is_merged_takes_adapters_again():
    model = smoothed("vit")
    add_lora(model, rank=2)
    merge_lora(model)
    add_lora(model, rank=3)
    assert model.config.lora["rank"] == 3


def test_adapters_are_part_of_the_weights():
    model = smoothed("vit")
    before = weights_sha256(model)
    add_lora(model, rank=2)
    assert weights_sha256(model) != before


@pytest.mark.parametrize(("kind", "more"), [("vit", {}), ("resnet", {"target_modules": ["convolution"]})])
def test_what_is_added_takes_the_mode_of_what_it_replaces(kind, more):
    model = smoothed(kind)
    add_lora(model, rank=2, dropout=0.5, **more)
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.add_(0.1)
    assert torch.equal(model.classify(PIXELS), model.classify(PIXELS))  # no dropout
    model.certify(PIXELS[:1], sigma=0.25, n0=5, n=20)
    frozen = next(name for name, module in smoothed(kind).named_modules() if isinstance(module, torch.nn.Conv2d))
    half = smoothed(kind).train()
    half.get_submodule(frozen).eval()
    add_lora(half, rank=2, dropout=0.5, target_modules=[frozen.removeprefix("base_network.")])
    assert not any(module.training for module in half.get_submodule(frozen).modules())
    assert all(module.training for name, module in half.named_modules() if not name.startswith(frozen))

"""What is saved comes back as the network that it was, and what would not is not saved."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    LevitConfig,
    PvtConfig,
    PvtForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from hf_smoothing import SmoothedClassifier, SmoothedClassifierConfig, denoised_classifier, smoothed_ensemble
from hf_smoothing.models.reloading import build_network, class_of
from tests.support.tiny import (
    MEAN,
    SIZE,
    STD,
    assert_same_tensors,
    label_maps,
    plain,
    resnet_config,
    smoothed,
    tensors,
    trainer,
    vit_config,
)


PIXELS = {"size": SIZE, "image_mean": MEAN, "image_std": STD}
IMAGES = torch.randint(0, 256, (3, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0)) / 255


def wrap(base, **kwargs):
    return SmoothedClassifier.from_base_pretrained(base, **{"sigma": 0.25, **PIXELS} | kwargs)


@torch.no_grad()
def logits(model, images=IMAGES):
    return model.eval().classify(images)


def deit(kind=DeiTForImageClassification):
    torch.manual_seed(0)
    values = {
        name: getattr(vit_config(), name) for name in ("hidden_size", "num_attention_heads", "intermediate_size")
    }
    config = DeiTConfig(**values, num_hidden_layers=1, image_size=SIZE, patch_size=4, **label_maps())
    assert config.architectures is None  # as of every network that was built in memory
    return kind(config).eval()


def levit(kind):
    torch.manual_seed(0)
    config = LevitConfig(
        image_size=64, hidden_sizes=[16, 32, 48], num_attention_heads=[1, 2, 3], depths=[1, 1, 1], key_dim=[8, 8, 8], **label_maps()
    )  # fmt: skip
    return getattr(transformers, kind)(config).eval()


class Doubled(ViTForImageClassification):
    """A subclass that answers otherwise, with nothing in its configuration that says so."""

    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.logits = outputs.logits * 2
        return outputs


class OwnConfig(ViTConfig):
    model_type = "vit_of_this_test"


class Own(ViTForImageClassification):
    config_class = OwnConfig


@pytest.mark.parametrize("kind", [DeiTForImageClassification, DeiTForImageClassificationWithTeacher])
def test_a_type_of_several_classes_comes_back_as_the_one_it_was(kind, tmp_path):
    model = wrap(deit(kind))
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert type(again.base_network) is kind
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("name", ["LevitForImageClassification", "LevitForImageClassificationWithTeacher"])
def test_so_do_parts_of_composites(name, tmp_path):
    base, images = levit(name), torch.rand(2, 3, 64, 64)
    pixels = PIXELS | {"size": 64}
    for number, model in enumerate(
        (
            smoothed_ensemble([base, base], sigma=0.25, pixels=pixels),
            denoised_classifier(
                base, sigma=0.25, denoiser={"kind": "residual", "width": 4, "depth": 2}, pixels=pixels
            ),
        )
    ):
        model.save_pretrained(tmp_path / str(number))
        again = SmoothedClassifier.from_pretrained(tmp_path / str(number))
        assert torch.equal(logits(again, images), logits(model, images))
        assert name in {type(module).__name__ for module in again.modules()}


def test_wrapping_builds_no_network_and_draws_no_random_number(monkeypatch):
    base = plain("vit")
    before = tensors(base)
    monkeypatch.setattr(ViTForImageClassification, "__init__", lambda *given: pytest.fail("a second network is built"))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    model = wrap(base)
    assert model.base_network is base
    assert torch.equal(torch.get_rng_state(), state)
    assert_same_tensors(tensors(base), before)


def test_a_part_that_was_replaced_keeps_its_weights_but_is_not_saved(tmp_path):
    base = plain("vit")
    base.classifier = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 3))
    weight = base.classifier[0].weight.detach().clone()
    model = wrap(base)
    assert torch.equal(model.base_network.classifier[0].weight, weight)
    with pytest.raises(
        ValueError, match=r"not saved\. 6 tensors differ .* first is base_network\.classifier\.0\.bias"
    ):
        model.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"What cannot be loaded again is not saved"):
        trainer(model, tmp_path, noise="0.25", save_strategy="steps", save_steps=1)


def test_a_subclass_is_certified_but_not_saved_as_its_parent(tmp_path):
    base = Doubled(vit_config()).eval()
    with pytest.warns(UserWarning, match=r"certified, but not saved\. Doubled .* back as ViTForImageClassification"):
        model = wrap(base)
    assert model.certify(IMAGES, n=20, n0=5)[0].prediction in (-1, 0, 1, 2)
    with pytest.raises(ValueError, match=r"come back as ViTForImageClassification\. .*AutoConfig\.register"):
        model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not saved"):
        smoothed_ensemble([model], sigma=0.25).save_pretrained(tmp_path)


def test_its_cure_works(tmp_path):
    with pytest.warns(UserWarning, match=r"Own of .* would not come back\. Give it"):
        wrap(Own(OwnConfig(**vit_config().to_diff_dict() | {"model_type": OwnConfig.model_type})))
    AutoConfig.register(OwnConfig.model_type, OwnConfig, exist_ok=True)
    AutoModelForImageClassification.register(OwnConfig, Own, exist_ok=True)
    model = wrap(Own(OwnConfig(**vit_config().to_diff_dict() | {"model_type": OwnConfig.model_type})))
    model.save_pretrained(tmp_path)
    again = SmoothedClassifier.from_pretrained(tmp_path)
    assert type(again.base_network) is Own
    assert torch.equal(logits(again), logits(model))


REMOTE = """
from transformers import ResNetConfig, ResNetForImageClassification
class RemoteConfig(ResNetConfig):
    model_type = "remote_of_this_test"
class Remote(ResNetForImageClassification):
    config_class = RemoteConfig
"""


def test_code_of_a_repository_is_certified_but_not_saved(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "remote"
    plain("resnet").save_pretrained(folder)
    (folder / "code_of_this_test.py").write_text(REMOTE)
    config = json.loads((folder / "config.json").read_text())
    names = {
        "AutoConfig": "code_of_this_test.RemoteConfig",
        "AutoModelForImageClassification": "code_of_this_test.Remote",
    }
    config |= {"model_type": "remote_of_this_test", "auto_map": names}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match=r"not saved\. Remote runs code of its own repository"):
        model = wrap(folder, trust_remote_code=True)
    assert torch.equal(logits(model), logits(wrap(plain("resnet"))))
    with pytest.raises(ValueError, match=r"not saved\. Remote runs code .*trust_remote_code=True"):
        model.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists()
    with pytest.raises(ValueError, match="trust_remote_code"):
        wrap(folder, trust_remote_code=False)


def test_a_quantized_network_is_not_saved(tmp_path):
    base = plain("vit")
    base.config.quantization_config = {"quant_method": "hqq"}
    with pytest.warns(UserWarning, match="is quantized, and would come back without"):
        wrap(base)


def test_saved_configurations_do_not_say_where_they_were_made(tmp_path):
    plain("resnet").save_pretrained(tmp_path / "base")
    model = wrap(tmp_path / "base")
    composites = (
        model,
        smoothed_ensemble([tmp_path / "base"], sigma=0.25, pixels=PIXELS),
        denoised_classifier(
            tmp_path / "base", sigma=0.25, pixels=PIXELS, denoiser={"kind": "residual", "width": 4, "depth": 2}
        ),
    )
    for number, made in enumerate(composites):
        made.save_pretrained(tmp_path / str(number))
        again = SmoothedClassifier.from_pretrained(tmp_path / str(number))
        again.save_pretrained(tmp_path / f"{number} again")
        for folder in (str(number), f"{number} again"):
            for file in (tmp_path / folder).glob("*.json"):
                assert tmp_path.name not in file.read_text(), file
    assert SmoothedClassifierConfig(
        base_config={"model_type": "resnet", "_name_or_path": "/home/somebody", **label_maps()}, sigma=0.25, **PIXELS
    ).base_config._name_or_path == ""  # fmt: skip


def test_a_configuration_whose_names_and_numbers_are_apart(tmp_path):
    """PvtConfig keeps its number of labels beside their names."""
    sizes = {
        "hidden_sizes": [8, 8, 16, 16],
        "depths": [1] * 4,
        "num_attention_heads": [1, 1, 2, 2],
        "mlp_ratios": [2] * 4,
    }
    base = PvtForImageClassification(PvtConfig(image_size=32, num_labels=3, **sizes)).eval()
    images = torch.rand(2, 3, 32, 32)
    model = wrap(base, size=32)
    model.save_pretrained(tmp_path)
    again = SmoothedClassifier.from_pretrained(tmp_path)
    assert again.config.id2label == {k: f"LABEL_{k}" for k in range(3)}
    assert torch.equal(logits(again, images), logits(model, images))
    named = PvtForImageClassification(PvtConfig(image_size=32, **sizes, **label_maps()))
    with pytest.raises(
        ValueError, match=r"PvtForImageClassification must give logits of shape \(2, 3\) .* got \(2, 1000"
    ):
        wrap(named, size=32)


@pytest.mark.parametrize("base", [plain("vit").vit, transformers.ViTForMaskedImageModeling(vit_config())])
def test_a_network_without_logits_is_refused_by_name(base):
    with pytest.raises(ValueError, match=rf"{type(base).__name__} must give logits of shape \(2, 3\)"):
        wrap(base)


@pytest.mark.parametrize("base", [nn.Linear(2, 2), {"model": 1}, None, 3])
def test_what_is_no_model_of_transformers_is_refused(base):
    with pytest.raises(TypeError, match=rf"must be a folder, a Hub id or a model .*, got {type(base).__name__}\."):
        wrap(base)
    with pytest.raises(TypeError, match=r"must be a folder, a Hub id"):
        denoised_classifier(base, sigma=0.25)


def test_classes_are_found_by_name_or_first():
    config = DeiTConfig()
    assert class_of(config, []) is DeiTForImageClassification
    assert class_of(config, ["Other"]) is DeiTForImageClassification
    assert class_of(config, ["DeiTForImageClassificationWithTeacher"]) is DeiTForImageClassificationWithTeacher
    assert class_of(transformers.BertConfig(), ["BertModel"]) is None
    assert type(build_network(DeiTConfig(**deit().config.to_diff_dict()))) is DeiTForImageClassification


def test_what_was_frozen_or_half_precise_stays_so(tmp_path):
    base = plain("vit").bfloat16()
    base.vit.requires_grad_(False)
    model = wrap(base)
    assert not any(p.requires_grad for p in model.base_network.vit.parameters())
    assert model.base_network.classifier.weight.requires_grad
    assert logits(model).dtype == torch.bfloat16
    model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = SmoothedClassifier.from_pretrained(tmp_path, dtype="auto")
    assert torch.equal(logits(again), logits(model))


def test_tensors_given_to_save_are_those_that_are_checked(tmp_path):
    model = smoothed("resnet")
    model.save_pretrained(tmp_path, state_dict=tensors(model))
    state = tensors(model)
    del state["base_network.classifier.1.bias"]
    with pytest.raises(ValueError, match=r"first is base_network\.classifier\.1\.bias: none for \(3,\)"):
        model.save_pretrained(tmp_path, state_dict=state)


def test_configurations_that_are_shared_stay_as_they_are():
    config = resnet_config()
    base = transformers.ResNetForImageClassification(config)
    wrap(base)
    assert config.architectures is None


HIDING = {
    "processor_config.json": {"processor_class": "CLIPProcessor", "image_processor": {"do_normalize": True}},
    "adapter_config.json": {"peft_type": "LORA", "target_modules": ["convolution"]},
}


@pytest.mark.parametrize(("name", "content"), HIDING.items())
def test_nothing_is_saved_where_another_file_would_be_read_in_its_place(name, content, tmp_path):
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"{name} .* Save to another folder, or remove that file"):
        smoothed().save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert json.loads((tmp_path / name).read_text()) == content


def test_a_folder_may_be_saved_to_again(tmp_path):
    (tmp_path / "processor_config.json").write_text(
        '{"processor_class": "CLIPProcessor"}'
    )  # of the old kind: no images
    ViTImageProcessor(size={"height": 2 * SIZE, "width": 2 * SIZE}).save_pretrained(tmp_path)
    for seed in (0, 1):
        model = smoothed(seed=seed)
        model.save_pretrained(tmp_path)
        assert AutoImageProcessor.from_pretrained(tmp_path).to_dict() == model.image_processor().to_dict()
        assert_same_tensors(tensors(SmoothedClassifier.from_pretrained(tmp_path)), tensors(model))

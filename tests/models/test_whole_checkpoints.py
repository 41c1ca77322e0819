"""A checkpoint is loaded whole or not at all: missing, unexpected and reshaped tensors, lost shards, heads."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification, ViTForMaskedImageModeling, ViTMAEConfig, ViTMAEForPreTraining

from hf_smoothing import SmoothedClassifier, classifier_from_autoencoder, smoothed_ensemble
from hf_smoothing.cli import main
from hf_smoothing.models.loading import load_classifier
from tests.support.architectures import ARCHITECTURES
from tests.support.tiny import (
    MEAN,
    SIZE,
    STD,
    assert_same_tensors,
    label_maps,
    parquet_folder,
    plain,
    smoothed,
    tensors,
    trainer,
)


PIXELS = {"image_mean": MEAN, "image_std": STD, "size": SIZE}
NEW_HEAD = {"ignore_mismatched_sizes": True, **label_maps(("a", "b", "c", "d", "e"))}


def wrap(folder, **kwargs):
    return SmoothedClassifier.from_base_pretrained(folder, sigma=0.25, **PIXELS, **kwargs)


def edited(folder: Path, change) -> Path:
    """The checkpoint, with `change` applied to the tensors of its first file."""
    file = sorted(folder.glob("*.safetensors"))[0]
    state = load_file(file)
    change(state)
    save_file(state, file, metadata={"format": "pt"})
    return folder


def dropped(part):
    def change(state):
        del state[next(name for name in sorted(state) if part in name)]

    return change


def added(name):
    return lambda state: state.update({name: torch.zeros(2)})


def saved(model, folder, **kwargs) -> Path:
    model.save_pretrained(folder, **kwargs)
    return folder


ROUTES = {
    "wrapped": wrap,
    "in an ensemble": lambda folder: smoothed_ensemble([folder], sigma=0.25, pixels=PIXELS),
    "on the command line": lambda folder: load_classifier(str(folder), sigma=0.25, size=SIZE),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dropped("intermediate.dense.weight"), r"tensors are missing: vit\.layers\.0\.mlp\.fc1\.weight\. Download"),
        (dropped("embeddings.cls_token"), r"missing: vit\.embeddings\.cls_token"),
        (dropped("layernorm.weight"), "missing: vit.layernorm.weight"),
        (dropped("classifier.bias"), r"missing: classifier\.bias\. Download or save the whole"),
        (added("vit.layers.7.mlp.fc1.weight"), "unexpected: vit.layers.7.mlp.fc1.weight"),
        (added("extra"), "of ViTForImageClassification, tensors are unexpected: extra"),
    ],
)
def test_a_checkpoint_that_is_not_whole_names_the_tensors(route, change, message, tmp_path):
    folder = edited(saved(plain("vit"), tmp_path), change)
    with pytest.raises(ValueError, match=message):
        ROUTES[route](folder)


@pytest.mark.parametrize("loader", [SmoothedClassifier, AutoModelForImageClassification], ids=["own", "auto"])
@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_so_does_a_wrapper(kind, loader, tmp_path):
    folder = edited(saved(smoothed(kind), tmp_path), dropped("classifier"))
    with pytest.raises(ValueError, match=r"not those of SmoothedClassifier, tensors are missing: base_network\.class"):
        loader.from_pretrained(folder)
    edited(saved(smoothed(kind), tmp_path), added("base_classifier.classifier.bias"))
    with pytest.raises(ValueError, match=r"unexpected: base_classifier\.classifier\.bias"):
        loader.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["plain", "smoothed"])
def test_shards_are_counted(kind, tmp_path):
    model = plain("vit") if kind == "plain" else smoothed("vit")
    load = wrap if kind == "plain" else SmoothedClassifier.from_pretrained
    folder = edited(saved(model, tmp_path / "one", max_shard_size="5KB"), dropped(""))
    with pytest.raises(ValueError, match="tensors are missing: "):
        load(folder)
    folder = saved(model, tmp_path / "two", max_shard_size="5KB")
    sorted(folder.glob("*.safetensors"))[1].unlink()
    with pytest.raises(ValueError, match=r"is incomplete \(.*model-00002-of"):
        load(folder)


def test_truncated_weights_are_damaged(tmp_path):
    folder = saved(plain("vit"), tmp_path)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match=r"The weights of .* are damaged .* Download or save them again"):
        wrap(folder)


def test_a_path_that_is_no_utf8_is_not_said_to_be_damaged(tmp_path):
    folder = tmp_path / os.fsdecode(b"sm\xfe")
    saved(plain("vit"), tmp_path / "plain").rename(folder)
    with pytest.raises(ValueError, match=r"The path of weights must be UTF-8, got '.*sm\\udcfe'\. Rename what has"):
        wrap(folder)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_network_without_its_head_is_refused(kind, tmp_path):
    model = plain(kind)
    folder = saved(getattr(model, kind), tmp_path)
    with pytest.raises(ValueError, match=r"missing: classifier.* has no head for these classes: finetune it first"):
        wrap(folder)
    for asked in ({"ignore_mismatched_sizes": True}, {"num_labels": 5}, {"id2label": {0: "a", 1: "b"}}):
        with pytest.raises(ValueError, match=r"with ignore_mismatched_sizes=True and id2label="):
            wrap(folder, **asked)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("source", ["headless", "another head"])
def test_a_new_head_is_made_when_it_is_asked_for(kind, source, tmp_path):
    model = plain(kind)
    folder = saved(getattr(model, kind) if source == "headless" else model, tmp_path)
    made = wrap(folder, **NEW_HEAD)
    assert made.num_labels == 5
    assert_same_tensors(tensors(getattr(made.base_network, kind)), tensors(getattr(model, kind)))


def test_what_is_no_part_of_the_network_may_be_left_over_with_a_new_head(tmp_path):
    torch.manual_seed(0)
    pretrained = ViTForMaskedImageModeling(plain("vit").config)
    made = wrap(saved(pretrained, tmp_path), **NEW_HEAD)
    assert_same_tensors(
        tensors(made.base_network.vit),
        {k: v for k, v in tensors(pretrained.vit).items() if k != "embeddings.mask_token"},
    )


def with_config(folder: Path, **values) -> Path:
    """The checkpoint, with other values in its configuration than the weights were saved with; None takes one out."""
    file = folder / "config.json"
    config = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return folder


ONE_STAGE = {"hidden_sizes": [8], "depths": [1], "stage_names": None, "out_features": None, "out_indices": None}
SHALLOWER = {
    "layers": ("vit", {"num_hidden_layers": 3}, {"num_hidden_layers": 1}, "layers.1.attention"),
    "depths": ("resnet", {"depths": [3, 3]}, {"depths": [1, 1]}, "encoder.stages.0.layers.1"),
    "stages": ("resnet", {}, ONE_STAGE, "encoder.stages.1.layers.0"),
}


@pytest.mark.parametrize("what", SHALLOWER)
@pytest.mark.parametrize("bare", [False, True], ids=["classifier", "backbone"])
def test_a_new_head_does_not_take_layers_off(what, bare, tmp_path):
    kind, deep, fewer, first = SHALLOWER[what]
    model = plain(kind, **deep)
    folder = with_config(saved(getattr(model, kind) if bare else model, tmp_path), **fewer)
    with pytest.raises(ValueError, match=f"tensors are unexpected: {'' if bare else kind + '.'}{first}"):
        wrap(folder, **NEW_HEAD)


def test_nor_do_arguments_that_ask_for_fewer(tmp_path):
    folder = saved(plain("vit", num_hidden_layers=3), tmp_path)
    with pytest.raises(ValueError, match=r"tensors are unexpected: vit\.layers\.1"):
        wrap(folder, **NEW_HEAD, num_hidden_layers=1)


def test_nor_is_a_member_of_an_ensemble_left_out(tmp_path):
    whole = smoothed_ensemble([plain("vit"), plain("vit")], sigma=0.25, pixels=PIXELS)
    folder = saved(whole, tmp_path)
    base = json.loads((folder / "config.json").read_text())["base_config"]
    with_config(folder, base_config=base | {"members": base["members"][:1]})
    with pytest.raises(ValueError, match=r"tensors are unexpected: base_network\.members\.1"):
        SmoothedClassifier.from_pretrained(folder, **NEW_HEAD)


PRETRAINED = {
    "masked images": ("Swin", "SwinForMaskedImageModeling"),
    "a text tower": ("CLIP", "CLIPModel"),
    "a pooler": ("DeiT", "DeiTModel"),
    "heads of a distillation": ("DeiT", "DeiTForImageClassificationWithTeacher"),
    "a segmentation": ("Segformer", "SegformerForSemanticSegmentation"),
}


@pytest.mark.parametrize("what", PRETRAINED)
def test_what_pretraining_had_beside_the_backbone_may_be_left_over(what, tmp_path):
    name, pretrained = PRETRAINED[what]
    architecture = next(one for one in ARCHITECTURES if one.config == name)
    folder = saved(getattr(transformers, pretrained)(architecture.build().config), tmp_path)
    pixels = PIXELS | {"size": architecture.size}
    assert SmoothedClassifier.from_base_pretrained(folder, sigma=0.25, **pixels, **NEW_HEAD).num_labels == 5


@pytest.mark.parametrize(
    ("change", "asked", "message"),
    [
        (dropped("intermediate.dense.weight"), {}, "missing: vit.layers.0.mlp.fc1.weight"),
        (dropped("layernorm.weight"), {}, "missing: vit.layernorm.weight"),
        (added("vit.layernorm.scale"), {}, "unexpected: vit.layernorm.scale"),
        (lambda state: None, {"image_size": 32}, "of another shape: vit.embeddings.position_embeddings"),
    ],
)
def test_a_new_head_excuses_no_other_tensor(change, asked, message, tmp_path):
    folder = edited(saved(plain("vit"), tmp_path), change)
    with pytest.raises(ValueError, match=message):
        wrap(folder, **NEW_HEAD, **asked)


def test_a_wrapper_gets_a_new_head_too(tmp_path):
    model = smoothed("vit")
    made = SmoothedClassifier.from_pretrained(saved(model, tmp_path), **NEW_HEAD)
    assert made.num_labels == made.base_network.classifier.out_features == 5
    assert_same_tensors(tensors(made.base_network.vit), tensors(model.base_network.vit))


def test_tensors_that_a_network_computes_itself_may_be_there(tmp_path):
    """Older checkpoints hold buffers that are not saved any more, and the oldest no counters of batches."""
    vit = plain("vit")
    vit.vit.embeddings.register_buffer("position_ids", torch.arange(3), persistent=False)
    known = SmoothedClassifier.from_base_pretrained(plain("resnet"), sigma=0.25, **PIXELS)
    folder = saved(plain("resnet"), tmp_path)
    edited(folder, lambda state: [state.pop(name) for name in list(state) if name.endswith("num_batches_tracked")])
    x = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(wrap(folder).classify(x), known.classify(x))


def test_training_goes_on_from_whole_checkpoints_only(tmp_path):
    run = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    trainer(plain("vit"), tmp_path, **run).train()
    edited(tmp_path / "checkpoint-1", dropped("cls_token"))
    with pytest.raises(ValueError, match="missing: vit.embeddings.cls_token"):
        trainer(plain("vit"), tmp_path, **run).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_an_autoencoder_is_whole(tmp_path):
    shape = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 1}
    decoder = {f"decoder_{name}": value for name, value in shape.items()}
    config = ViTMAEConfig(**shape, **decoder, image_size=16, patch_size=4)
    folder = saved(ViTMAEForPreTraining(config), tmp_path)
    assert classifier_from_autoencoder(folder, num_labels=3).num_labels == 3
    edited(folder, dropped("vit.layernorm.weight"))
    with pytest.raises(ValueError, match="missing: vit.layernorm.weight"):
        classifier_from_autoencoder(folder)


def test_an_autoencoder_is_of_the_files_that_are_asked_for(tmp_path):
    shape = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 1}
    decoder = {f"decoder_{name}": value for name, value in shape.items()}
    autoencoder = ViTMAEForPreTraining(ViTMAEConfig(**shape, **decoder, image_size=16, patch_size=4))
    saved(plain("vit"), tmp_path)
    saved(autoencoder, tmp_path / "v2")
    made = classifier_from_autoencoder(tmp_path, subfolder="v2", num_labels=3)
    assert_same_tensors(tensors(made.vit), tensors(autoencoder.vit))
    assert not hasattr(made.config, "subfolder")
    with pytest.raises(
        TypeError, match="subfolder: only a checkpoint is loaded with these, got a ViTMAEForPreTraining"
    ):
        classifier_from_autoencoder(autoencoder, subfolder="v2")


@pytest.mark.parametrize("what", ["headless", "shard", "adapter"])
def test_the_command_line_says_so_and_fails(what, tmp_path, capsys):
    model = plain("vit")
    folder = saved(model.vit if what == "headless" else model, tmp_path / "model", max_shard_size="5KB")
    rows = parquet_folder(tmp_path / "data", count=3)
    expected = {
        "headless": "classifier.bias, classifier.weight",
        "shard": "incomplete",
        "adapter": "merge_and_unload()",
    }
    if what == "shard":
        sorted(folder.glob("*.safetensors"))[1].unlink()
    if what == "adapter":
        (folder / "config.json").unlink()
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    words = ["certify", str(folder), str(rows), "--sigma", "0.25", "--output-dir", str(tmp_path / "run")]
    assert main(words) == 2
    assert expected[what] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def edited_config(where, make, change):
    """A checkpoint whose config.json was edited afterwards, at the outermost level and in a wrapper's part."""
    make().save_pretrained(where)
    values = json.loads((where / "config.json").read_text())
    for part in (values, values.get("base_config")):
        if part is not None:
            part.update(change)
    (where / "config.json").write_text(json.dumps(values))


def classes_of(count):
    return {"id2label": {str(k): f"c{k}" for k in range(count)}, "label2id": {f"c{k}": k for k in range(count)}}


@pytest.mark.parametrize("ignored", [{}, {"ignore_mismatched_sizes": True}], ids=["", "ignoring"])
@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
def test_a_configuration_of_other_classes_than_the_head_is_the_fault_that_is_named(
    wrapped, kind, count, ignored, tmp_path
):
    edited_config(tmp_path, lambda: (smoothed if wrapped else plain)(kind), classes_of(count))
    values = {} if wrapped else {"sigma": 0.25, **PIXELS}
    load = SmoothedClassifier.from_pretrained if wrapped else SmoothedClassifier.from_base_pretrained
    said = rf"names {count} classes, but the head in its weights has 3 \(.*classifier.*\). Correct id2label"
    with pytest.raises(ValueError, match=said):
        load(tmp_path, **values, **ignored)
    names = dict(enumerate(("cat", "dog", "eel")))
    assert load(tmp_path, **values, id2label=names).config.id2label == names


def test_a_configuration_of_other_layers_than_the_weights_is_not_taken_for_other_classes(tmp_path):
    edited_config(tmp_path, lambda: plain("vit"), {"intermediate_size": 24})
    with pytest.raises(ValueError, match=r"is not that of its weights: vit.* has the shape \(32,\).* and \(24,\) by"):
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, **PIXELS)

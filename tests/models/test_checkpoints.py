"""Checkpoints come back with every tensor, plain ones are wrapped, and what cannot be loaded soundly is refused with the cure."""

import json
import logging

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    BertConfig,
    BertForSequenceClassification,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEForPreTraining,
)
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from hf_smoothing import NoisyImageProcessor, SmoothedClassifier, denoised_classifier, smoothed_ensemble
from hf_smoothing.data.framing import Framing, parse_framing
from tests.support.architectures import ARCHITECTURES, label
from tests.support.tiny import (
    MEAN,
    SIZE,
    STD,
    assert_same_tensors,
    label_maps,
    pil_images,
    pixels,
    plain,
    smoothed,
    tensors,
)


NORMALISATION = {"image_mean": MEAN, "image_std": STD}


def perturbed(model):
    """Also move the tensors that start at the same value everywhere, so that a tensor that is not restored shows."""
    generator = torch.Generator().manual_seed(99)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator))
            else:
                tensor.fill_(17)
    return model


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("loader", [SmoothedClassifier, AutoModelForImageClassification], ids=["own", "auto"])
def test_every_tensor_comes_back(kind, loader, tmp_path):
    model = perturbed(smoothed(kind, sigma=0.7, model_size=SIZE))
    model.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    loaded = loader.from_pretrained(tmp_path)
    assert type(loaded) is SmoothedClassifier
    assert not loaded.training
    assert_same_tensors(tensors(model), tensors(loaded))
    assert loaded.config.sigma == 0.7
    assert torch.equal(model(pixels(), seed=0).logits, loaded(pixels(), seed=0).logits)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_plain_checkpoint_is_wrapped_with_every_tensor(kind, tmp_path):
    base = perturbed(plain(kind))
    base.save_pretrained(tmp_path)
    model = SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, size=SIZE, **NORMALISATION)
    assert_same_tensors(tensors(base), tensors(model.base_network))
    assert not model.training and not model.base_network.training
    assert model.config.noise_owner == "trainer"


def test_the_processor_that_is_saved_makes_what_the_model_takes(tmp_path):
    smoothed("resnet", size=(12, 16), model_size=32).save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    values = processor(pil_images(2, size=20), return_tensors="pt")["pixel_values"]
    assert values.shape == (2, 3, 12, 16)
    assert float(values.min()) >= 0.0 and float(values.max()) <= 1.0
    assert SmoothedClassifier.from_pretrained(tmp_path)(values).logits.shape == (2, 3)


def test_from_pretrained_takes_the_arguments_of_its_parent(tmp_path):
    smoothed("vit").save_pretrained(tmp_path)
    loaded, info = SmoothedClassifier.from_pretrained(
        pretrained_model_name_or_path=str(tmp_path), output_loading_info=True, sigma=0.75, dtype=torch.bfloat16
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.config.sigma == 0.75
    assert loaded.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "wrong", [{"sigma": -1.0}, {"alpha": 2.0}, {"noise": 0.5}, {"image_std": [0.0] * 3}, {"num_samples": 0}]
)
def test_values_given_while_loading_are_checked(wrong, tmp_path):
    smoothed("vit").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SmoothedClassifier.from_pretrained(tmp_path, **wrong)


def test_a_size_given_while_loading_is_read_like_any_other(tmp_path):
    smoothed("resnet").save_pretrained(tmp_path)
    model = SmoothedClassifier.from_pretrained(tmp_path, size=8, model_size=SIZE)
    assert (model.config.size, model.config.model_size) == ([8, 8], [SIZE, SIZE])
    assert model(pixels(2, 8)).logits.shape == (2, 3)


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        (8, [SIZE, SIZE]),
        ((8, 12), [SIZE, SIZE]),
        (Framing(8, 10), [SIZE, SIZE]),
        (SIZE, None),
        (24, [SIZE, SIZE]),
    ],
)
def test_another_certified_resolution_leaves_the_network_what_it_sees(size, seen, tmp_path):
    model = smoothed("resnet")
    model.save_pretrained(tmp_path)
    again = SmoothedClassifier.from_pretrained(tmp_path, size=size)
    for config in (
        again.config,
        AutoConfig.from_pretrained(tmp_path, size=size),
        AutoModelForImageClassification.from_pretrained(tmp_path, size=size).config,
    ):
        assert config.model_size == seen and config.framing().size == parse_framing(size).size
    small = torch.rand(2, 3, *again.config.size)
    expected = model.base_network(again.config.preprocessing()(small)).logits
    torch.testing.assert_close(again.classify(small), expected)
    # As around the plain checkpoint of that size; what is asked for is done.
    again.save_pretrained(tmp_path / "again")
    assert SmoothedClassifier.from_pretrained(tmp_path / "again").config.model_size == seen
    assert SmoothedClassifier.from_pretrained(tmp_path, size=size, model_size=None).config.model_size is None
    assert SmoothedClassifier.from_pretrained(tmp_path / "again", size=9).config.model_size == [SIZE, SIZE]


def test_a_head_for_other_classes_says_how_to_get_a_new_one(tmp_path):
    plain("resnet").save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"a head for other classes\. To finetune it pass ignore_mismatched_sizes=True"
    ):
        SmoothedClassifier.from_base_pretrained(
            tmp_path, sigma=0.25, size=SIZE, **label_maps(("a", "b", "c", "d", "e")), **NORMALISATION
        )


def test_a_new_head_is_made_for_other_classes(tmp_path):
    plain("vit").save_pretrained(tmp_path)
    names = ("a", "b", "c", "d", "e")
    model = SmoothedClassifier.from_base_pretrained(
        tmp_path, sigma=0.25, size=SIZE, ignore_mismatched_sizes=True, **label_maps(names), **NORMALISATION
    )
    assert model.base_network.classifier.out_features == model.num_labels == model.config.num_labels == 5
    assert model(pixels()).logits.shape == (4, 5)
    model.save_pretrained(tmp_path / "new")
    assert SmoothedClassifier.from_pretrained(tmp_path / "new").config.id2label == dict(enumerate(names))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"id2label": ["ant", "bee"]}, r"from 0 on .* got \['ant', 'bee'\]\. .*dict\(enumerate\(names\)\)"),
        ({"id2label": {1: "ant", 3: "bee"}}, r"without a gap.* got \{1: 'ant', 3: 'bee'\}"),
        ({"id2label": {0: "ant", 1: "bee"}, "num_labels": 10}, "num_labels=10 and 2 names"),
        ({"num_labels": "3"}, "`num_labels` must be a whole number, got '3'"),
        ({"num_labels": 2.0}, "`num_labels` must be a whole number, got 2.0"),
        ({"num_labels": True}, "`num_labels` must be a whole number, got True"),
        ({"num_labels": [3]}, "`num_labels` must be a whole number, got "),
        ({"num_labels": 0}, "`num_labels` must be the number of classes, at least 1, got 0"),
        ({"num_labels": -2}, "`num_labels` must be the number of classes, at least 1, got -2"),
    ],
)
def test_names_that_are_not_one_for_each_class_are_refused(asked, message, tmp_path):
    plain("resnet").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, size=SIZE, ignore_mismatched_sizes=True, **asked)


def test_names_by_numbers_that_are_text_make_a_head(tmp_path):
    plain("resnet").save_pretrained(tmp_path)
    model = SmoothedClassifier.from_base_pretrained(
        tmp_path,
        sigma=0.25,
        size=SIZE,
        ignore_mismatched_sizes=True,
        id2label={"0": "ant", "1": "bee"},
        **NORMALISATION,
    )
    assert model.config.id2label == {0: "ant", 1: "bee"}


def test_weights_in_shards_come_back(tmp_path):
    model = perturbed(smoothed("vit"))
    model.save_pretrained(tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_same_tensors(tensors(model), tensors(SmoothedClassifier.from_pretrained(tmp_path)))


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_pickle_checkpoint_is_refused_with_the_cure(kind, tmp_path):
    base = plain(kind)
    base.config.save_pretrained(tmp_path)
    torch.save(base.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"no safetensors weights.*save_pretrained"):
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, size=SIZE, **NORMALISATION)


@pytest.mark.parametrize(
    "beside", [(), ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state_0.pth", "training_args.bin")]
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_folder_without_weights_is_no_pickle(wrapped, beside, tmp_path):
    for name in beside:  # of a training
        (tmp_path / name).write_bytes(b"")
    (smoothed("resnet") if wrapped else plain("resnet")).config.save_pretrained(tmp_path)
    how = {} if wrapped else {"sigma": 0.25, "size": SIZE, **NORMALISATION}
    load = SmoothedClassifier.from_pretrained if wrapped else SmoothedClassifier.from_base_pretrained
    with pytest.raises(ValueError, match="has no weights: no model.safetensors beside") as refused:
        load(tmp_path, **how)
    assert "ickle" not in str(refused.value)


@pytest.mark.parametrize(
    ("config", "network"),
    [
        (ViTMAEConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, decoder_hidden_size=8, decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2, decoder_intermediate_size=8, image_size=32, patch_size=8), ViTMAEForPreTraining),
        (BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=8), BertForSequenceClassification),
    ],
    ids=["mae", "bert"],
)  # fmt: skip
def test_what_is_no_image_classifier_is_said(config, network, tmp_path):
    network(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"is no image classifier: it holds a {network.__name__}") as refused:
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, size=SIZE, **NORMALISATION)
    assert len(str(refused.value)) < 600  # no list of all there are


@pytest.mark.parametrize("loader", [SmoothedClassifier, AutoModelForImageClassification], ids=["own", "auto"])
def test_a_pickle_of_the_wrapper_is_refused(loader, tmp_path):
    model = smoothed("resnet")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises((ValueError, OSError), match="safetensors"):
        loader.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_half_precision_weights_run_in_float32_unless_asked(kind, tmp_path):
    plain(kind).half().save_pretrained(tmp_path / "base")
    model = SmoothedClassifier.from_base_pretrained(tmp_path / "base", sigma=0.25, size=SIZE, **NORMALISATION)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    model.save_pretrained(tmp_path / "again")
    loaded = SmoothedClassifier.from_pretrained(tmp_path / "again")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    half = SmoothedClassifier.from_base_pretrained(
        tmp_path / "base", sigma=0.25, size=SIZE, dtype=torch.bfloat16, **NORMALISATION
    )
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_a_plain_checkpoint_under_the_name_of_the_wrapper_is_refused(tmp_path):
    plain().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="from_base_pretrained"):
        SmoothedClassifier.from_pretrained(tmp_path)


def test_the_resolution_must_be_known(tmp_path):
    plain().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="certified resolution .* not known. Pass `size`"):
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, **NORMALISATION)
    with pytest.raises(ValueError, match="certified resolution .* not known"):
        SmoothedClassifier.from_base_pretrained(plain(), sigma=0.25, **NORMALISATION)


@pytest.mark.parametrize("given", [{}, {"image_mean": MEAN}, {"image_std": STD}])
def test_the_normalisation_must_be_known(given, tmp_path):
    plain().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="normalisation .* not known"):
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, size=SIZE, **given)


def read(folder, **kwargs):
    config = SmoothedClassifier.from_base_pretrained(folder, sigma=0.25, **kwargs).config
    return config.size, config.model_size, config.image_mean, config.image_std


def test_pixels_are_read_from_the_image_processor(tmp_path):
    plain().save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 16, "width": 12}, image_mean=MEAN, image_std=STD).save_pretrained(tmp_path)
    assert read(tmp_path) == ([16, 12], None, MEAN, STD)


def test_a_smaller_certified_resolution_keeps_what_the_backbone_sees(tmp_path):
    plain().save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=MEAN, image_std=STD).save_pretrained(tmp_path)
    assert read(tmp_path, size=8) == ([8, 8], [16, 16], MEAN, STD)


def test_a_processor_that_does_not_normalise_is_believed(tmp_path):
    plain().save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 16, "width": 16}, do_normalize=False).save_pretrained(tmp_path)
    assert read(tmp_path) == ([16, 16], None, [0.0] * 3, [1.0] * 3)


def test_the_model_size_of_a_noisy_image_processor_is_read(tmp_path):
    plain().save_pretrained(tmp_path)
    NoisyImageProcessor(size=8, model_size=16, image_mean=MEAN, image_std=STD).save_pretrained(tmp_path)
    assert read(tmp_path) == ([8, 8], [16, 16], MEAN, STD)


def with_note(folder, **note):
    base = plain()
    base.config.hf_smoothing = {"size": [16, 16], "model_size": None, **NORMALISATION, "noise": None} | note
    base.save_pretrained(folder)
    return folder


def test_pixels_are_read_from_the_note_of_the_trainer_first(tmp_path):
    with_note(tmp_path, model_size=[32, 32])
    ViTImageProcessor(size={"height": 32, "width": 32}, **NORMALISATION).save_pretrained(tmp_path)
    assert read(tmp_path) == ([16, 16], [32, 32], MEAN, STD)


@pytest.mark.parametrize(
    ("change", "name", "values"),
    [
        ({"image_mean": [0.5] * 3}, "image_mean", r"\[0\.4, 0\.5, 0\.6\] in the first and \[0\.5, 0\.5, 0\.5\]"),
        ({"image_std": [0.5] * 3}, "image_std", r"in the first and \[0\.5, 0\.5, 0\.5\] in the second"),
        ({"size": {"height": 64, "width": 64}}, "model_size", r"\[32, 32\] in the first and \[64, 64\] in the second"),
    ],
)
def test_a_note_and_a_processor_that_disagree_are_refused(change, name, values, tmp_path):
    with_note(tmp_path, model_size=[32, 32])
    ViTImageProcessor(**({"size": {"height": 32, "width": 32}, **NORMALISATION} | change)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"disagree: {name} is .*{values}.*passing {name}="):
        read(tmp_path)
    given = {"image_mean": MEAN, "image_std": STD, "model_size": [32, 32]}[name]
    assert read(tmp_path, **{name: given}) == ([16, 16], [32, 32], MEAN, STD)


def test_what_is_given_beats_the_note(tmp_path):
    assert read(with_note(tmp_path), image_mean=[0.1] * 3) == ([16, 16], None, [0.1] * 3, STD)


def test_another_size_than_the_noted_one_keeps_what_the_backbone_sees(tmp_path):
    assert read(with_note(tmp_path), size=8) == ([8, 8], [16, 16], MEAN, STD)


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_other_heads_are_refused(problem, tmp_path):
    base = plain(problem_type=problem)
    base.save_pretrained(tmp_path)
    for given in (base, tmp_path):
        with pytest.raises(ValueError, match="single-label"):
            SmoothedClassifier.from_base_pretrained(given, sigma=0.25, size=SIZE, **NORMALISATION)


def test_a_wrapper_is_not_wrapped_again():
    with pytest.raises(ValueError, match="SmoothedClassifier already"):
        SmoothedClassifier.from_base_pretrained(smoothed(), sigma=0.25)


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises((OSError, ValueError)):
        SmoothedClassifier.from_base_pretrained(tmp_path / "nowhere", sigma=0.25, size=SIZE, **NORMALISATION)


def test_a_corrupt_checkpoint_is_not_called_a_pickle(tmp_path):
    plain().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00not json")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which type is up to safetensors
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, size=SIZE, **NORMALISATION)
    assert "Pickle" not in str(caught.value)


def test_the_saved_configuration_is_plain_json(tmp_path):
    smoothed(noise={"sigmas": [0, 1], "distribution": "uniform"}).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["noise"] == {"sigmas": [0.0, 1.0], "clean": 0.0, "distribution": "uniform"}
    assert saved["noise_owner"] == "model"
    assert saved["base_config"]["model_type"] == "resnet"


OTHER = [0.1, 0.2, 0.3]


def with_processor(folder, mean, nested=False):
    """A network and its image processor, in a file of its own, or inside that of a processor of several inputs."""
    plain("vit").save_pretrained(folder)
    processor = ViTImageProcessor(size={"height": SIZE, "width": SIZE}, image_mean=mean, image_std=STD)
    if nested:
        stated = {"processor_class": "CLIPProcessor", "image_processor": processor.to_dict()}
        (folder / "processor_config.json").write_text(json.dumps(stated, default=str))
    else:
        processor.save_pretrained(folder)
    return folder


def in_two_folders(folder, below, nested=False, other=OTHER):
    """A network in a folder, and one in a subfolder whose processor has another mean."""
    with_processor(folder / below, other, nested)
    return with_processor(folder, MEAN, nested)


def cached_on_the_hub(cache):
    """A repository ada/net as its download leaves it: a branch v1, and a subfolder v2, with other image processors than main has."""
    repository = cache / "models--ada--net"
    for branch, commit, mean in (("main", "c" * 40, MEAN), ("v1", "d" * 40, OTHER)):
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / branch).write_text(commit)
        with_processor(with_processor(repository / "snapshots" / commit, mean) / "v2", OTHER)
    return cache


WHERE = {
    "subfolder": {"subfolder": "v2"},
    "revision": {"revision": "v1"},
    "both": {"revision": "v1", "subfolder": "v2"},
}
WRAPPED = {
    "wrapped": lambda path, **where: SmoothedClassifier.from_base_pretrained(path, sigma=0.25, **where).config,
    "denoised": lambda path, **where: denoised_classifier(path, sigma=0.25, **where).base_network.config,
    "in an ensemble": lambda path, **where: smoothed_ensemble([path], sigma=0.25, **where).base_network.config.members[
        0
    ],
}


def mean_of(config):
    return config["image_mean"] if isinstance(config, dict) else config.image_mean


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("route", WRAPPED)
def test_the_processor_is_of_the_files_that_the_weights_are_of(route, where, tmp_path):
    asked = {**WHERE[where], "cache_dir": str(cached_on_the_hub(tmp_path)), "local_files_only": True}
    assert mean_of(WRAPPED[route]("ada/net", **asked)) == OTHER
    assert mean_of(WRAPPED[route]("ada/net", **asked | {"revision": "main", "subfolder": ""})) == MEAN


@pytest.mark.parametrize("nested", [False, True], ids=["its own file", "nested"])
@pytest.mark.parametrize("route", WRAPPED)
def test_so_it_is_of_a_subfolder_here(route, nested, tmp_path):
    folder = in_two_folders(tmp_path, "a/v2", nested)
    assert mean_of(WRAPPED[route](folder, subfolder="a/v2")) == OTHER
    assert mean_of(WRAPPED[route](folder)) == MEAN


@pytest.mark.parametrize("where", WHERE)
def test_a_model_of_the_hub_does_not_say_which_files_it_came_from(where, tmp_path):
    cache = {"cache_dir": str(cached_on_the_hub(tmp_path)), "local_files_only": True}
    loaded = AutoModelForImageClassification.from_pretrained("ada/net", **WHERE[where], **cache)
    with pytest.raises(
        ValueError, match=r"loaded from 'ada/net', but not from which .*revision.*Pass the folder or Hub id"
    ):
        SmoothedClassifier.from_base_pretrained(loaded, sigma=0.25)


@pytest.mark.parametrize("nested", [False, True], ids=["its own file", "nested"])
@pytest.mark.parametrize("below", ["part", "a/b/part"])
def test_nor_does_one_of_a_folder_with_several(below, nested, tmp_path):
    folder = in_two_folders(tmp_path, below, nested)
    loaded = AutoModelForImageClassification.from_pretrained(folder, subfolder=below)
    with pytest.raises(
        ValueError, match="Which image processor belongs to this ViTForImageClassification is not cert"
    ):
        SmoothedClassifier.from_base_pretrained(loaded, sigma=0.25)
    said = {"size": SIZE, "image_mean": 0.5, "image_std": 0.5}
    assert SmoothedClassifier.from_base_pretrained(loaded, sigma=0.25, **said).config.image_mean == [0.5] * 3
    loaded.config.hf_smoothing = {"size": SIZE, **NORMALISATION}
    assert SmoothedClassifier.from_base_pretrained(loaded, sigma=0.25).config.image_mean == MEAN


def test_nor_does_one_of_a_relative_path(tmp_path, monkeypatch):
    for place, mean in (("a", OTHER), ("b", MEAN)):
        with_processor(tmp_path / place / "net", mean)
    monkeypatch.chdir(tmp_path / "a")
    loaded = AutoModelForImageClassification.from_pretrained("net")
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(ValueError, match="loaded from 'net', but not from which folder"):
        SmoothedClassifier.from_base_pretrained(loaded, sigma=0.25)


@pytest.mark.parametrize("nested", [False, True], ids=["its own file", "nested"])
def test_the_same_processor_in_a_subfolder_as_in_checkpoints_of_a_training_is_no_question(nested, tmp_path):
    folder = in_two_folders(tmp_path, "part", nested, other=MEAN)
    loaded = AutoModelForImageClassification.from_pretrained(folder)
    assert SmoothedClassifier.from_base_pretrained(loaded, sigma=0.25).config.image_mean == MEAN


def test_an_old_head_that_stays_under_new_names_is_warned_of(tmp_path):
    plain("vit").save_pretrained(tmp_path)
    new = {"sigma": 0.25, "size": SIZE, **NORMALISATION, "ignore_mismatched_sizes": True}
    with pytest.warns(
        UserWarning, match=r"is for \['cat', 'dog', 'eel'\]... and stays under the names \['a', 'b', 'c'\]"
    ):
        SmoothedClassifier.from_base_pretrained(tmp_path, **new, id2label=dict(enumerate("abc")))
    SmoothedClassifier.from_base_pretrained(tmp_path, **new, id2label=dict(enumerate("abcd")))  # a new head
    SmoothedClassifier.from_base_pretrained(tmp_path, **new, num_labels=3)


LIGHT = [a for a in ARCHITECTURES if not (a.absent or a.refused or a.slow)]
HALVES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.mark.parametrize("architecture", LIGHT, ids=label)
def test_the_line_that_the_warning_gives_draws_the_whole_head_again(architecture, tmp_path):
    network = architecture.build()
    network.config.id2label, network.config.label2id = (
        dict(enumerate("abcde")),
        {name: k for k, name in enumerate("abcde")},
    )
    network.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="draw its weights again") as warned:
        model = SmoothedClassifier.from_base_pretrained(
            tmp_path, sigma=0.25, size=architecture.size, **HALVES, ignore_mismatched_sizes=True, id2label=dict(enumerate("vwxyz")),
        )  # fmt: skip
    line = next(str(one.message).split("again: ")[1] for one in warned if "again: " in str(one.message))
    # What is new where a new head is made.
    _, info = AutoModelForImageClassification.from_pretrained(
        tmp_path, num_labels=6, ignore_mismatched_sizes=True, output_loading_info=True
    )
    for held in (model, model.base_network):
        before = {name: value.clone() for name, value in model.base_network.state_dict().items()}
        exec(line, {"model": held})
        now = model.base_network.state_dict()
        assert {name for name in now if not torch.equal(now[name], before[name])} == {
            name for name, *_ in info["mismatched_keys"]
        }


def test_the_line_that_the_warning_gives_works_on_what_is_made_of_several(tmp_path):
    plain("vit").save_pretrained(tmp_path)
    new = {"sigma": 0.25, "pixels": {"size": SIZE, **NORMALISATION}, "ignore_mismatched_sizes": True, "id2label": dict(enumerate("abc"))}  # fmt: skip
    for make in (lambda: smoothed_ensemble([tmp_path, tmp_path], **new), lambda: denoised_classifier(tmp_path, **new)):
        with pytest.warns(UserWarning, match="draw its weights again") as warned:
            model = make()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        exec(str(warned[0].message).split("again: ")[1], {"model": model})
        now = model.state_dict()
        changed = {name for name in now if not torch.equal(now[name], before[name])}
        assert changed == {name for name in now if ".classifier." in name}


@pytest.mark.parametrize("kind", ["ViT", "Pvt"])
@pytest.mark.parametrize(
    "asked", [{"id2label": {0: "a", 1: "b", 2: "c"}}, {"num_labels": 3}, {"id2label": {"0": "a", "1": "b", "2": "c"}, "num_labels": 3}]
)  # fmt: skip
def test_other_classes_are_asked_for_without_a_word_of_the_old_ones(kind, asked, tmp_path):
    class Said(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    architecture, said, handler = next(a for a in LIGHT if a.config == kind), [], Said()
    architecture.build().save_pretrained(tmp_path)
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        model = SmoothedClassifier.from_base_pretrained(
            tmp_path, sigma=0.25, size=architecture.size, **HALVES, ignore_mismatched_sizes=True, **asked
        )
    finally:
        logger.removeHandler(handler)
    assert not [line for line in said if "incompatible" in line]
    names = ["a", "b", "c"] if "id2label" in asked else ["LABEL_0", "LABEL_1", "LABEL_2"]
    for config in (model.config, model.base_network.config):
        assert config.id2label == dict(enumerate(names)) and config.num_labels == 3
        assert config.label2id == {name: k for k, name in enumerate(names)}


SPOILT = {
    "damaged": (lambda stated: "{", r"not a valid JSON file"),
    "a list": (lambda stated: "[]", "'list' object"),
    "of a package that is not there": (
        lambda stated: json.dumps({**stated, "image_processor_type": "TimmWrapperImageProcessor"}), "TimmWrapperImageProcessor",
    ),
    "of an unknown class": (
        lambda stated: json.dumps({**stated, "image_processor_type": "OtherImageProcessor"}), "Unrecognized image processor",
    ),
    "of code": (
        lambda stated: json.dumps({**stated, "image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"}}),
        "trust_remote_code=True",
    ),
}  # fmt: skip


@pytest.mark.parametrize("noted", [False, True], ids=["alone", "beside a note"])
@pytest.mark.parametrize("nested", [False, True], ids=["its own file", "nested"])
@pytest.mark.parametrize("how", SPOILT)
def test_an_image_processor_that_cannot_be_used_is_not_called_missing(how, nested, noted, tmp_path):
    folder = with_note(tmp_path) if noted else with_processor(tmp_path, MEAN)
    ViTImageProcessor(size={"height": SIZE, "width": SIZE}, **NORMALISATION).save_pretrained(folder)
    spoil, message = SPOILT[how]
    file = folder / "preprocessor_config.json"
    text = spoil(json.loads(file.read_text()))
    file.write_text(text)
    if nested:
        file.unlink()
        (folder / "processor_config.json").write_text('{"image_processor": ' + text + "}")
    name = "processor_config.json" if nested else "preprocessor_config.json"
    message = "not a valid JSON file" if how == "damaged" else message
    with pytest.raises(
        ValueError, match=rf"image processor of .*: its {name} cannot be used .*{message}.* say all of it"
    ):
        SmoothedClassifier.from_base_pretrained(folder, sigma=0.25)
    said = {"size": SIZE, **NORMALISATION}
    assert SmoothedClassifier.from_base_pretrained(folder, sigma=0.25, **said).config.image_mean == MEAN


def test_a_processor_of_words_alone_is_no_image_processor(tmp_path):
    plain("vit").save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    with pytest.raises(ValueError, match="normalisation .* not known: it has no image processor"):
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, size=SIZE)


@pytest.mark.parametrize("value", ["0.5", ["0.4", "0.5", "0.6"]])
@pytest.mark.parametrize("name", ["image_mean", "image_std"])
def test_numbers_of_a_processor_that_are_text_are_named(name, value, tmp_path):
    file = with_processor(tmp_path, MEAN) / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(ValueError, match=rf"The image processor of {tmp_path}: .*(must be a number|fails on)"):
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25)


@pytest.mark.parametrize(
    "change", [{"image_std": None}, {"image_std": "x"}, {"image_mean": ["a", "b", "c"]}, {"size": "x"}]
)
def test_a_note_that_is_not_whole_is_named(change, tmp_path):
    with pytest.raises(ValueError, match=r"`hf_smoothing` in config.json must say size, image_mean and image_std"):
        read(with_note(tmp_path, **change))

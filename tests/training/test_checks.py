"""Noise, and normalisation, have exactly one owner."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import TrainingArguments, ViTImageProcessor

from hf_smoothing import NoisyImageProcessor, RobustTrainer, SmoothedClassifier
from hf_smoothing.data import DecodedPixels
from hf_smoothing.preprocessing import Preprocessing
from tests.support.tiny import (
    MEAN,
    NAMES,
    SIZE,
    STD,
    arguments,
    data,
    image_dataset,
    note,
    plain,
    smoothed,
    trainer,
    trainer_values,
)


NOISY = {"size": SIZE, "noise": 0.5, "do_noise": True, "image_mean": MEAN, "image_std": STD}


@pytest.mark.parametrize(
    ("model", "args", "processor"),
    [
        ({"noise": 0.5}, {"noise": "0.5"}, None),
        ({"noise": 0.5}, {}, None),
        ({"noise": 0.5}, {"noise_owner": "processor"}, None),
        ({"noise": 0.5}, {"noise_owner": "processor"}, NOISY),
        ({"noise": 0.5}, {"noise_owner": "model"}, NOISY),
        ({}, {"noise": "0.5"}, NOISY),
        ({}, {}, NOISY),
        (None, {"noise": "0.5"}, NOISY),
        (None, {}, NOISY),
    ],
)
def test_two_owners_of_noise_are_refused(model, args, processor, tmp_path):
    classifier = plain() if model is None else smoothed(**model)
    processing = None if processor is None else NoisyImageProcessor(**processor)
    with pytest.raises(ValueError, match="exactly one owner"):
        RobustTrainer(classifier, arguments(tmp_path, **args), processing_class=processing, train_dataset=data())


@pytest.mark.parametrize("model", [{}, None])
def test_a_model_without_noise_cannot_own_it(model, tmp_path):
    classifier = plain() if model is None else smoothed(**model)
    with pytest.raises(ValueError, match="noise_owner='model' needs a SmoothedClassifier"):
        RobustTrainer(classifier, arguments(tmp_path, noise_owner="model"), train_dataset=data())


@pytest.mark.parametrize("value", [{"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, {"model_size": 32}])
@pytest.mark.parametrize("wrapped", [True, False])
def test_two_owners_of_normalisation_are_refused(value, wrapped, tmp_path):
    owner = {} if wrapped else {"noise_owner": "processor"}
    with pytest.raises(ValueError, match="must not be given to the trainer"):
        RobustTrainer(smoothed() if wrapped else plain(), arguments(tmp_path, **value, **owner), train_dataset=data())


def test_a_wrapper_and_a_processor_that_both_normalise_are_refused(tmp_path):
    # The processor is saved beside the wrapper, and whoever uses both would normalise twice.
    processor = ViTImageProcessor(size={"height": SIZE, "width": SIZE}, image_mean=MEAN, image_std=STD)
    with pytest.raises(ValueError, match="normalis"):
        RobustTrainer(smoothed(), arguments(tmp_path), processing_class=processor, train_dataset=data())


@pytest.mark.parametrize("change", [{"rescale_factor": 1 / 510}, {"do_rescale": False}, {"model_size": 2 * SIZE}])
def test_a_processor_that_makes_other_pixels_than_the_wrapper_takes_is_refused(change, tmp_path):
    processor = NoisyImageProcessor(size=SIZE, do_normalize=False, **change)
    with pytest.raises(ValueError, match="takes \\[0, 1\\] pixels made as .*Pass model.image_processor"):
        RobustTrainer(smoothed(), arguments(tmp_path), processing_class=processor, train_dataset=data())


@pytest.mark.parametrize("augmentation", [{"crop_padding": 2}, {"horizontal_flip": True}])
def test_augmentation_after_the_processors_noise_is_refused(augmentation, tmp_path):
    with pytest.raises(ValueError, match="come before noise"):
        trainer(plain(), tmp_path, noise_owner="processor", **augmentation)


@pytest.mark.parametrize(
    ("model", "args", "processor"),
    [
        ({}, {"noise": "0.5"}, None),
        ({}, {"noise": "0.5"}, {"do_normalize": False, "do_noise": False}),
        ({"noise": 0.5}, {"noise_owner": "model"}, None),
        (None, {"noise_owner": "processor"}, {}),
        (None, {"noise": "0.5"}, {"do_noise": False}),
    ],
)
def test_one_owner_is_right(model, args, processor, tmp_path):
    classifier = plain() if model is None else smoothed(**model)
    processing = None if processor is None else NoisyImageProcessor(**(NOISY | processor))
    RobustTrainer(classifier, arguments(tmp_path, **args), processing_class=processing, train_dataset=data())


def test_a_data_set_of_datasets_with_other_classes_is_refused(tmp_path):
    turned = image_dataset(names=("dog", "cat", "eel"), columns=("pixel_values", "labels"))
    with pytest.raises(
        ValueError,
        match=r"has the classes \['dog', 'cat', 'eel'\].* the head is for \['cat', 'dog', 'eel'\].*another order: Pass id2label=",
    ):
        RobustTrainer(plain(), arguments(tmp_path, image_mean=MEAN, image_std=STD), train_dataset=turned)


def preprocessing(folder, model=None, processor=None, **kwargs):
    return RobustTrainer(
        model or plain(), arguments(folder, **kwargs), processing_class=processor, train_dataset=data()
    ).preprocessing


def test_where_a_plain_network_takes_its_normalisation_from(tmp_path):
    expected = Preprocessing(tuple(MEAN), tuple(STD), (32, 32))
    given = {"image_mean": MEAN, "image_std": STD}
    assert preprocessing(tmp_path, **given, model_size=32) == expected
    assert preprocessing(tmp_path, processor=ViTImageProcessor(size={"height": 32, "width": 32}, **given)) == expected
    assert preprocessing(tmp_path, processor=NoisyImageProcessor(size=SIZE, model_size=32, **given)) == expected
    noted = plain()
    noted.config.hf_smoothing = {"size": [SIZE, SIZE], "model_size": [32, 32], **given, "noise": None}
    assert preprocessing(tmp_path, noted) == expected
    assert preprocessing(tmp_path, smoothed()) is None
    assert preprocessing(tmp_path, noise_owner="processor") is None


def noted_backbone():
    backbone = plain()
    backbone.config.hf_smoothing = note(image_mean=MEAN, image_std=STD, model_size=[32, 32])
    return backbone


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"args": {"image_mean": [0.5] * 3, "image_std": STD}}, "image_mean"),
        ({"args": {"image_mean": MEAN, "image_std": [0.5] * 3}}, "image_std"),
        ({"args": {"model_size": SIZE}}, "model_size"),
        ({"args": {"image_mean": MEAN, "image_std": STD, "model_size": SIZE}}, "model_size"),
        ({"processor": {"image_mean": [0.5] * 3}}, "image_mean"),
        ({"processor": {"image_std": [0.5] * 3}}, "image_std"),
        ({"processor": {"model_size": SIZE}}, "model_size"),
        ({"processor": {"model_size": SIZE}, "args": {"image_mean": MEAN, "image_std": STD}}, "model_size"),
        ({"processor": {"model_size": SIZE}, "args": {"noise_owner": "processor"}}, "model_size"),
    ],
)
def test_a_note_of_other_pixels_is_not_overridden(change, name, tmp_path):
    about = {"size": SIZE, "model_size": 32, "image_mean": MEAN, "image_std": STD} | change.get("processor", {})
    processor = NoisyImageProcessor(**about) if "processor" in change else None
    refused = rf"The .* and the note of an earlier training .* disagree: {name} is .*del model\.config\.hf_smoothing"
    with pytest.raises(ValueError, match=refused):
        preprocessing(tmp_path, noted_backbone(), processor, **change.get("args", {}))


@pytest.mark.parametrize("args", [{}, {"image_mean": MEAN, "image_std": STD}, {"model_size": 32}])
@pytest.mark.parametrize("processor", [None, NoisyImageProcessor(size=32, image_mean=MEAN, image_std=STD)])
def test_what_agrees_with_the_note_keeps_its_size(args, processor, tmp_path):
    expected = Preprocessing(tuple(MEAN), tuple(STD), (32, 32))
    assert preprocessing(tmp_path, noted_backbone(), processor, **args) == expected


def test_an_unknown_normalisation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="normalisation of this ResNetForImageClassification is not known"):
        preprocessing(tmp_path)


@pytest.mark.parametrize("half", [{"image_mean": [0.1] * 3}, {"image_std": [0.1] * 3}])
def test_half_a_normalisation_is_not_ignored(half, tmp_path):
    processor = ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=MEAN, image_std=STD)
    try:
        found = preprocessing(tmp_path, processor=processor, **half)
    except ValueError:
        return
    for name, value in half.items():
        assert getattr(found, name) == tuple(value)


def test_a_processor_that_does_not_normalise_is_believed(tmp_path):
    processor = ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False)
    assert preprocessing(tmp_path, processor=processor) == Preprocessing((0.0,) * 3, (1.0,) * 3, (32, 32))


def test_other_arguments_are_refused(tmp_path):
    with pytest.raises(TypeError, match="must be RobustTrainingArguments"):
        RobustTrainer(plain(), TrainingArguments(**trainer_values(tmp_path)), train_dataset=data())
    with pytest.raises(ValueError, match="`objective`, not `compute_loss_func`"):
        RobustTrainer(plain(), arguments(tmp_path), compute_loss_func=lambda *a, **k: 0, train_dataset=data())


@pytest.mark.parametrize("module", [nn.Linear(3, 3), nn.DataParallel(plain()), None, "runs/one"])
def test_what_is_no_model_of_transformers_is_refused_with_the_cure(module, tmp_path):
    with pytest.raises(TypeError, match=rf"got {type(module).__name__}\. .* examples/accelerate_loop\.py"):
        RobustTrainer(module, arguments(tmp_path, noise="clean"), train_dataset=data())


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_other_heads_are_refused(problem, tmp_path):
    with pytest.raises(ValueError, match="single-label"):
        trainer(plain(problem_type=problem), tmp_path)


def test_a_processor_of_another_resolution_than_the_wrapper_is_refused(tmp_path):
    other = NoisyImageProcessor(size=2 * SIZE, do_normalize=False)
    with pytest.raises(ValueError, match=r"pixels made as .*\(16, 16\).* makes .*\(32, 32\)"):
        RobustTrainer(smoothed(), arguments(tmp_path), processing_class=other, train_dataset=data())


def test_half_precision_weights_are_not_trained(tmp_path):
    with pytest.raises(ValueError, match=r"float16.*dtype=torch\.float32"):
        RobustTrainer(smoothed().half(), arguments(tmp_path), train_dataset=data())


def test_a_head_for_other_classes_is_refused(tmp_path):
    from hf_smoothing import PixelDataset
    from tests.support.tiny import image_dataset, smoothed

    images = image_dataset(names=("eel", "dog", "cat"))
    for decode in (True, False):
        data = PixelDataset(images, 16)
        with pytest.raises(
            ValueError, match=r"has the classes \['eel', 'dog', 'cat'\].*the head is for \['cat', 'dog', 'eel'\]"
        ):
            trainer(smoothed(), tmp_path, train_dataset=data.decode(progress=False) if decode else data)
    aligned = PixelDataset(images, 16, id2label={0: "cat", 1: "dog", 2: "eel"})
    trainer(smoothed(), tmp_path, train_dataset=aligned.decode(progress=False)).train()


def test_the_classes_of_a_head_may_be_spelt_otherwise_or_not_all_be_there(tmp_path):
    for names in (("Cat", "DOG", "eel "), ("cat", "dog")):
        images = image_dataset(names=names, columns=("pixel_values", "labels"))
        trainer(smoothed(), tmp_path, train_dataset=images)
    with pytest.raises(ValueError, match=r"has the classes \['cat', 'hound'\]"):
        trainer(smoothed(), tmp_path, train_dataset=image_dataset(names=("cat", "hound"), columns=images.column_names))


@pytest.mark.parametrize("several", [False, True])
def test_classes_in_another_order_are_not_evaluated(tmp_path, several):
    from hf_smoothing import CertifiedAccuracyCallback, PixelDataset

    images = image_dataset(names=("eel", "dog", "cat"))
    other, aligned = PixelDataset(images, SIZE), PixelDataset(images, SIZE, id2label=dict(enumerate(NAMES)))
    asked = {"first": aligned, "second": other} if several else other
    refused = r"has the classes \['eel', 'dog', 'cat'\].*the head is for \['cat', 'dog', 'eel'\]"
    with pytest.raises(ValueError, match=refused):
        trainer(smoothed(), tmp_path, train_dataset=aligned, eval_dataset=asked)
    made = trainer(smoothed(num_samples=2), tmp_path, train_dataset=aligned, eval_dataset={"first": aligned})
    with pytest.raises(ValueError, match=refused):
        made.evaluate(asked)
    with pytest.raises(ValueError, match=refused):
        made.predict(other)
    with pytest.raises(ValueError, match=refused):
        CertifiedAccuracyCallback(made, other)
    assert made.evaluate(aligned)["eval_accuracy"] == made.evaluate()["eval_first_accuracy"]


def test_one_value_a_channel(tmp_path):
    with pytest.raises(ValueError, match="need one value per channel, 3 for this ResNetForImageClassification, got 2"):
        trainer(plain(), tmp_path, image_mean=[0.5] * 2, image_std=[0.5] * 2)


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5])
def test_label_smoothing_out_of_range(tmp_path, value):
    with pytest.raises(ValueError, match=r"`label_smoothing_factor` must be in \[0, 1\)"):
        trainer(plain(), tmp_path, label_smoothing_factor=value)


def test_names_are_in_the_order_of_numbers_that_are_text():
    from hf_smoothing import PixelDataset
    from tests.support.tiny import image_dataset

    names = tuple(f"class {k}" for k in range(12))
    images = image_dataset(count=12, names=names)
    assert PixelDataset(images, 16, id2label={str(k): name for k, name in enumerate(names)}).names == list(names)


def test_a_function_that_makes_the_model_is_refused_with_its_cure(tmp_path):
    for given in ({}, {"model": None}):
        with pytest.raises(ValueError, match="pass `model`, not `model_init`"):
            RobustTrainer(args=arguments(tmp_path), model_init=plain, **given)
    with pytest.raises(TypeError, match="RobustTrainer trains a model of transformers, got NoneType"):
        RobustTrainer(args=arguments(tmp_path))


CHANGES = {
    "noise": "1.0", "noise_owner": "model", "objective": "consistency", "objective_args": {"mixup": 0.5},
    "protocol": "linear-probe", "trainable": ["classifier"], "train_last": 0, "freeze_batch_norm": True,
    "image_mean": [0.1] * 3, "image_std": [0.1] * 3, "model_size": 32,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_settled_is_not_changed_afterwards(name, tmp_path):
    """It would be trained with, or left out, and not noted in the checkpoint."""
    loop = trainer(plain(), tmp_path, noise="0.25")
    setattr(loop.args, name, CHANGES[name])
    with pytest.raises(ValueError, match=f"`{name}` is settled when the trainer is made"):
        loop.train()


def test_nor_is_the_noise_of_a_model_or_processor(tmp_path):
    model, processor = smoothed(noise=0.5), NoisyImageProcessor(**NOISY)
    loop = trainer(model, tmp_path, noise_owner="model")
    model.config.noise = {"sigmas": [1.0]}
    with pytest.raises(ValueError, match="`noise of the model` is settled"):
        loop.train()
    loop = trainer(plain(), tmp_path, noise_owner="processor", processing_class=processor)
    processor.noise = {"sigmas": [1.0]}
    with pytest.raises(ValueError, match="`noise of the processor` is settled"):
        loop.train()


def test_settings_of_an_objective_are_not_changed_in_place(tmp_path):
    loop = trainer(plain(), tmp_path, objective_args={"mixup": 0.5})
    loop.args.objective_args["mixup"] = 0.8
    with pytest.raises(ValueError, match="`objective_args` is settled when the trainer is made"):
        loop.train()


def test_other_arguments_may_change_and_settled_ones_be_spelt_otherwise(tmp_path):
    loop = trainer(plain(), tmp_path, noise="0.25", model_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    loop.args.max_steps, loop.args.learning_rate = 1, 0.1
    loop.args.noise, loop.args.model_size = 0.25, (16, 16)
    loop.args.image_mean, loop.args.image_std = (0.5, 0.5, 0.5), np.full(3, 0.5)
    assert loop.train().global_step == 1


@pytest.mark.parametrize("name", ["train_dataset", "eval_dataset"])
def test_a_data_set_without_images_is_refused(name, tmp_path):
    for empty in ([], torch.utils.data.Subset(data(), [])):
        with pytest.raises(ValueError, match=f"`{name}` must hold images, got none. Check its split"):
            trainer(smoothed(), tmp_path, **{name: empty})
    with pytest.raises(ValueError, match="`eval_dataset` must hold images"):
        trainer(smoothed(), tmp_path, eval_dataset={"clean": data(), "none": []})


def test_what_is_no_objective_is_refused(tmp_path):
    with pytest.raises(
        TypeError, match="`objective` must be one of .*, or a callable, got 3. Leave it out for 'mixture'"
    ):
        trainer(smoothed(), tmp_path, objective=3)


def test_a_frozen_network_is_refused_with_its_cure(tmp_path):
    with pytest.raises(ValueError, match=r"Unfreeze some that do: model.requires_grad_\(True\)"):
        trainer(smoothed().requires_grad_(False), tmp_path).train()
    loop = trainer(smoothed(), tmp_path, trainable=["classifier"])
    loop.model.requires_grad_(False)
    with pytest.raises(ValueError, match=r"Name other modules in `trainable`, got \['classifier'\]"):
        loop.train()


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize(("channels", "name"), [(1, "grey"), (3, "colour")])
def test_images_of_other_channels_are_refused_with_their_cure(channels, name, wrapped, tmp_path):
    other = DecodedPixels(torch.zeros(8, 4 - channels, SIZE, SIZE, dtype=torch.uint8), torch.arange(8) % 3)
    values = {"image_mean": [0.5] * channels, "image_std": [0.5] * channels}
    base = plain(num_channels=channels)
    model = SmoothedClassifier.from_base_pretrained(base, sigma=0.25, size=SIZE, **values) if wrapped else base
    loop = RobustTrainer(model, arguments(tmp_path, **({} if wrapped else values)), train_dataset=other)
    for run in (loop.train, lambda: loop.evaluate(other), lambda: loop.predict(other)):
        with pytest.raises(ValueError, match=f"takes {name} images, of {channels} channel.*PixelDataset"):
            run()


@pytest.mark.parametrize("as_given", [0.5, [0.5], (0.5,), np.float32(0.5), [0.5] * 3])
def test_one_value_of_the_normalisation_is_for_all_channels(as_given, tmp_path):
    loop = trainer(plain("vit"), tmp_path, image_mean=as_given, image_std=as_given)
    assert loop.preprocessing.image_mean == loop.preprocessing.image_std == (0.5, 0.5, 0.5)
    loop.train()

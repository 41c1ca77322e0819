"""Labels from any collator: classes are checked once on entering, probabilities train plain cross-entropies alone, and neither changes the configuration."""

import pytest
import torch
import torch.nn.functional as F

from hf_smoothing import (
    CnnSevenConfig,
    CnnSevenForImageClassification,
    RobustTrainer,
    denoised_classifier,
    smoothed_ensemble,
)
from hf_smoothing.data import DecodedPixels
from hf_smoothing.models.outputs import classes_of
from hf_smoothing.training.objectives import OBJECTIVES, PROBABILITIES, takes_probabilities
from tests.support.tiny import any_model, arguments, data, plain, smoothed, trainer


def collated(change, name="labels"):
    """A collator of one's own whose labels are `change` of the right ones."""
    return lambda items: {
        "pixel_values": torch.stack([item["pixel_values"] for item in items]),
        name: change(torch.tensor([item["labels"] for item in items])),
    }


def one_hot(labels):
    return F.one_hot(labels, 3).float()


WRONG = {
    "one-hot": (one_hot, "one class for each image, got labels of shape"),
    "marks": (lambda y: F.one_hot(y, 3), r"torch.int64 of shape \(\d, 3\).*argmax"),
    "column": (lambda y: y[:, None], r"of shape \(\d, 1\). Pass labels.flatten\(\)"),
    "float": (lambda y: y.float(), r"torch.float32.*Pass labels.long\(\)"),
    "float column": (lambda y: y[:, None].float(), "one class for each image"),
    "bool": (lambda y: y > 0, r"torch.bool.*Pass labels.long\(\)"),
    "too few": (lambda y: y[:-1], "Pass one for each image"),
    "large": (lambda y: y + 1, r"Labels must be classes in \[0, 3\), got 3"),
    "negative": (lambda y: y - 1, r"Labels must be classes in \[0, 3\), got -1"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(
    ("kind", "more"), [("resnet", {}), ("smoothed-resnet", {}), ("smoothed-resnet", {"eval_num_samples": 0})]
)
def test_an_evaluation_refuses_labels_that_are_no_classes(kind, more, wrong, tmp_path):
    change, message = WRONG[wrong]
    model = any_model(kind)
    loop = trainer(model, tmp_path, data_collator=collated(change), per_device_eval_batch_size=3, **more)
    for evaluate in (loop.evaluate, loop.predict):
        with pytest.raises(ValueError, match=message):
            evaluate(data(9))
    assert model.config.problem_type is None


@pytest.mark.parametrize("wrong", [wrong for wrong in WRONG if wrong != "one-hot"])
@pytest.mark.parametrize("objective", ["mixture", "consistency"])
def test_training_refuses_labels_that_are_no_classes(objective, wrong, tmp_path):
    change, message = WRONG[wrong]
    if wrong == "float column" and objective == "mixture":
        message = "Probabilities of the classes must have shape"
    args = arguments(tmp_path, objective=objective, noise="0.25")
    loop = RobustTrainer(smoothed(), args, train_dataset=data(16), data_collator=collated(change))
    with pytest.raises(ValueError, match=message):
        loop.train()


def test_a_wrong_label_of_a_later_batch_is_refused_too(tmp_path):
    labels = torch.zeros(16, dtype=torch.long)
    labels[12:] = 3
    loop = trainer(
        smoothed(), tmp_path, train_dataset=[data(16)[k] | {"labels": int(labels[k])} for k in range(16)],
        data_collator=collated(lambda y: y), train_sampling_strategy="sequential", max_steps=4,
    )  # fmt: skip
    with pytest.raises(ValueError, match="got 3"):
        loop.train()
    assert loop.state.global_step == 3


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
@pytest.mark.parametrize("kind", ["vit", "smoothed-vit"])
def test_classes_of_any_integer_type_are_the_same(kind, dtype, tmp_path):
    results = []
    for change in (lambda y: y, lambda y: y.to(dtype)):
        loop = trainer(any_model(kind), tmp_path, data_collator=collated(change), noise="0.25", eval_dataset=data(6))
        loop.train()
        metrics = loop.evaluate()
        results.append([metrics[key] for key in ("eval_loss", "eval_accuracy")])
        assert loop.model.config.problem_type is None
    assert results[0] == results[1]


def test_labels_under_the_name_of_one_item_are_taken(tmp_path):
    named = trainer(plain(), tmp_path, data_collator=collated(lambda y: y, name="label"))
    other = trainer(plain(), tmp_path, data_collator=collated(lambda y: y))
    assert named.evaluate(data(6))["eval_loss"] == other.evaluate(data(6))["eval_loss"]
    assert named.train().training_loss == other.train().training_loss


def test_a_batch_that_is_no_mapping_or_has_no_images_is_explained(tmp_path):
    for collator, error, message in (
        (lambda items: (torch.zeros(2, 3, 16, 16), torch.zeros(2)), TypeError, "must return a mapping.*got tuple"),
        (lambda items: {"image": torch.zeros(2, 3, 16, 16)}, ValueError, r"under 'pixel_values', got \['image'\]"),
    ):
        loop = trainer(plain(), tmp_path, data_collator=collator)
        for run in (loop.train, lambda loop=loop: loop.evaluate(data(4))):
            with pytest.raises(error, match=message):
                run()


CLEAN = ("adversarial", "discrepancy-mitigation", "feature-distillation", "trades")
LABELLED = sorted(name for name, found in OBJECTIVES.items() if "denoising" not in name and not isinstance(found, str))


@pytest.mark.parametrize("name", LABELLED)
def test_probabilities_train_what_takes_them_alone(name, tmp_path):
    """An objective whose labels stand in one cross-entropy has the same loss for one-hot labels; all others say so."""
    settings = {"teacher": smoothed(seed=1)} if name == "feature-distillation" else None
    values = {"objective_args": settings, "noise": "clean" if name in CLEAN else "0.25", "label_smoothing_factor": 0.0}

    def training(change):
        model = smoothed()
        loop = RobustTrainer(
            model, arguments(tmp_path, objective=name, max_steps=1, learning_rate=0.0, **values),
            train_dataset=data(4), data_collator=collated(change),
        )  # fmt: skip
        loss = loop.train().training_loss
        assert model.config.problem_type is None
        return loss

    classes = training(lambda y: y)
    assert takes_probabilities(OBJECTIVES[name]) == (name in PROBABILITIES)
    if name in PROBABILITIES:
        assert training(lambda y: one_hot(y).double()) == pytest.approx(classes, rel=1e-4)
    else:
        with pytest.raises(ValueError, match="An evaluation, and training by most objectives"):
            training(one_hot)


def test_an_interval_objective_refuses_probabilities(tmp_path):
    settings = {"objective": "cc-ibp", "objective_args": {"largest": 0.01}, "noise": "clean"}
    loop = RobustTrainer(
        smoothed(), arguments(tmp_path, **settings), train_dataset=data(4), data_collator=collated(one_hot)
    )
    with pytest.raises(ValueError, match="probabilities of the classes"):
        loop.train()


@pytest.mark.parametrize(
    "change",
    [one_hot, lambda y: torch.stack([y, 2 - y], 1), lambda y: 0.5 * y, lambda y: torch.full_like(y, -1)],
    ids=["probabilities", "two classes", "numbers", "unlabelled"],
)
def test_an_objective_of_ones_own_gets_the_labels_as_they_are(change, tmp_path):
    seen = []

    def own(model, batch, state):
        seen.append(batch.labels)
        return model(batch.pixels).square().mean(), {}

    asked = []

    def changed(labels):
        asked.append(change(labels))
        return asked[-1]

    trainer(plain(), tmp_path, objective=own, data_collator=collated(changed)).train()
    assert seen[0].dtype == asked[0].dtype and torch.equal(seen[0], asked[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: 2.0 * one_hot(y), "sum to 1.*sums from 2 to 2"),
        (lambda y: 1.5 * one_hot(y) - 0.25 + 0.0833, "values from -0.1"),
        (lambda y: one_hot(y) * torch.nan, "sum to 1"),
        (lambda y: F.one_hot(y, 4).float(), r"\(4, 3\), got \(4, 4\)"),
    ],
)
def test_probabilities_that_are_none_are_refused(change, message, tmp_path):
    loop = trainer(plain(), tmp_path, data_collator=collated(change))
    with pytest.raises(ValueError, match=message):
        loop.train()


@pytest.mark.parametrize(
    ("kind", "more"), [("vit", {}), ("smoothed-vit", {}), ("smoothed-vit", {"eval_num_samples": 0})]
)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_an_image_without_label_counts_in_no_mean(kind, more, smoothing, tmp_path):
    def without(labels):
        return torch.where(torch.arange(len(labels)) < 3, -100, labels)

    more = {"label_smoothing_factor": smoothing, **more}
    model, images = any_model(kind), data(8)
    some = trainer(model, tmp_path, data_collator=collated(without), **more).evaluate(images)
    rest = DecodedPixels(images.pixels[3:], images.labels[3:])
    expected = trainer(model, tmp_path, **more).evaluate(rest)
    figures = ["eval_accuracy"] + ["eval_loss"] * (kind == "vit" or "eval_num_samples" in more)  # votes have noise
    for figure in figures:
        assert some[figure] == pytest.approx(expected[figure], rel=1e-5)


def test_unlabelled_images_are_for_plain_cross_entropies(tmp_path):
    def without(labels):
        return torch.where(torch.arange(len(labels)) < 1, -100, labels)

    trainer(smoothed(), tmp_path, data_collator=collated(without)).train()
    for objective in ("smoothadv", "consistency"):
        args = arguments(tmp_path, objective=objective, noise="0.25")
        with pytest.raises(ValueError, match="got -100. Unlabelled images"):
            RobustTrainer(smoothed(), args, train_dataset=data(8), data_collator=collated(without)).train()


@pytest.mark.parametrize("training", [True, False])
def test_a_wrapper_takes_classes_alone_and_keeps_its_configuration(training):
    model, images = smoothed().train(training), data(6)
    before = model.config.to_dict()
    for change in (one_hot, lambda y: y.float(), lambda y: y[:, None]):
        with pytest.raises(ValueError, match="Labels must be the class of each image"):
            model(images.pixels / 255, labels=change(images.labels), seed=0)
    output = model(images.pixels / 255, labels=images.labels.int(), seed=0)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, images.labels))
    assert model.config.to_dict() == before


CNN = CnnSevenForImageClassification(CnnSevenConfig(width=1, image_size=8, num_labels=3))
PARTS = {"size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
LOSSES = {
    "wrapper": (lambda: smoothed(), 16),
    "network": (lambda: CNN, 8),
    "ensemble": (lambda: smoothed_ensemble([plain()], sigma=0.25, pixels=PARTS).base_network, 16),
    "denoised": (lambda: denoised_classifier(plain(), sigma=0.25, pixels=PARTS).base_network, 16),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("make", "size"), LOSSES.values(), ids=LOSSES)
def test_labels_that_are_no_class_are_explained(make, size, training):
    model, pixels = make().train(training), torch.rand(4, 3, size, size)
    for wrong in (3, -1, 10):
        with pytest.raises(ValueError, match=rf"Labels must be classes in \[0, 3\), got {wrong}\. "):
            model(pixels, labels=torch.tensor([0, 1, 2, wrong]))
    output = model(pixels, labels=torch.tensor([0, 1, 2, -100]))
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits[:3], torch.arange(3)))


def test_labels_on_a_device_are_not_waited_for_in_training():
    labels, logits = torch.zeros(2, dtype=torch.int32, device="meta"), torch.zeros(2, 3)
    assert classes_of(CNN.train(), labels, logits).dtype == torch.int64  # of a meta tensor no value can be read

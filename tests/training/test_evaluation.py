"""Evaluation measures plain networks on clean images and smoothed ones by seeded votes, whatever the batches."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import ViTImageProcessor

from hf_smoothing import CertifiedAccuracyCallback, NoisyImageProcessor, SmoothedClassifier, certify
from hf_smoothing.data import DecodedPixels, PixelStream
from hf_smoothing.interval import IntervalRadiusCallback
from hf_smoothing.statistics import average_certified_radius, certified_accuracy
from hf_smoothing.training.evaluation import real_images
from tests.support.classifiers import Watched
from tests.support.tiny import MEAN, SIZE, STD, any_model, arguments, data, image_dataset, plain, smoothed, trainer


def accuracy(output):
    return {"accuracy": float((output.predictions.argmax(-1) == output.label_ids).mean())}


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@torch.no_grad()
def test_a_plain_network_is_evaluated_on_normalised_clean_images(kind, tmp_path):
    model, held_out = plain(kind), data(10, seed=1)
    loop = trainer(
        model,
        tmp_path,
        noise="1.0",
        crop_padding=2,
        horizontal_flip=True,
        eval_dataset=held_out,
        compute_metrics=accuracy,
    )
    images = (held_out.pixels / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    expected = model(pixel_values=images).logits
    output = loop.predict(held_out)
    np.testing.assert_allclose(output.predictions, expected, rtol=1e-4, atol=1e-5)
    metrics = loop.evaluate()
    assert metrics["eval_loss"] == pytest.approx(float(F.cross_entropy(expected, held_out.labels)), rel=1e-4)
    assert metrics["eval_accuracy"] == int((expected.argmax(1) == held_out.labels).sum()) / 10


def test_a_wrapper_is_evaluated_by_seeded_votes(tmp_path):
    model = smoothed("vit", sigma=2.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20.0)
    loop = trainer(model, tmp_path, eval_dataset=data(8), seed=3)
    first, second = loop.predict(data(8)).predictions, loop.predict(data(8)).predictions
    assert np.array_equal(first, second)
    assert len(np.unique(first)) > 3
    np.testing.assert_allclose(np.exp(first).sum(1), 1.0, rtol=1e-5)
    assert np.array_equal(first, model.eval()(data(8).pixels, seed=3).logits.numpy())
    other = trainer(model, tmp_path, seed=4).predict(data(8)).predictions
    assert not np.array_equal(first, other)


def test_the_votes_do_not_depend_on_the_batch_size(tmp_path):
    model = smoothed("vit", sigma=2.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20.0)
    one, all_at_once = (
        trainer(model, tmp_path, per_device_eval_batch_size=size).predict(data(8)).predictions for size in (2, 8)
    )
    assert np.array_equal(one, all_at_once)


def undecided(**kwargs):
    """A wrapper whose votes differ from its logits, and from image to image."""
    model = smoothed("vit", sigma=2.0, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20.0)
    return model


@pytest.mark.parametrize("size", [2, 4, 16])
def test_a_wrapper_reports_both_accuracies_of_all_images(size, tmp_path):
    model, held_out = undecided(), data(11, seed=1)
    loop = trainer(model, tmp_path, eval_dataset=held_out, per_device_eval_batch_size=size)
    metrics = loop.evaluate()
    votes = model.eval()(held_out.pixels, seed=loop.args.seed).logits
    clean = model.classify(held_out.pixels / 255).argmax(1)
    assert metrics["eval_accuracy"] == int((clean == held_out.labels).sum()) / 11
    assert metrics["eval_smoothed_accuracy"] == int((votes.argmax(1) == held_out.labels).sum()) / 11
    assert metrics["eval_accuracy"] != metrics["eval_smoothed_accuracy"]
    # Exactly the mean over the images: the last batch has fewer.
    assert metrics["eval_loss"] == pytest.approx(float(F.cross_entropy(votes.double(), held_out.labels)), rel=1e-6)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_the_loss_of_a_plain_network_is_a_mean_over_images(kind, tmp_path):
    held_out = data(11, seed=1)
    losses = [
        trainer(plain(kind), tmp_path, eval_dataset=held_out, per_device_eval_batch_size=size).evaluate()
        for size in (2, 4, 16)
    ]
    for name in ("eval_loss", "eval_accuracy"):
        assert [metrics[name] for metrics in losses] == pytest.approx([losses[0][name]] * 3, rel=1e-5)
    assert "eval_smoothed_accuracy" not in losses[0]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["resnet", "smoothed-vit"])
def test_only_training_drops_the_last_batch(kind, workers, tmp_path):
    more = {"dataloader_num_workers": workers, "dataloader_persistent_workers": bool(workers)}
    for size in (4, 16):  # a short last batch, and nothing else
        figures = []
        for drop in (False, True):
            loop = trainer(
                any_model(kind), tmp_path, dataloader_drop_last=drop, eval_dataset=data(11, seed=1), train_dataset=data(11, seed=1),
                per_device_eval_batch_size=size, compute_metrics=lambda output: {"images": len(output.label_ids)}, **more,
            )  # fmt: skip
            output = loop.predict(data(11, seed=1))
            assert len(output.predictions) == output.metrics["test_images"] == 11
            again = (loop.evaluate(), loop.evaluate(data(11, seed=1)), loop.evaluate({"a": data(11, seed=1)}))
            figures.append(
                [
                    found[key]
                    for found in again
                    for key in sorted(found)
                    if key.split("_")[-1] in ("loss", "accuracy", "images")
                ]
            )
            assert loop.args.dataloader_drop_last is drop
            assert len(loop.get_train_dataloader()) == (2 if drop else 3)
        assert figures[0] == figures[1] and 11 in figures[0]


@pytest.mark.parametrize("kind", ["resnet", "vit", "smoothed-vit"])
def test_label_smoothing_is_part_of_the_loss(kind, tmp_path):
    model = undecided() if kind == "smoothed-vit" else plain(kind)
    output = trainer(model, tmp_path, label_smoothing_factor=0.3, per_device_eval_batch_size=4).predict(data(11))
    given = torch.tensor(output.predictions).double(), torch.tensor(output.label_ids)
    assert output.metrics["test_loss"] == pytest.approx(float(F.cross_entropy(*given, label_smoothing=0.3)), rel=1e-5)
    assert output.metrics["test_loss"] != pytest.approx(float(F.cross_entropy(*given)), rel=1e-3)


def test_figures_of_compute_metrics_stay_as_they_are(tmp_path):
    def mine(output):
        return {"accuracy": -1.0, "mine": output.predictions.shape[1]}

    loop = trainer(smoothed("vit"), tmp_path, eval_dataset=data(4), compute_metrics=mine)
    metrics = loop.evaluate()
    assert (metrics["eval_accuracy"], metrics["eval_mine"]) == (-1.0, 3)
    assert 0 <= metrics["eval_smoothed_accuracy"] <= 1


def test_predicting_measures_too_under_its_own_name(tmp_path):
    metrics = trainer(smoothed("vit"), tmp_path).predict(data(4)).metrics
    assert {"test_loss", "test_accuracy", "test_smoothed_accuracy"} <= metrics.keys()


@pytest.mark.parametrize(("asked", "copies"), [(None, 20), (7, 7)])
def test_the_number_of_votes_can_be_set_and_is_said_once(asked, copies, tmp_path, caplog):
    model = smoothed("vit", num_samples=20)
    model.classify = watched = Watched(type(model).classify.__get__(model))
    loop = trainer(model, tmp_path, eval_dataset=data(4), eval_num_samples=asked)
    loop.evaluate()
    loop.evaluate()
    assert watched.sizes == [4, 4 * copies] * 2, "once without noise, and the copies"
    assert [record.getMessage().split(":")[0] for record in caplog.records if "copies" in record.getMessage()] == [
        f"Evaluation classifies each image {copies + 1} times"
    ]
    assert model.config.num_samples == 20


INTERVALS = {"objective_args": {"largest": 0.01}, "noise": "clean"}


@pytest.mark.parametrize(("options", "copies"), [
    ({"eval_num_samples": 0}, 0),
    ({"objective": "adaptive-interval", **INTERVALS, "metric_for_best_model": "smoothed_accuracy"}, 20),
    *(({"objective": name, **INTERVALS}, 0) for name in ("adaptive-interval", "sabr", "mtl-ibp", "cc-ibp", "exp-ibp")),
    ({"objective": "adaptive-interval", **INTERVALS, "eval_num_samples": 7}, 7),
    ({"objective": "consistency", "noise": "0.25"}, 20),
])  # fmt: skip
def test_nobody_votes_where_no_certificate_comes_of_it(options, copies, tmp_path, caplog):
    model = smoothed("resnet", num_samples=20)
    model.classify = watched = Watched(type(model).classify.__get__(model))
    metrics = trainer(model, tmp_path, eval_dataset=data(5), per_device_eval_batch_size=4, **options).evaluate()
    assert sum(watched.sizes) == 5 * (1 + copies)
    assert ("eval_smoothed_accuracy" in metrics) == bool(copies) == bool("copies that vote" in caplog.text)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("batch", [2, 5])
def test_figures_without_votes_are_those_of_the_base_classifier(smoothing, batch, tmp_path):
    model, images = smoothed("resnet"), data(5)
    loop = trainer(
        model, tmp_path, eval_num_samples=0, label_smoothing_factor=smoothing, per_device_eval_batch_size=batch,
    )  # fmt: skip
    output = loop.predict(images)
    labels = torch.tensor([int(item["labels"]) for item in images])
    with torch.no_grad():
        logits = model.eval().classify(images.pixels.float() / 255)
    assert torch.allclose(torch.as_tensor(output.predictions), logits, atol=1e-5)
    loss = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert output.metrics["test_loss"] == pytest.approx(float(loss), abs=1e-5)
    assert output.metrics["test_accuracy"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))


@pytest.mark.parametrize("copies", [-1, 2.5])
def test_a_number_of_votes_that_is_none_is_refused(copies, tmp_path):
    with pytest.raises((ValueError, TypeError), match="`eval_num_samples` must be"):
        trainer(smoothed("vit"), tmp_path, eval_num_samples=copies)


def test_the_best_checkpoint_can_be_chosen_by_smoothed_accuracy(tmp_path):
    loop = trainer(
        smoothed("vit"), tmp_path, noise="0.25", eval_dataset=data(4), eval_strategy="steps", eval_steps=1, save_strategy="steps",
        save_steps=1, load_best_model_at_end=True, metric_for_best_model="smoothed_accuracy",
    )  # fmt: skip
    loop.train()
    logged = [entry["eval_smoothed_accuracy"] for entry in loop.state.log_history if "eval_loss" in entry]
    assert len(logged) == 2 and loop.state.best_metric == max(logged)


@pytest.mark.parametrize(
    ("state", "expected"),
    [((False, 5), [4, 4]), ((True, 5), [4, 1]), ((True, 3), [3, 0]), ((True, -1), [4, 4]), ((True, 0), [4, 4])],
)
def test_images_that_fill_up_the_last_batch_are_distinguished(state, expected):
    loader = SimpleNamespace(end_of_dataloader=state[0], remainder=state[1])
    assert [real_images(loader, 4, rank, 2) for rank in range(2)] == expected
    assert real_images(loader, 4, 0, 1) == 4, "one process has none"


@pytest.mark.parametrize("kind", ["vit", "smoothed-vit"])
def test_unlabelled_images_can_be_predicted(kind, tmp_path):
    output = trainer(any_model(kind), tmp_path).predict(DecodedPixels(data(4).pixels))
    assert output.predictions.shape == (4, 3)
    assert output.label_ids is None


def test_half_precision_evaluation_works_with_the_callback(tmp_path):
    loop = trainer(any_model("vit"), tmp_path, eval_dataset=data(4), bf16_full_eval=True)
    loop.add_callback(CertifiedAccuracyCallback(loop, data(4), n0=4, n=12))
    assert 0 <= loop.evaluate()["eval_certified_accuracy_sigma0.25_r0"] <= 1


@pytest.mark.parametrize("owner", ["trainer", "processor"])
@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_bfloat16_weights_are_trained_and_evaluated(kind, owner, tmp_path):
    def loop_of(model, items, **kwargs):
        given = {"eval_dataset": items, "train_dataset": items, "noise_owner": owner}
        return trainer(model, tmp_path, **(given | kwargs))

    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    items = [
        {"pixel_values": (image / 255 - mean) / std if owner == "processor" else image, "labels": int(label)}
        for image, label in zip(data(8).pixels, data(8).labels, strict=True)
    ]
    expected = loop_of(plain(kind), items).predict(items).predictions
    loop = loop_of(plain(kind).to(torch.bfloat16), items)
    np.testing.assert_allclose(loop.predict(items).predictions, expected, atol=0.05)
    loop.train()
    assert 0 <= loop.evaluate()["eval_accuracy"] <= 1
    asked = loop_of(plain(kind), items, bf16_full_eval=True)
    np.testing.assert_allclose(asked.predict(items).predictions, expected, atol=0.05)


def test_images_that_are_already_normalised_are_refused(tmp_path):
    wrong = DecodedPixels(torch.randn(4, 3, SIZE, SIZE), torch.zeros(4, dtype=torch.int64))
    for kind in ("vit", "smoothed-vit"):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            trainer(any_model(kind), tmp_path).predict(wrong)


def test_evaluation_does_not_change_training(tmp_path):
    weights = []
    for extra in ({}, {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": data(4)}):
        model = any_model("smoothed-resnet")
        loop = trainer(model, tmp_path, noise="0.5", max_steps=3, **extra)
        if extra:
            loop.add_callback(CertifiedAccuracyCallback(loop, data(4), n0=4, n=12))
        loop.train()
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


OTHERS = {
    "ours": NoisyImageProcessor(size=SIZE, noise=0.25, image_mean=MEAN, image_std=STD),
    "ours, resizing": NoisyImageProcessor(size=SIZE // 2, model_size=SIZE, noise=0.25, image_mean=MEAN, image_std=STD),
    "transformers": ViTImageProcessor(size={"height": SIZE, "width": SIZE}, image_mean=MEAN, image_std=STD),
}


@pytest.mark.parametrize("processor", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_pixels_are_classified_as_a_processor_that_owns_the_noise_makes_them(kind, processor, tmp_path):
    model, images = plain(kind), data(6, size=processor.size["height"], seed=2)
    loop = trainer(
        model, tmp_path, noise=None, noise_owner="processor", image_mean=None, image_std=None, processing_class=processor,
        eval_dataset=data(4),
    )  # fmt: skip
    loop.add_callback(CertifiedAccuracyCallback(loop, images, n0=4, n=60, seed=1, indices=range(6)))
    wrapped = SmoothedClassifier.from_base_pretrained(
        model, sigma=0.25, size=processor.size["height"], model_size=SIZE, image_mean=MEAN, image_std=STD
    )
    unit = images.pixels / 255
    torch.testing.assert_close(loop.classify(unit), wrapped.classify(unit))
    found = certify(wrapped, unit, sigma=0.25, n0=4, n=60, seed=1, mode="fixed")
    right = np.mean([c.prediction == label for c, label in zip(found, images.labels.tolist(), strict=True)])
    callback = loop.callback_handler.callbacks[-1]
    measured = {}
    callback.on_evaluate(loop.args, loop.state, loop.control, metrics=measured)
    assert measured["eval_certified_accuracy_sigma0.25_r0"] == pytest.approx(right)


def test_what_a_processor_that_owns_the_noise_does_must_be_known_to_classify_pixels(tmp_path):
    loop = trainer(plain(), tmp_path, noise=None, noise_owner="processor", image_mean=None, image_std=None)
    with pytest.raises(
        ValueError, match="only the image processor knows .* Pass it to the trainer as processing_class"
    ):
        CertifiedAccuracyCallback(loop, data(4))


@pytest.mark.parametrize("kind", ["vit", "smoothed-resnet", "resnet"])
def test_the_callback_measures_what_certify_measures(kind, tmp_path):
    model, held_out = any_model(kind), data(6, seed=2)
    loop = trainer(model, tmp_path, eval_dataset=held_out)
    loop.add_callback(
        CertifiedAccuracyCallback(loop, held_out, sigmas=(0.25, 0.5), thresholds=(0.0, 0.1), n0=5, n=40, seed=9)
    )
    metrics = loop.evaluate()
    for sigma in (0.25, 0.5):
        wrapper = model if kind.startswith("smoothed") else type(smoothed()).from_base_pretrained(
            model, sigma=sigma, size=SIZE, image_mean=MEAN, image_std=STD
        )  # fmt: skip
        certificates = certify(wrapper.eval(), held_out.pixels, mode="fixed", sigma=sigma, n0=5, n=40, seed=9)
        columns = [c.prediction for c in certificates], held_out.labels.tolist(), [c.radius for c in certificates]
        measured = certified_accuracy(*columns, thresholds=[0.0, 0.1])
        assert metrics[f"eval_certified_accuracy_sigma{sigma}_r0"] == measured.accuracy[0]
        assert metrics[f"eval_certified_accuracy_sigma{sigma}_r0.1"] == measured.accuracy[1]
        assert metrics[f"eval_average_certified_radius_sigma{sigma}"] == average_certified_radius(*columns)
    assert measured.accuracy[0] > 0


def test_the_callback_replaces_no_figure(tmp_path):
    own = {"certified_accuracy_sigma0.25_r0": 7.0}
    loop = trainer(plain("vit"), tmp_path, eval_dataset=data(4), compute_metrics=lambda _: dict(own))
    loop.add_callback(CertifiedAccuracyCallback(loop, data(9), n0=5, n=20, name="held_out"))
    metrics = loop.evaluate()
    assert metrics["eval_certified_accuracy_sigma0.25_r0"] == 7.0
    assert 0.0 <= metrics["eval_held_out_certified_accuracy_sigma0.25_r0"] <= 1.0
    loop.add_callback(CertifiedAccuracyCallback(loop, data(9), n0=5, n=20))
    with pytest.warns(UserWarning, match=r"has 'eval_certified_accuracy_sigma0\.25_r0' already, from compute_metrics"):
        after = loop.evaluate()
    assert after["eval_certified_accuracy_sigma0.25_r0"] == 7.0  # the evaluation's, and the others are added
    assert "eval_average_certified_radius_sigma0.25" in after


def test_the_best_model_can_be_chosen_by_certified_accuracy(tmp_path):
    model = plain("vit")
    loop = trainer(
        model, tmp_path, max_steps=4, save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=2,
        load_best_model_at_end=True, metric_for_best_model="certified_accuracy_sigma0.25_r0", eval_dataset=data(4),
    )  # fmt: skip
    loop.add_callback(CertifiedAccuracyCallback(loop, data(9), n0=5, n=20))
    loop.train()
    key = "eval_certified_accuracy_sigma0.25_r0"
    logged = [entry[key] for entry in loop.state.log_history if key in entry]
    assert len(logged) == 2
    assert loop.state.best_metric == max(logged)
    assert loop.state.best_model_checkpoint is not None


def test_the_callback_leaves_the_mode_of_the_model(tmp_path):
    model = plain("vit")
    loop = trainer(model, tmp_path, eval_dataset=data(4))
    callback = CertifiedAccuracyCallback(loop, data(4), n0=4, n=12)
    for training in (True, False):
        model.train(training)
        callback.on_evaluate(loop.args, loop.state, loop.control, metrics={})
        assert model.training is training


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sigmas": (0.0,)}, "sigma"),
        ({"indices": [0, 0]}, "`indices` must name each image once"),
        ({"indices": [99]}, "`indices` must be numbers of images of the data set, in "),
        ({"indices": []}, "no image to certify"),
        ({"n": 9}, "`n` must be at least 10"),
        ({"thresholds": (-0.5,)}, "`thresholds`"),
        ({"thresholds": ()}, "must each have at least one number"),
        ({"sigmas": ()}, "must each have at least one number"),
        ({"sigmas": ("0.25",)}, "sigma"),
        ({"sigmas": 0.25}, r"`sigmas` must be a sequence of numbers, such as \(0.25,\), got 0.25"),
        ({"thresholds": 0.25}, "`thresholds` must be a sequence of numbers, .* got 0.25"),
    ],
)
def test_bad_settings_of_the_callback_are_refused_before_training(kwargs, message, tmp_path):
    loop = trainer(plain("vit"), tmp_path)
    with pytest.raises((ValueError, TypeError), match=message):
        CertifiedAccuracyCallback(loop, data(4), **kwargs)


@pytest.mark.parametrize(
    "make", [CertifiedAccuracyCallback, lambda loop, images, **more: IntervalRadiusCallback(loop, images, largest=0.1, **more)]
)  # fmt: skip
def test_the_images_to_watch_are_one_data_set_or_chosen_of_a_stream(make, tmp_path):
    loop = trainer(plain("resnet"), tmp_path)
    with pytest.raises(TypeError, match=r"one data set, got several by name, \['a', 'b'\]. Make a callback of each"):
        make(loop, {"a": data(4), "b": data(4)})
    stream = PixelStream(image_dataset(4).to_iterable_dataset(), SIZE)
    for other in (None, stream):
        with pytest.raises(TypeError, match=rf"a length, got {type(other).__name__}\. .*pass indices=range\("):
            make(loop, other)
    assert len(make(loop, stream, indices=range(2)).labels) == 2


def test_the_callback_needs_labels(tmp_path):
    loop = trainer(plain("vit"), tmp_path)
    with pytest.raises(ValueError, match="label"):
        CertifiedAccuracyCallback(loop, DecodedPixels(data(4).pixels))


@pytest.mark.parametrize("metric", ["smoothed_accuracy", "eval_smoothed_accuracy", "eval_held_out_smoothed_accuracy"])
def test_checkpoints_are_not_chosen_by_votes_that_are_not_drawn(metric, tmp_path):
    with pytest.raises(ValueError, match="beside eval_num_samples=0.*choose by 'accuracy'"):
        arguments(tmp_path, eval_num_samples=0, metric_for_best_model=metric)

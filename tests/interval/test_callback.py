"""The callback of interval bounds measures what a checkpoint is chosen by, and needs labels."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import Subset

from hf_smoothing import CertifiedAccuracyCallback, NoisyImageProcessor, PixelDataset
from hf_smoothing.data import DecodedPixels
from hf_smoothing.interval import IntervalRadiusCallback, UnsupportedOperationError, linf_certificates
from hf_smoothing.statistics import average_certified_radius
from tests.support.tiny import MEAN, SIZE, STD, data, image_dataset, note, plain, smoothed, trainer


def test_it_adds_what_a_checkpoint_is_chosen_by_and_leaves_the_mode():
    model, images, logged = smoothed("resnet").train(), data(8), []
    trainer = SimpleNamespace(model=model, log=logged.append)
    callback = IntervalRadiusCallback(trainer, images, largest=0.01, batch_size=3)
    metrics = {}
    callback.on_evaluate(SimpleNamespace(device="cpu"), None, None, metrics)
    assert model.training
    classes, radii = linf_certificates(model.eval(), images.pixels, largest=0.01, tolerance=1e-6)
    accuracy = float((classes == images.labels).double().mean())
    average = average_certified_radius(classes.tolist(), images.labels.tolist(), radii.tolist())
    assert metrics["eval_watched_accuracy"] == accuracy
    assert metrics["eval_average_certified_radius_linf"] == pytest.approx(average, abs=2e-6)
    assert metrics["eval_tradeoff"] == pytest.approx(math.sqrt(accuracy * average / 0.01), abs=1e-2)
    assert logged == [metrics]


def test_images_without_labels_are_refused():
    trainer = SimpleNamespace(model=smoothed("resnet"))
    with pytest.raises(ValueError, match="needs labels, but image 0 has none"):
        IntervalRadiusCallback(trainer, DecodedPixels(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)), largest=0.01)


def test_it_replaces_no_figure_of_the_evaluation(tmp_path):
    model, other = smoothed("resnet", num_samples=2), data(6, seed=3)
    loop = trainer(model, tmp_path, eval_dataset={"first": data(8), "second": data(4, seed=1)})
    before = loop.evaluate()
    loop.add_callback(IntervalRadiusCallback(loop, other, largest=0.01))
    after = loop.evaluate()
    added = {"eval_watched_accuracy", "eval_average_certified_radius_linf", "eval_tradeoff"}
    assert after.keys() - before.keys() == added
    kept = [key for key in before if key.endswith(("accuracy", "loss"))]
    assert len(kept) == 6 and all(after[key] == before[key] for key in kept)
    assert not any("eval_accuracy" in entry for entry in loop.state.log_history)


def test_several_callbacks_have_names_and_one_name_twice_is_refused(tmp_path):
    loop = trainer(smoothed("resnet", num_samples=2), tmp_path, eval_dataset=data(8))
    loop.add_callback(IntervalRadiusCallback(loop, data(4), largest=0.01))
    loop.add_callback(IntervalRadiusCallback(loop, data(6, seed=3), largest=0.02, name="other"))
    assert {"eval_tradeoff", "eval_other_tradeoff"} <= loop.evaluate().keys()
    loop.add_callback(IntervalRadiusCallback(loop, data(6, seed=3), largest=0.02, name="other"))
    with pytest.raises(ValueError, match=r"got 'eval_other_average_certified_radius_linf' from two.*name='held_out'"):
        loop.evaluate()


def test_a_network_without_bounds_is_refused_at_the_first_step(tmp_path):
    loop = trainer(smoothed("vit", num_samples=2), tmp_path, eval_dataset=data(8), max_steps=3)
    loop.add_callback(IntervalRadiusCallback(loop, data(4), largest=0.01))
    with pytest.raises(UnsupportedOperationError, match="layer_norm"):
        loop.train()
    assert loop.state.global_step == 1


def test_other_classes_are_refused(tmp_path):
    loop = trainer(smoothed("resnet"), tmp_path)
    named = PixelDataset(image_dataset(names=("eel", "dog", "cat")), SIZE)
    for images in (named, Subset(named, range(4))):
        for callback in (
            lambda images: IntervalRadiusCallback(loop, images, largest=0.01),
            lambda images: CertifiedAccuracyCallback(loop, images),
        ):
            with pytest.raises(ValueError, match="same in another order"):
                callback(images)


@pytest.mark.parametrize("noted", [None, {"image_mean": MEAN, "image_std": STD}])
@pytest.mark.parametrize("owner", ["trainer", "processor"])
def test_pixels_are_normalised_as_the_trainer_does_it(owner, noted, tmp_path):
    """Before the first batch, when the configuration notes none, or that of an earlier training."""
    network, images = plain("resnet"), data(12)
    if noted is not None:
        network.config.hf_smoothing = note(**noted)
    processor = NoisyImageProcessor(size=SIZE, image_mean=MEAN, image_std=STD)
    more = {"processing_class": processor} if owner == "processor" else {}
    loop = trainer(network, tmp_path, noise_owner=owner, **more)
    seen = []
    network.register_forward_pre_hook(lambda _m, _a, given: seen.append(given["pixel_values"]), with_kwargs=True)
    callback = IntervalRadiusCallback(loop, images, largest=0.01)
    figures = callback.measured(loop.args)
    expected = loop.classify(images.pixels / 255)
    assert torch.allclose(seen[0], seen[-1], atol=1e-6)
    assert figures["watched_accuracy"] == float((expected.argmax(1) == images.labels).double().mean())

"""The callback of interval bounds measures what a checkpoint is chosen by, and needs labels."""

import math
from types import SimpleNamespace

import pytest
import torch

from hf_smoothing.data import DecodedPixels
from hf_smoothing.interval import IntervalRadiusCallback, linf_certificates
from hf_smoothing.statistics import average_certified_radius
from tests.support.tiny import data, smoothed


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
    assert metrics["eval_accuracy"] == accuracy
    assert metrics["eval_average_certified_radius_linf"] == pytest.approx(average, abs=2e-6)
    assert metrics["eval_tradeoff"] == pytest.approx(math.sqrt(accuracy * average / 0.01), abs=1e-2)
    assert logged == [metrics]


def test_images_without_labels_are_refused():
    trainer = SimpleNamespace(model=smoothed("resnet"))
    with pytest.raises(ValueError, match="needs labels, but image 0 has none"):
        IntervalRadiusCallback(trainer, DecodedPixels(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)), largest=0.01)

"""Callbacks that measure at evaluations: others find their figures, several sets are one evaluation, and names that clash end no training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from hf_smoothing import CertifiedAccuracyCallback, certify_dataset
from hf_smoothing.interval import IntervalRadiusCallback
from tests.support.tiny import any_model, data, pixels, smoothed, trainer


EVERY = {
    "save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "noise": "[0.25]",
    "load_best_model_at_end": True, "metric_for_best_model": "tradeoff",
}  # fmt: skip
SETS = {"one": lambda: data(4), "two": lambda: {"p": data(4), "q": data(4, seed=2)}}
KINDS = {
    "interval": (lambda loop, **more: IntervalRadiusCallback(loop, data(6, seed=4), largest=0.01, **more), "tradeoff"),
    "certified": (
        lambda loop, **more: CertifiedAccuracyCallback(loop, data(6, seed=4), n0=5, n=20, **more),
        "certified_accuracy_sigma0.25_r0",
    ),
}


def loop_with(folder, sets="one", kind="interval", **more):
    """A trainer of a network that stays as it is, so that no figure ever improves."""
    values = {"max_steps": 8, "learning_rate": 0.0, "metric_for_best_model": KINDS[kind][1]}
    model = smoothed("resnet", num_samples=2)
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.momentum = 0.0
    return trainer(model, folder, **(EVERY | {"eval_dataset": SETS[sets]()} | values | more))


@pytest.mark.parametrize("kind", KINDS)
def test_every_module_is_left_in_its_own_mode(kind, tmp_path):
    loop = trainer(smoothed("resnet", num_samples=2).train(), tmp_path, eval_dataset=data(8))
    frozen = next(module for module in loop.model.modules() if isinstance(module, torch.nn.BatchNorm2d)).eval()
    KINDS[kind][0](loop).measured(loop.args)
    assert [module for module in loop.model.modules() if not module.training] == [frozen]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sets", SETS)
@pytest.mark.parametrize("first", ["stopper", "callback"])
def test_a_stopper_finds_the_figures_wherever_it_was_added(first, sets, kind, tmp_path):
    more = {"callbacks": [EarlyStoppingCallback(2)]} if first == "stopper" else {}
    loop = loop_with(tmp_path, sets, kind, **more)
    loop.add_callback(KINDS[kind][0](loop))
    if first == "callback":
        loop.add_callback(EarlyStoppingCallback(2))
    loop.train()
    assert loop.state.global_step == 3  # the best one, and two without an improvement
    assert len([entry for entry in loop.state.log_history if f"eval_{KINDS[kind][1]}" in entry]) == 3


def test_every_callback_has_its_turn_when_several_go_first(tmp_path):
    class Begun(TrainerCallback):
        count = 0

        def on_train_begin(self, *args, **kwargs):
            self.count += 1

    others = [Begun(), Begun()]
    loop = loop_with(tmp_path, callbacks=others[:1], max_steps=1, ema_decay=0.5)
    for name in ("a", "b"):
        loop.add_callback(KINDS["interval"][0](loop, name=name))
        loop.add_callback(KINDS["certified"][0](loop, name=name))
    loop.add_callback(others[1])
    loop.args.metric_for_best_model = "a_tradeoff"
    loop.train()
    assert [one.count for one in others] == [1, 1]
    names = [getattr(one, "name", None) for one in loop.callback_handler.callbacks]
    assert (
        names[1:5] == ["a", "a", "b", "b"] and type(loop.callback_handler.callbacks[0]).__name__ == "AveragingCallback"
    )


@pytest.mark.parametrize("sets", SETS)
def test_an_evaluation_outside_a_training_measures_anew(sets, tmp_path):
    loop = loop_with(tmp_path, sets, max_steps=1)
    loop.add_callback(KINDS["interval"][0](loop))
    loop.train()
    before = loop.evaluate()["eval_tradeoff"]
    loop.model.load_state_dict(smoothed("resnet", 3, num_samples=2).state_dict())
    assert loop.evaluate()["eval_tradeoff"] != before


def test_a_second_evaluation_of_one_step_has_the_figures_too(tmp_path):
    class Again(TrainerCallback):
        found = None

        def on_step_end(self, args, state, control, **kwargs):
            self.found = [sorted(key for key in loop.evaluate() if "tradeoff" in key) for _ in range(2)]

    again = Again()
    loop = loop_with(tmp_path, "two", max_steps=1, callbacks=[again])
    loop.add_callback(KINDS["interval"][0](loop))
    loop.train()
    assert again.found == [["eval_tradeoff"]] * 2


def test_names_that_clash_are_refused_before_the_first_step(tmp_path):
    loop = loop_with(tmp_path)
    loop.add_callback(KINDS["certified"][0](loop))
    loop.add_callback(KINDS["certified"][0](loop))
    with pytest.raises(ValueError, match=r"different names, got 'eval_average_certified_radius_sigma0\.25' from two"):
        loop.train()
    assert loop.state.global_step == 0


def test_a_clash_with_compute_metrics_ends_no_training(tmp_path):
    loop = loop_with(tmp_path, max_steps=2, compute_metrics=lambda _: {"tradeoff": 7.0})
    loop.add_callback(KINDS["interval"][0](loop))
    with pytest.warns(
        UserWarning, match="has 'eval_tradeoff' already, from compute_metrics: the callback's are left out"
    ):
        loop.train()
    assert loop.state.global_step == 2 and loop.state.best_metric == 7.0
    assert any("eval_watched_accuracy" in entry for entry in loop.state.log_history)


def test_a_callback_of_another_trainer_is_refused(tmp_path):
    loop, other = loop_with(tmp_path / "a"), loop_with(tmp_path / "b")
    loop.add_callback(KINDS["interval"][0](other))
    with pytest.raises(ValueError, match="must be added to the trainer that it was made with"):
        loop.train()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trained", [False, True])
def test_figures_of_other_images_stay_out_of_a_test(trained, kind, tmp_path):
    loop = loop_with(
        tmp_path, kind=kind, max_steps=1, eval_strategy="no", save_strategy="no", load_best_model_at_end=False
    )
    make, figure = KINDS[kind]
    callback = make(loop)
    loop.add_callback(callback)
    if trained:
        loop.train()
    callback.measured, measured = (lambda args: pytest.fail("measured for another set")), callback.measured
    for prefix in ("test", "evaluation"):
        assert all(
            key.startswith(prefix) or key == "epoch" for key in loop.evaluate(data(4), metric_key_prefix=prefix)
        )
    callback.measured = measured
    for prefix in ("eval", "eval_held_out"):
        assert f"eval_{figure}" in loop.evaluate(data(4), metric_key_prefix=prefix)


WATCHED = {
    "certified": lambda loop, images, **more: CertifiedAccuracyCallback(loop, images, n0=5, n=20, **more),
    "interval": lambda loop, images, **more: IntervalRadiusCallback(loop, images, largest=0.01, **more),
}
ODD = {
    "beyond": (7, ValueError, r"classes of the classifier, in \[0, 3\), got 7 for image 3"),
    "fraction": (1.7, ValueError, "`labels of image 3` must be a whole number, got 1.7"),
    "negative": (-1, ValueError, "classes >= 0, got -1 for image 3"),
    "unlabelled": (None, ValueError, "image 3 has none under 'labels'"),
    "several": ([0, 1], ValueError, "`labels of image 3` must be a whole number"),
    "text": ("cat", ValueError, "`labels of image 3` must be a whole number"),
}


def images_with(label):
    return [{"pixel_values": image, "labels": label if k == 3 else k} for k, image in enumerate(pixels(4))]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("model", ["smoothed-resnet", "resnet"])
@pytest.mark.parametrize("kind", WATCHED)
def test_labels_that_certify_dataset_refuses_are_refused_before_training(kind, model, odd, tmp_path):
    label, error, message = ODD[odd]
    loop, images = trainer(any_model(model), tmp_path / "training"), images_with(label)
    with pytest.raises(error, match=message):
        WATCHED[kind](loop, images)
    assert WATCHED[kind](loop, images, indices=range(3)).labels is not None
    if label is not None:  # which is certified without a label
        with pytest.raises(error, match=message):
            certify_dataset(smoothed(), images, tmp_path / "run", sigma=0.25, n0=5, n=20, progress=False)


@pytest.mark.parametrize("kind", WATCHED)
def test_a_column_of_another_name_has_its_cure(kind, tmp_path):
    images = [{"pixel_values": item["pixel_values"], "label": 0} for item in images_with(0)]
    with pytest.raises(ValueError, match="Rename its 'label'"):
        WATCHED[kind](trainer(smoothed(), tmp_path), images)


@pytest.mark.parametrize("whole", [int, torch.tensor, np.int64, np.uint8])
@pytest.mark.parametrize("kind", WATCHED)
def test_whole_labels_of_every_kind_are_taken(kind, whole, tmp_path):
    images = [item | {"labels": whole(item["labels"])} for item in images_with(0)]
    found = WATCHED[kind](trainer(smoothed(), tmp_path), images).labels
    assert list(found) == [0, 1, 2, 0]

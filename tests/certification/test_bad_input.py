"""What is no image, classifier, rule or index is refused with the requirement, what was received, and the cure."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from hf_smoothing.certification import FixedRule, Votes, certify, certify_dataset, predict
from hf_smoothing.interval import certify_dataset_linf, linf_certificates
from hf_smoothing.noise import MAX_DRAWS, MAX_IMAGES
from tests.support.classifiers import RUN, Constant, Linear, Ranges, bytes_of, random_images
from tests.support.tiny import smoothed


# Float images on purpose; where that is no purpose, the library warns.
pytestmark = pytest.mark.filterwarnings("ignore:noise_kind='auto' draws float32 noise")


IMAGES = random_images(2)
GOOD = {"sigma": 0.5, "n": 20}


@pytest.mark.parametrize("mode", [{}, {"mode": "fixed"}], ids=["default", "fixed"])
@pytest.mark.parametrize("call", [certify, predict])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, r"`sigma` must be a positive noise standard deviation in \[0, 1\] pixel units, got 0.0"),
        ({"sigma": -0.5}, "`sigma` must be a positive noise"),
        ({"sigma": float("nan")}, "`sigma` must be a positive noise"),
        (
            {"sigma": 3e-13},
            "`sigma` must be at least 1e-06 in .*, since float32 pixels hold no smaller noise, got 3e-13",
        ),
        ({"sigma": 5e-324}, "`sigma` must be at least 1e-06"),
        ({"alpha": 0.0}, "`alpha` must be a failure probability"),
        ({"alpha": 99.9}, "`alpha` must be a failure probability"),
        ({"n": MAX_DRAWS + 1}, f"{MAX_DRAWS:,}, got"),
        ({"n": 0}, "`n` must be .*got 0"),
        ({"n": float("nan")}, "`n` must be"),
        ({"n": 20.0}, "`n` must be"),
        ({"copies_per_batch": 0}, "`copies_per_batch` must be at least 1, got 0"),
        ({"dtype": "int8"}, "`dtype` must be one of 'float32', 'bfloat16', 'float16', got 'int8'"),
        ({"noise_kind": "laplace"}, "`noise_kind` must be one of 'auto', 'grid', 'gaussian', got 'laplace'"),
        ({"noise_kind": "grid"}, "Grid noise certifies 8-bit images.*or use noise_kind='gaussian'"),
        ({"mode": "fast"}, "`mode` must be .*got 'fast'"),
    ],
)
def test_arguments_out_of_range_are_refused(call, mode, change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(Ranges(), IMAGES, **{**GOOD, **mode, **change})


@pytest.mark.parametrize("mode", ["targets", "fixed"])
def test_numbers_of_numpy_mean_the_same(mode):
    (plain,) = certify(Ranges(), IMAGES[:1], mode=mode, sigma=0.5, n0=7, n=20, alpha=0.25, seed=3)
    numbers = {"sigma": np.float32(0.5), "n0": np.int32(7), "n": np.int64(20), "alpha": np.float32(0.25)}
    whole = {"seed": np.int64(3), "copies_per_batch": np.int64(9), "indices": np.arange(1)}
    (made,) = certify(Ranges(), IMAGES[:1], mode=mode, **numbers, **whole)
    assert (made.prediction, made.radius, made.counts_by_look) == (
        plain.prediction,
        plain.radius,
        plain.counts_by_look,
    )


def test_too_few_draws_are_refused_with_the_number_needed():
    with pytest.raises(
        ValueError, match=r"`n` must be at least 10 to certify anything at alpha = 0.001, got 9: even unanimous"
    ):
        certify(Constant(), IMAGES, mode="fixed", sigma=0.5, n=9)
    with pytest.raises(ValueError, match=r"`n` must be between 11 \(fewer draws decide nothing at alpha = 0.001\)"):
        predict(Constant(), IMAGES, mode="fixed", sigma=0.5, n=10)
    assert not certify(Constant(), IMAGES, mode="fixed", sigma=0.5, n=10)[0].abstained
    assert predict(Constant(), IMAGES, mode="fixed", sigma=0.5, n=11)[0].prediction == 1


@pytest.mark.parametrize(
    ("options", "call", "enough"), [({"n0": 1}, certify, 10), ({"n0": 0}, certify, 11), ({}, predict, 11)]
)
def test_too_few_draws_for_a_sequential_rule_are_refused_with_the_number_needed(options, call, enough):
    message = f"`n` must be at least {enough} to certify anything at alpha = 0.001, got {enough - 1}: even unanimous"
    with pytest.raises(ValueError, match=message):
        call(Constant(), IMAGES, sigma=0.5, n=enough - 1, **options)
    assert call(Constant(), IMAGES, sigma=0.5, n=enough, **options)[0].prediction == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n0": 0}, "`n0` must be at least 1 to choose a class, got 0"),
        ({"n0": MAX_DRAWS, "n": 20}, f"`n0` \\+ `n` must be at most {MAX_DRAWS:,}, got {MAX_DRAWS + 20:,}"),
        ({"n0": 5.5}, "`n0` must be"),
        ({"n0": float("nan")}, "`n0` must be"),
        ({"sigma": "0.5"}, "`sigma` must be"),
    ],
)
def test_rules_that_make_no_sense_are_refused(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        FixedRule(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (IMAGES[0], ValueError, r"got \(1, 4, 4\). For a single image add the batch dimension"),
        (IMAGES[:0], ValueError, "at least one image, got an empty batch"),
        (IMAGES * 255, ValueError, "It looks like 0..255 as floats"),
        (IMAGES * 4 - 2, ValueError, "It looks already normalised: use do_normalize=False"),
        (IMAGES * float("nan"), ValueError, "must hold finite pixels"),
        (IMAGES.long(), TypeError, "must be uint8 in 0..255 or floating point"),
        ("cat.png", TypeError, "must be a torch tensor"),
        ([IMAGES[0], IMAGES[1]], TypeError, "got a list of tensors of shapes"),
    ],
)
@pytest.mark.parametrize("mode", [{}, {"mode": "fixed"}], ids=["default", "fixed"])
@pytest.mark.parametrize("call", [certify, predict])
def test_what_is_no_image_batch_is_refused(call, mode, images, error, message):
    with pytest.raises(error, match=message):
        call(Ranges(), images, **GOOD, **mode)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0], "`indices` must be 2 different numbers, one per image, got 1"),
        ([3, 3], "`indices` must be 2 different numbers"),
        ([-1, 0], "`indices` must be numbers of images, counted from 0, got -1"),
        ([0, MAX_IMAGES], rf"must lie in \[0, {MAX_IMAGES}\)"),
        ([0.5, 1.5], "`indices` must be"),
    ],
)
@pytest.mark.parametrize("mode", [{}, {"mode": "fixed"}], ids=["default", "fixed"])
@pytest.mark.parametrize("call", [certify, predict])
def test_indices_that_name_no_images_are_refused(call, mode, indices, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(Ranges(), IMAGES, indices=indices, **GOOD, **mode)


@pytest.mark.parametrize("mode", [{}, {"mode": "fixed"}], ids=["default", "fixed"])
@pytest.mark.parametrize("call", [certify, predict])
def test_module_in_train_mode_is_refused(call, mode):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(ValueError, match="must be in eval mode to be certified"):
        call(model, IMAGES, **GOOD, **mode)
    assert len(call(model.eval(), IMAGES, **GOOD, **mode)) == 2


@pytest.mark.parametrize("mode", [{}, {"mode": "fixed"}], ids=["default", "fixed"])
@pytest.mark.parametrize("call", [certify, predict])
@pytest.mark.parametrize("classifier", [None, 42, "resnet"])
def test_what_is_no_classifier_is_refused(call, mode, classifier):
    with pytest.raises(TypeError, match="classifier must be"):
        call(classifier, IMAGES, **GOOD, **mode)


def test_nan_logits_name_the_image_of_the_run():
    def classifier(pixels):
        logits = Linear()(pixels)
        logits[pixels.mean((1, 2, 3)) > 0.5] = float("nan")
        return logits

    images = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4), torch.zeros(1, 4, 4)])
    for call in (certify, predict):
        for mode in ({}, {"mode": "fixed"}):
            with pytest.raises(ValueError, match="nan logits for noisy copies of image 23"):
                call(classifier, images, sigma=0.01, n=20, indices=[17, 23, 40], **mode)


def test_votes_must_continue():
    votes = Votes(3)
    votes.add(np.array([1, 0]), 0, 1, opens_look=True)
    with pytest.raises(ValueError, match="Draws of image 3 must continue at 1, got draws from 0"):
        votes.add(np.array([1, 0]), 0, 1, opens_look=False)


TRUTH_VALUES = {
    "Python": True,
    "numpy": np.True_,
    "numpy, no dimensions": np.array(True),
    "torch": torch.tensor(True),
    "torch, one number": torch.tensor([True]),
}


@pytest.mark.parametrize("truth", TRUTH_VALUES.values(), ids=TRUTH_VALUES)
@pytest.mark.parametrize("name", ["sigma", "alpha", "n", "n0", "copies_per_batch", "seed", "targets", "indices"])
@pytest.mark.parametrize("call", [certify, predict])
def test_truth_values_are_no_numbers(call, name, truth):
    if call is predict and name in ("n0", "targets"):
        pytest.skip("no option of predict")
    value = [truth] if name in ("targets", "indices") else truth
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        call(Ranges(), IMAGES[:1], **{**GOOD, name: value})


@pytest.mark.parametrize("truth", TRUTH_VALUES.values(), ids=TRUTH_VALUES)
@pytest.mark.parametrize("name", ["seed", "labels of image 0", "indices"])
def test_truth_values_are_no_numbers_of_a_run(name, truth, tmp_path):
    item = {"pixel_values": bytes_of(IMAGES[0])}
    asked = {"seed": truth} if name == "seed" else {"indices": [truth]} if name == "indices" else {}
    dataset = [{**item, "labels": truth if name.startswith("labels") else 1}] * 2
    said = "numbers of images, got a mask" if name == "indices" else "a whole number"
    with pytest.raises(ValueError, match=f"`{name}` must be {said}"):
        certify_dataset(Ranges(), dataset, tmp_path / "run", **RUN, **asked)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": "0"}, "`targets` must be a non-empty list of target radii .* got '0'"),
        ({"targets": "0.25"}, "`targets` must be a non-empty list"),
        ({"targets": b"\x00"}, r"`targets` must be a non-empty list .* got b'\\x00'"),
        ({"targets": ["0"]}, r"`targets` must be a non-empty list .* got \['0'\]"),
        ({"targets": 0.25}, "`targets` must be a non-empty list .* got 0.25"),
        ({"targets": np.array(0.25)}, "`targets` must be a non-empty list"),
        ({"targets": []}, r"`targets` must be a non-empty list .* got \[\]"),
        ({"indices": "01"}, "`indices` must be a list of numbers of images, got '01'"),
        ({"indices": b"\x00\x01"}, "`indices` must be a list of numbers of images, got b"),
    ],
)
def test_texts_and_bytes_are_no_lists(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        certify(Ranges(), IMAGES, **{**GOOD, **change})


@pytest.mark.parametrize("mode", ["targets", "curve", "fixed"])
@pytest.mark.parametrize("sigma", [1e-6, 3e-6, 2e-4])
@pytest.mark.parametrize("noise_kind", ["grid", "gaussian"])
def test_the_smallest_noise_levels_are_certified_for_what_they_are(noise_kind, sigma, mode):
    with (
        pytest.warns(UserWarning, match="no radius reaches 1/255")
        if noise_kind == "grid"
        else contextlib.nullcontext()
    ):
        (found,) = certify(Linear(), bytes_of(IMAGES[:1]), sigma=sigma, n=20, mode=mode, noise_kind=noise_kind, seed=0)
    assert 0.0 < found.radius < 4 * sigma and found.prediction == Linear().label(bytes_of(IMAGES[:1])[0] / 255)


@pytest.mark.parametrize(("given", "taken"), [(3, 1), (1, 3)])
@pytest.mark.parametrize("run", [
    lambda *given: certify_dataset(*given, sigma=0.25, n=20, progress=False),
    lambda *given: certify_dataset_linf(*given, largest=0.1, progress=False),
], ids=["smoothing", "intervals"])  # fmt: skip
def test_images_of_other_channels_are_refused_with_the_framing_that_makes_them(run, given, taken, tmp_path):
    network = nn.Sequential(nn.Conv2d(taken, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    images = [{"pixel_values": image} for image in (random_images(2, (given, 8, 8)) * 255).to(torch.uint8)]
    with pytest.raises(RuntimeError, match=rf"expected input.* to have {taken} channels, but got {given}") as caught:
        run(network, images, tmp_path / "run")
    (note,) = caught.value.__notes__
    assert f"images of shape ({given}, 8, 8)" in note and "PixelDataset(dataset, Framing(size, channels=...))" in note
    assert not (tmp_path / "run").exists()


class Asked(nn.Module):
    """A linear classifier of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(16, 3)

    def forward(self, pixels):
        return self.last(pixels.flatten(1))


class OneAtATime(Asked):
    def forward(self, pixels):
        return self.last(pixels.reshape(1, 16))


def averaged() -> nn.Module:
    return AveragedModel(smoothed("resnet"))


FAILING = {
    "float64": (lambda: Asked().double(), 1),
    "bfloat16": (lambda: Asked().bfloat16(), 1),
    "one at a time": (OneAtATime, 1),
    "averaged": (averaged, 3),
}


@pytest.mark.parametrize(("made", "channels"), FAILING.values(), ids=FAILING)
def test_an_error_of_the_network_comes_with_what_it_was_asked(made, channels):
    side = 16 if channels == 3 else 4
    with pytest.raises((RuntimeError, ValueError)) as caught:
        certify(made().eval(), torch.zeros(1, channels, side, side), sigma=0.25, n=100)
    (note,) = caught.value.__notes__
    assert "images of a check, before any draw. A classifier must take float32 batches of any size" in note
    assert all(cure in note for cure in ("model.float()", "has a method classify"))


def test_an_exported_module_is_put_into_eval_mode_in_its_own_way():
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    exported = torch.export.export(Asked().eval(), (torch.zeros(2, 1, 4, 4),), dynamic_shapes=shapes).module()
    image = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"set training = False on each of model\.modules"):
        certify(exported, image, sigma=0.25, n=100)
    with pytest.raises(ValueError, match=r"set training = False on each of model\.modules"):
        linf_certificates(exported, image, largest=0.1)
    for part in exported.modules():
        part.training = False
    assert len(certify(exported, image, sigma=0.25, n=100)) == 1

"""A keyword that is left out or misspelt is explained by the function that was called, not by one that was called in turn."""

import pytest

from hf_smoothing import (
    CnnSevenConfig,
    NoisyImageProcessor,
    SmoothedClassifier,
    SmoothedClassifierConfig,
    certify,
    certify_dataset,
    denoised_classifier,
    predict,
    smoothed_ensemble,
)
from hf_smoothing.interval import certify_dataset_linf, linf_certificates
from hf_smoothing.models.denoised import DenoisedClassifierConfig
from hf_smoothing.models.ensemble import EnsembleConfig
from tests.support.tiny import MEAN, SIZE, STD, data, pixels, plain, resnet_config, smoothed


PLAIN, MODEL = plain(), smoothed()
PIXELS = {"size": SIZE, "image_mean": MEAN, "image_std": STD}
WRAPPED = {"base_config": resnet_config(), "sigma": 0.25, **PIXELS}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    PLAIN.save_pretrained(folder / "plain")
    MODEL.save_pretrained(folder / "smoothed")
    return folder


@pytest.mark.parametrize(
    ("call", "needed"),
    [
        (lambda **given: SmoothedClassifier.from_base_pretrained(PLAIN, **PIXELS, **given), "sigma"),
        (lambda **given: denoised_classifier(PLAIN, pixels=PIXELS, **given), "sigma"),
        (lambda **given: smoothed_ensemble([PLAIN], pixels=PIXELS, **given), "sigma"),
        (lambda **given: certify(MODEL, pixels(), **given), "sigma"),
        (lambda **given: predict(MODEL, pixels(), **given), "sigma"),
        (lambda **given: certify_dataset(MODEL, data(), "nowhere", **given), "sigma"),
        (lambda **given: certify_dataset_linf(PLAIN, data(), "nowhere", **given), "largest"),
        (lambda **given: linf_certificates(PLAIN, pixels(), **given), "largest"),
    ],
)
def test_what_is_needed_is_said_with_a_value_to_begin_with(call, needed):
    with pytest.raises(
        TypeError, match=f"needs `{needed}`, the .* in .0, 1. pixel units, such as {needed}=.*; got none"
    ):
        call()
    with pytest.raises(TypeError, match=f"needs `{needed}`, .*; got `{needed[:-1]}`"):
        call(**{needed[:-1]: 0.25})


@pytest.mark.parametrize(
    ("call", "wrong", "right"),
    [
        (lambda at, **more: wrapped(at / "plain", **more), "image_means", "image_mean"),
        (lambda at, **more: wrapped(at / "plain", **more), "num_label", "num_labels"),
        (lambda at, **more: wrapped(at / "plain", **more), "ignore_mismatched_size", "ignore_mismatched_sizes"),
        (lambda at, **more: wrapped(at / "plain", **more), "hiden_sizes", "hidden_sizes"),
        (lambda at, **more: wrapped(PLAIN, **more), "alhpa", "alpha"),
        (lambda at, **more: denoised_classifier(at / "plain", sigma=0.25, pixels=PIXELS, **more), "num_sample", "num_samples"),
        (lambda at, **more: smoothed_ensemble([at / "smoothed"], sigma=0.25, **more), "alhpa", "alpha"),
        (lambda at, **more: SmoothedClassifier.from_pretrained(at / "smoothed", **more), "sigm", "sigma"),
        (lambda at, **more: SmoothedClassifierConfig(**WRAPPED, **more), "num_sample", "num_samples"),
        (lambda at, **more: DenoisedClassifierConfig(**WRAPPED, denoiser={}, **more), "model_sizes", "model_size"),
        (lambda at, **more: EnsembleConfig(members=[], **more), "member", "members"),
        (lambda at, **more: CnnSevenConfig(**more), "witdh", "width"),
        (lambda at, **more: NoisyImageProcessor(size=SIZE, **more), "imag_mean", "image_mean"),
        (lambda at, **more: MODEL.certify(pixels(), **more), "alhpa", "alpha"),
        (lambda at, **more: predict(MODEL, pixels(), sigma=0.25, **more), "alhpa", "alpha"),
    ],
)  # fmt: skip
def test_a_misspelt_keyword_is_named_with_the_one_that_was_meant(call, wrong, right, checkpoints):
    with pytest.raises(TypeError, match=rf"{wrong}.* Did you mean {right}\?"):
        call(checkpoints, **{wrong: 1})


def wrapped(base, **more):
    return SmoothedClassifier.from_base_pretrained(base, sigma=0.25, **PIXELS, **more)


def test_what_is_known_or_like_nothing_gets_no_guess():
    with pytest.raises(TypeError, match=r"num_labels: only a checkpoint .* Pass its path, or leave them out\."):
        wrapped(PLAIN, num_labels=3)
    with pytest.raises(TypeError, match=r"weather: only a checkpoint .* Pass its path, or leave them out\."):
        wrapped(PLAIN, weather=3)


def test_configurations_keep_what_is_spelt_like_nothing_of_theirs():
    assert SmoothedClassifierConfig(**WRAPPED, note="mine", dtype="float32").to_dict()["note"] == "mine"
    again = SmoothedClassifierConfig(**SmoothedClassifierConfig(**WRAPPED).to_dict())
    assert again.num_samples == 100

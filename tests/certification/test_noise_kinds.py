"""Images on the 8-bit grid get grid noise, others Gaussian noise, and what costs a run the grid is named."""

from __future__ import annotations

import warnings

import pytest
import torch

from hf_smoothing.certification import certify, certify_dataset, predict
from tests.support.certificates import noisy_copy, timeless
from tests.support.classifiers import Ranges, Watched, bytes_of, random_images


# Float images on purpose; where that is no purpose, the library warns.
pytestmark = pytest.mark.filterwarnings("ignore:noise_kind='auto' draws float32 noise")


@pytest.mark.parametrize("call", [certify, predict])
def test_eight_bit_images_get_grid_noise_and_others_gaussian_noise_by_default(call):
    images = random_images(2)
    for pixels, fitting in ((images, "gaussian"), (bytes_of(images) / 255, "grid"), (bytes_of(images), "grid")):
        for noise in (
            {},
            {"noise_kind": "auto"},
            {"noise_kind": "gaussian"},
            *([{"noise_kind": "grid"}] if fitting == "grid" else []),
        ):
            kind = {"auto": fitting}.get(noise.get("noise_kind", "auto"), noise.get("noise_kind"))
            watched = Watched(Ranges())
            call(watched, pixels, mode="fixed", sigma=0.5, n=20, seed=4, indices=[8, 9], copies_per_batch=1, **noise)
            image = (pixels / 255 if pixels.dtype == torch.uint8 else pixels)[0]
            for j in range(20):
                assert torch.equal(watched.batches[j], noisy_copy(image, 0.5, kind, 4, 8, j))


EIGHT_BIT = bytes_of(random_images(2, shape=(3, 8, 8)))
THREATS = {"grid": "8-bit at the certified resolution", "gaussian": "floating-point rounding is neglected"}


@pytest.mark.filterwarnings("error:noise_kind='auto'")
@pytest.mark.parametrize(
    "images",
    [
        EIGHT_BIT / 255,
        (EIGHT_BIT.double() / 255),
        torch.from_numpy((EIGHT_BIT.numpy() / 255.0).astype("float32")),
        EIGHT_BIT * torch.tensor(1 / 255),
        (EIGHT_BIT / 255).half(),
        (EIGHT_BIT / 255).bfloat16(),
        EIGHT_BIT.half() / 255,
        EIGHT_BIT.bfloat16() / 255,
    ],
    ids=["float32", "float64", "numpy", "times 1/255", "half", "bfloat16", "divided in half", "divided in bfloat16"],
)
def test_eight_bit_images_are_known_in_any_dtype(images):
    """And give the certificates of the same images as bytes."""
    options = {"sigma": 0.5, "n": 100, "seed": 1}
    found, expected = certify(Ranges(), images, **options), certify(Ranges(), EIGHT_BIT, **options)
    assert timeless(found) == timeless(expected)
    assert {c.noise_kind for c in found} == {"grid"} and all(THREATS["grid"] in c.threat_model for c in found)
    answers = predict(Ranges(), images, sigma=0.5, n=100, seed=1)
    assert {a.noise_kind for a in answers} == {"grid"} and all(THREATS["grid"] in a.threat_model for a in answers)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (random_images(1), "these images lie off the 1/255 grid"),
        (random_images(1).half(), "these images lie off the 1/255 grid"),
        (EIGHT_BIT[:1] / 256, "on multiples of 1/256, not of 1/255: divide 0..255 by 255"),
        (EIGHT_BIT[:1].half() * torch.tensor(1 / 255).half(), "near, but off the 1/255 grid"),
        (torch.nn.functional.interpolate(EIGHT_BIT[:1] / 255, size=(5, 5), mode="bilinear"), "off the 1/255 grid"),
    ],
    ids=["floats", "half", "1/256", "nearly", "resized"],
)
@pytest.mark.parametrize("mode", ["fixed", None])
def test_falling_back_to_float_noise_is_a_warning_with_the_cure(images, words, mode):
    for call, usual in ((certify, "targets"), (predict, "sequential")):
        options = {"sigma": 0.5, "n": 100, "seed": 1, "mode": mode or usual}
        with pytest.warns(
            UserWarning, match=f"noise_kind='auto' draws float32 noise.*{words}.*round.*or pass noise_kind='gaussian'"
        ):
            (found,) = call(Ranges(), images, **options)
        assert found.noise_kind == "gaussian" and THREATS["gaussian"] in found.threat_model
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (told,) = call(Ranges(), images, noise_kind="gaussian", **options)
        assert told.noise_kind == "gaussian"


def test_a_run_names_the_image_that_costs_it_the_grid(tmp_path):
    dataset = [{"pixel_values": image} for image in (EIGHT_BIT[0], EIGHT_BIT[1] / 256, EIGHT_BIT[1] / 255)]
    with pytest.warns(UserWarning, match="image 1 lies on multiples of 1/256"):
        run = certify_dataset(Ranges(), dataset, tmp_path / "run", sigma=0.5, n=100, progress=False)
    assert run.settings["noise_kind"] == "gaussian"
    with pytest.raises(ValueError, match="Grid noise certifies 8-bit images, but image 1 lies on multiples of 1/256"):
        certify_dataset(Ranges(), dataset, tmp_path / "other", sigma=0.5, n=100, noise_kind="grid", progress=False)

"""`pipeline("certified-image-classification")`: images in, answers with their guarantee out."""

from __future__ import annotations

import json
import math
import shutil
from inspect import Parameter, signature

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessor, pipeline

from hf_smoothing import certify
from hf_smoothing.models import TASK, CertifiedImageClassificationPipeline, NoisyImageProcessor
from tests.support.classifiers import Constant, Ranges, Watched
from tests.support.tiny import NAMES, SIZE, image_dataset, pil_images, pixels, plain, smoothed


OPTIONS = {"n0": 5, "n": 60, "targets": [0.0, 0.05, 0.1]}
KEYS = {"label", "radius", "grey_levels", "linf_radius", "draws", "alpha", "sigma", "noise_kind", "threat_model"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("pipeline") / "model"
    smoothed("resnet").save_pretrained(where)
    return where


def make(folder, **options):
    return pipeline(TASK, model=str(folder), device="cpu", **options)


@pytest.fixture(scope="module")
def shared(folder):
    return make(folder)


def expected(image, **options):
    """The answer of `certify` on the pixels of an image."""
    batch = NoisyImageProcessor(size=SIZE, do_normalize=False)(image, return_tensors="pt")["pixel_values"]
    (certificate,) = smoothed("resnet").certify(batch, **options)
    label = None if certificate.abstained else NAMES[certificate.prediction]
    found = {key: getattr(certificate, key) for key in KEYS - {"label", "grey_levels", "linf_radius"}}
    linf = pytest.approx(certificate.radius / math.prod(batch.shape[1:]) ** 0.5, rel=1e-12)
    return {"label": label, "grey_levels": 255 * certificate.radius, "linf_radius": linf, **found}


def test_one_image_and_a_list(folder):
    classify, images = make(folder), pil_images(3)
    assert isinstance(classify, CertifiedImageClassificationPipeline)
    answer = classify(images[0], seed=7, **OPTIONS)
    assert answer == expected(images[0], seed=7, **OPTIONS)
    assert answer.keys() == KEYS and answer["label"] in NAMES and answer["radius"] > 0.0
    answers = classify(images, seed=7, **OPTIONS)
    assert answers == [expected(image, seed=7, **OPTIONS) for image in images]


def test_a_file_and_a_data_set(folder, tmp_path):
    classify, (image,) = make(folder), pil_images(1)
    image.save(tmp_path / "image.png")
    assert classify(str(tmp_path / "image.png"), seed=7, **OPTIONS) == expected(image, seed=7, **OPTIONS)

    def endless():
        yield from pil_images(2)

    assert len(list(classify(endless(), seed=7, **OPTIONS))) == 2


def test_a_column_a_data_set_and_paths(shared, tmp_path):
    """What `datasets` gives is a data set of images as well, and a path need not be text."""
    images = pil_images(3)
    answers = [expected(image, seed=7, **OPTIONS) for image in images]
    dataset = image_dataset(3)
    for inputs in (dataset, dataset["image"], dataset.remove_columns("label"), tuple(images)):
        assert shared(inputs, seed=7, **OPTIONS) == answers
    assert list(shared(dataset.to_iterable_dataset(), seed=7, **OPTIONS)) == answers
    images[0].save(tmp_path / "image.png")
    assert shared(tmp_path / "image.png", seed=7, **OPTIONS) == answers[0]
    assert shared([tmp_path / "image.png"], seed=7, **OPTIONS) == answers[:1]
    with pytest.raises(ValueError, match="image column is not clear"):
        shared(dataset.remove_columns("image"))


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_with_a_seed_the_company_does_not_matter(folder, batch_size):
    images = pil_images(5)
    answers = make(folder)(images, batch_size=batch_size, seed=3, **OPTIONS)
    assert answers == [expected(image, seed=3, **OPTIONS) for image in images]
    assert make(folder)(images[::-1], batch_size=batch_size, seed=3, **OPTIONS) == answers[::-1]


def test_without_a_seed_the_noise_is_fresh(folder):
    classify, (image,) = make(folder), pil_images(1)
    watched = classify.model.classify = Watched(Constant(2))
    first = classify([image, image], batch_size=2, **OPTIONS)
    again = classify(image, **OPTIONS)
    assert [answer["label"] for answer in (*first, again)] == ["eel"] * 3
    batches = torch.cat(watched.batches)
    assert len(torch.unique(batches, dim=0)) == len(batches), "no noisy copy may come twice"


def test_an_abstention_has_no_label(folder):
    classify = make(folder)
    classify.model.classify = Ranges(3)
    answers = classify(pil_images(2), **OPTIONS)
    for answer in answers:
        assert answer["label"] is None and answer["radius"] == 0.0
        assert 0 < answer["draws"] <= 65 and answer["alpha"] == 0.001


def test_options_when_made_and_when_called(folder):
    (image,) = pil_images(1)
    classify = make(folder, seed=7, sigma=0.5, alpha=0.01, **OPTIONS)
    made = expected(image, seed=7, sigma=0.5, alpha=0.01, **OPTIONS)
    assert (made["sigma"], made["alpha"]) == (0.5, 0.01)
    assert made["noise_kind"] in ("grid", "gaussian") and made["threat_model"]
    assert classify(image) == made
    assert classify(image, alpha=0.1) == expected(image, seed=7, sigma=0.5, alpha=0.1, **OPTIONS)
    assert classify(image) == made, "an option of a call lasts for that call"
    fixed = {"seed": 7, "mode": "fixed", "n0": 5, "n": 30, "bound": "runner-up"}
    assert make(folder)(image, **fixed) == expected(image, **fixed)
    gaussian = {"seed": 7, "noise_kind": "gaussian", "spending": True, **OPTIONS}
    assert make(folder)(image, **gaussian) == expected(image, **gaussian)


def test_every_option_of_certify_is_one_of_the_task(folder):
    (image,) = pil_images(1)
    options = {
        "sigma": 0.5, "mode": "targets", "targets": [0.0, 0.1], "n0": 5, "n": 60, "alpha": 0.01, "spending": True, "bound": "one-sided",
        "noise_kind": "grid", "seed": 7, "dtype": "bfloat16", "channels_last": True, "compile": False,
    }  # fmt: skip
    known = {p.name for p in signature(certify).parameters.values() if p.kind is Parameter.KEYWORD_ONLY}
    assert known - set(options) - {"copies_per_batch"} == {"indices"}, (
        "a new option of certify: is it one of the task?"
    )
    assert make(folder)(image, copies_per_batch=3, **options) == expected(image, copies_per_batch=3, **options)
    by_itself = {name: options[name] for name in ("channels_last", "seed", "n", "n0", "targets")}
    assert make(folder, **by_itself)(image) == expected(image, **by_itself)


def test_defaults_are_those_of_the_model(folder, tmp_path):
    smoothed("resnet", n=30, n0=4, alpha=0.01, sigma=0.5).save_pretrained(tmp_path)
    answer = make(tmp_path)(pil_images(1)[0], mode="fixed")
    assert (answer["draws"], answer["alpha"], answer["sigma"]) == (34, 0.01, 0.5)


def test_copies_per_batch_is_the_size_of_a_forward_pass(folder):
    classify, images = make(folder), pil_images(2)
    watched = classify.model.classify = Watched(Constant(1))
    answers = classify(images, batch_size=2, copies_per_batch=7, seed=0, mode="fixed", n0=5, n=30)
    assert max(watched.sizes) == 7 and sum(watched.sizes) == 70
    watched.batches.clear()
    assert classify(images, seed=0, mode="fixed", n0=5, n=30) == answers
    assert max(watched.sizes) == 35


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 5}, "takes the options .*copies_per_batch.*, got top_k"),
        ({"label_aware": True}, "got label_aware"),
        ({"indices": [3]}, "got indices"),
        ({"n": 5}, "`n` must be at least 1[01] to certify anything"),
        ({"targets": [0.5, 0.25]}, "`targets` must ascend"),
        ({"mode": "quick"}, "`mode` must be one of"),
        ({"sigma": -1.0}, "`sigma` must be a positive"),
        ({"noise_kind": "laplace"}, "`noise_kind` must be one of"),
        ({"seed": 0.5}, "`seed` must be a whole number"),
    ],
)
def test_mistakes_are_explained(shared, options, message):
    with pytest.raises(ValueError, match=message):
        shared(pil_images(1)[0], **options)


def test_an_unknown_option_is_refused_when_it_is_made(folder):
    with pytest.raises(ValueError, match="got top_k"):
        make(folder, top_k=5)


def test_a_plain_classifier_is_refused_with_the_cure(tmp_path):
    plain("resnet").save_pretrained(tmp_path)
    NoisyImageProcessor(size=SIZE).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="needs a SmoothedClassifier, got ResNetForImageClassification.*from_base_pretrained"
    ):
        make(tmp_path)


def test_a_plain_classifier_without_a_processor_and_no_model_are_refused_with_the_cure(tmp_path):
    plain("vit").save_pretrained(tmp_path)
    for model in (str(tmp_path), plain("vit")):
        with pytest.raises(ValueError, match="needs a SmoothedClassifier, got ViTForImageClassification.*Wrap it"):
            pipeline(TASK, model=model)
    with pytest.raises(ValueError, match="has no default model.*Pass model="):
        pipeline(TASK)


def test_a_model_in_hand_makes_its_image_processor(folder, tmp_path):
    (image,) = pil_images(1)
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    for model in (smoothed("resnet"), str(tmp_path / "model")):
        answer = pipeline(TASK, model=model, device="cpu")(image, seed=7, **OPTIONS)
        assert answer == expected(image, seed=7, **OPTIONS)


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_bfloat16_model_sees_eight_bit_pixels(folder, seed, batch_size):
    classify, images = make(folder, dtype=torch.bfloat16), pil_images(2)
    assert classify.model.dtype == torch.bfloat16
    watched = Watched(type(classify.model).classify.__get__(classify.model))
    classify.model.classify = watched
    # Grid noise is asked for, so pixels off the grid would be refused.
    answers = classify(images, batch_size=batch_size, seed=seed, noise_kind="grid", **OPTIONS)
    assert len(answers) == 2
    for batch in watched.batches:
        assert batch.dtype == torch.float32
        assert float(((batch * 255) - (batch * 255).round()).abs().max()) < 1e-3
    if seed is not None:
        watched.batches.clear()
        assert classify(images, batch_size=batch_size, seed=seed, **OPTIONS) == answers, "and it is chosen by itself"


def test_the_answer_is_that_of_certify_at_any_resolution_of_the_file(folder):
    (large,) = pil_images(1, size=40)
    assert make(folder)(large, seed=1, **OPTIONS) == expected(large, seed=1, **OPTIONS)


def test_the_library_and_the_task_agree_on_pixels(folder):
    batch = pixels(2)
    certificates = smoothed("resnet").certify(batch[:1], seed=7, **OPTIONS)
    answer = make(folder)(pil_images(2)[0], seed=7, **OPTIONS)
    assert (answer["radius"], answer["draws"]) == (certificates[0].radius, certificates[0].draws)


OTHER_PIXELS = {
    "normalised": {"do_normalize": True},
    "darker": {"rescale_factor": 1 / 510},
    "0..255": {"do_rescale": False},
    "resized after the noise": {"model_size": {"height": 8, "width": 8}},
    "another filter": {"resample": 3},
    "another part": {
        "do_center_crop": True,
        "crop_size": {"height": SIZE, "width": SIZE},
        "size": {"shortest_edge": 20},
    },
    "another resolution": {"size": {"height": 8, "width": 8}},
    "noisy": {"do_noise": True, "noise": {"sigmas": [0.5], "clean": 0.0, "distribution": "list"}},
}


@pytest.mark.parametrize("change", OTHER_PIXELS.values(), ids=OTHER_PIXELS)
def test_a_processor_that_makes_other_pixels_is_refused(change, folder, tmp_path):
    """A picture that is normalised or rescaled otherwise may lie in [0, 1] as well, and be certified as another one."""
    shutil.copytree(folder, tmp_path / "model")
    file = tmp_path / "model" / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    message = (
        "takes clean images" if "do_noise" in change else r"takes \[0, 1\] pixels made as .*model.image_processor"
    )
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "model")
    model = smoothed("resnet")
    with pytest.raises(ValueError, match=message):
        make(folder, image_processor=NoisyImageProcessor.from_dict(model.image_processor().to_dict() | change))


@pytest.mark.parametrize("normalises", [True, False])
def test_a_processor_of_another_class_is_compared_as_well(normalises, folder):
    other = ViTImageProcessor(size={"height": SIZE, "width": SIZE}, do_normalize=normalises)
    if normalises:
        with pytest.raises(ValueError, match=r"takes \[0, 1\] pixels"):
            make(folder, image_processor=other)
    else:
        (image,) = pil_images(1)
        assert make(folder, image_processor=other)(image, seed=7, **OPTIONS) == expected(image, seed=7, **OPTIONS)


def bad_file(kind, folder):
    where, good = folder / f"{kind}.png", pil_images(1, size=64)[0]
    good.save(where)
    if kind == "truncated":
        where.write_bytes(where.read_bytes()[:-200])
    elif kind == "text":
        where.write_text("<html>")
    elif kind == "empty":
        where.write_bytes(b"")
    elif kind == "deep":
        Image.fromarray(np.full((SIZE, SIZE), 40_000, dtype=np.uint16)).save(where)
    return where


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "deep", "bomb"])
def test_a_bad_file_is_named(kind, shared, tmp_path, monkeypatch):
    good, bad = tmp_path / "good.png", bad_file(kind, tmp_path)
    pil_images(1)[0].save(good)
    if kind == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_500)
    given = [str(good), str(bad)]
    with pytest.raises(ValueError, match=rf"{bad} cannot be (read as an image|certified)") as refused:
        shared(given, **OPTIONS)
    assert " object at 0x" not in str(refused.value)
    if kind == "deep":
        with (
            Image.open(bad) as image,
            pytest.raises(ValueError, match=rf"{bad} cannot be certified: Images must .*257"),
        ):
            shared(image, **OPTIONS)


def test_no_image_gets_no_answer(shared):
    assert shared([], **OPTIONS) == []

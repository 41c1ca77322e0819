"""What is looked at when a checkpoint is wrapped, and when training starts: pixels, channels, logits, and one truth about them."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForImageClassification, ViTImageProcessor

from hf_smoothing import NoisyImageProcessor, RobustTrainer, SmoothedClassifier, smoothed_ensemble
from hf_smoothing.data.framing import Framing
from hf_smoothing.models.probes import check_forward
from tests.support.tiny import MEAN, SIZE, STD, arguments, data, plain, trainer


NORMALISATION = {"image_mean": MEAN, "image_std": STD}
SQUARE = {"height": SIZE, "width": SIZE}


def checkpoint(folder, processor, kind="resnet", **config):
    plain(kind, **config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_the_framing_of_the_processor_is_taken(tmp_path):
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size=SQUARE, **NORMALISATION)
    checkpoint(tmp_path, processor)
    model = SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25)
    assert model.config.framing() == Framing(SIZE, 20, "bicubic")
    smaller = SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, size=8)
    assert (smaller.config.framing(), smaller.config.model_size) == (Framing(8, 10, "bicubic"), [SIZE, SIZE])
    whole = SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, size=Framing(8))
    assert (whole.config.framing(), whole.config.model_size) == (Framing(8), [SIZE, SIZE])


def test_offsets_of_the_processor_are_in_the_normalisation(tmp_path):
    processor = transformers.EfficientNetImageProcessorPil(
        size=SQUARE, rescale_factor=1 / 127.5, rescale_offset=True, do_normalize=False, include_top=False
    )
    config = SmoothedClassifier.from_base_pretrained(checkpoint(tmp_path, processor), sigma=0.25).config
    assert config.image_mean == pytest.approx([0.5] * 3, abs=1e-6)
    assert config.image_std == pytest.approx([0.5] * 3, abs=1e-6)


def test_a_processor_that_cannot_be_expressed_is_refused_unless_all_is_said(tmp_path):
    processor = transformers.PerceiverImageProcessorPil(size=SQUARE, crop_size={"height": 20, "width": 20})
    checkpoint(tmp_path, processor)
    with pytest.raises(ValueError, match="PerceiverImageProcessor.* cannot express"):
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25)
    with pytest.raises(ValueError, match="cannot express"):
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, size=8)
    with pytest.raises(ValueError, match="cannot express"):
        trainer(plain(), tmp_path / "run", processing_class=processor)
    model = SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25, size=SIZE, **NORMALISATION)
    assert model.config.framing() == Framing(SIZE)


def test_a_processor_of_other_channels_than_the_network_is_refused(tmp_path):
    checkpoint(tmp_path, ViTImageProcessor(size=SQUARE, do_convert_rgb=True, **NORMALISATION), num_channels=1)
    with pytest.raises(ValueError, match="ViTImageProcessor"):
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25)
    NoisyImageProcessor(size=SIZE, **NORMALISATION).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"makes images of 3 channel\(s\), but the network takes 1.*num_channels=1"):
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25)


def test_a_network_for_another_size_is_found_at_wrapping(tmp_path):
    checkpoint(tmp_path, ViTImageProcessor(size={"height": 20, "width": 20}), kind="vit")
    with pytest.raises(ValueError, match=r"cannot classify pixels of shape \(2, 3, 20, 20\).*20.*16.*`model_size`"):
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25)
    with pytest.raises(ValueError, match="ViTForImageClassification cannot classify pixels"):
        trainer(plain("vit"), tmp_path / "run", processing_class=ViTImageProcessor(size={"height": 20, "width": 20}))


def test_a_head_of_another_width_is_found_at_wrapping():
    base = plain()
    base.classifier[1] = torch.nn.Linear(16, 7)
    with pytest.raises(ValueError, match=r"logits of shape \(2, 3\) for 2 images and its 3 labels, got \(2, 7\)"):
        SmoothedClassifier.from_base_pretrained(base, sigma=0.25, size=SIZE, **NORMALISATION)


def test_the_probe_leaves_no_trace():
    base = plain(seed=3).train()
    base.resnet.eval()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    modes = [module.training for module in base.modules()]
    state = torch.random.get_rng_state()
    check_forward(base, lambda x: base(pixel_values=x).logits, Framing(SIZE), 3, "network")
    assert [module.training for module in base.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_arguments_that_differ_from_the_processor_beside_are_refused(tmp_path):
    processor = ViTImageProcessor(size=SQUARE, **NORMALISATION)
    with pytest.raises(ValueError, match="The arguments and the image processor disagree: image_mean"):
        trainer(plain(), tmp_path, processing_class=processor, image_mean=[0.5] * 3, image_std=STD)
    with pytest.raises(ValueError, match=r"disagree: model_size is \[32, 32\] .* and \[16, 16\]"):
        trainer(plain(), tmp_path, processing_class=processor, model_size=32)
    loop = trainer(plain(), tmp_path, processing_class=processor, image_mean=MEAN, image_std=STD)
    assert loop.preprocessing.model_size == (SIZE, SIZE)


def noted_before(**note):
    base = plain()
    base.config.hf_smoothing = {"size": [SIZE, SIZE], "model_size": None, **NORMALISATION, "noise": None} | note
    return base


def rows_of(processor):
    values = processor([image.numpy() for image in data(8).pixels], do_noise=True, return_tensors="pt")["pixel_values"]
    return [{"pixel_values": x, "labels": i % 3} for i, x in enumerate(values)]


def test_training_with_the_noise_of_a_processor_leaves_its_pixels(tmp_path):
    processor = NoisyImageProcessor(size=SIZE, model_size=24, image_mean=[0.5] * 3, image_std=[0.25] * 3, noise=0.5)
    model = noted_before(image_mean=[0.1] * 3)
    about = {"args": arguments(tmp_path, noise_owner="processor"), "processing_class": processor}
    with pytest.raises(ValueError, match="The image processor and the note of an earlier training .* disagree"):
        RobustTrainer(model, train_dataset=rows_of(processor), **about)
    del model.config.hf_smoothing
    loop = RobustTrainer(model, train_dataset=rows_of(processor), **about)
    loop.train()
    loop.save_model(str(tmp_path / "saved"))
    noted = json.loads((tmp_path / "saved" / "config.json").read_text())["hf_smoothing"]
    expected = {"size": [SIZE, SIZE], "model_size": [24, 24], "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    assert {key: noted[key] for key in expected} == expected
    config = SmoothedClassifier.from_base_pretrained(tmp_path / "saved", sigma=0.5).config
    assert (config.image_mean, config.model_size, config.framing()) == ([0.5] * 3, [24, 24], Framing(SIZE))


def test_training_on_pixels_that_are_not_known_leaves_no_stale_note(tmp_path):
    processor = NoisyImageProcessor(size=SIZE, noise=0.5)
    loop = RobustTrainer(
        noted_before(), arguments(tmp_path, noise_owner="processor"), train_dataset=rows_of(processor)
    )
    loop.train()
    loop.save_model(str(tmp_path / "saved"))
    assert "image_mean" not in json.loads((tmp_path / "saved" / "config.json").read_text())["hf_smoothing"]
    with pytest.raises(ValueError, match="certified resolution .* not known"):
        SmoothedClassifier.from_base_pretrained(tmp_path / "saved", sigma=0.5)


def test_the_stock_trainer_and_a_stale_note_are_found_out(tmp_path):
    noted_before().save_pretrained(tmp_path)
    NoisyImageProcessor(size=SIZE, noise=0.5).save_pretrained(tmp_path)  # of mean 0.5
    with pytest.raises(ValueError, match=r"config.json and its image processor disagree: image_mean is \[0\.4"):
        SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.5)


@pytest.mark.parametrize("card", ["resnet-mixture-small", "resnet-clean-small", "vit-mixture"])
def test_shipped_backbones_load_in_float32_and_say_one_thing(card):
    folder = Path(__file__).parents[2] / "model_cards" / card
    assert AutoModelForImageClassification.from_pretrained(folder).dtype == torch.float32
    config = SmoothedClassifier.from_base_pretrained(folder, sigma=0.25).config
    assert config.framing() == Framing(32)


def test_a_pipeline_with_pixels_of_another_part_of_the_image_is_refused():
    model = SmoothedClassifier.from_base_pretrained(plain(), sigma=0.25, size=Framing(SIZE, 20), **NORMALISATION)
    other = NoisyImageProcessor(size=SIZE, do_normalize=False)
    with pytest.raises(ValueError, match=r"made as .*resize=20.* makes .*resize=\(16, 16\)"):
        transformers.pipeline("certified-image-classification", model=model, image_processor=other)


def test_members_that_see_other_parts_of_an_image_are_no_ensemble():
    members = [
        SmoothedClassifier.from_base_pretrained(plain(), sigma=0.25, size=Framing(SIZE, resize), **NORMALISATION)
        for resize in (20, None)
    ]
    with pytest.raises(ValueError, match="same pixels of an image.*size=Framing"):
        smoothed_ensemble(members, sigma=0.25)
    assert smoothed_ensemble(members[:1], sigma=0.25).config.framing() == Framing(SIZE, 20)

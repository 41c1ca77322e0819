"""Denoising masked autoencoding: the objective beside a slow twin, training, and what it transfers."""

from __future__ import annotations

import re

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from hf_smoothing import NoiseMixture, SmoothedClassifier, certify, classifier_from_autoencoder
from hf_smoothing.data import DecodedPixels
from hf_smoothing.models.network import Network
from hf_smoothing.preprocessing import Preprocessing
from hf_smoothing.training import Batch, ObjectiveState
from hf_smoothing.training.objectives.masked import masked_denoising
from tests.support.tiny import MEAN, SIZE, STD, data, label_maps, plain, trainer


PIXELS = {"image_mean": MEAN, "image_std": STD}
SETTINGS = {"objective": "masked-denoising", "noise": "0.25", **PIXELS}


def autoencoder(**kwargs):
    torch.manual_seed(0)
    values = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": SIZE, "patch_size": 4,
        "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32,
    }  # fmt: skip
    return ViTMAEForPreTraining(ViTMAEConfig(**values | kwargs))


@pytest.mark.parametrize("standardised", [False, True])
def test_loss_is_that_of_a_slow_twin(standardised):
    model = autoencoder(norm_pix_loss=standardised).train()
    prepare = Preprocessing(tuple(MEAN), tuple(STD))
    network = Network(model, lambda x, **more: model(pixel_values=prepare(x), **more).logits, prepare)
    pixels = data(3).pixels[:3].float() / 255
    noise = NoiseMixture((0.25,))
    loss, _ = masked_denoising(
        network,
        Batch(pixels, torch.empty(0)),
        ObjectiveState(noise, torch.Generator().manual_seed(5)),
    )

    generator = torch.Generator().manual_seed(5)
    noisy = noise.add(pixels, generator)[0]
    order = torch.rand(3, 16, generator=generator)
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    out = model(pixel_values=(noisy - mean) / std, noise=order)
    assert float(out.mask.mean()) == 0.75
    total = 0.0
    for image, rebuilt in zip((pixels - mean) / std, out.logits, strict=True):
        for number, patch in enumerate(rebuilt):
            y, x = 4 * (number // 4), 4 * (number % 4)
            clean = image[:, y : y + 4, x : x + 4].permute(1, 2, 0).flatten()
            if standardised:
                clean = (clean - clean.mean()) / (clean.var() + 1e-6).sqrt()
            total += (patch - clean).square().mean()
    assert float(loss.detach()) == pytest.approx(float((total / 48).detach()), rel=1e-5)


def test_training_rebuilds_better_and_its_encoder_is_certified(tmp_path):
    images = DecodedPixels(data(64).pixels, None)  # no labels needed
    made = trainer(
        autoencoder(mask_ratio=0.5),
        tmp_path,
        train_dataset=images,
        eval_dataset=images,
        max_steps=60,
        learning_rate=3e-3,
        **SETTINGS,
    )
    before = made.evaluate()["eval_loss"]
    made.train()
    after = made.evaluate()["eval_loss"]
    assert after < 0.7 * before
    assert made.evaluate()["eval_loss"] == after  # the same noise and masks every time
    made.save_model(str(tmp_path / "mae"))

    classifier = classifier_from_autoencoder(tmp_path / "mae", **label_maps())
    own = {name: value for name, value in made.model.state_dict().items() if name.startswith("vit.")}
    assert all(torch.equal(classifier.state_dict()[name], value) for name, value in own.items())
    model = SmoothedClassifier.from_base_pretrained(classifier, sigma=0.25)  # its pixels are known
    assert model.config.image_mean == MEAN
    finetuned = trainer(
        model,
        tmp_path / "finetuned",
        train_dataset=data(64),
        noise="0.25",
        layer_decay=0.7,
        drop_path=0.1,
        objective_args={"mixup": 0.8},
        max_steps=80,
        learning_rate=5e-3,
    )
    finetuned.train()
    test = data(24, seed=1)
    found = certify(finetuned.model.eval(), test.pixels.float() / 255, sigma=0.25, n0=20, n=200, seed=0)
    assert sum(c.prediction == int(y) and c.radius > 0 for c, y in zip(found, test.labels, strict=True)) > 16


def test_the_card_of_an_autoencoder_says_how_it_becomes_a_classifier(tmp_path, monkeypatch):
    made = trainer(autoencoder(), tmp_path / "mae", train_dataset=DecodedPixels(data().pixels, None), **SETTINGS)
    made.train()
    made.save_model()
    made.create_model_card()
    text = (tmp_path / "mae" / "README.md").read_text()
    assert "## Load and finetune" in text and "certify" not in text
    assert ModelCard(text).data.pipeline_tag is None
    (code,) = re.findall("```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    space = {}
    exec(compile(code, "card", "exec"), space)
    assert space["model"].config.image_mean == MEAN


def test_resumed_training_is_bit_exact(tmp_path):
    arguments = {"train_dataset": data(16), "max_steps": 6, "save_strategy": "steps", "save_steps": 3, **SETTINGS}
    whole = trainer(autoencoder(), tmp_path, drop_path=0.5, **arguments)
    whole.train()
    again = trainer(autoencoder(), tmp_path, drop_path=0.5, **arguments)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"id2label": {1: "a", 2: "b"}}, ValueError, "name each class by its number, from 0 on"),
        ({"id2label": ["a", "b"]}, ValueError, "name each class by its number"),
        ({"id2label": {0: "a", 1: "b"}, "num_labels": 3}, ValueError, "must agree, got num_labels=3 and 2 names"),
        ({"num_labels": "3"}, ValueError, "`num_labels` must be a whole number"),
        ({"num_labels": 0}, ValueError, "at least 1, got 0"),
        ({"hidden_size": 32}, ValueError, "`hidden_size` must be that of the encoder, 16, .* got 32. Leave it out"),
        ({"hidden_act": "relu"}, ValueError, "`hidden_act` must be that of the encoder, 'gelu'"),
        ({"num_label": 3}, TypeError, "`num_label` is no argument of ViTConfig. Did you mean num_labels"),
    ],
)
def test_a_classifier_has_the_encoder_that_was_trained_and_a_name_for_each_class(more, error, message):
    with pytest.raises(error, match=message):
        classifier_from_autoencoder(autoencoder(), **more)


def test_a_classifier_may_be_finetuned_with_another_dropout():
    made = classifier_from_autoencoder(autoencoder(), id2label=None, num_labels=3, hidden_size=16, hidden_dropout_prob=0.1, attn_implementation="eager")  # fmt: skip
    assert made.config.hidden_dropout_prob == 0.1 and made.config.num_labels == 3


def test_what_does_not_go_together(tmp_path):
    with pytest.raises(TypeError, match="trains a ViTMAEForPreTraining, got ViTForImageClassification"):
        trainer(plain("vit"), tmp_path, train_dataset=data(), **SETTINGS).train()
    with pytest.raises(TypeError, match="Only a ViTMAEForPreTraining has an encoder"):
        classifier_from_autoencoder(plain("vit"))
    plain("vit").save_pretrained(tmp_path / "vit")
    with pytest.raises(TypeError, match="is no ViTMAEForPreTraining"):
        classifier_from_autoencoder(tmp_path / "vit")
    for more in ({}, {"id2label": dict(enumerate("abc"))}):
        with pytest.raises(ValueError, match="`label2id` must be the inverse of `id2label`"):
            classifier_from_autoencoder(autoencoder(), label2id={"x": 0, "y": 1, "z": 2}, **more)
    assert classifier_from_autoencoder(autoencoder(), num_labels=4).config.label2id["LABEL_3"] == 3
    named = classifier_from_autoencoder(autoencoder(), id2label={"0": "a", "1": "b", "2": "c"}, label2id=None)
    assert named.config.label2id == {"a": 0, "b": 1, "c": 2}
    with pytest.raises(ValueError, match="rebuilds the clean image, so noise must be added here"):
        trainer(autoencoder(), tmp_path, train_dataset=data(), objective="masked-denoising", noise_owner="processor")
    with pytest.raises(ValueError, match="needs a classifier"):
        trainer(autoencoder(), tmp_path, train_dataset=data(), noise="0.25", **PIXELS)


def test_evaluation_leaves_the_note_and_the_sines_alone(tmp_path):
    made = trainer(autoencoder(), tmp_path, train_dataset=data(), eval_dataset=data(), **SETTINGS)
    made.train()
    noted = made.model.config.hf_smoothing["noise"]
    again = trainer(
        made.model,
        tmp_path,
        train_dataset=data(),
        eval_dataset=data(),
        objective="masked-denoising",
        noise="clean",
        **PIXELS,
    )
    again.evaluate()
    assert made.model.config.hf_smoothing["noise"] == noted is not None
    trainer(made.model, tmp_path, train_dataset=data(), trainable=["vit", "decoder"], **SETTINGS)
    frozen = {name for name, p in made.model.named_parameters() if not p.requires_grad}
    assert frozen == {"vit.embeddings.position_embeddings", "decoder.decoder_pos_embed"}


def test_unlabelled_items_are_welcome(tmp_path):
    items = [{"pixel_values": image, "label": None} for image in data(8).pixels]
    trainer(autoencoder(), tmp_path, train_dataset=items, **SETTINGS).train()

"""With the stock `Trainer` and `pipeline`, as people who do not use `RobustTrainer` do."""

import pytest
import torch
from transformers import Trainer, TrainingArguments, pipeline

from hf_smoothing import NoisyImageProcessor
from tests.support.tiny import (
    MEAN,
    NAMES,
    SIZE,
    STD,
    data,
    image_dataset,
    pil_images,
    plain,
    smoothed,
    tensors,
    trainer_values,
)


def watch(module):
    """Every batch that reaches a module from now on."""
    seen = []
    module.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs["pixel_values"].detach().clone()), with_kwargs=True
    )
    return seen


def stock(model, folder, train, **kwargs):
    return Trainer(model, TrainingArguments(**(trainer_values(folder) | kwargs)), train_dataset=train)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_the_stock_trainer_trains_a_wrapper_that_owns_its_noise(kind, tmp_path):
    model = smoothed(kind, noise=0.5)
    before, seen = tensors(model), watch(model.base_network)
    examples = data(8)
    # The same image in every row: what differs between rows is noise.
    examples.pixels[:] = examples.pixels[0]
    stock(model, tmp_path, examples).train()
    assert len(seen) == 2
    clean = examples.pixels[:4] / 255
    for batch in seen:
        noise = batch * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None] - clean
        assert 0.45 < noise.std() < 0.55
        assert torch.cdist(noise.flatten(1), noise.flatten(1)).fill_diagonal_(9.0).min() > 1.0
    assert not torch.allclose(seen[0], seen[1])
    weight = f"base_network.classifier.{'1.' if kind == 'resnet' else ''}weight"
    assert not torch.equal(before[weight], model.state_dict()[weight])


def test_the_stock_trainer_evaluates_a_wrapper_with_votes(tmp_path):
    model = smoothed("vit")
    loop = stock(model, tmp_path, data(8))
    output = loop.predict(data(4))
    assert output.predictions.shape == (4, 3)
    assert abs(torch.tensor(output.predictions).exp().sum(1) - 1).max() < 1e-5
    assert 0 < output.metrics["test_loss"] < 10


def test_the_stock_trainer_averages_over_accumulated_batches(tmp_path):
    # A mean loss that is not divided gives k times the gradient with k accumulation steps.
    weights = []
    for number, kwargs in enumerate(
        [{"per_device_train_batch_size": 8}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}]
    ):
        model = smoothed("vit")
        loop = stock(model, tmp_path / str(number), data(8), max_steps=1, optim="sgd", max_grad_norm=0.0, **kwargs)
        loop.train()
        weights.append(tensors(model))
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-6)


def test_the_stock_trainer_trains_a_plain_network_on_images_of_the_noisy_processor(tmp_path):
    processor = NoisyImageProcessor(size=SIZE, noise=0.5, image_mean=MEAN, image_std=STD)

    def transform(rows):
        values = processor(rows["image"], do_noise=True, return_tensors="pt")["pixel_values"]
        return {"pixel_values": values, "labels": rows["label"]}

    torch.manual_seed(0)
    model = plain("resnet")
    before, seen = tensors(model), watch(model)
    loop = stock(model, tmp_path, image_dataset(8).with_transform(transform), remove_unused_columns=False, max_steps=4)
    loop.train()
    batches = torch.stack(seen) * torch.tensor(STD)[:, None, None]
    # Uniform pixels have variance 1/12; the noise adds 1/4.
    assert float(batches.flatten(3).var(dim=3).mean()) == pytest.approx(1 / 12 + 1 / 4, rel=0.05)
    # Two epochs of the same eight images: no batch comes twice.
    flat = batches.flatten(0, 1).flatten(1)
    assert torch.cdist(flat, flat).fill_diagonal_(99.0).min() > 5.0
    assert not torch.equal(before["classifier.1.weight"], model.state_dict()["classifier.1.weight"])


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_the_pipeline_shows_finite_vote_shares(kind, tmp_path):
    smoothed(kind, num_samples=50).save_pretrained(tmp_path)
    NoisyImageProcessor(size=SIZE, do_normalize=False).save_pretrained(tmp_path)
    classify = pipeline("image-classification", model=str(tmp_path), device="cpu")
    answers = classify(
        [image.convert(mode) for image, mode in zip(pil_images(3, size=20), ["RGB", "L", "RGBA"], strict=True)]
    )
    for answer in answers:
        assert {entry["label"] for entry in answer} == set(NAMES)
        assert sum(entry["score"] for entry in answer) == pytest.approx(1.0, abs=1e-5)
        for entry in answer:
            votes = entry["score"] * (50 + 1 / 2) - 1 / 6
            assert votes == pytest.approx(round(votes), abs=1e-3)


def test_the_pipeline_with_a_processor_that_normalises_is_refused(tmp_path):
    smoothed("resnet").save_pretrained(tmp_path)
    NoisyImageProcessor(size=SIZE, image_mean=MEAN, image_std=STD).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="do_normalize=False"):
        pipeline("image-classification", model=str(tmp_path), device="cpu")(pil_images(1))

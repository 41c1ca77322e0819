"""What an objective is given: float32 pixels in [0, 1] and classes, in every training and evaluation, whatever a collator makes."""

import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from tests.support.tiny import pixels, plain, trainer


IMAGES = [{"pixel_values": image.float() / 255, "labels": k % 3} for k, image in enumerate(pixels(8))]
BAD = [item | {"pixel_values": item["pixel_values"] * 4 - 2} for item in IMAGES]
UNLABELLED = [item | {"labels": -1} for item in IMAGES]


def collate(items):
    """Checks nothing, unlike the collator of this library."""
    images = torch.stack([item["pixel_values"] for item in items])
    return {"pixel_values": images, "labels": torch.tensor([item["labels"] for item in items])}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.uint8])
def test_every_batch_is_float32(dtype, tmp_path):
    seen = []

    def objective(model, batch, state):
        seen.append((batch.pixels.dtype, batch.pixels.sum().item()))
        return torch.nn.functional.cross_entropy(model(batch.pixels), batch.labels), {}

    def cast(items):
        batch = collate(items)
        values = batch["pixel_values"]
        return batch | {"pixel_values": (255 * values).round().to(dtype) if dtype == torch.uint8 else values.to(dtype)}

    trainer(plain(), tmp_path, objective=objective, train_dataset=IMAGES, data_collator=cast, max_steps=4).train()
    assert {kind for kind, _ in seen} == {torch.float32}
    expected = sum(float(item["pixel_values"].sum()) for item in IMAGES)
    for epoch in (seen[:2], seen[2:]):  # half precision is moved back onto the grid in each batch
        assert sum(total for _, total in epoch) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("wrong", "message"), [(BAD, "must hold pixels in"), (UNLABELLED, "Labels must be classes")])
def test_a_second_training_looks_at_its_images_again(wrong, message, tmp_path):
    loop = trainer(plain(), tmp_path, train_dataset=IMAGES, data_collator=collate)
    loop.train()
    loop.train_dataset = wrong
    with pytest.raises(ValueError, match=message):
        loop.train()


def autoencoder(folder, **kwargs):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    decoder = {f"decoder_{name}": value for name, value in sizes.items()}
    model = ViTMAEForPreTraining(ViTMAEConfig(**sizes, **decoder, image_size=16, patch_size=4))
    return trainer(model, folder, objective="masked-denoising", noise="0.25", data_collator=collate, **kwargs)


def test_an_evaluation_before_training_is_not_its_first_batch(tmp_path):
    loop = autoencoder(
        tmp_path, train_dataset=BAD, eval_dataset=IMAGES, eval_on_start=True, eval_strategy="steps", eval_steps=5
    )
    with pytest.raises(ValueError, match="must hold pixels in"):
        loop.train()


def test_an_evaluation_after_training_looks_at_its_images(tmp_path):
    loop = autoencoder(tmp_path, train_dataset=IMAGES, eval_dataset=BAD)
    loop.train()
    with pytest.raises(ValueError, match="must hold pixels in"):
        loop.evaluate()

"""Objectives of one's own: what they may return, and that they may do without labels."""

import pytest
import torch
import torch.nn.functional as F
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from hf_smoothing import denoised_classifier
from hf_smoothing.training.objectives import LABEL_FREE, OBJECTIVES, denoising, masked_denoising, needs_labels
from hf_smoothing.training.returned import RESERVED
from tests.support.tiny import MEAN, SIZE, STD, pixels, plain, trainer


def returning(make):
    def own(model, batch, state):
        loss = F.cross_entropy(model(batch.pixels), batch.labels)
        return make(loss)

    return own


@pytest.mark.parametrize("value", [0.5, 1, torch.tensor(0.5), torch.tensor([0.5], requires_grad=True)])
def test_figures_are_numbers_or_tensors_of_one_value(value, tmp_path):
    settings = {"logging_strategy": "steps", "logging_steps": 2}
    loop = trainer(plain(), tmp_path, objective=returning(lambda loss: (loss, {"mine": value})), **settings)
    loop.train()
    assert [log["mine"] for log in loop.state.log_history if "mine" in log] == [float(torch.as_tensor(value).detach())]


WRONG = {
    "the loss alone": (lambda loss: loss, TypeError, "'own' returned a tensor alone. Without figures: return loss"),
    "a number": (lambda loss: (float(loss.detach()), {}), TypeError, "returned a tuple of float, dict"),
    "three": (lambda loss: (loss, {}, 1), TypeError, "a tuple of Tensor, dict, int"),
    "nothing": (lambda loss: None, TypeError, "a NoneType"),
    "a list of figures": (lambda loss: (loss, [1.0]), TypeError, "must be a dictionary"),
    "losses": (lambda loss: (loss.repeat(3), {}), ValueError, r"shape \(3,\) from 'own'. Return loss.mean\(\)"),
    "figures": (lambda loss: (loss, {"mine": loss.repeat(3)}), ValueError, "a tensor of shape .* as 'mine'"),
    "text": (lambda loss: (loss, {"mine": "good"}), ValueError, "a str as 'mine'"),
    **{
        name: (lambda loss, name=name: (loss, {name: loss}), ValueError, f"named '{name}', which the trainer logs")
        for name in RESERVED
    },
}


@pytest.mark.parametrize(("make", "kind", "message"), WRONG.values(), ids=WRONG)
def test_what_an_objective_cannot_return_is_explained(make, kind, message, tmp_path):
    with pytest.raises(kind, match=message):
        trainer(plain(), tmp_path, objective=returning(make)).train()


IMAGES = [{"pixel_values": image} for image in pixels(8)]
LABELLED = [item | {"labels": 0} for item in IMAGES]


def autoencoder():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    decoder = {f"decoder_{name}": value for name, value in sizes.items()}
    return ViTMAEForPreTraining(ViTMAEConfig(**sizes, **decoder, image_size=16, patch_size=4))


def denoised():
    how = {"size": SIZE, "image_mean": MEAN, "image_std": STD}
    return denoised_classifier(plain(), sigma=0.25, pixels=how, denoiser={"kind": "residual", "width": 4, "depth": 3})


def own(model, batch, state):
    return model(batch.pixels).float().square().mean(), {}


@pytest.mark.parametrize("images", [IMAGES, LABELLED], ids=["unlabelled", "labelled"])
@pytest.mark.parametrize(
    ("make", "objective"),
    [
        (autoencoder, "masked-denoising"), (autoencoder, masked_denoising), (autoencoder, own),
        (denoised, "denoising"), (denoised, denoising), (denoised, own), (plain, own),
    ],
)  # fmt: skip
def test_label_free_objectives_train_without_labels(make, objective, images, tmp_path):
    loop = trainer(make(), tmp_path, objective=objective, noise="0.25", train_dataset=images)
    assert loop.train().training_loss > 0.0


@pytest.mark.parametrize("name", [name for name, found in OBJECTIVES.items() if callable(found)])
def test_objectives_of_this_library_need_labels_but_these(name):
    assert needs_labels(OBJECTIVES[name]) == (name not in LABEL_FREE)

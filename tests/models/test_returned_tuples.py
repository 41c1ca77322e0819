"""A network whose configuration asks for tuples is wrapped, trained and saved like any other."""

import pytest
import torch
import transformers

from hf_smoothing import SmoothedClassifier, denoised_classifier, smoothed_ensemble
from hf_smoothing.noise import NoiseMixture
from hf_smoothing.training.objectives import Batch, Network, ObjectiveState
from hf_smoothing.training.objectives.denoising import denoising
from tests.support.tiny import MEAN, SIZE, STD, label_maps, pixels, plain, trainer


WIDTHS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
PATCHES = WIDTHS | {"image_size": SIZE, "patch_size": 4}
SWIN = {"image_size": SIZE, "patch_size": 2, "embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 4}
VISION = {"ViT": PATCHES, "DeiT": PATCHES, "Beit": PATCHES, "Dinov2": PATCHES, "Swin": SWIN}
ABOUT = {"size": SIZE, "image_mean": MEAN, "image_std": STD}
SMALL = {"kind": "residual", "width": 4, "depth": 2}
WRAPPERS = {
    "wrapped": lambda model: SmoothedClassifier.from_base_pretrained(model, sigma=0.25, **ABOUT),
    "ensemble": lambda model: smoothed_ensemble([model, model], sigma=0.25, pixels=ABOUT),
    "denoised": lambda model: denoised_classifier(model, sigma=0.25, pixels=ABOUT, denoiser=SMALL),
}


def network(name, return_dict=True):
    if name == "ResNet":
        return plain(return_dict=return_dict)
    config = getattr(transformers, f"{name}Config")(**VISION[name], **label_maps(), return_dict=return_dict)
    torch.manual_seed(0)
    return getattr(transformers, f"{name}ForImageClassification")(config).eval()


def inner(model):
    base = model.base_network
    return getattr(base, "network", getattr(base, "members", [base])[0])


@torch.no_grad()
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("name", ["ResNet", *VISION])
def test_it_is_wrapped_as_one_that_returns_names(name, wrap):
    torch.manual_seed(0)
    expected = wrap(network(name)).classify(pixels() / 255)
    torch.manual_seed(0)
    model = wrap(network(name, return_dict=False))
    assert torch.equal(model.classify(pixels() / 255), expected)
    assert inner(model).config.return_dict is False


@torch.no_grad()
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_it_is_saved_and_loaded(wrap, tmp_path):
    model = wrap(network("ViT", return_dict=False))
    model.save_pretrained(tmp_path)
    again = SmoothedClassifier.from_pretrained(tmp_path)
    assert torch.equal(again.classify(pixels() / 255), model.classify(pixels() / 255))


def test_what_was_trained_so_is_wrapped(tmp_path):
    loop = trainer(network("ViT", return_dict=False), tmp_path)
    loop.train()
    loop.save_model(str(tmp_path))
    assert SmoothedClassifier.from_base_pretrained(tmp_path, sigma=0.25).certify(pixels(1), n=20, n0=5)


@pytest.mark.parametrize("name", ["ResNet", "ViT"])
def test_a_denoiser_before_it_is_trained_for_its_answers(name):
    losses, batch = [], Batch(pixels() / 255, torch.arange(4) % 3)
    for return_dict in (True, False):
        torch.manual_seed(0)
        model = WRAPPERS["denoised"](network(name, return_dict))
        model.base_network.network.requires_grad_(False)
        state = ObjectiveState(NoiseMixture((0.3,)), torch.Generator().manual_seed(0))
        losses.append(denoising(Network(model, model.classify), batch, state, stability=1.0)[0])
    assert torch.equal(*losses)


@torch.no_grad()
def test_it_is_compiled():
    model = WRAPPERS["wrapped"](network("ViT", return_dict=False)).train()
    expected = model(pixel_values=pixels() / 255).logits
    torch._dynamo.reset()
    assert torch.equal(torch.compile(model, backend="eager")(pixel_values=pixels() / 255).logits, expected)
    torch._dynamo.reset()

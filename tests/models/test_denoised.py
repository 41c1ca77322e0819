"""A denoiser before a classifier: what it computes, saved and loaded, trained, certified."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hf_smoothing import (
    DenoisedClassifierForImageClassification,
    NoiseMixture,
    SmoothedClassifier,
    denoised_classifier,
    smoothed_ensemble,
)
from hf_smoothing.models.denoisers import DiffusionDenoiser, ResidualDenoiser, diffusion_from_pretrained, make_denoiser
from hf_smoothing.models.loading import load_classifier
from hf_smoothing.models.network import Network
from hf_smoothing.preprocessing import Preprocessing
from hf_smoothing.training import Batch, ObjectiveState
from hf_smoothing.training.objectives import denoising
from tests.support.tiny import MEAN, STD, data, plain, smoothed, trainer


SMALL = {"kind": "residual", "width": 4, "depth": 3}
UNET = {
    "sample_size": 16, "in_channels": 3, "out_channels": 3, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
PIXELS = torch.randint(0, 256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0)) / 255
BATCH = Batch(PIXELS, torch.tensor([0, 1, 2, 0]))


def state():
    return ObjectiveState(NoiseMixture((0.3,)), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("denoiser", [SMALL, {"kind": "diffusion", "unet": UNET}])
def test_it_denoises_and_classifies_and_is_saved_and_loaded(denoiser, tmp_path):
    if denoiser["kind"] == "diffusion":
        pytest.importorskip("diffusers", reason="diffusers is not installed, so diffusion denoising was NOT tested")
    torch.manual_seed(0)
    own = smoothed("resnet", 0, model_size=24)
    model = denoised_classifier(own, sigma=0.25, denoiser=denoiser)
    model.eval()
    with torch.no_grad():
        cleaned = model.base_network.denoise(PIXELS)
        assert cleaned.shape == PIXELS.shape
        torch.testing.assert_close(model.classify(PIXELS), own.classify(cleaned))
    model.save_pretrained(tmp_path / "model")
    again = SmoothedClassifier.from_pretrained(tmp_path / "model").eval()
    assert isinstance(again.base_network, DenoisedClassifierForImageClassification)
    with torch.no_grad():
        torch.testing.assert_close(again.classify(PIXELS), model.classify(PIXELS))
    assert len(again.certify(PIXELS[:1], n=20, n0=5, seed=0)) == 1


def test_timesteps_are_the_published_ones():
    pytest.importorskip("diffusers", reason="diffusers is not installed, so the timesteps were NOT checked")
    denoiser = DiffusionDenoiser(UNET)
    assert [denoiser.timestep(sigma) for sigma in (0.25, 0.5, 1.0)] == [145, 259, 396]
    with pytest.raises(ValueError, match="is noisier than the diffusion schedule, which ends at"):
        denoiser.timestep(1000.0)


def test_unets_that_say_more_or_less_than_the_noise():
    pytest.importorskip("diffusers", reason="diffusers is not installed, so its UNets were NOT checked")
    torch.manual_seed(0)
    both = DiffusionDenoiser(UNET | {"out_channels": 6}).eval()
    with torch.no_grad():
        t = both.timestep(0.25)
        kept = both.kept[t]
        noisy = math.sqrt(kept) * (2 * PIXELS - 1)
        noise = both.unet(noisy, t).sample[:, :3]
        expected = ((noisy - math.sqrt(1 - kept) * noise) / math.sqrt(kept)).clamp(-1, 1) / 2 + 0.5
        torch.testing.assert_close(both(PIXELS, 0.25), expected)
    with pytest.raises(ValueError, match="got 4 output channels"):
        DiffusionDenoiser(UNET | {"out_channels": 4})
    with pytest.raises(ValueError, match="Take an unconditional model"):
        DiffusionDenoiser(UNET | {"num_class_embeds": 10})


def test_a_perfect_diffusion_model_gives_the_clean_image_back():
    pytest.importorskip("diffusers", reason="diffusers is not installed, so diffusion denoising was NOT tested")
    denoiser, sigma = DiffusionDenoiser(UNET), 0.5
    noise = torch.randn(PIXELS.shape, generator=torch.Generator().manual_seed(1))
    kept = denoiser.kept[denoiser.timestep(sigma)]

    class Knows(nn.Module):
        """Predicts the noise at the timestep, which is a little more than the image has."""

        dtype = torch.float32

        def forward(self, noisy, t):
            assert t == 259
            clean = 2 * PIXELS - 1
            return type("Output", (), {"sample": (noisy - math.sqrt(kept) * clean) / math.sqrt(1 - kept)})

    denoiser.unet = Knows()
    torch.testing.assert_close(denoiser(PIXELS + sigma * noise, sigma), PIXELS, rtol=0, atol=1e-5)


def test_a_diffusers_folder_is_read(tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed, so its folders were NOT read")
    unet = diffusers.UNet2DModel.from_config(UNET)
    unet.save_pretrained(tmp_path / "unet")
    diffusers.DDPMScheduler(beta_schedule="linear").save_pretrained(tmp_path / "scheduler")
    config, denoiser = diffusion_from_pretrained(str(tmp_path))
    model = denoised_classifier(smoothed(), sigma=0.25, denoiser=(config, denoiser)).eval()
    denoiser.eval()
    with torch.no_grad():
        torch.testing.assert_close(model.base_network.denoise(PIXELS), denoiser(PIXELS, 0.25))


def test_the_small_denoiser_learns_to_denoise_and_leaves_the_classifier_alone(tmp_path):
    torch.manual_seed(0)
    model = denoised_classifier(smoothed(), sigma=0.25, denoiser=SMALL)
    before = {name: value.clone() for name, value in model.base_network.network.state_dict().items()}
    made = trainer(
        model, tmp_path, objective="denoising", objective_args={"stability": 0.01}, noise="0.25", trainable=["denoiser"], max_steps=90, learning_rate=0.01, train_dataset=data(64),
    )  # fmt: skip
    clean = data(16).pixels.float() / 255
    noisy = clean + 0.25 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    made.train()
    model.eval()
    with torch.no_grad():
        error = (model.base_network.denoise(noisy) - clean).square().mean()
    assert float(error) < 0.6 * 0.25**2
    after = model.base_network.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_losses_are_those_of_the_formula():
    torch.manual_seed(0)
    model = denoised_classifier(smoothed(), sigma=0.25, denoiser=SMALL).eval()
    model.base_network.network.requires_grad_(False)
    loss, logs = denoising(Network(model, model.classify), BATCH, state(), mse=0.5, stability=2.0)
    generator = torch.Generator().manual_seed(0)
    sigma = NoiseMixture((0.3,)).sample_sigmas(4, generator)
    noisy, _ = NoiseMixture((0.3,)).add(PIXELS, generator, sigma)
    inner = model.base_network
    cleaned = inner.denoise(noisy)
    prepare = inner.config.preprocessing()
    answers = inner.network(pixel_values=prepare(PIXELS)).logits.argmax(1)
    shares = inner.network(pixel_values=prepare(cleaned)).logits.log_softmax(1)
    stable = -sum(shares[i, answers[i]] for i in range(4)) / 4
    torch.testing.assert_close(loss, 0.5 * (cleaned - PIXELS).square().mean() + 2.0 * stable)
    assert logs.keys() == {"mse", "stability"}


LOSSES = [{}, {"stability": 0.5}, {"mse": 0.0, "stability": 1.0}]


@pytest.mark.parametrize("settings", LOSSES)
@pytest.mark.parametrize("other", [{"size": 24}, {"size": 12}, {"image_mean": [0.1] * 3, "image_std": [0.5] * 3}])
def test_a_denoiser_is_trained_on_what_a_certificate_gives_it(other, settings, tmp_path):
    """Certified at another size than the denoiser's, or with a normalisation before it."""
    torch.manual_seed(0)
    denoised_classifier(smoothed(), sigma=0.25, denoiser=SMALL).save_pretrained(tmp_path / "model")
    model = SmoothedClassifier.from_pretrained(tmp_path / "model", **other).eval()
    size = model.config.size[0]
    clean = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    inner, seen = model.base_network, []
    inner.network.requires_grad_(False)
    inner.denoiser.register_forward_hook(lambda module, given, output: seen.append((given[0], output)))
    _, logs = denoising(Network(model, model.classify), Batch(clean, BATCH.labels), state(), **settings)
    generator = torch.Generator().manual_seed(0)
    noisy, _ = NoiseMixture((0.3,)).add(clean, generator, NoiseMixture((0.3,)).sample_sigmas(4, generator))
    with torch.no_grad():
        model.classify(noisy)
        model.classify(clean)
    (trained, cleaned), (used, _), (target, _) = seen
    torch.testing.assert_close(trained, used)
    torch.testing.assert_close(logs["mse"], (cleaned - target).square().mean())
    made = trainer(
        model, tmp_path / "training", objective="denoising", objective_args=settings, noise="0.25", trainable=["denoiser"], train_dataset=data(8, size=size),
    )  # fmt: skip
    made.train()
    assert made.state.global_step == 2


@pytest.mark.parametrize("settings", LOSSES)
def test_pixels_of_another_size_are_refused_by_every_loss(settings):
    model = denoised_classifier(smoothed(), sigma=0.25, denoiser=SMALL)
    model.base_network.network.requires_grad_(False)
    images = Batch(torch.rand(4, 3, 24, 24), BATCH.labels)
    with pytest.raises(ValueError, match=r"at the certified resolution \(16, 16\), got \(24, 24\)"):
        denoising(Network(model, model.classify), images, state(), **settings)


@pytest.mark.parametrize("settings", LOSSES)
def test_a_denoiser_without_a_wrapper_sees_what_its_trainer_makes_of_pixels(settings):
    inner, seen = denoised_classifier(smoothed(), sigma=0.25, denoiser=SMALL).eval().base_network, []
    inner.network.requires_grad_(False)
    prepare = Preprocessing((0.4,) * 3, (0.5,) * 3)
    inner.denoiser.register_forward_hook(lambda module, given, output: seen.append((given[0], output)))
    network = Network(inner, lambda x: inner(prepare(x)).logits, prepare)
    _, logs = denoising(network, BATCH, state(), **settings)
    ((given, cleaned),), generator = seen, torch.Generator().manual_seed(0)
    noisy, _ = NoiseMixture((0.3,)).add(PIXELS, generator, NoiseMixture((0.3,)).sample_sigmas(4, generator))
    torch.testing.assert_close(given, prepare(noisy))
    torch.testing.assert_close(logs["mse"], (cleaned - prepare(PIXELS)).square().mean())


@pytest.mark.parametrize("settings", [{}, {"mse": 0.0, "stability": 1.0}])
def test_the_losses_run_in_the_precision_of_the_weights_and_of_the_training(settings):
    model = denoised_classifier(smoothed(), sigma=0.25, denoiser=SMALL).eval()
    model.base_network.network.requires_grad_(False)
    expected, _ = denoising(Network(model, model.classify), BATCH, state(), **settings)
    seen = []
    model.base_network.denoiser.noise[0].register_forward_hook(lambda *given: seen.append(given[-1].dtype))

    def mixed():
        return torch.autocast("cpu", torch.bfloat16)

    def classify(pixels):
        with mixed():
            return model.classify(pixels)

    loss, _ = denoising(Network(model, classify, precision=mixed), BATCH, state(), **settings)
    half = model.to(torch.bfloat16)
    again, _ = denoising(Network(half, half.classify), BATCH, state(), **settings)
    assert seen == [torch.bfloat16] * 2
    assert loss.dtype == again.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.05, atol=0)
    torch.testing.assert_close(again, expected, rtol=0.05, atol=0)


def test_parts_are_loaded_as_they_are_asked_to_be(tmp_path):
    plain(hidden_sizes=[8, 16]).save_pretrained(tmp_path / "part")
    new = {"id2label": {0: "ant", 1: "bee"}, "label2id": {"ant": 0, "bee": 1}, "ignore_mismatched_sizes": True}
    pixels = {"size": 16, "image_mean": MEAN, "image_std": STD}
    for make in (
        lambda **more: denoised_classifier(tmp_path / "part", sigma=0.25, denoiser=SMALL, pixels=pixels, **more),
        lambda **more: smoothed_ensemble([tmp_path / "part"] * 2, sigma=0.25, pixels=pixels, **more),
    ):
        model = make(n=777, **new)
        assert (model.config.id2label, model.config.n) == (new["id2label"], 777)
        with pytest.raises(TypeError, match="bogus"):
            make(bogus=3)
        with pytest.raises(TypeError, match=r"pass pixels=\{'size': 20\}"):
            make(size=20)


def test_parts_may_be_plain_models(tmp_path):
    model = plain()
    pixels = {"size": 16, "image_mean": MEAN, "image_std": STD}
    made = denoised_classifier(model, sigma=0.25, denoiser=SMALL, pixels=pixels)
    assert torch.equal(made.base_network.network.classifier[1].weight, model.classifier[1].weight)
    with pytest.raises(TypeError, match="num_labels: only a checkpoint is loaded with these, got a ResNet"):
        denoised_classifier(model, sigma=0.25, pixels=pixels, num_labels=3)
    with pytest.raises(TypeError, match=r"`pixels` may hold size, .* got 'sise'"):
        denoised_classifier(model, sigma=0.25, pixels={"sise": 16})


@pytest.mark.parametrize("load", [SmoothedClassifier.from_pretrained, load_classifier])
def test_a_diffusion_model_says_that_it_is_for_one_noise_level(load, tmp_path):
    pytest.importorskip("diffusers", reason="diffusers is not installed, so diffusion denoising was NOT tested")
    denoised_classifier(smoothed(), sigma=0.25, denoiser={"kind": "diffusion", "unet": UNET}).save_pretrained(tmp_path)
    message = r"takes out noise of sigma 0\.25, but this is sigma 1\.0"
    with pytest.warns(UserWarning, match=message):
        load(str(tmp_path), sigma=1.0).noise_level()
    model = SmoothedClassifier.from_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=message):
        model.certify(PIXELS[:1], sigma=1.0, n=10, n0=5)


def test_the_noise_level_that_it_is_for_passes_silently():
    pytest.importorskip("diffusers", reason="diffusers is not installed, so diffusion denoising was NOT tested")
    diffusion = denoised_classifier(smoothed(), sigma=0.25, denoiser={"kind": "diffusion", "unet": UNET})
    assert diffusion.noise_level(0.25) == 0.25
    assert denoised_classifier(smoothed(), sigma=0.25, denoiser=SMALL).noise_level(1.0) == 1.0


def test_a_classifier_that_would_follow_its_own_answers_is_refused():
    model = denoised_classifier(smoothed(), sigma=0.25, denoiser=SMALL)
    with pytest.raises(ValueError, match=r"needs a frozen classifier .* Set trainable=\['denoiser'\]"):
        denoising(Network(model, model.classify), BATCH, state(), stability=1.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: make_denoiser({"kind": "median"}), ValueError, "'kind' must be one of residual, diffusion, got 'median'"),
        (lambda: make_denoiser({"kind": "residual", "colour": 3}), ValueError, "does not take these settings"),
        (lambda: ResidualDenoiser(depth=1), ValueError, "at least 2 convolutions"),
        (lambda: ResidualDenoiser(width=1.5), ValueError, "needs whole numbers.*width=1.5"),
        (lambda: denoised_classifier(smoothed(), sigma=0.25, denoiser="residual"), TypeError, "must be a configuration such as .* got str"),
        (lambda: denoised_classifier(smoothed(), sigma=0.25, denoiser=nn.Identity()), TypeError, "got Identity"),
        (lambda: denoised_classifier(smoothed(), sigma=0.25, pixels={"size": 16}), ValueError, "says its pixels itself"),
        (lambda: denoised_classifier(denoised_classifier(smoothed(), sigma=0.25), sigma=0.25), ValueError, "has a denoiser already"),
        (lambda: denoised_classifier(smoothed(), sigma=0.25, denoiser={"kind": "diffusion", "unet": {"sample_size": 32}}), ValueError, "is for images of 32 px, but this classifier is certified at"),
        (lambda: denoised_classifier(smoothed(), sigma=0.25, denoiser=SMALL | {"channels": 1}), ValueError, "is for 1 channels, but this classifier takes 3"),
        (lambda: denoising(Network(smoothed(), None), Batch(PIXELS, torch.zeros(4).long()), ObjectiveState(NoiseMixture((0.3,)), torch.Generator())), TypeError, "a classifier with a denoiser, got ResNet"),
        (lambda: denoising(Network(smoothed(), None), Batch(PIXELS, torch.zeros(4).long()), ObjectiveState(None, torch.Generator()), mse=0.0), ValueError, "one of them positive"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()

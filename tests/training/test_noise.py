"""Every image, step, micro-step and rank draws noise of its own, in float32, before resizing and normalising."""

import pytest
import torch

from hf_smoothing.data import DecodedPixels
from hf_smoothing.noise import training_generator
from tests.support.tiny import MEAN, SIZE, STD, any_model, data, plain, smoothed, trainer


def capture(module):
    seen = []
    module.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs["pixel_values"].detach().clone()), with_kwargs=True
    )
    return seen


def flat_images(count=8, value=128):
    """Alike, so that whatever differs is noise."""
    return DecodedPixels(torch.full((count, 3, SIZE, SIZE), value, dtype=torch.uint8), torch.arange(count) % 3)


def noise_of(seen):
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return [batch.float() * std + mean - 128 / 255 for batch in seen]


def distances(draws):
    flat = torch.cat([draw.flatten(1) for draw in draws])
    return torch.cdist(flat, flat).fill_diagonal_(99.0)


def train(kind, folder, **kwargs):
    model = any_model(kind)
    seen = capture(model.base_network if "-" in kind else model)
    loop = trainer(model, folder, **({"noise": "0.5", "train_dataset": flat_images(), "max_steps": 3} | kwargs))
    loop.train()
    return seen, loop


@pytest.mark.parametrize("kind", ["vit", "smoothed-vit", "resnet"])
def test_every_image_and_step_has_its_own_noise(kind, tmp_path):
    seen, _ = train(kind, tmp_path)
    draws = noise_of(seen)
    assert len(draws) == 3
    assert float(distances(draws).min()) > 5.0
    together = torch.cat(draws)
    assert float(together.std()) == pytest.approx(0.5, rel=0.03)
    assert abs(float(together.mean())) < 5 * 0.5 / together.numel() ** 0.5


def test_every_micro_step_has_its_own_noise(tmp_path):
    accumulate = {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 2, "max_steps": 2}
    seen, _ = train("vit", tmp_path, train_dataset=flat_images(12), **accumulate)
    assert len(seen) == 6
    assert float(distances(noise_of(seen)).min()) > 5.0


def test_the_noise_of_a_step_depends_on_the_seed_step_and_rank_alone(tmp_path):
    seen, loop = train("vit", tmp_path, seed=7)
    for step, draw in enumerate(noise_of(seen)):
        generator = training_generator(7, step, 0, 1, "cpu")
        expected, _ = loop.args.mixture().add(torch.zeros(4, 3, SIZE, SIZE), generator)
        torch.testing.assert_close(draw, expected, rtol=1e-4, atol=1e-5)


def test_another_seed_is_other_noise(tmp_path):
    first, second = (noise_of(train("vit", tmp_path, seed=seed)[0]) for seed in (1, 2))
    assert not torch.allclose(first[0], second[0])


def test_the_global_random_state_does_not_matter(tmp_path):
    torch.manual_seed(1)
    first, _ = train("vit", tmp_path)
    torch.manual_seed(2)
    second, _ = train("vit", tmp_path)
    assert torch.equal(torch.stack(first), torch.stack(second))


def test_without_noise_images_are_clean(tmp_path):
    for kind in ("vit", "smoothed-vit"):
        seen, _ = train(kind, tmp_path, noise=None)
        assert max(float(draw.abs().max()) for draw in noise_of(seen)) < 1e-5


def test_a_mixture_has_clean_images_and_several_sigmas(tmp_path):
    mixture = '{"sigmas": [0.25, 1.0], "clean": 0.5}'
    seen, _ = train(
        "vit", tmp_path, noise=mixture, per_device_train_batch_size=64, train_dataset=flat_images(64), max_steps=1
    )
    spread = noise_of(seen)[0].flatten(1).std(dim=1)
    clean, low, high = (spread < 0.01), (spread - 0.25).abs() < 0.05, (spread - 1.0).abs() < 0.15
    assert bool((clean | low | high).all())
    assert min(int(kind.sum()) for kind in (clean, low, high)) >= 5


def test_noise_is_added_at_the_certified_resolution_and_resized_after(tmp_path):
    seen, loop = train("resnet", tmp_path, model_size=32)
    generator = training_generator(42, 0, 0, 1, "cpu")
    noisy, _ = loop.args.mixture().add(torch.full((4, 3, SIZE, SIZE), 128 / 255), generator)
    assert loop.args.seed == 42
    assert seen[0].shape == (4, 3, 32, 32)
    torch.testing.assert_close(seen[0], loop.preprocessing(noisy))


@pytest.mark.parametrize("kind", ["vit", "smoothed-vit"])
def test_bfloat16_training_draws_and_adds_noise_in_float32(kind, tmp_path):
    seen, _ = train(kind, tmp_path, bf16=True)
    exact, _ = train(kind, tmp_path / "float32")
    assert {batch.dtype for batch in seen} == {torch.float32}
    assert torch.equal(seen[0], exact[0])


def test_float_images_train_like_uint8(tmp_path):
    integers = data(8)
    floats = DecodedPixels(integers.pixels / 255, integers.labels)
    first, _ = train("vit", tmp_path, train_dataset=integers)
    second, _ = train("vit", tmp_path, train_dataset=floats)
    torch.testing.assert_close(torch.stack(first), torch.stack(second))


@pytest.mark.parametrize("owner", ["trainer", "model"])
def test_images_that_are_already_normalised_are_refused(owner, tmp_path):
    wrong = DecodedPixels(torch.randn(8, 3, SIZE, SIZE), torch.zeros(8, dtype=torch.int64))
    model, kwargs = (
        (plain("vit"), {"noise": "0.5"})
        if owner == "trainer"
        else (smoothed("vit", noise=0.5), {"noise_owner": "model"})
    )
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        trainer(model, tmp_path, train_dataset=wrong, **kwargs).train()


@pytest.mark.parametrize("kind", ["vit", "smoothed-vit"])
def test_integers_that_are_not_bytes_are_refused(kind, tmp_path):
    wrong = DecodedPixels(data(8).pixels.to(torch.int64), data(8).labels)
    with pytest.raises((TypeError, ValueError), match="uint8|0, 1"):
        trainer(any_model(kind), tmp_path, train_dataset=wrong).train()


def test_images_of_the_processor_are_taken_as_they_come(tmp_path):
    ready = DecodedPixels(
        torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    )
    seen, _ = train("vit", tmp_path, noise=None, noise_owner="processor", train_dataset=ready, max_steps=2)
    rows = {tuple(image.flatten()[:4].tolist()) for image in ready.pixels}
    assert {tuple(image.flatten()[:4].tolist()) for batch in seen for image in batch} == rows


def test_the_noise_of_the_model_is_added_once(tmp_path):
    model = smoothed("vit", noise=0.5)
    seen = capture(model.base_network)
    trainer(model, tmp_path, noise_owner="model", train_dataset=flat_images()).train()
    draws = noise_of(seen)
    assert float(torch.cat(draws).std()) == pytest.approx(0.5, rel=0.04)
    assert float(distances(draws).min()) > 5.0


def test_every_run_of_the_training_loop_counts_its_passes_from_the_start(tmp_path, monkeypatch):
    # Also the second one after running out of memory (auto_find_batch_size), which does not go through train().
    steps = []
    monkeypatch.setattr(
        "hf_smoothing.training.trainer.training_generator",
        lambda seed, step, rank, world, device: steps.append(step) or torch.Generator(device).manual_seed(step),
    )
    loop = trainer(plain(), tmp_path, noise="0.5", max_steps=1)
    loop.train()
    loop.state.global_step = 0
    loop.train()
    assert steps == [0, 0]


def test_a_model_runs_in_its_own_dtype_after_mixed_precision_training(tmp_path):
    loop = trainer(plain(), tmp_path, noise="0.5", bf16=True)
    loop.train()
    dtypes = []
    convolution = next(module for module in loop.model.modules() if isinstance(module, torch.nn.Conv2d))
    convolution.register_forward_hook(lambda _module, _inputs, output: dtypes.append(output.dtype))
    loop.model.eval()(pixel_values=torch.rand(1, 3, 16, 16))
    assert dtypes == [torch.float32]

"""Networks that agree on every image, and differ where noise puts it: a run belongs to one of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hf_smoothing import SmoothedClassifier
from hf_smoothing.attack_run import attack_run
from hf_smoothing.certification import certify_dataset
from hf_smoothing.certification.behaviour import answer_to_probe
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.probes import LEVELS, NOISY, noisy_image
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.records import RunError
from tests.support.classifiers import RUN, random_dataset, results
from tests.support.tiny import plain, smoothed


SHAPE = (3, 8, 8)


class Prepared(nn.Module):
    """A network whose pixels are prepared by a function that leaves those of images as they are."""

    def __init__(self, prepare: Callable[[Tensor], Tensor], *, hard: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(512, 5))
        self.prepare, self.hard = prepare, hard

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.inner(self.prepare(pixels))
        return nn.functional.one_hot(logits.argmax(1), 5).float() if self.hard else logits


class Hooked(Prepared):
    def __init__(self, prepare: Callable[[Tensor], Tensor], *, hard: bool = False) -> None:
        super().__init__(lambda pixels: pixels, hard=hard)
        self.inner.register_forward_pre_hook(lambda module, args: (prepare(args[0]),))


def nothing(pixels: Tensor) -> Tensor:
    return pixels


def as_function(inner: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda pixels: inner(pixels)


OUTSIDE: dict[str, Callable[[Tensor], Tensor]] = {
    "clamped": lambda pixels: pixels.clamp(0, 1),
    "clamped below": lambda pixels: pixels.clamp(min=0),
    "clamped far out": lambda pixels: pixels.clamp(-1.99, 2.01),
    "grey outside": lambda pixels: torch.where((pixels < 0) | (pixels > 1), 0.5, pixels),
    "folded": lambda pixels: torch.where(pixels.abs() > 1, 2 - pixels.abs(), pixels.abs()),
    "wrapped round": lambda pixels: torch.where(pixels == 1, 1.0, pixels % 1.0),
}
MADE = {
    "module": lambda prepare, **kind: Prepared(prepare, **kind).eval(),
    "hook": lambda prepare, **kind: Hooked(prepare, **kind).eval(),
    "function": lambda prepare, **kind: as_function(Prepared(prepare, **kind).eval()),
}


@pytest.mark.parametrize("hard", [False, True], ids=["graded", "hard"])
@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
@pytest.mark.parametrize("outside", OUTSIDE.values(), ids=OUTSIDE)
def test_a_run_goes_on_with_its_own_network_outside_the_images_too(outside, made, hard, tmp_path):
    if hard and outside is OUTSIDE["clamped far out"]:
        pytest.skip("changes few votes under noise that is certified with")
    images = random_dataset(2, SHAPE)
    first, second = made(nothing, hard=hard), made(outside, hard=hard)
    shown = torch.stack([images[index]["pixel_values"] for index in range(2)]) / 255
    assert torch.equal(first(shown), second(shown))
    run = certify_dataset(first, images, tmp_path, **RUN)
    with pytest.raises(RunError, match=r"probe_(logits|classes)"):
        certify_dataset(second, images, tmp_path, **RUN)
    with pytest.raises(RunError, match=r"another network: .*probe_(logits|classes)"):
        attack_run(second, images, run, steps=1, n=100, progress=False)
    assert results(certify_dataset(first, images, tmp_path, **RUN)) == results(run)


def test_certificates_without_noise_are_about_images_alone(tmp_path):
    images = random_dataset(2, SHAPE)
    clamped = nn.Sequential(nn.Hardtanh(0.0, 1.0), Prepared(nothing).inner)
    plain_one = nn.Sequential(nn.Identity(), Prepared(nothing).inner)
    before = certify_dataset_linf(plain_one.eval(), images, tmp_path, largest=0.01, progress=False)
    assert len(before.settings["model"]["probe_logits"]) == 1
    certify_dataset_linf(clamped.eval(), images, tmp_path, largest=0.01, progress=False)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounding_makes_no_other_network(dtype, kind):
    model = smoothed(kind)
    shape, execution = (3, *model.config.size), Execution(dtype=dtype)
    known = answer_to_probe(resolve_classifier(model), shape, execution).to_dict()
    other = SmoothedClassifier.from_base_pretrained(
        plain(kind).to(torch.bfloat16 if dtype == "bfloat16" else torch.float64),
        sigma=0.5, size=16, image_mean=model.config.image_mean, image_std=model.config.image_std,
    ).eval()  # fmt: skip
    found = answer_to_probe(resolve_classifier(other), shape, execution, known=known)
    assert found.to_dict() == known
    last = Execution(dtype=dtype, channels_last=True)
    assert answer_to_probe(resolve_classifier(model), shape, last, known=known).to_dict() == known


def test_few_forward_passes_are_made():
    """The numbers that certification.md states."""
    passes = {}
    for hard in (False, True):
        inner, seen = Prepared(nothing, hard=hard).eval(), []

        def counted(pixels, inner=inner, seen=seen):
            seen.append(len(pixels))
            return inner(pixels)

        answer_to_probe(resolve_classifier(counted), SHAPE)
        passes[hard] = sum(seen)
    assert passes == {False: 26, True: 477}


def test_noisy_images_lie_far_outside_and_stay_as_they_are():
    images = torch.stack([noisy_image(number, SHAPE) for number in range(NOISY)])
    assert torch.equal(images[3], noisy_image(3, SHAPE)) and len(images.unique(dim=0)) == NOISY
    outside = ((images < 0) | (images > 1)).flatten(1).float().mean(1)
    assert outside[: len(LEVELS)].min() > 0.02 and outside[: len(LEVELS)].max() > 0.5
    assert images.min() < -2.5 and images.max() > 3.5

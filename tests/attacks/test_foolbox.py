"""Our attacks beside foolbox's: the same steps, at least as many successes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import load_dataset

from hf_smoothing import PixelDataset, SmoothedClassifier
from hf_smoothing.attacks import bim, distance, fgsm, mi_fgsm, pgd
from tests.support.tiny import smoothed


foolbox = pytest.importorskip(
    "foolbox", reason="foolbox is not installed, so attacks were NOT cross-checked: pip install foolbox"
)
ROOT = Path(__file__).resolve().parents[2]
STEPS = 10


@pytest.fixture(scope="module")
def images():
    data = load_dataset(str(ROOT / "examples" / "data"), split="test").select(range(32))
    return PixelDataset(data, 32).decode().pixels.float() / 255


@pytest.fixture(scope="module", params=["resnet-mixture-small", "resnet-clean-small", "vit"])
def classify(request):
    if request.param == "vit":
        model = smoothed("vit")
        model.eval()
        return lambda x: model.classify(torch.nn.functional.interpolate(x, model.config.size))
    return SmoothedClassifier.from_base_pretrained(ROOT / "model_cards" / request.param, sigma=0.25).eval().classify


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def pairs(norm, epsilon):
    """Name -> (ours, theirs) of the same attack with the same steps."""
    step = epsilon / STEPS * 2.5
    attacks = foolbox.attacks
    if norm == "l2":
        return {
            "pgd": (
                lambda c, x, y: pgd(
                    c, x, y, epsilon=epsilon, steps=STEPS, step_size=step, generator=torch.Generator().manual_seed(0)
                ),
                attacks.L2PGD(abs_stepsize=step, steps=STEPS, random_start=True),
            ),
            "fgm": (
                lambda c, x, y: fgsm(c, x, y, epsilon=epsilon, norm="l2"),
                attacks.L2FastGradientAttack(random_start=False),
            ),
        }
    return {
        "fgsm": (lambda c, x, y: fgsm(c, x, y, epsilon=epsilon), attacks.LinfFastGradientAttack(random_start=False)),
        "bim": (
            lambda c, x, y: bim(c, x, y, epsilon=epsilon, steps=STEPS),
            attacks.LinfBasicIterativeAttack(abs_stepsize=step, steps=STEPS, random_start=False),
        ),
        "pgd": (
            lambda c, x, y: pgd(c, x, y, epsilon=epsilon, norm="linf", steps=STEPS, step_size=step, generator=torch.Generator().manual_seed(0)),
            attacks.LinfPGD(abs_stepsize=step, steps=STEPS, random_start=True),
        ),
        "mi-fgsm": (
            lambda c, x, y: mi_fgsm(c, x, y, epsilon=epsilon, steps=STEPS),
            attacks.LinfMomentumIterativeFastGradientMethod(abs_stepsize=step, steps=STEPS, random_start=False, momentum=1.0),
        ),
    }  # fmt: skip


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.7 / 255), ("linf", 2 / 255), ("l2", 0.06)])
def test_at_least_as_many_successes(classify, images, norm, epsilon):
    with torch.no_grad():
        labels = classify(images).argmax(1)
    theirs_of = foolbox.PyTorchModel(Module(classify).eval(), bounds=(0, 1))
    torch.manual_seed(0)  # foolbox draws its starts from the global generator
    partial = 0
    for name, (ours, attack) in pairs(norm, epsilon).items():
        moved = ours(classify, images, labels)
        assert (
            float(distance(moved, images, norm).max()) <= epsilon
            and float(moved.min()) >= 0
            and float(moved.max()) <= 1
        )
        success = [
            float((classify(point).argmax(1) != labels).float().mean())
            for point in (moved, attack(theirs_of, images, labels, epsilons=epsilon)[1])
        ]
        assert success[0] >= success[1] - 0.01, (name, success)
        partial += 0.0 < success[0] < 1.0
    assert partial  # an attack that never or always succeeds compares nothing

"""A network whose other classes are masked by a huge negative logit is no more taken for another than one without masks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hf_smoothing.certification.behaviour import Answer, answer_to_probe
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.tolerance import without_masks


SHAPE = (1, 4, 4)
MASKS = [0.0, -100.0, -1e3, -1e9, torch.finfo(torch.float32).min, -torch.inf]


class Masked(nn.Module):
    """A linear classifier with some classes masked."""

    def __init__(self, classes: int, mask: float, masked: slice | None = None, shift: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(16, classes)
        self.shift = shift * torch.randn(classes)
        self.mask = torch.zeros(classes)
        self.mask[masked or slice(7, 10)] = mask

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.last(pixels.flatten(1) - 0.5) + self.shift + self.mask
        return found


def answer(network: nn.Module, deterministic: bool, known: Answer | None = None, dtype: str = "float32") -> Answer:
    return answer_to_probe(
        resolve_classifier(network.eval()),
        SHAPE,
        Execution(dtype=dtype),
        known=known and known.to_dict(),
        deterministic=deterministic,
    )


@pytest.mark.parametrize("deterministic", [False, True], ids=["votes", "bounds"])
@pytest.mark.parametrize("masked", [slice(7, 10), slice(7, None)], ids=["few", "most"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("classes", [17, 20, 200])
def test_unmasked_classes_count_beside_masked_ones(classes, mask, masked, deterministic):
    known = answer(Masked(classes, mask, masked), deterministic)
    assert answer(Masked(classes, mask, masked), deterministic, known).to_dict() == known.to_dict()
    for shift in (0.02, 0.1, 0.3):
        assert answer(Masked(classes, mask, masked, shift), deterministic, known).logits != known.logits, shift
    fewer = slice(8, masked.stop)
    if mask:  # which classes are masked counts
        assert answer(Masked(classes, mask, fewer), deterministic, known).logits != known.logits


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("classes", [17, 20, 200, 1000])
def test_rounding_is_no_other_network(classes, mask):
    for masked in (slice(7, 10), slice(7, None)):
        exact = answer(Masked(classes, mask, masked), False)
        half = answer(Masked(classes, mask, masked), False, exact, "bfloat16")
        assert half.logits == exact.logits


def test_logits_without_masks_are_left_alone():
    generator = torch.Generator().manual_seed(0)
    for row in (
        *torch.randn(2000, 200, generator=generator),
        torch.randn(1000, generator=generator),
        torch.randn(20, generator=generator) * 1e5,
        torch.randn(200, generator=generator) + 50,
        torch.rand(200, generator=generator).round(),  # votes for many
        torch.eye(20)[3],
        torch.sigmoid(50 * torch.randn(40, generator=generator)),
        torch.zeros(17),
    ):
        assert torch.equal(without_masks(row), row)

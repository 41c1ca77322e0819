"""Networks that do what few do, and all of it allowed: gradients on the way, pixels changed in place, weights that are no plain tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


SHAPE = (3, 8, 8)


class Unusual(nn.Module):
    """A linear classifier of three classes for images of `SHAPE`, always the same."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layer = nn.Linear(192, 3)
        self.layer.weight.data = torch.randn((3, 192), generator=generator)
        self.layer.bias.data = torch.zeros(3)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.layer(pixels.flatten(1))
        return logits


class Guided(Unusual):
    """Moves its pixels along a gradient first, as guided purification does."""

    def forward(self, pixels: Tensor) -> Tensor:
        with torch.enable_grad():
            moved = pixels.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(super().forward(moved).logsumexp(1).sum(), moved)
        return super().forward(pixels + 0.01 * gradient)


class InPlace(Unusual):
    """Normalises the tensor that it is given."""

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels.sub_(0.5).div_(0.25))


class SparseWeights(Unusual):
    """Keeps its weights as `layout`, a method of tensors, makes them."""

    layout = "to_sparse"

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(getattr(self.layer.weight.detach(), self.layout)(), requires_grad=False)
        del self.layer

    def forward(self, pixels: Tensor) -> Tensor:
        return (self.weight @ pixels.flatten(1).t()).t()


class RowWeights(SparseWeights):
    """The same in compressed rows."""

    layout = "to_sparse_csr"


class ColumnWeights(SparseWeights):
    """The same in compressed columns."""

    layout = "to_sparse_csc"


class ExtraState(Unusual):
    """Keeps more than tensors in its `state_dict`."""

    def get_extra_state(self) -> dict[str, Any]:
        return {"made": "by hand", "step": 3}

    def set_extra_state(self, state: Any) -> None:
        pass


def half_quantised() -> nn.Module:
    """A network whose linear layers are packed in half precision."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    quantised: nn.Module = torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.float16)
    return quantised

"""Small random networks of every kind that interval bounds support; `x` is a tensor or a box."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_smoothing.interval import linf_certificates
from tests.support.tiny import MEAN, STD, plain, smoothed


class Residual(nn.Module):
    """Adds, subtracts, scales and concatenates, in functions and operators."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.head = nn.Linear(6 * 16, 4)

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.norm(self.conv(x)))
        y += 0.5 * x - 0.1
        y = torch.cat([y, -x / 2.0], dim=1)
        return self.head(nn.functional.adaptive_avg_pool2d(y, 4).flatten(1))


class TwoOutputs(nn.Module):
    """Ends without a linear layer, so that no margin can be merged."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Any) -> Any:
        return self.conv(x).mean((2, 3))


class Tokens(nn.Module):
    """Linear layers on three dimensions, an index that takes entries twice, expand and detach."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.square, self.head = nn.Linear(16, 12), nn.Linear(12, 12), nn.Linear(12 * 12, 4)

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.mix(x.flatten(1).reshape(len(x), 12, 16)))
        y = torch.relu(self.square(y)).detach()  # as many tokens as features
        z = y[:, [0, 0, 1]].mean(1, keepdim=True).expand(-1, 12, -1)
        return self.head((y + z).flatten(1))


def mlp(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 24), activation, nn.Linear(24, 16), activation, nn.Linear(16, 4))


def cnn(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), *middle, nn.Flatten(), nn.Linear(6 * 4, 4))


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)),
    "mlp": lambda: mlp(nn.ReLU()),
    "tanh": lambda: mlp(nn.Tanh()),
    "sigmoid": lambda: mlp(nn.Sigmoid()),
    "leaky": lambda: mlp(nn.LeakyReLU(0.1)),
    "elu": lambda: mlp(nn.ELU()),
    "softplus": lambda: mlp(nn.Softplus()),
    "gelu": lambda: mlp(nn.GELU()),
    "silu": lambda: mlp(nn.SiLU()),
    "max pool": lambda: cnn(nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
    "average pool": lambda: cnn(nn.ReLU(), nn.AvgPool2d(2)),
    "dropout": lambda: cnn(nn.Dropout(0.5), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
    "residual": Residual,
    "tokens": Tokens,
    "no head": TwoOutputs,
}


def network(name: str, seed: int = 0, size: int = 8) -> nn.Module:
    """In eval mode and float64, its batch-norm statistics not the trivial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "resnet":
            model: nn.Module = smoothed("resnet", seed)
        elif name == "plain resnet":
            model = base = plain("resnet", seed)
            base.config.hf_smoothing = {
                "image_mean": MEAN,
                "image_std": STD,
                "model_size": [20, 20],
                "size": [16, 16],
            }
        else:
            model = BUILDERS[name]()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.get_buffer("running_mean").normal_()
                module.get_buffer("running_var").uniform_(0.5, 2.0)
                module.weight.data.normal_()
                module.bias.data.normal_()
    return model.double().eval()


def images(count: int, size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Hidden(nn.Module):
    """Two hidden layers with a function of one's own between, and a head."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.function = function
        self.first, self.second, self.head = nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.function(self, self.first(x.flatten(1))))


def pixels(count: int = 6) -> Tensor:
    return torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def every(functions: Mapping[str, Any]) -> Callable[[Any], Any]:
    """A test of each of these by `name`, with and without a `backward` pass."""
    names, ways = (
        pytest.mark.parametrize("name", functions),
        pytest.mark.parametrize("backward", ["none", "optimised"]),
    )
    return lambda test: ways(names(test))


def attacked(function: Callable[[Any, Any], Any], backward: str = "none") -> tuple[Hidden, Tensor, int]:
    """A hidden function certified and attacked: the network, the radii of `pixels()`, and how many of them are broken."""
    model, x = Hidden(function).eval(), pixels()
    classes, radii = linf_certificates(model, x, largest=0.9, backward=backward, steps=2)
    return model, radii, broken(model, x, classes, radii)


def broken(model: nn.Module, x: Tensor, classes: Tensor, radii: Tensor, count: int = 400) -> int:
    """How many certificates random corners break."""
    found = torch.zeros(len(x), dtype=torch.bool)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _ in range(count):
            signs = torch.randint(0, 2, x.shape, generator=generator) * 2.0 - 1.0
            y = (x + 0.999999 * radii.float().view(-1, 1, 1, 1) * signs).clamp(0, 1)
            found |= model(y).argmax(1) != classes
    return int(found.sum())

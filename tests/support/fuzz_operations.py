"""Arguments for every operation that boxes accept, drawn wider than what is accepted.

`ARGUMENTS` has an entry for each rule: (random source, tensor) -> (arguments, named arguments) after the first one. A test demands that
none is missing, so a new rule is fuzzed or the test fails. Numbers are multiples of 1/8, which every dtype holds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch


Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Draw = Callable[[random.Random, torch.Tensor], Arguments]


def number(source: random.Random, low: float = -2.0, high: float = 2.0) -> float:
    return round(source.uniform(low, high) * 8) / 8


def weights(source: random.Random, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(source.randrange(2**31))
    return torch.randn(shape, generator=generator)


def dims(source: random.Random, x: torch.Tensor) -> tuple[int, ...]:
    """Mostly not the images."""
    first = 0 if source.random() < 0.1 else 1
    known = range(min(first, x.ndim - 1), x.ndim)
    return tuple(source.sample(known, source.randint(1, len(known))))


def dim(source: random.Random, x: torch.Tensor) -> int:
    return dims(source, x)[0]


def nothing(source: random.Random, x: torch.Tensor) -> Arguments:
    return (), {}


def numbers(*ranges: tuple[float, float]) -> Draw:
    return lambda source, x: (tuple(number(source, *ends) for ends in ranges), {})


def operand(source: random.Random, x: torch.Tensor) -> Arguments:
    """A number, a constant that broadcasts, or the tensor itself."""
    kind = source.random()
    if kind < 0.25:
        return (number(source),), {}
    if kind < 0.5:
        return ("other",), {}
    shape = [size if source.random() < 0.5 else 1 for size in x.shape]
    shape[0] = x.shape[0] if source.random() < 0.1 else 1
    return (weights(source, *shape),), {}


def summand(source: random.Random, x: torch.Tensor) -> Arguments:
    args, _ = operand(source, x)
    return args, {"alpha": number(source)} if source.random() < 0.3 and not isinstance(args[0], float) else {}


def divisor(source: random.Random, x: torch.Tensor) -> Arguments:
    args, named = operand(source, x)
    return tuple(a.abs() + 0.125 if isinstance(a, torch.Tensor) else a for a in args), named


def convolution(rank: int, transposed: bool = False) -> Draw:
    def draw(source: random.Random, x: torch.Tensor) -> Arguments:
        inside, outside, kernel = x.shape[1], source.choice([2, 3, 4]), source.choice([1, 2, 3])
        shape = (inside, outside) if transposed else (outside, inside)
        named = {
            "stride": source.choice([1, 2]),
            "padding": source.choice([0, 1]),
            "dilation": source.choice([1, 1, 2]),
        }
        bias = weights(source, outside) if source.random() < 0.7 else None
        return (weights(source, *shape, *(kernel,) * rank) / inside, bias), named

    return draw


def pool(source: random.Random, x: torch.Tensor) -> Arguments:
    named = {
        "stride": source.choice([None, 1, 2]),
        "padding": source.choice([0, 0, 1]),
        "ceil_mode": source.random() < 0.3,
    }
    return (source.choice([2, 3]),), named


def average_pool(source: random.Random, x: torch.Tensor) -> Arguments:
    args, named = pool(source, x)
    named["count_include_pad"] = source.random() < 0.5
    if source.random() < 0.3:
        named["divisor_override"] = source.choice([2, 3, -2])
    return args, named


def adaptive(source: random.Random, x: torch.Tensor) -> Arguments:
    return (source.choice([1, 2, 3]),), {}


def reduction(source: random.Random, x: torch.Tensor) -> Arguments:
    return (dims(source, x),), {"keepdim": source.random() < 0.5}


MODES = ("nearest", "nearest-exact", "area", "bilinear", "linear", "bicubic", "lanczos")


def resize(source: random.Random, x: torch.Tensor) -> Arguments:
    mode = source.choice(MODES)
    named: dict[str, Any] = {"mode": mode, "antialias": source.random() < 0.3}
    if source.random() < 0.5:
        named["size"] = tuple(source.choice([2, 3, 4, 5]) for _ in x.shape[2:])
    else:
        named["scale_factor"] = source.choice([0.5, 0.75, 1.25, 2.0])
    if "linear" in mode and source.random() < 0.3:
        named["align_corners"] = True
    return (), named


def shape(source: random.Random, x: torch.Tensor) -> Arguments:
    """The images first and the rest in another shape, or now and then something else."""
    if source.random() < 0.1:
        return (-1, x.shape[-1]), {}
    rest = x[0].numel()
    sizes = source.choice([(rest,), (-1, 1), (1, rest), *((d, -1) for d in (2, 3, 4) if rest % d == 0)])
    return (x.shape[0] if source.random() < 0.05 else "batch", *sizes), {}


def order(source: random.Random, x: torch.Tensor) -> Arguments:
    rest = list(range(1, x.ndim))
    source.shuffle(rest)
    places = [0, *rest]
    if source.random() < 0.2:
        source.shuffle(places)
    return tuple(places), {}


def pair(source: random.Random, x: torch.Tensor) -> Arguments:
    return (dim(source, x), dim(source, x)), {}


def piece(source: random.Random, x: torch.Tensor) -> Arguments:
    d = dim(source, x)
    start = source.randrange(x.shape[d])
    return (d, start, source.randint(1, x.shape[d] - start)), {}


def key(source: random.Random, x: torch.Tensor) -> Arguments:
    """An index that keeps the images, mostly."""
    kind, last = source.random(), x.shape[-1]
    if kind < 0.1:
        return (
            source.choice([0, slice(None, 1), slice(None, None, 2), (..., None), torch.arange(x.shape[0]).flip(0)]),
        ), {}
    place = source.choice([
        source.randrange(last), slice(source.randrange(last), None), slice(None, None, 2), [0, last - 1, 0], None,
        torch.tensor([0, last - 1]), torch.arange(last) % 2 == 0,
    ])  # fmt: skip
    return ((..., place) if source.random() < 0.5 or x.ndim < 3 else (slice(None), slice(None), place),), {}


def padding(source: random.Random, x: torch.Tensor) -> Arguments:
    around = tuple(source.choice([0, 0, 1, -1]) for _ in range(2 * max(1, min(2, x.ndim - 2))))
    mode = source.choice(["constant", "constant", "reflect", "replicate", "circular"])
    if mode == "circular":  # with negative numbers torch may leave entries uninitialised, and the rule refuses them
        around = tuple(map(abs, around))
    return (around,), {"mode": mode} | ({"value": number(source)} if mode == "constant" else {})


def matrix(source: random.Random, x: torch.Tensor) -> Arguments:
    return (weights(source, x.shape[-1], source.choice([2, 3])) / 2,), {}


def batch_norm(source: random.Random, x: torch.Tensor) -> Arguments:
    c = x.shape[1]
    args = (weights(source, c), weights(source, c).abs() + 0.25, weights(source, c), weights(source, c))
    return args, {"training": source.random() < 0.05, "eps": 0.125}


def power(source: random.Random, x: torch.Tensor) -> Arguments:
    return (source.choice([1, 2, 2, 3, 4, 5]),), {}


DOUBLE = {"dtype": torch.float64}
"""Of constants: what is computed of them alone is no part of the bounds, and rounded as the network rounds it."""


def size(source: random.Random, x: torch.Tensor) -> tuple[int, ...]:
    """Of a constant, which broadcasts with the given tensor, or not."""
    return source.choice([(1,), (1, x.shape[-1]), (2, 3)])


ARGUMENTS: dict[str, Draw] = {
    **dict.fromkeys(
        ("relu", "relu6", "sigmoid", "hardsigmoid", "logsigmoid", "tanh", "softsign", "exp", "sqrt", "selu", "silu", "abs", "square", "reciprocal",
         "neg", "positive", "t", "contiguous", "detach", "clone", "double", "float", "half", "bfloat16", "mish", "hardswish"), nothing,
    ),
    **dict.fromkeys(("zeros_like", "ones_like"), lambda s, x: ((), DOUBLE)),
    **dict.fromkeys(("new_zeros", "new_ones"), lambda s, x: ((size(s, x),), DOUBLE)),
    **dict.fromkeys(("mul", "maximum", "minimum"), operand),
    **dict.fromkeys(("add", "sub"), summand),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), average_pool),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), pool),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d"), adaptive),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), reduction),
    **dict.fromkeys(("reshape", "view"), shape),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"), lambda s, x: ((0.5, False), {})),
    "full_like": lambda s, x: ((number(s),), DOUBLE),
    "new_full": lambda s, x: ((size(s, x), number(s)), DOUBLE),
    "addmm": lambda s, x: ((weights(s, 3), weights(s, x.shape[-1], 3) / 2), {}),
    "rrelu": lambda s, x: ((number(s, 0.0, 0.25), number(s, 0.25, 1.0), s.random() < 0.05), {}),
    "hardtanh": numbers((-1.0, 0.0), (0.0, 1.0)),
    "clamp": numbers((-1.0, 0.0), (0.0, 1.0)),
    "clamp_min": numbers((-1.0, 1.0)),
    "clamp_max": numbers((-1.0, 1.0)),
    "threshold": numbers((-1.0, 1.0), (-1.0, 1.0)),
    "leaky_relu": numbers((-0.25, 2.0)),
    "elu": numbers((-0.25, 2.0)),
    "celu": numbers((0.125, 2.0)),
    "softplus": lambda s, x: ((s.choice([0.5, 1.0, 2.0]), s.choice([20.0, 1.0, 0.0])), {}),
    "pow": power,
    "prelu": lambda s, x: ((weights(s, s.choice([1, x.shape[1] if x.ndim > 1 else 1])),), {}),
    "gelu": lambda s, x: ((), {"approximate": s.choice(["none", "none", "none", "tanh"])}),
    "div": divisor,
    "linear": lambda s, x: ((weights(s, 4, x.shape[-1]) / 2, weights(s, 4)), {}),
    "conv1d": convolution(1),
    "conv2d": convolution(2),
    "conv3d": convolution(3),
    "conv_transpose2d": convolution(2, transposed=True),
    "matmul": matrix,
    "batch_norm": batch_norm,
    "interpolate": resize,
    "flatten": lambda s, x: ((s.choice([1, 1, 1, 2, 0]),), {}),
    "unflatten": lambda s, x: ((1, s.choice([(1, -1), (2, -1), (-1, 3)])), {}),
    "permute": order,
    "transpose": pair,
    "movedim": pair,
    "squeeze": lambda s, x: ((dim(s, x),) if s.random() < 0.9 else (), {}),
    "unsqueeze": lambda s, x: ((s.choice([1, -1, 0]),), {}),
    "expand": lambda s, x: (tuple(s.choice([2, 3]) if d and size == 1 else -1 for d, size in enumerate(x.shape)), {}),
    "expand_as": lambda s, x: ((torch.zeros([s.choice([2, 3]) if d and size == 1 else size for d, size in enumerate(x.shape)]),), {}),
    "view_as": lambda s, x: ((torch.zeros(len(x), x[0].numel()),), {}),
    "repeat": lambda s, x: ((2 if s.random() < 0.1 else 1, *(s.choice([1, 2]) for _ in x.shape[1:])), {}),
    "flip": lambda s, x: ((dims(s, x),), {}),
    "roll": lambda s, x: ((1, dim(s, x)), {}),
    "pixel_shuffle": lambda s, x: ((s.choice([1, 2]),), {}),
    "pixel_unshuffle": lambda s, x: ((s.choice([1, 2]),), {}),
    "channel_shuffle": lambda s, x: ((s.choice([1, 2, 3]),), {}),
    "__getitem__": key,
    "narrow": piece,
    "select": lambda s, x: piece(s, x)[0][:2] and (piece(s, x)[0][:2], {}),
    "index_select": lambda s, x: ((-1, torch.tensor([0, x.shape[-1] - 1, 0])), {}),
    "chunk": lambda s, x: ((2, dim(s, x)), {}),
    "split": lambda s, x: ((s.choice([1, 2]), dim(s, x)), {}),
    "unbind": lambda s, x: ((dim(s, x),), {}),
    "pad": padding,
    "to": lambda s, x: ((s.choice([torch.float64, torch.float32, torch.float64, torch.float16]),), {}),
    "type_as": lambda s, x: ((torch.zeros(1, dtype=s.choice([torch.float64, torch.float32])),), {}),
    "cat": lambda s, x: ((dim(s, x),), {}),
    "stack": lambda s, x: ((s.choice([1, -1, 0]),), {}),
}  # fmt: skip


# These take a list of tensors in place of one.
LISTS = {"cat", "stack"}

# These take a constant before the tensor.
SECOND = {"addmm"}

"""What boxes do not know, said with the operation and its place in the network."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any, NoReturn

from torch import nn


class UnsupportedOperationError(ValueError):
    """An operation of the network, or an argument of one, for which there is no sound bound here.

    Not a TypeError, which torch's operators take for an invitation to try another one: x += box would become x = x + box.
    """


class UnsupportedAttributeError(UnsupportedOperationError, AttributeError):
    """An attribute of tensors that boxes have not, so that `hasattr` says so."""


KNOWN = (
    "Interval bounds are for networks of linear layers, convolutions, batch norm, activations, pooling, additions, products and "
    "reshapes; docs/interval.md lists them."
)

OVERLOADS = (
    "It is an operator of torch.ops, as a library registers it or an exported module calls it, and boxes do not follow those: take the functions of torch, or "
    "certify the module that was exported."
)
_ATTENTION = "Attention is vacuous in intervals: one layer of a ViT turns epsilon 1/2550 into a gap of more than 100,000 logits."
_SOFTMAX = (
    "At the end of a network leave it out and return logits: it changes no class. Within one it divides by a sum of exponentials, which intervals bound "
    "badly, as in attention."
)
_JUMP = "It jumps, so no slope bounds it, and it has no gradients either; take it out, or use clamp."
_EINSUM = "Write it as linear, matmul, or a product and a sum."
_ANSWER = "A box has no single value to read or compare, so a network that asks for one cannot be followed."
_NORM = "It divides by a spread that an interval cannot bound well; use batch norm."
_NEIGHBOURS = "A row may not depend on the others of its batch."
REASONS = {
    **dict.fromkeys(("softmax", "log_softmax", "softmin", "special_softmax"), _SOFTMAX),
    **dict.fromkeys(("round", "floor", "ceil", "trunc", "sign", "heaviside", "fake_quantize_per_tensor_affine"), _JUMP),
    **dict.fromkeys(("einsum", "tensordot", "bmm", "baddbmm", "addmv", "addbmm", "inner", "mv", "dot"), _EINSUM),
    "scaled_dot_product_attention": _ATTENTION,
    "multi_head_attention_forward": _ATTENTION,
    "layer_norm": _NORM,
    "group_norm": _NORM,
    "instance_norm": _NORM,
    "where": "Which branch is taken depends on the pixels; use max, min, clamp or relu.",
    "masked_fill": "Multiply by a constant of 0 and 1, and add one of finite numbers, such as -1e9 where classes are masked.",
    "__setitem__": "Entries written into a tensor are not followed; use torch.cat or torch.stack.",
    "copy_": "Entries written into a tensor are not followed; use torch.cat or torch.stack.",
    **dict.fromkeys(
        [f"max_pool{d}d_with_indices" for d in (1, 2, 3)] + ["adaptive_max_pool2d_with_indices"],
        "The place of a maximum depends on the pixels: leave return_indices out.",
    ),
    "max": "The place of a maximum depends on the pixels; use amax.",
    "min": "The place of a minimum depends on the pixels; use amin.",
} | dict.fromkeys(
    ("item", "tolist", "numpy", "data", "gt", "lt", "ge", "le", "eq", "ne", "__bool__", "__float__", "__int__", "__index__", "__array__"),
    _ANSWER,
)  # fmt: skip
"""By name of an operation: why it has no bound, or what to take instead."""


def refuse(name: str, why: str | None = None) -> NoReturn:
    """Raise the refusal of an operation.

    Raises:
        UnsupportedOperationError: The message names it.
    """
    raise UnsupportedOperationError(f"There is no sound bound for {name!r}. {why or REASONS.get(name, KNOWN)}")


def refuse_neighbours(name: str, what: str) -> NoReturn:
    """Raise the refusal of an operation that mixes the images of a batch.

    Raises:
        UnsupportedOperationError: The message names it.
    """
    refuse(
        name, f"{what}, and an image's logits must not depend on its neighbours: keep the batch dimension as it is."
    )


def located(error: Exception) -> UnsupportedOperationError:
    """The refusal with the module and the line that it came from; also of an error that torch raised about a box.

    Args:
        error: Error raised while a box went through a network.
    """
    kind = type(error) if isinstance(error, UnsupportedOperationError) else UnsupportedOperationError
    text = str(error)
    if not isinstance(error, UnsupportedOperationError):
        text = f"The network could not be followed with boxes: {type(error).__name__}: {text.strip().splitlines()[0] if text.strip() else 'no message'}"
    place = _place(error.__traceback__)
    return kind(f"{text} (in {place})" if place else text)


def _place(trace: TracebackType | None) -> str:
    """The innermost module whose code ran, by its name in the outermost one, and its line."""
    outermost: nn.Module | None = None
    innermost: nn.Module | None = None
    line = ""
    for frame, number in traceback.walk_tb(trace):
        owner: Any = frame.f_locals.get("self")
        inside = frame.f_globals.get("__name__", "")
        if isinstance(owner, nn.Module):
            outermost, innermost = outermost or owner, owner
        if not inside.startswith(("torch.", "hf_smoothing.interval")) and inside != "torch":
            line = f"{frame.f_code.co_filename.rsplit('/', 1)[-1]} line {number}"
    if outermost is None or innermost is None:
        return line
    names = [name for name, module in outermost.named_modules() if module is innermost]
    name = f" {names[0]!r}" if names and names[0] else ""
    return f"{type(innermost).__name__}{name}{', ' + line if line else ''}"

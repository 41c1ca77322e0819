"""What a box shows to a network as the tensor that it stands for: operators and properties, and the refusal of all that has no rule."""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from hf_smoothing.interval.dispatch import boxes_in
from hf_smoothing.interval.refusals import REASONS, UnsupportedAttributeError, UnsupportedOperationError, refuse
from hf_smoothing.interval.trace import Trace


class TensorLike(torch.Tensor):
    """A tensor without entries, whose functions are rules.

    What fails only because there are no entries is noted in the trace: the network may catch the error, and go another way than with a tensor.
    """

    __array_ufunc__ = None  # numpy leaves the operation to the box

    trace: Trace  # tensors have a method of this name, which `Trace.__call__` refuses

    @property
    def requires_grad(self) -> bool:
        """False: gradients flow through the ends. Hooks and checkpoints ask, and leave alone what has none."""
        return False

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._refuse("requires_grad")

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> NoReturn:
        """What went past the rules: a script, a transform, an operation of a library in C++."""
        name = function.__name__.partition(".")[0]
        boxes = boxes_in([args, kwargs or {}], cls)
        boxes[0]._refuse(
            name, "It is called out of sight of the rules, as scripts, transforms and overloads of torch.ops are."
        )

    def __getattr__(self, name: str) -> Any:
        if not hasattr(torch.Tensor, name):  # nor has a tensor
            raise AttributeError(f"A box has no attribute {name!r}.")
        why = f" {REASONS[name]}" if name in REASONS else ""
        refusal = UnsupportedAttributeError(f"A box has no attribute {name!r}, which tensors have.{why}")
        self._note(refusal)
        raise refusal

    def __repr__(self) -> str:  # type: ignore[override]
        """Shape and dtype: a network may print what passes."""
        return f"Box(shape={tuple(self.shape)}, dtype={self.dtype})"

    def __format__(self, specification: str) -> str:
        return format(repr(self), specification)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._refuse("__setitem__")

    def _refuse(self, name: str, why: str | None = None) -> NoReturn:
        try:
            refuse(name, why)
        except UnsupportedOperationError as refusal:
            self._note(refusal)
            raise

    def _note(self, refusal: UnsupportedOperationError) -> None:
        """The network may catch it, and go another way than with a tensor."""
        self.trace.refusal = self.trace.refusal or refusal

    data = property(lambda self: self.__getattr__("data"), lambda self, value: self._refuse("data"))
    T = property(lambda self: torch.permute(self, tuple(reversed(range(self.ndim)))))
    mT = property(lambda self: torch.transpose(self, -2, -1))  # noqa: N815


def _operator(function: Any, reverse: bool = False) -> Any:
    def method(self: TensorLike, *other: Any) -> Any:
        try:  # called as a network would call it, so that a mode of torch which the network has entered sees it too
            return function(*other, self) if reverse else function(self, *other)
        except TypeError:  # torch's own, before it asks the box
            kinds = ", ".join(type(part).__name__ for part in other)
            self._refuse(
                function.__name__,
                f"A box is combined with boxes, tensors and numbers, got {kinds}. Convert it with torch.as_tensor.",
            )

    return method


def _refused(name: str) -> Any:
    def method(self: TensorLike, *args: Any, **kwargs: Any) -> Any:
        self._refuse(name)

    return method


def _metadata(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.shown, name)(*args, **kwargs)

    return method


def _metadata_property(name: str) -> property:
    return property(lambda self: getattr(self.shown, name))


# Of the tensor, whatever is in it.
METADATA = (
    "is_contiguous",
    "stride",
    "element_size",
    "storage_offset",
    "is_complex",
    "is_signed",
    "get_device",
    "nelement",
)
for _name in METADATA:
    setattr(TensorLike, _name, _metadata(_name))
for _name in (
    "nbytes",
    "itemsize",
    "layout",
    "is_cuda",
    "is_cpu",
    "is_mps",
    "is_xpu",
    "is_meta",
    "is_sparse",
    "is_quantized",
    "is_mkldnn",
):
    setattr(TensorLike, _name, _metadata_property(_name))
for _name in ("add", "sub", "mul", "div", "matmul", "pow"):
    _spelled = {"div": "truediv"}.get(_name, _name)
    setattr(TensorLike, f"__{_spelled}__", _operator(getattr(torch, _name)))
    setattr(TensorLike, f"__r{_spelled}__", _operator(getattr(torch, _name), reverse=True))
    if hasattr(torch.Tensor, f"{_name}_"):
        setattr(TensorLike, f"__i{_spelled}__", _operator(getattr(torch.Tensor, f"{_name}_")))
for _name in ("neg", "abs"):
    setattr(TensorLike, f"__{_name}__", _operator(getattr(torch, _name)))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(TensorLike, f"__{_name}__", _refused(_name))
for _name in (
    "iter",
    "bool",
    "float",
    "int",
    "index",
    "complex",
    "array",
    "contains",
    "mod",
    "floordiv",
    "and",
    "or",
    "xor",
    "invert",
):
    setattr(TensorLike, f"__{_name}__", _refused(f"__{_name}__"))
TensorLike.__hash__ = object.__hash__  # type: ignore[method-assign]

"""A box that travels through a network in place of a tensor: lower <= x <= upper, elementwise."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hf_smoothing.interval.dispatch import boxes_in, dispatch
from hf_smoothing.interval.memory import Memory
from hf_smoothing.interval.refusals import UnsupportedOperationError
from hf_smoothing.interval.tensor_like import METADATA, TensorLike
from hf_smoothing.interval.trace import Linear, Origin, Trace


class Box(TensorLike):
    """An axis-parallel box of tensors, which torch functions and modules take like a tensor.

    It is a tensor to whoever asks (isinstance, torch.is_tensor), so that a network goes the way of tensors with it; but it has no entries: what
    is not done to it by a rule is refused, above autograd (`__torch_function__`) and below it (`__torch_dispatch__`).

    A box stands for one Python object of the network. An operation in place gives the object another content, and all other boxes
    that share its memory are refused from then on (see `memory`); no tensor of a box is ever written to.

    Args:
        lower, upper: Tensors of one shape; lower <= upper.
        trace: Notes of the run, shared by all boxes that come from this one.
        dtype: Precision that the network computes in, of which the box takes its constants; by default that of the ends.
        batch: The dimension that counts the images, or None where it is not needed (see `batches`).

    Raises (when an operation is applied): UnsupportedOperationError, naming it.
    """

    def __new__(cls, lower: Tensor, *args: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Box:
        """A tensor without memory, of the shape and device of the ends and of the dtype of the network."""
        box: Box = torch.Tensor._make_wrapper_subclass(
            cls, lower.shape, dtype=dtype or lower.dtype, device=lower.device
        )
        return box

    def __init__(
        self, lower: Tensor, upper: Tensor, trace: Trace | None = None, *,
        dtype: torch.dtype | None = None, batch: int | None = None,
    ) -> None:  # fmt: skip
        self._ends: tuple[Tensor, Tensor] | None = (lower, upper)
        self._middle: tuple[Tensor, Tensor] | None = None
        self.trace = trace or Trace()
        self._dtype = dtype or lower.dtype
        self.batch = batch
        self.error: Tensor | None = None  # what the rounding of the run adds in the last step, at most
        self.origin: Origin | None = None
        self.number = next(_NUMBERS)
        self.memory, self.version = Memory(), 0

    def make(
        self,
        lower: Tensor,
        upper: Tensor,
        batch: int | None = -1,
        dtype: torch.dtype | None = None,
    ) -> Box:
        """A box that comes of this one. `batch`: where the images are now; as before if the shape is. `dtype`: of the network; as before."""
        assert batch != -1 or self.batch is None or lower.shape == self.shape, "a rule must say where the batch is"
        return Box(lower, upper, self.trace, dtype=dtype or self.dtype, batch=self.batch if batch == -1 else batch)

    def around(self, centre: Tensor, radius: Tensor) -> Box:
        """The box centre - radius <= x <= centre + radius that comes of this one; its ends are computed when somebody asks for them."""
        box = self.make(centre, centre, self.batch)
        box._ends, box._middle = None, (centre, radius)
        return box

    def frozen(self) -> Box:
        """The same content in another object, which no operation in place reaches."""
        twin = Box.__new__(Box, self.like, dtype=self.dtype)
        twin.__dict__.update(self.__dict__)
        return twin

    def __copy__(self) -> Box:
        """Torch copies a tensor object, not its memory."""
        return self.frozen()

    def __deepcopy__(self, memo: Any) -> Box:
        """A copy with memory of its own on the same journey."""
        self.memory.check(self.version, "deepcopy")
        twin = self.frozen()
        twin.memory, twin.version = Memory(), 0
        return twin

    def become(self, other: Box, name: str) -> None:
        """Take the content of another box, as an operation in place does, whose name is given."""
        memory = self.memory
        self.__dict__.update(other.__dict__)
        self.memory, self.version = memory, memory.change(name)

    @property
    def lower(self) -> Tensor:
        """The lower end."""
        return self._both_ends()[0]

    @property
    def upper(self) -> Tensor:
        """The upper end."""
        return self._both_ends()[1]

    def _both_ends(self) -> tuple[Tensor, Tensor]:
        if self._ends is None:
            assert self._middle is not None
            centre, radius = self._middle
            self._ends = centre - radius, centre + radius
        return self._ends

    @property
    def centre(self) -> Tensor:
        """Midpoint."""
        return self._middle[0] if self._middle else (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width."""
        return self._middle[1] if self._middle else (self.upper - self.lower) / 2

    @property
    def like(self) -> Tensor:
        """A tensor of the shape, dtype and device of both ends."""
        return self._middle[0] if self._middle else self.lower

    @property
    def shown(self) -> Tensor:
        """A tensor whose dtype, layout and device are those that the network asks about; what is in it means nothing."""
        return self.like.detach().to(self.dtype)

    @property
    def largest(self) -> Tensor:
        """The largest absolute value of each entry."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """Precision that the network computes in."""
        return self._dtype

    @property
    def shape(self) -> torch.Size:  # type: ignore[override]
        """Of each end."""
        return self.like.shape

    def __len__(self) -> int:
        return len(self.like)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Of each end."""
        return self.like.device

    @property
    def ndim(self) -> int:  # type: ignore[override]
        """Number of dimensions."""
        return self.like.ndim

    def size(self, dim: int | None = None) -> Any:
        """As `Tensor.size`."""
        return self.like.size() if dim is None else self.like.size(dim)

    def dim(self) -> int:
        """As `Tensor.dim`."""
        return self.like.dim()

    def numel(self) -> int:
        """As `Tensor.numel`."""
        return self.like.numel()

    def is_floating_point(self) -> bool:
        """As `Tensor.is_floating_point`."""
        return self.dtype.is_floating_point

    def map(
        self, function: Callable[[Tensor], Tensor], batch: int | None = -1, dtype: torch.dtype | None = None
    ) -> Box:
        """The box of an elementwise non-decreasing function, or of one that moves entries about. `batch` and `dtype` as in `make`."""
        return self.make(function(self.lower), function(self.upper), batch, dtype)

    def came_from(self, *parts: Linear, shift: Tensor | float = 0.0, shift_sizes: Tensor | float = 0.0) -> Box:
        """Remember, if the trace asks for it, that this box is the sum of linear maps of others and a constant."""
        if self.trace.origins:
            self.origin = Origin(parts, shift, shift_sizes, error=self.error)
        return self

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        if name in _ASKED and args and isinstance(args[0], cls):  # as a function of torch, or seen by a mode of torch
            return getattr(args[0], name)(*args[1:], **(kwargs or {}))
        try:
            return dispatch(cls, function, args, kwargs or {})
        except UnsupportedOperationError as refusal:
            for box in boxes_in([args, kwargs or {}], cls):
                box._note(refusal)
            raise


_ASKED = {*METADATA, "numel", "is_floating_point", "dim", "size"}
_NUMBERS = itertools.count()

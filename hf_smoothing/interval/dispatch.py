"""From a torch function that was given a box to the rule for it. All that holds for every rule is done here.

- A box may stand only where the rule takes one, and only with the arguments that the rule lists.
- Rules see frozen copies, and never write to a tensor. An operation in place runs as its twin out of place, whose result becomes the
  new content of the box that it was called on; a plain tensor changed by a box is refused.
- A view shares the memory of its base, so that later changes in place of one are noticed in the other.
- The images of a batch are still one dimension afterwards.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from hf_smoothing.interval.refusals import (
    OVERLOADS,
    UnsupportedAttributeError,
    UnsupportedOperationError,
    refuse,
    refuse_neighbours,
)
from hf_smoothing.interval.registry import RULES, Operation
from hf_smoothing.interval.trace import BoxLike, forward_mode_enabled, modes_entered


_Box = TypeVar("_Box", bound=BoxLike)
_OTHER_NAMES = {"axis": "dim", "keepdims": "keepdim", "train": "training"}
"""Names that torch takes for an argument beside the one of the documentation: those of NumPy, and of `torch.dropout`."""
_OPERATORS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket)


def dispatch(kind: type[_Box], function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Apply the rule of a torch function.

    Args:
        kind: The class of boxes.
        function: The function of torch.
        args, kwargs: Its arguments, boxes among them.

    Raises:
        UnsupportedOperationError: The message names the operation, if it has no sound bound with these arguments.
    """
    name = getattr(function, "__name__", str(function))
    if name in ("__get__", "__set__", "__delete__"):  # a property of tensors; `__getattr__` of a box says which
        raise UnsupportedAttributeError(f"A box has no attribute {function.__self__.__name__!r}, which tensors have.")
    if function not in RULES:
        refuse(name, OVERLOADS if isinstance(function, _OPERATORS) else None)
    operation, in_place = RULES[function]
    given = _bound(operation, name, args, kwargs)
    others = _checked_boxes(operation, name, given, kind)
    _check_pass(name, others)
    _check_constants(name, list(given.arguments.values()), kind)
    _check_gradients(name, others)
    target = next(iter(given.arguments.values()))
    wanted = given.arguments.get("inplace", False)
    if not isinstance(wanted, int):
        refuse(name, f"`inplace` must be True or False, got {type(wanted).__name__}.")
    in_place = in_place or bool(wanted)
    if in_place and not isinstance(target, kind):
        refuse(name, "A tensor that is no box is changed in place by a box. Take the operation that is not in place.")
    if in_place and any(box.memory is target.memory and box.number != target.number for box in others):
        refuse(name, "It reads another view of the memory that it changes, of which torch may see old or new entries.")
    for key, value in given.arguments.items():
        given.arguments[key] = _frozen(value, kind)
    try:
        result = operation.rule(*given.args, **given.kwargs)
    except (RuntimeError, TypeError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, (UnsupportedOperationError, torch.OutOfMemoryError)):  # one is an AttributeError as well
            raise
        raise UnsupportedOperationError(f"There is no bound for {name!r} with these arguments: {error}") from error
    except (ValueError, AssertionError) as error:
        if isinstance(error, UnsupportedOperationError) or not _of_torch(error):  # a rule has said why
            raise
        raise UnsupportedOperationError(f"There is no bound for {name!r} with these arguments: {error}") from error
    _check_batch(name, others, boxes_in(result, kind))
    if operation.views:
        for box in boxes_in(result, kind):
            box.memory, box.version = target.memory, target.version
    if not in_place:
        return result
    if result.shape != target.shape or result.dtype != target.dtype:
        refuse(name, f"In place it changes shape or dtype, from {_described(target)} to {_described(result)}.")
    target.become(result, name)
    return target


def _of_torch(error: BaseException) -> bool:
    """Whether torch has raised an error, and none of our rules."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "torch"


def boxes_in(value: Any, kind: type[_Box]) -> list[_Box]:
    """All boxes in a value, within lists, tuples, dictionaries and slices too."""
    if isinstance(value, kind):
        return [value]
    if isinstance(value, slice):
        value = (value.start, value.stop, value.step)
    elif isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [box for part in value for box in boxes_in(part, kind)]


def _bound(operation: Operation, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
    if not args and "input" in kwargs:  # the name that torch's own functions have for their first argument
        args, kwargs = (kwargs["input"],), {key: value for key, value in kwargs.items() if key != "input"}
    for other, own in _OTHER_NAMES.items():
        if other in kwargs and own not in kwargs and own in operation.signature.parameters:
            kwargs = {own if key == other else key: value for key, value in kwargs.items()}
    if len(args) == 1 and operation.variadic in kwargs:  # sizes or dimensions that torch takes one by one, or by name
        args, kwargs = (
            (*args, kwargs[operation.variadic]),
            {k: v for k, v in kwargs.items() if k != operation.variadic},
        )
    try:
        return operation.bind(args, kwargs)
    except TypeError as error:
        known = ", ".join(str(p.replace(annotation=p.empty)) for p in operation.signature.parameters.values())
        refuse(name, f"Its bound is for the arguments ({known}): {error}.")


def _checked_boxes(
    operation: Operation, name: str, given: inspect.BoundArguments, kind: type[_Box]
) -> list[_Box]:  # fmt: skip
    """All boxes among the arguments: each where one may stand, and none of memory that has changed since."""
    found = []
    for parameter, value in given.arguments.items():
        boxes = boxes_in(value, kind)
        if boxes and parameter not in operation.boxes:
            refuse(name, f"A box may not stand for its {parameter!r}, which must be a constant.")
        for box in boxes:
            box.memory.check(box.version, name)
        found += boxes
    return found


def _check_pass(name: str, boxes: Sequence[BoxLike]) -> None:
    """Boxes of one journey only, and no autocast within it where it covers a run."""
    if any(box.trace is not boxes[0].trace for box in boxes):
        refuse(name, "It combines a tensor with one of an earlier call, which the network has kept.")
    if boxes and boxes[0].trace.modes != modes_entered():
        refuse(
            name,
            "The network has entered a mode of torch below its functions, which would change bounds in other ways than tensors.",
        )
    if boxes and boxes[0].trace.cover_run and any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")):
        boxes[0].trace.autocast = True
        if not boxes[0].trace.real:
            refuse(name, "A run under autocast is not covered: leave it, or certify with cover_run=False.")


def _check_constants(name: str, values: Sequence[Any], kind: type[Any]) -> None:
    """No constant with rules of its own: they would be asked about the two sides of a bound, not about the tensor that these stand for."""
    for value in values:
        if isinstance(value, (list, tuple)):
            _check_constants(name, value, kind)
        elif isinstance(value, torch.Tensor) and not isinstance(value, kind) and _has_own_rules(type(value)):
            refuse(
                name,
                f"It takes a {type(value).__name__}, a tensor with rules of its own, which bounds cannot follow. Make it a plain tensor first.",
            )


def _has_own_rules(kind: type[torch.Tensor]) -> bool:
    function: Any = kind.__torch_function__
    plain = getattr(torch.Tensor.__torch_function__, "__func__", None), torch._C._disabled_torch_function_impl
    return (
        getattr(function, "__func__", function) not in plain
        or kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    )


def _check_gradients(name: str, boxes: Sequence[BoxLike]) -> None:
    """No gradient of training is lost in an `autograd.Function` of the network, which torch runs without gradients and a box passes unseen.

    What tells it from `no_grad`: torch switches derivatives in forward mode off there too, which it does elsewhere in inference mode alone.
    """
    if torch.is_grad_enabled() and name != "view_as":  # by which torch passes on what such a function returns as it is
        return
    lost = [box for box in boxes if box.like.requires_grad and box.trace.forward_mode]
    if lost and not forward_mode_enabled():
        refuse(
            name,
            "Its gradient is that of an autograd.Function, of a reentrant checkpoint or of inference mode, "
            "which bounds cannot follow in training.",
        )


def _frozen(value: Any, kind: type[_Box]) -> Any:
    if isinstance(value, kind):
        return value.frozen()
    if type(value) in (list, tuple):
        return type(value)(_frozen(part, kind) for part in value)
    return value


def _check_batch(name: str, before: Sequence[BoxLike], after: Sequence[BoxLike]) -> None:
    """The net under all rules: as many images as before, and everybody knows where."""
    counts = {box.shape[box.batch] for box in before if box.batch is not None}
    if not counts:
        return
    if any(box.batch is None or {box.shape[box.batch]} != counts for box in after):
        refuse_neighbours(name, "The images of the batch are no longer one dimension")


def _described(box: BoxLike) -> str:
    return f"{tuple(box.shape)} {box.dtype}"

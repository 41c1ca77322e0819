"""The table of rules: from functions of torch to what they do to boxes. The modules of `rules` enter theirs when they are imported."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Operation:
    """What boxes know of one operation.

    Attributes:
        name: Name by which torch calls it.
        rule: What it does to boxes. Its parameters are the arguments that are allowed.
        signature: Signature of the rule.
        boxes: The parameters that may be boxes, or lists of them.
        views: Whether the result may share memory with the first argument.
    """

    name: str
    rule: Callable[..., Any]
    signature: inspect.Signature
    boxes: tuple[str, ...]
    views: bool

    @cached_property
    def _plain(self) -> tuple[tuple[str, ...], frozenset[str], frozenset[str]] | None:
        """The parameters that are taken by position, all, and those without a default; None where any number of arguments is taken."""
        parameters = self.signature.parameters
        if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
            return None
        by_position = tuple(name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD)
        return by_position, frozenset(parameters), frozenset(n for n, p in parameters.items() if p.default is p.empty)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """As `Signature.bind`, whose general way takes longer than many a layer: that is left to the rules which take any number of arguments, and to errors.

        Raises:
            TypeError: If the rule has not these parameters.
        """
        if args and self._plain is not None and len(args) <= len(self._plain[0]):
            by_position, known, needed = self._plain
            arguments = dict(zip(by_position, args, strict=False))
            if arguments.keys().isdisjoint(kwargs) and kwargs.keys() <= known:
                arguments |= kwargs
                if needed <= arguments.keys():
                    return inspect.BoundArguments(self.signature, arguments)
        return self.signature.bind(*args, **kwargs)

    @cached_property
    def variadic(self) -> str | None:
        """The parameter that takes any number of arguments, which torch takes as one sequence by this name too."""
        kinds = ((name, parameter.kind) for name, parameter in self.signature.parameters.items())
        return next((name for name, kind in kinds if kind is inspect.Parameter.VAR_POSITIONAL), None)


OPERATIONS: dict[str, Operation] = {}
"""By name."""

RULES: dict[Any, tuple[Operation, bool]] = {}
"""From torch functions to operations, and whether the function works in place."""

_Rule = TypeVar("_Rule", bound=Callable[..., Any])
_PLACES = (F, torch, torch.Tensor, torch._C._nn)
_OTHERS = (torch.adaptive_max_pool1d, torch.batch_norm)
"""Functions of the same name as one of `torch.nn.functional`, which take other arguments or return something else; so do its twins in `torch._C._nn`."""


def rule(name: str, *aliases: str, boxes: tuple[str, ...] = (), views: bool = False) -> Callable[[_Rule], _Rule]:
    """Keep a rule for all functions of torch that have this name or one of its aliases, and for their twins in place.

    The parameters of a rule are those of torch's function, by its names: a call with any other is refused. `inplace` is read by the dispatcher.

    Args:
        name, aliases: As torch spells the function out of place.
        boxes: Parameters that may be boxes; the first one by default.
        views: See `Operation`.
    """

    def keep(function: _Rule) -> _Rule:
        signature = inspect.signature(function)
        operation = Operation(name, function, signature, boxes or (next(iter(signature.parameters)),), views)
        assert name not in OPERATIONS, f"two rules for {name}"
        OPERATIONS[name] = operation
        for spelled in (name, *aliases):
            for function_name, in_place in _spellings(spelled):
                for found in _functions(function_name):
                    RULES[found] = operation, in_place
        return function

    return keep


def _functions(name: str) -> list[Any]:
    """All functions of torch that have this name and are one function."""
    public = getattr(F, name, None)
    found = [getattr(place, name, None) for place in _PLACES if place is not torch._C._nn or public is None]
    return [function for function in found if callable(function) and function not in _OTHERS]


def _spellings(name: str) -> list[tuple[str, bool]]:
    return [(name, False), (f"__{name}__", False), (f"{name}_", True), (f"__i{name}__", True)]

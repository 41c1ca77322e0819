"""What goes on inside a classifier: its penultimate features, and the activations of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hf_smoothing.models.heads import backbone_of, classifier_inside, is_inside, linear_heads, members_of
from hf_smoothing.models.layers import blocks_of


class Network:
    """A classifier whose inside can be seen: call it with [0, 1] pixels (noise allowed) for its logits.

    Args:
        module: Module whose head and modes are meant.
        classify: Pixels (and further inputs of the module, by name) -> logits.
        prepare: Pixels -> what the module takes.
        precision: A function that makes the context of mixed precision in which a part of the module is called by itself, as `classify` calls the whole.
        alone: Pixels -> logits by the module itself, where `classify` goes through what distributes it over ranks; `classify` by default.
    """

    def __init__(
        self,
        module: nn.Module,
        classify: Callable[..., Tensor],
        prepare: Callable[[Tensor], Tensor] = lambda x: x,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        alone: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.alone = alone or classify
        self.module, self._classify, self.prepare, self.precision = module, classify, prepare, precision

    def __call__(self, pixels: Tensor, **inputs: Any) -> Tensor:
        """Logits (batch, num_labels); of an autoencoder, the patches that it rebuilds."""
        return self._classify(pixels, **inputs)

    def with_features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, num_labels) and penultimate features (batch, width) of one pass."""
        return with_features(self.module, self._classify, pixels)

    def features(self, pixels: Tensor) -> Tensor:
        """Penultimate features (batch, width)."""
        return self.with_features(pixels)[1]

    def evaluating(self) -> AbstractContextManager[None]:
        """In eval mode for a while, as an attack wants it."""
        return evaluating(self.module)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module in eval mode for a while; it and every module in it go back to the mode they were in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def heads_of(model: nn.Module) -> dict[str, nn.Linear]:
    """By name, the layers that make the logits: the linear layers behind the backbone with as many outputs as there are classes; of an ensemble, those of each member.

    Where the head lies inside the backbone, all such layers of it but those of its blocks.

    Args:
        model: An image classifier of `transformers`, wrapped or not.

    Raises:
        ValueError: If it has none.
    """
    if members := members_of(model):
        return {
            f"{where}.{name}": head for where, member in members.items() for name, head in heads_of(member).items()
        }
    prefix, classifier = classifier_inside(model)
    found, blocks = linear_heads(classifier), blocks_of(classifier)
    parts = backbone_of(classifier)
    inside = {name: head for name, head in found.items() if not is_inside(name, [blocks] if blocks else [])}
    heads = {name: head for name, head in found.items() if not is_inside(name, parts)} or inside or found
    if not heads:
        count = getattr(getattr(classifier, "config", None), "num_labels", None)
        raise ValueError(
            f"{type(classifier).__name__} has no linear layer{'' if count is None else f' with {count} outputs'}, so its penultimate features are not known. "
            "Give it a linear head."
        )
    return {prefix + name: head for name, head in heads.items()}


def new_head(model: nn.Module) -> None:
    """Draw the weights of the head again, as those of a new one; of an ensemble, of each member's.

    Args:
        model: An image classifier of `transformers`, wrapped or not.

    Raises:
        ValueError: If it has no linear head.
    """
    for head in heads_of(model).values():
        head.reset_parameters()


def with_features(model: nn.Module, call: Callable[[Tensor], Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and penultimate features of one forward pass.

    The features are all that goes into the heads that ran: of several heads, as in networks that are distilled and in ensembles, their inputs side by side,
    in the order in which they ran; an input that several share counts once.

    Args:
        model: Model whose heads are watched.
        call: A function that runs it: pixels -> logits (batch, num_labels).
        pixels: Input of `call`.

    Returns:
        The tuple (logits (batch, num_labels), features (batch, width)), both differentiable.

    Raises:
        ValueError: If the model has no linear head, none of them ran, or one ran on something else than the images of the batch.
    """
    heads, calls = heads_of(model), list[_Call]()

    def note(name: str) -> Callable[..., None]:
        return lambda module, given, output: calls.append(_Call(name, given[0], output, _version(output)))

    with _hooked((head, note(name)) for name, head in heads.items()):
        logits = call(pixels)
    ran = [one for one in calls if one.output.shape[-1] == logits.shape[-1]]
    # A head whose output is the logits, with nothing added to it, is the only one: others of its width are hidden layers.
    ran = [one for one in ran if one.is_all_of(logits)][-1:] or ran
    if not ran:
        raise ValueError(
            f"The penultimate features are what goes into the linear layers that make the logits, but of {', '.join(heads)} of {type(model).__name__} none "
            "ran. Give it a linear head that its forward pass calls."
        )
    for one in ran:
        if len(one.given) != len(logits):
            raise ValueError(
                f"{one.name} of {type(model).__name__} must run on the whole batch for its features, got {len(one.given)} rows for {len(logits)} images. "
                "Run it on one device, on all images at once."
            )
    parts = list({one.place: one.given.flatten(1) for one in ran}.values())
    return logits, torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


class _Call(NamedTuple):
    """One call of a head."""

    name: str
    given: Tensor
    output: Tensor
    version: int

    @property
    def place(self) -> tuple[Any, ...]:
        """Where its input is: the same for two names of one tensor, but not for two tensors that happen to be equal now."""
        return self.given.device, self.given.data_ptr(), self.given.shape, self.given.stride()

    def is_all_of(self, logits: Tensor) -> bool:
        """Whether its output is the logits, unchanged since."""
        same = self.output.data_ptr() == logits.data_ptr() and self.output.numel() == logits.numel()
        return same and self.version == _version(logits)


def _version(tensor: Tensor) -> int:
    """How often it was changed in place; tensors of inference mode do not say."""
    return 0 if tensor.is_inference() else tensor._version


@contextmanager
def recorded(modules: dict[str, nn.Module]) -> Iterator[dict[str, Any]]:
    """Note what comes out of some modules while they run.

    Of several outputs, the first, or that named `last_hidden_state`.

    Args:
        modules: Modules by the name under which their tensors are noted.
    """
    seen: dict[str, Any] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda module, given, output: seen.update({name: _first(output)})

    with _hooked((module, note(name)) for name, module in modules.items()):
        yield seen


def _first(output: Any) -> Any:
    value = getattr(output, "last_hidden_state", output)
    return _first(value[0]) if isinstance(value, tuple | list) and value else value


@contextmanager
def _hooked(hooks: Iterable[tuple[nn.Module, Callable[..., None]]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

"""What goes on inside a classifier: its penultimate features, and the activations of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn


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

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """In eval mode for a while, as an attack wants it; every module goes back to the mode it was in."""
        modes = [(module, module.training) for module in self.module.modules()]
        self.module.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode


def head_of(model: nn.Module) -> nn.Linear:
    """The layer that makes the logits: the last linear layer with as many outputs as there are classes.

    Args:
        model: An image classifier of `transformers`, wrapped or not.

    Raises:
        ValueError: If it has none.
    """
    found = _heads(model)
    if not found:
        count = getattr(getattr(model, "config", None), "num_labels", None)
        raise ValueError(
            f"{type(model).__name__} has no linear layer{'' if count is None else f' with {count} outputs'}, so its penultimate features are not known. "
            "Give it a linear head."
        )
    return list(found.values())[-1]


def _heads(model: nn.Module) -> dict[str, nn.Linear]:
    """By name, the linear layers with as many outputs as there are classes."""
    count = getattr(getattr(model, "config", None), "num_labels", None)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and count in (None, module.out_features) and "lora_" not in name
    }


def with_features(model: nn.Module, call: Callable[[Tensor], Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and penultimate features of one forward pass.

    Args:
        model: Model whose head is watched.
        call: A function that runs it: pixels -> logits (batch, num_labels).
        pixels: Input of `call`.

    Returns:
        The tuple (logits (batch, num_labels), features (batch, width): what goes into the head), both differentiable.
    """
    with recorded({"features": head_of(model)}, inputs=True) as seen:
        logits = call(pixels)
    return logits, seen["features"].flatten(1)


@contextmanager
def recorded(modules: dict[str, nn.Module], inputs: bool = False) -> Iterator[dict[str, Tensor]]:
    """Note what goes into some modules, or comes out of them, while they run.

    Args:
        modules: Modules by the name under which their tensors are noted.
        inputs: Note inputs rather than outputs.
    """
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            value = given[0] if inputs else output
            value = getattr(value, "last_hidden_state", value)
            seen[name] = value[0] if isinstance(value, tuple) else value

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def layers_of(model: nn.Module, names: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """The layers to compare, from the first to the last: the embeddings, or the stem, and each block, or stage.

    Args:
        model: An image classifier of `transformers`, wrapped or not.
        names: Names of modules, as in `named_modules`; the usual ones by default.

    Raises:
        ValueError: If a module is not there, or the model has no list of blocks and no names are given.
    """
    known = dict(model.named_modules())
    if names is not None:
        missing = [name for name in names if not name or name not in known]
        if missing:
            raise ValueError(
                f"There is no module {missing[0]!r}. There are: {', '.join(n for n in known if n)[:600]}."
            )
        return {name: known[name] for name in names}
    place = blocks_of(model)
    if place is None:
        raise ValueError(
            f"{type(model).__name__} has no list of blocks, so its layers are not known. Name them: layers=[...] out of "
            f"{', '.join(n for n in known if n)[:600]}."
        )
    stems = [name for name in known if name.rpartition(".")[2] in ("embeddings", "embedder")]
    stem = min(stems, key=len, default=None)
    return ({stem: known[stem]} if stem else {}) | {
        f"{place}.{k}": block for k, block in known[place].named_children()
    }


def classifier_inside(model: nn.Module) -> tuple[str, nn.Module]:
    """(prefix of its parameters' names, classifier) behind the wrapper and the denoiser, where there are any."""
    prefix = ""
    for name in ("base_network", "network"):
        inner = getattr(model, name, None)
        if isinstance(inner, nn.Module):
            prefix, model = f"{prefix}{name}.", inner
    return prefix, model


def backbone_of(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that are all but the head; empty if there are none.

    `base_model_prefix` names the backbone of most classifiers. Those of CLIP and its relatives have a tower of another name, and some have their
    parts beside each other: there it is what comes before the module that makes the logits.
    """
    prefix, classifier = classifier_inside(model)
    name = getattr(classifier, "base_model_prefix", "")
    if name and isinstance(getattr(classifier, name, None), nn.Module):
        parts = [name]
    else:
        children = [child for child, _ in classifier.named_children()]
        heads = [where for where in _heads(classifier) if where]
        parts = children[: children.index(heads[-1].split(".")[0])] if heads else []
    return tuple(f"{prefix}{part}" for part in parts)


def is_inside(name: str, modules: Sequence[str]) -> bool:
    """Whether a parameter or module belongs to one of some modules, all by name."""
    return any(name.startswith(f"{module}.") for module in modules)


def head_parameters(model: nn.Module) -> frozenset[str]:
    """Names of the parameters outside the backbone; none if there is no backbone, or the head is inside."""
    return _outside(model, [name for name, _ in model.named_parameters()])


def head_tensors(model: nn.Module) -> frozenset[str]:
    """Names of the parameters and buffers that are new with a new head: all outside the backbone, and the layers that make the logits."""
    inside = [f"{where}." for where in _heads(model)]
    names = list(model.state_dict())
    return _outside(model, names) | {name for name in names if name.startswith(tuple(inside))}


def _outside(model: nn.Module, names: Sequence[str]) -> frozenset[str]:
    parts, (prefix, _) = backbone_of(model), classifier_inside(model)
    return frozenset(n for n in names if parts and n.startswith(prefix) and not is_inside(n, parts))


def blocks_of(model: nn.Module) -> str | None:
    """Name of the list of the backbone's blocks: its largest outermost `ModuleList` or `Sequential`, or None."""
    outermost = _lists(model)
    if not outermost:
        return None
    place: str = max(outermost, key=lambda name: sum(p.numel() for p in outermost[name].parameters()))
    return place


def block_lists(model: nn.Module) -> list[str]:
    """Names of the lists with one item for each block: that of the blocks, and what some networks keep beside it (patch embeddings, norms)."""
    place, lists = blocks_of(model), _lists(model)
    return [] if place is None else [name for name, module in lists.items() if len(module) == len(lists[place])]


def _lists(model: nn.Module) -> dict[str, nn.ModuleList | nn.Sequential]:
    """The backbone's outermost lists of modules, by name."""
    parts = backbone_of(model)
    lists = {
        where: module
        for where, module in model.named_modules()
        if is_inside(f"{where}.", parts) and isinstance(module, nn.ModuleList | nn.Sequential) and len(module)
    }
    # A network of a single block has a list of one.
    lists = {where: module for where, module in lists.items() if len(module) > 1} or lists
    return {where: m for where, m in lists.items() if not any(where.startswith(f"{other}.") for other in lists)}

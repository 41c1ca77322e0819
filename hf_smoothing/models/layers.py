"""The blocks of a classifier's backbone, and the layers of it that are compared."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Sequence
from typing import TypeGuard

from torch import nn

from hf_smoothing.models.heads import backbone_of, is_inside, members_of


def layers_of(model: nn.Module, names: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """The layers to compare, from the first to the last: the stem, or the embeddings, and each block, or stage.

    The stem is what comes right before the blocks; a network whose first stage begins with it (CvT, PVTv2, SegFormer) has none of its own. Of a stage
    that is a plain list of blocks (PoolFormer, PVT) it is the last block. Those of an ensemble are those of its members, one after the other.

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
            near = difflib.get_close_matches(missing[0], [name for name in known if name])
            there = f"Did you mean {' or '.join(near)}?" if near else f"There are: {_listed(known)}."
            raise ValueError(f"There is no module {missing[0]!r}. {there}")
        return {name: known[name] for name in names}
    if members := members_of(model):
        return {f"{where}.{name}": layer for where, one in members.items() for name, layer in layers_of(one).items()}
    place = blocks_of(model)
    if place is None:
        raise ValueError(
            f"{type(model).__name__} has no list of blocks, so its layers are not known. Name them: layers=[...] out of "
            f"{_listed(known)}."
        )
    stages = [_running(f"{place}.{child}", module) for child, module in known[place].named_children()]
    return _stem(model, place) | dict(list(blocks.items())[-1] for blocks in stages if blocks)


def _listed(names: Iterable[str]) -> str:
    """The first names, none of them cut."""
    return textwrap.shorten(", ".join(filter(None, names)), 600, placeholder=" ...")


def running_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """By name, the backbone's blocks, or stages, that are called; those of a stage that is a plain list one by one. Empty if there are none."""
    place = blocks_of(model)
    return {} if place is None else _running(place, model.get_submodule(place))


def blocks_of(model: nn.Module) -> str | None:
    """Name of the list of the backbone's blocks: its largest outermost `ModuleList` or `Sequential`, or None; an ensemble has no one list."""
    outermost = _lists(model)
    if not outermost or members_of(model):
        return None
    place: str = max(outermost, key=lambda name: sum(p.numel() for p in outermost[name].parameters()))
    return place


def block_lists(model: nn.Module) -> list[str]:
    """Names of the lists with one item for each block: that of the blocks, and what some networks keep beside it (patch embeddings, norms)."""
    place, lists = blocks_of(model), _lists(model)
    return [] if place is None else [name for name, module in lists.items() if len(module) == len(lists[place])]


def _stem(model: nn.Module, place: str) -> dict[str, nn.Module]:
    """The outermost module with parameters that comes right before the blocks, by name; none if the backbone begins with them."""
    parts = backbone_of(model)
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if name == place:
            break
        apart = not place.startswith(f"{name}.") and not is_inside(name, list(found))
        if name and apart and is_inside(f"{name}.", parts) and any(True for _ in module.parameters()):
            found[name] = module
    if not found:
        return {}
    name, module = list(found.items())[-1]
    blocks = list(_running(name, module).items())
    # Of a list beside the blocks, the first item comes before the first block; of another, the last.
    return dict([blocks[0 if name in block_lists(model) else -1]])


def _running(name: str, module: nn.Module) -> dict[str, nn.Module]:
    """A module by its name; if it is a plain list or dictionary, which nothing calls, what is in it."""
    if not _is_plain(module):
        return {name: module}
    return {
        where: one for key, item in module.named_children() for where, one in _running(f"{name}.{key}", item).items()
    }


def _is_plain(module: nn.Module) -> TypeGuard[nn.ModuleList | nn.ModuleDict]:
    return isinstance(module, nn.ModuleList | nn.ModuleDict) and type(module).forward is nn.Module.forward


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

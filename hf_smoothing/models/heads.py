"""Where a classifier ends: its backbone, and the linear layers behind it that make the logits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def linear_heads(model: nn.Module) -> dict[str, nn.Linear]:
    """By name, the linear layers with as many outputs as there are classes."""
    count = getattr(getattr(model, "config", None), "num_labels", None)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and count in (None, module.out_features) and "lora_" not in name
    }


def classifier_inside(model: nn.Module) -> tuple[str, nn.Module]:
    """(prefix of its parameters' names, classifier) behind the wrapper and the denoiser, where there are any."""
    prefix = ""
    for name in ("base_network", "network"):
        inner = getattr(model, name, None)
        if isinstance(inner, nn.Module):
            prefix, model = f"{prefix}{name}.", inner
    return prefix, model


def members_of(model: nn.Module) -> dict[str, nn.Module]:
    """The members of an ensemble by name, behind the wrapper where there is one; empty for other classifiers."""
    prefix, classifier = classifier_inside(model)
    members = getattr(classifier, "members", None)
    if not isinstance(members, nn.ModuleList):
        return {}
    return {f"{prefix}members.{name}": member for name, member in members.named_children()}


def backbone_of(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that are all but the head; empty if there are none.

    `base_model_prefix` names the backbone of most classifiers. Those of CLIP and its relatives have a tower of another name, and some have their
    parts beside each other: there it is what comes before the module that makes the logits. That of an ensemble is what its members have, if all have one.
    """
    if members := members_of(model):
        each = [[f"{name}.{part}" for part in backbone_of(member)] for name, member in members.items()]
        return tuple(part for parts in each for part in parts) if all(each) else ()
    prefix, classifier = classifier_inside(model)
    name = getattr(classifier, "base_model_prefix", "")
    if name and isinstance(getattr(classifier, name, None), nn.Module):
        parts = [name]
    else:
        children = [child for child, _ in classifier.named_children()]
        heads = [where for where in linear_heads(classifier) if where]
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
    inside = [f"{where}." for where in linear_heads(model)]
    names = list(model.state_dict())
    return _outside(model, names) | {name for name in names if name.startswith(tuple(inside))}


def _outside(model: nn.Module, names: Sequence[str]) -> frozenset[str]:
    parts, (prefix, _) = backbone_of(model), classifier_inside(model)
    if parts and (members := members_of(model)):
        inside = {where: [n.removeprefix(f"{where}.") for n in names if is_inside(n, [where])] for where in members}
        return frozenset(f"{where}.{n}" for where, own in inside.items() for n in _outside(members[where], own))
    return frozenset(n for n in names if parts and n.startswith(prefix) and not is_inside(n, parts))

"""How deep a parameter sits: for training the last blocks only, and for learning rates that fall with depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from hf_smoothing.models.denoised import DenoisedClassifierForImageClassification
from hf_smoothing.models.ensemble import EnsembleForImageClassification
from hf_smoothing.models.heads import head_parameters
from hf_smoothing.models.layers import block_lists, blocks_of
from hf_smoothing.training.arguments import RobustTrainingArguments
from hf_smoothing.training.freezing import named_in


@dataclass(frozen=True)
class ParameterDepths:
    """Where each parameter of a classifier sits.

    Attributes:
        of: Depth by parameter name: 0 before the blocks (embeddings, stem), 1..blocks within them, blocks + 1 after
            them (last norm, pooler).
        head: Names of the parameters outside the backbone: the classifier.
        blocks: Number of blocks, or stages of a ResNet.
    """

    of: dict[str, int]
    head: frozenset[str]
    blocks: int


def parameter_depths(model: nn.Module) -> ParameterDepths:
    """Depth of every parameter of an image classifier of `transformers`, wrapped or not.

    The blocks are the items of the backbone's largest outermost `ModuleList` or `Sequential`: stages of a ResNet, layers of a ViT; with them go the
    items of other lists of that length, such as the patch embeddings of PVT. An item without parameters, or a norm, belongs to the one before it: the six
    blocks of CNN-7 are its convolutions and its linear layer, each with its batch norm and ReLU.

    Raises:
        ValueError: If the model is made of several networks, has no backbone of its own, or no list of blocks.
    """
    inner = getattr(model, "base_network", model)
    kind = type(inner).__name__
    if isinstance(inner, (DenoisedClassifierForImageClassification, EnsembleForImageClassification)):
        raise ValueError(f"{kind} is made of several networks, so it has no depth of its own. {_CURE}")
    head = head_parameters(model)
    if not head:
        raise ValueError(f"{kind} has no backbone apart from its head. {_CURE}")
    starts = [f"{place}." for place in block_lists(model)]
    if not starts:
        raise ValueError(f"The backbone of {kind} has no list of blocks. {_CURE}")
    numbers = _block_numbers(model.get_submodule(blocks_of(model) or ""))
    depths = {
        f"{start}{name}.": number
        for start in starts
        for (name, _), number in zip(model.get_submodule(start[:-1]).named_children(), numbers, strict=True)
    }
    count = max(numbers)
    of: dict[str, int] = {}
    passed = False
    for parameter, _ in model.named_parameters():
        depth = next((depth for place, depth in depths.items() if parameter.startswith(place)), None)
        passed = passed or depth is not None
        of[parameter] = (count + 1 if passed else 0) if depth is None else depth
    return ParameterDepths(of, head, count)


_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def _block_numbers(blocks: nn.Module) -> list[int]:
    """For each item of a list of blocks the number of its block, from 1: norms, and what has no parameters, belong to the item before them."""
    numbers: list[int] = []
    for item in blocks.children():
        begins = not isinstance(item, _NORMS) and any(True for _ in item.parameters())
        numbers.append((numbers[-1] if numbers else 0) + begins)
    # What comes before the first block belongs to it.
    return [max(number, 1) for number in numbers]


def last_blocks(model: nn.Module, count: int) -> list[str]:
    """Names of the head's parameters and, if `count` is not 0, of the last `count` blocks and what follows them.

    Raises:
        ValueError: If the model has fewer blocks.
    """
    depths = parameter_depths(model)
    if not 0 <= count <= depths.blocks:
        raise ValueError(
            f"`train_last` must be a number of blocks from 0 (a linear probe) to {depths.blocks}, got {count}. Leave it out to train all."
        )
    first = depths.blocks + 1 - count if count else depths.blocks + 2
    return [name for name, depth in depths.of.items() if name in depths.head or depth >= first]


def trained_names(model: nn.Module, args: RobustTrainingArguments) -> list[str] | None:
    """Names of the parameters that the arguments ask to train: those of `trainable`, or of the last blocks; None for all.

    Raises:
        ValueError: As `named_in` and `last_blocks`.
    """
    if args.trainable is not None:
        return named_in(model, args.trainable)
    last = args.finetuning().train_last
    return None if last is None else last_blocks(model, last)


def learning_rates(
    model: nn.Module, learning_rate: float, body: float | None = None, decay: float = 1.0
) -> dict[str, float]:
    """The learning rate of each parameter.

    Args:
        model: The classifier.
        learning_rate: Learning rate of the head.
        body: Learning rate of the backbone; that of the head by default.
        decay: Factor from one block to the one before it: a block at depth d gets body * decay^(blocks + 1 - d).

    Source: layer-wise decay as in BEiT, arXiv 2106.08254.
    """
    depths = parameter_depths(model)
    body = learning_rate if body is None else body
    return {
        name: learning_rate if name in depths.head else body * decay ** (depths.blocks + 1 - depth)
        for name, depth in depths.of.items()
    }


_CURE = (
    "Name what is to be trained with `trainable`, and leave `train_last`, `body_learning_rate` and `layer_decay` out."
)


def split_by_depth(optimizer: Optimizer, model: nn.Module, args: RobustTrainingArguments) -> None:
    """Give each depth a parameter group of its own, with its learning rate; the largest first, since the first is the one that is logged.

    The rate of the head is that with which the optimizer was made: `learning_rate`, but for one of optimizer_cls_and_kwargs that says otherwise.

    Args:
        optimizer: Optimizer of the model; its groups are replaced.
        model: Model whose parameters it has.
        args: Arguments; body_learning_rate (or that of the protocol) and layer_decay are used, as in `learning_rates`.

    Raises:
        ValueError: If the optimizer has no learning rate.
    """
    optimizer.param_groups = [part for group in optimizer.param_groups for part in _parts(group, model, args)]


def _parts(group: dict[str, Any], model: nn.Module, args: RobustTrainingArguments) -> list[dict[str, Any]]:
    if group.get("lr") is None:
        raise ValueError(
            "`body_learning_rate` and `layer_decay` need an optimizer with a learning rate, got one without. Give it one: lr in "
            "optimizer_cls_and_kwargs; or leave them out."
        )
    rates = learning_rates(model, float(group["lr"]), args.finetuning().body_learning_rate, args.layer_decay)
    of = {parameter: rates[name] for name, parameter in model.named_parameters()}
    return [
        {**group, "params": [p for p in group["params"] if of[p] == rate], "lr": rate}
        for rate in sorted({of[p] for p in group["params"]}, reverse=True)
    ]

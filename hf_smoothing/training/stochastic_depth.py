"""Stochastic depth: in training, whole blocks are skipped at random, the deeper the likelier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hf_smoothing.models.layers import running_blocks


def stochastic_depth(model: nn.Module, rate: float, generator: Callable[[], torch.Generator]) -> list[RemovableHandle]:
    """Let the blocks of a transformer drop out, image by image; what is kept is scaled so that means stay.

    Block k of K is skipped with probability rate * k / (K - 1), in train mode only. (Its two branches go together; the authors of DMAE
    drop each for itself.)

    Args:
        model: An image classifier or autoencoder; hooks are added to its blocks.
        rate: Rate of the last block, in (0, 1).
        generator: A function that gives the source of randomness of this forward pass, on the device of the activations.

    Returns:
        The hooks, to be removed when training ends.

    Raises:
        ValueError: If the model has no blocks, or, in the first forward pass, if a block changes the shape of what it gets.

    Source: Huang et al. (2016), arXiv 1603.09382.
    """
    blocks = list(running_blocks(model).values())
    if not blocks:
        raise ValueError(f"`drop_path` skips blocks, but {type(model).__name__} has no list of them. Leave it out.")
    rates = [rate * number / max(len(blocks) - 1, 1) for number in range(len(blocks))]
    return [
        block.register_forward_hook(_skipping(probability, generator))
        for block, probability in zip(blocks, rates, strict=True)
        if probability
    ]


def _skipping(probability: float, generator: Callable[[], torch.Generator]) -> Callable[..., Any]:
    def hook(block: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
        if not block.training:
            return None
        came: Tensor = given[0]
        went: Tensor = output[0] if isinstance(output, tuple) else output
        if came.shape != went.shape:
            raise ValueError(
                f"`drop_path` skips blocks that keep the shape of what they get, as a transformer's do, but {type(block).__name__} turns "
                f"{tuple(came.shape)} into {tuple(went.shape)}. Leave it out."
            )
        draws = torch.rand(len(came), generator=generator(), device=came.device)
        kept = (draws >= probability).to(went.dtype) / (1.0 - probability)
        mixed = came + (went - came) * kept.view(-1, *[1] * (came.ndim - 1))
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

    return hook

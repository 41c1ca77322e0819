"""Stochastic depth: in training, whole blocks are skipped at random, the deeper the likelier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.utils.hooks import RemovableHandle

from hf_smoothing.models.heads import classifier_inside, members_of
from hf_smoothing.models.layers import running_blocks
from hf_smoothing.noise.streams import seed_words


def stochastic_depth(model: nn.Module, rate: float, generator: Callable[[], torch.Generator]) -> list[RemovableHandle]:
    """Let the blocks of a transformer drop out, image by image; what is kept is scaled so that means stay.

    Block k = 0 .. K - 1 of K is skipped with probability rate * k / (K - 1), a single one with `rate`, in train mode only. (Its two branches go
    together; the authors of DMAE drop each for itself.) Which images skip it is a function of the generator's seed and k alone, so that gradient
    checkpointing, which runs a block again in the backward pass, skips the same; so do the calls of an objective that calls the network several times.

    Args:
        model: An image classifier or autoencoder; hooks are added to its blocks.
        rate: Rate of the last block, in (0, 1).
        generator: A function that gives the generator of this training step, of which only the seed is used.

    Returns:
        The hooks, to be removed when training ends.

    Raises:
        ValueError: If the model has no blocks, or is an ensemble; or, in the first forward pass, if a block changes the shape of what it gets.

    Source: Huang et al. (2016), arXiv 1603.09382.
    """
    blocks = list(running_blocks(model).values())
    if not blocks:
        kind = type(classifier_inside(model)[1]).__name__
        several = "is made of several networks" if members_of(model) else "has no list of them"
        raise ValueError(f"`drop_path` skips blocks, but {kind} {several}. Leave it out.")
    last = len(blocks) - 1
    rates = [rate * number / last for number in range(len(blocks))] if last else [rate]
    return [
        block.register_forward_hook(_skipping(probability, number, generator), with_kwargs=True)
        for number, (block, probability) in enumerate(zip(blocks, rates, strict=True))
        if probability
    ]


def _skipping(probability: float, number: int, generator: Callable[[], torch.Generator]) -> Callable[..., Any]:
    # What is drawn is hashed and seeded, no part of a compiled graph. `torch.compiler.disable` would load the compiler for trainings without one as well.
    @_disable_dynamo
    def hook(block: nn.Module, given: tuple[Any, ...], more: dict[str, Any], output: Any) -> Any:
        if not block.training:
            return None
        came, went = next(iter((*given, *more.values())), None), _first(output)
        if not isinstance(came, Tensor) or not isinstance(went, Tensor) or came.shape != went.shape:
            raise ValueError(
                f"`drop_path` skips blocks that keep the shape of what they get, as a transformer's do, but {type(block).__name__} turns "
                f"{_said(came)} into {_said(went)}. Leave it out."
            )
        high, low = seed_words(f"{generator().initial_seed()} block {number}")
        own = torch.Generator(came.device).manual_seed(high << 32 | low)
        draws = torch.rand(len(came), generator=own, device=came.device)
        kept = (draws >= probability).to(went.dtype) / (1.0 - probability)
        mixed = came + (went - came) * kept.view(-1, *[1] * (came.ndim - 1))
        return _with_first(output, mixed)

    return hook


def _first(output: Any) -> Any:
    """What the next block gets: some give it within tuples."""
    return _first(output[0]) if isinstance(output, tuple) and output else output


def _with_first(output: Any, value: Tensor) -> Any:
    return (_with_first(output[0], value), *output[1:]) if isinstance(output, tuple) else value


def _said(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__

"""A batch of one image that batch norm cannot take, found in the first forward pass and not at the end of the epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import TrainingArguments


def has_batch_of_one(args: TrainingArguments, images: int, batch_size: int, steps: int) -> bool:
    """Whether a rank will get a batch of one image within this number of steps.

    Args:
        args: Training arguments.
        images: Number of images of the training set.
        batch_size: Number of images per batch of one rank.
        steps: Number of steps of the optimizer.
    """
    if batch_size == 1:
        return True
    # Several ranks get batches that are filled up, unless that is switched off.
    filled = args.world_size > 1 and args.accelerator_config.even_batches
    if filled or args.dataloader_drop_last or images % batch_size != 1:
        return False
    batches = math.ceil(images / batch_size / args.world_size)
    return bool(steps * args.gradient_accumulation_steps >= batches)


@contextmanager
def norms_watched(model: nn.Module, images: int, cure: str) -> Iterator[None]:
    """A forward pass that stops at the first batch norm that a batch of one image would stop.

    Args:
        model: Model about to see `images` images, or several copies of each.
        images: Number of images of this batch.
        cure: Cure, for the message.

    Raises:
        ValueError: The message names the batch norm that would see one value in each channel.
    """

    def look(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        values: Tensor = inputs[0]
        if norm.training and values.numel() // values.shape[1] <= images:
            raise ValueError(
                f"Training has a batch of one image, of which the batch norm {names[norm]!r} would see one value in each channel and so no variance. "
                f"{cure}"
            )

    names = {module: name for name, module in model.named_modules() if _needs_two(module)}
    hooks = [norm.register_forward_pre_hook(look) for norm in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _needs_two(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)

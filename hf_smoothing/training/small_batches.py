"""A batch of one image that batch norm cannot take, found in the first forward pass and not at the end of the epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import TrainingArguments
from transformers.trainer_utils import has_length


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


def first_pass(
    model: nn.Module, args: TrainingArguments, dataset: Any, *, batch_size: int, steps: int, images: int
) -> AbstractContextManager[None]:
    """The first forward pass: it refuses a training set of which the network could not take the last batch.

    Args:
        model, images: As for `norms_watched`.
        args, batch_size, steps: As for `has_batch_of_one`.
        dataset: The training set.
    """
    if not has_length(dataset) or not has_batch_of_one(args, len(dataset), batch_size, steps):
        return nullcontext()
    cure = (
        f"Set dataloader_drop_last=True, or another per_device_train_batch_size: {len(dataset)} images leave one over after batches of {batch_size}."
        if batch_size > 1
        else "Set per_device_train_batch_size to at least 2."
    )
    return norms_watched(model, images, cure)


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

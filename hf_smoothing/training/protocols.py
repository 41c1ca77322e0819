"""Ways of finetuning a backbone, by name; docs/finetuning.md says what each keeps and loses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


PROTOCOLS: dict[str, dict[str, Any]] = {
    "whole": {},
    "last-stage": {"train_last": 1, "freeze_batch_norm": True},
    "linear-probe": {"train_last": 0, "freeze_batch_norm": True},
    "light": {"body_learning_rate": 5e-4, "freeze_batch_norm": True},
}
"""What each protocol stands for where the arguments of `RobustTrainingArguments` are not given.

- "whole": every parameter at one learning rate. For training on noise; on clean images it forgets the noise.
- "last-stage": the last block (stage of a ResNet) and the head; batch-norm statistics stay. For clean images.
- "linear-probe": the head alone.
- "light": every parameter, the backbone at a small learning rate.
"""


@dataclass(frozen=True)
class Finetuning:
    """What is trained, and how fast.

    Attributes:
        train_last: Number of last blocks that are trained beside the head; None trains all, or what `trainable` names.
        freeze_batch_norm: Whether the running statistics of batch norm stay.
        body_learning_rate: Learning rate of all but the head; None where it is that of the head.
    """

    train_last: int | None
    freeze_batch_norm: bool
    body_learning_rate: float | None


def settle(
    protocol: str | None,
    *,
    learning_rate: float,
    trainable: list[str] | None = None,
    train_last: int | None = None,
    freeze_batch_norm: bool | None = None,
    body_learning_rate: float | None = None,
) -> Finetuning:
    """What arguments ask for: what is given, and else what the protocol stands for.

    Args:
        protocol: One of `PROTOCOLS`, or None.
        learning_rate, trainable, train_last, freeze_batch_norm, body_learning_rate: As in `RobustTrainingArguments`.

    Raises:
        ValueError: On an unknown protocol, two ways of naming what is trained, or a "light" one that is not.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise ValueError(f"`protocol` must be one of {', '.join(PROTOCOLS)}, got {protocol!r}.")
    if train_last is not None and trainable is not None:
        raise ValueError(
            f"Give `trainable` (names) or `train_last` (a number of blocks), not both: got {trainable} and {train_last}."
        )
    values = {} if protocol is None else PROTOCOLS[protocol]
    if train_last is None and trainable is None:
        train_last = values.get("train_last")
    if freeze_batch_norm is None:
        freeze_batch_norm = values.get("freeze_batch_norm", False)
    if body_learning_rate is None:
        body_learning_rate = values.get("body_learning_rate")
    if protocol == "light" and (body_learning_rate or 0.0) > learning_rate:
        raise ValueError(
            f"protocol='light' is for a backbone that learns more slowly than the head, but its learning rate is {body_learning_rate} and "
            f"the head's {learning_rate}. Set learning_rate to e.g. 0.1 with SGD, or lower body_learning_rate."
        )
    return Finetuning(train_last, freeze_batch_norm, body_learning_rate)

"""Ways of finetuning a backbone, by name; docs/finetuning.md says what each keeps and loses."""

from __future__ import annotations

from typing import Any


PROTOCOLS: dict[str, dict[str, Any]] = {
    "whole": {},
    "last-stage": {"train_last": 1, "freeze_batch_norm": True},
    "linear-probe": {"train_last": 0, "freeze_batch_norm": True},
    "light": {"body_learning_rate": 5e-4, "freeze_batch_norm": True},
}
"""Arguments of `RobustTrainingArguments` that each protocol sets where they are not given.

- "whole": every parameter at one learning rate. For training on noise; on clean images it forgets the noise.
- "last-stage": the last block (stage of a ResNet) and the head; batch-norm statistics stay. For clean images.
- "linear-probe": the head alone.
- "light": every parameter, the backbone at a small learning rate.
"""

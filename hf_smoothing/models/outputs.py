"""What every image classifier here returns."""

from __future__ import annotations

from typing import Any, TypeAlias

from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput


Output: TypeAlias = ImageClassifierOutput | tuple[Tensor, ...]


def classifier_output(
    model: PreTrainedModel, logits: Tensor, labels: Tensor | None, return_dict: bool | None
) -> Output:
    """The loss, if there are labels, and the logits; a tuple if that is asked for, here or in the configuration."""
    loss = None if labels is None else model.loss_function(labels, logits, model.config)
    output: Any = ImageClassifierOutput(loss=loss, logits=logits)
    as_dict = model.config.return_dict if return_dict is None else return_dict
    return output if as_dict else output.to_tuple()

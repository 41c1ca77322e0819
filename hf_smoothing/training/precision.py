"""What a training or an evaluation in less precision leaves behind: a model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator
from torch import nn


def without_mixed_precision(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """The model with its own `forward`, and such that the next training or evaluation puts it into mixed precision again."""
    if accelerator.native_amp:
        inner = accelerator.unwrap_model(model, keep_torch_compile=False)
        own = vars(inner).pop("_original_forward", None)
        # Not by `unwrap_model`, which would take the decorators of `transformers` away as well.
        if getattr(own, "__func__", None) is type(inner).forward:
            del inner.forward
        elif own is not None:
            inner.forward = own
        vars(inner).pop("_is_accelerate_prepared", None)
        accelerator._models = [one for one in accelerator._models if one not in (inner, model)]
    unwrapped: nn.Module = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return unwrapped


@contextmanager
def kept_weights(model: nn.Module) -> Iterator[None]:
    """The model has its weights and buffers afterwards, in their dtypes, whatever it is cast to meanwhile; on the device that it is on then."""
    parameters = [(parameter, parameter.data) for parameter in model.parameters()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    try:
        yield
    finally:
        for parameter, before in parameters:
            if parameter.dtype != before.dtype:
                parameter.data = before.to(parameter.device)
        for module, given in buffers:
            for name, buffer in given.items():
                now = module._buffers[name]
                if buffer is not None and now is not None and now.dtype != buffer.dtype:
                    module._buffers[name] = buffer.to(now.device)

"""A certified network as an ONNX graph of [0, 1] pixels, operation by operation, in float32."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hf_smoothing.interval.certificates import check_certifiable
from hf_smoothing.interval.classifier import classify_function
from hf_smoothing.interval.export.graph import check_operators, cleaned, require_onnx
from hf_smoothing.interval.margins import logits_of
from hf_smoothing.interval.refusals import UnsupportedOperationError


if TYPE_CHECKING:
    from onnx import ModelProto


INPUT, OUTPUT = "pixels", "logits"
OPSET = 18
"""Of the operators; the lowest that torch's exporter writes without converting back."""

IR_VERSION = 8
"""The file format that came with this opset, which older readers know too."""


def to_onnx(classifier: nn.Module, shape: Sequence[int]) -> ModelProto:
    """The network from [0, 1] pixels to logits as an ONNX graph of the same operations with the same float32 weights.

    Normalisation is inside, and a resize stands as two matrix products. Batch norm is not merged into the layer before it: merged weights
    are rounded, so the graph would be another function. The batch is fixed at 1 image, as verifiers want it.

    Args:
        classifier: As in `linf_certificates`; in eval mode and float32.
        shape: The triple (channels, height, width) of the pixels.

    Raises:
        ModuleNotFoundError: Without onnx and onnxscript.
        UnsupportedOperationError: The message names an operation that ONNX or the verifiers do not have, or what else cannot be written;
            also if the graph, as onnx itself runs it, has other logits than the network.
        ValueError: In train mode, with weights that are not finite or not float32.
    """
    require_onnx()
    check_certifiable(classifier, 1.0, cover_run=False)
    tensors = (*classifier.parameters(), *classifier.buffers())
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()} - {torch.float32}
    if dtypes:
        raise ValueError(
            f"An ONNX file for verifiers is a float32 network, got weights in {', '.join(sorted(map(str, dtypes)))}: it would be another function. Call float() "
            "and certify that network."
        )
    device = tensors[0].device if tensors else torch.device("cpu")
    model = cleaned(_converted(_Logits(classifier).eval(), torch.full((1, *shape), 0.5, device=device)))
    model.ir_version = IR_VERSION
    check_operators(model)
    _check_same(model, classifier, tuple(shape), device)
    return model


class _Logits(nn.Module):
    """From pixels to logits and nothing else."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.network = classifier

    def forward(self, pixels: Tensor) -> Any:
        """The logits."""
        with _ResizeByMatrices():
            return logits_of(classify_function(self.network), pixels)


class _ResizeByMatrices(TorchFunctionMode):
    """Replaces a resize of images to a given size by the two matrices that it is, since verifiers know no antialiasing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(zip(("input", "size", "scale_factor", "mode"), args, strict=False)) | (kwargs or {})
        if func is not F.interpolate or given["input"].ndim != 4 or given.get("size") is None:
            return func(*args, **(kwargs or {}))
        image, size = given.pop("input"), given.pop("size")
        height, width = (size, size) if isinstance(size, int) else size
        return _matrix(image, 2, height, given) @ image @ _matrix(image, 3, width, given).T


def _matrix(image: Tensor, dim: int, size: int, how: dict[str, Any]) -> Tensor:
    """What a resize does to one dimension, float32 (size, size before): its weights, as the function itself gives them for unit vectors."""
    # Two columns: antialiasing to a width of 1 gives wrong numbers in torch 2.13 on the CPU.
    unit = torch.eye(image.shape[dim], dtype=image.dtype, device=image.device)[None, :, :, None].repeat(1, 1, 1, 2)
    with torch._C.DisableTorchFunction():
        return F.interpolate(unit, size=(size, 2), **how)[0, :, :, 0].T


def _converted(network: nn.Module, pixels: Tensor) -> Any:
    """By torch's own exporter."""
    with _quiet(), torch.no_grad():
        try:
            program = torch.export.export(network, (pixels,), strict=False)
        except Exception as error:  # whatever the code of a network may raise when it is traced
            raise UnsupportedOperationError(
                f"The network cannot be written as a graph of operations: {_first_line(error)}. Its way must not depend on the values of pixels."
            ) from error
        try:
            return torch.onnx.export(
                program, (), dynamo=True, optimize=False, input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET, verbose=False,
            )  # fmt: skip
        except Exception as error:
            raise UnsupportedOperationError(
                f"torch's exporter cannot write the network as ONNX: {_cause(error)}. It is that of torch {torch.__version__}: newer ones write more operations."
            ) from error


SAME = 1e-4
"""Largest difference of logits, in units of the largest one, that is taken for rounding; an argument that was lost makes far more."""


def _check_same(model: ModelProto, classifier: nn.Module, shape: tuple[int, ...], device: torch.device) -> None:
    """Run both on random pixels and on a random corner: exporters have lost arguments and folded constants wrongly, without a word."""
    pixels = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    pixels[1].round_()
    for image in map(torch.clone, pixels.split(1)):  # no views: a network may detach its input in place
        try:
            found = run_graph(model, image)
        except Exception as error:  # such as a padding by less than nothing, which crops
            raise UnsupportedOperationError(
                f"The graph cannot be compared with the network, since onnx's own evaluation does not run it: {_first_line(error)}"
            ) from error
        with torch.no_grad():
            wanted = logits_of(classify_function(classifier), image.to(device)).double().cpu()
        difference = (found - wanted).abs().max().item()
        if not difference <= SAME * max(1.0, wanted.abs().max().item()):
            raise UnsupportedOperationError(
                f"The ONNX graph is another function than the network: on random pixels their logits differ by {difference:.2g}. "
                "torch's exporter or onnxscript lost an operation or an argument: try newer versions of torch, onnx and onnxscript."
            )


def run_graph(model: ModelProto, pixels: Tensor) -> Tensor:
    """Logits of an image, float64 (1, num_labels), by onnx's own evaluation of a graph in float32."""
    from onnx.reference import ReferenceEvaluator

    (found,) = ReferenceEvaluator(model).run(None, {INPUT: pixels.float().cpu().numpy()})
    return torch.as_tensor(found, dtype=torch.float64)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own insides, and of packages that it does without."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__

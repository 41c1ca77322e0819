"""An ONNX graph made as plain as verifiers want it, with no change to the function, and refused where they would not know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_smoothing.interval.refusals import UnsupportedOperationError


if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


OPERATORS = {
    *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Exp", "Pow", "Sqrt", "Reciprocal"),
    *("Gemm", "MatMul", "Conv", "ConvTranspose", "BatchNormalization", "Relu", "LeakyRelu", "Sigmoid", "Tanh"),
    *("AveragePool", "GlobalAveragePool", "MaxPool", "ReduceMax", "ReduceMean", "ReduceSum"),
    *(
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Expand",
        "Pad",
        "Concat",
        "Split",
        "Slice",
        "Gather",
    ),
}
"""What a graph may hold: operators that auto_LiRPA (so alpha-beta-CROWN) reads; Marabou reads about half of them."""


def require_onnx() -> None:
    """Find out whether ONNX files can be written.

    Raises:
        ModuleNotFoundError: If not, with the cure.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Writing ONNX files needs onnx and onnxscript, and {error.name} is missing: pip install 'hf_smoothing[export]'."
        ) from error


def cleaned(program: Any) -> ModelProto:
    """The graph of torch's exporter with constants computed and without what does nothing: the same function, exactly.

    Args:
        program: `torch.onnx.ONNXProgram`, which is changed.
    """
    from onnx_ir.passes.common import LiftConstantsToInitializersPass
    from onnxscript import optimizer

    lift = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    for step in (optimizer.inline, optimizer.fold_constants, lift, optimizer.remove_unused_nodes):
        step(program.model)
    model: ModelProto = program.model_proto
    _drop_idle(model)
    return model


def check_operators(model: ModelProto) -> None:
    """Refuse a graph that a verifier would not read, or that is not valid.

    Raises:
        UnsupportedOperationError: The message names the operators.
    """
    import onnx

    if unknown := sorted({node.op_type for node in model.graph.node} - OPERATORS):
        raise UnsupportedOperationError(
            f"The network needs the ONNX operator{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}, which verifiers do not read. Known activations are ReLU, "
            "leaky ReLU, sigmoid and tanh; elsewhere take slices in place of lists of indices, and leave casts out."
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UnsupportedOperationError(
            f"torch's exporter wrote a graph that ONNX does not allow: {str(error).strip().splitlines()[0]}"
        ) from error


def _drop_idle(model: ModelProto) -> None:
    """Take out x - 0, x * 1 and x / 1, and turn a division by powers of two into a product: exact all, and Marabou has no division."""
    from onnx import numpy_helper

    graph = model.graph
    known = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    shapes = _shapes(model)
    renamed: dict[str, str] = {}
    for node in list(graph.node):
        node.input[:] = [renamed.get(name, name) for name in node.input]
        constant = known.get(node.input[1]) if len(node.input) == 2 else None
        if constant is None or node.op_type not in _IDLE:
            continue
        before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
        if bool((constant == _IDLE[node.op_type]).all()) and before == after and before and _inner(model, node):
            renamed[node.output[0]] = node.input[0]
            graph.node.remove(node)
        elif node.op_type == "Div" and _powers_of_two(constant):
            node.op_type, name = "Mul", f"{node.output[0]}_factor"
            graph.initializer.append(numpy_helper.from_array(np.divide(1, constant, dtype=constant.dtype), name))
            node.input[1] = name
    used = {name for node in graph.node for name in node.input}
    for one in [one for one in graph.initializer if one.name not in used]:
        graph.initializer.remove(one)


_IDLE = {"Sub": 0.0, "Mul": 1.0, "Div": 1.0}
"""By operator: the second input with which it does nothing."""


def _inner(model: ModelProto, node: NodeProto) -> bool:
    return node.output[0] not in {one.name for one in model.graph.output}


def _powers_of_two(values: NDArray[Any]) -> bool:
    """Whether a division by these is a product with their reciprocals, exactly; numbers near the ends of float32 and those of shapes are left alone."""
    if not np.issubdtype(values.dtype, np.floating):
        return False
    mantissa, exponent = np.frexp(np.abs(values))
    return bool(((mantissa == 0.5) & (np.abs(exponent) < 64)).all())


def _shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    return {one.name: tuple(dim.dim_value for dim in one.type.tensor_type.shape.dim) for one in values}

"""Other people's verifiers on exported claims: Marabou, which is complete, and auto_LiRPA, whose bounds are incomplete but fast."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tempfile
import time
import types
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from hf_smoothing.interval.margins import logits_of
from tests.support.processes import run_python
from tests.support.vnnlib import Property, read_property


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of a property.

    Attributes:
        answer: "confirmed", "refuted" by pixels on which the ONNX file was run, or "open".
        why: Of what is open: "timeout", or what went wrong.
        seconds: How long it took.
    """

    answer: str
    why: str
    seconds: float


LONGEST_START = 15
"""Seconds beyond the time granted, after which Marabou, which looks at its clock now and then, is stopped."""

MARGINS = (0.0, 1e-3)
"""By how much another class must win in a counter-example: Marabou's own may be ties within its tolerance, then it is asked for a clear one."""


def ask_marabou(network: Path, file: Path, timeout: int) -> Verdict:
    """Marabou's verdict; a counter-example counts only if the ONNX file, run on it, gives another class."""
    began = time.perf_counter()
    asked = read_property(file.read_text(encoding="ascii"))
    for margin in MARGINS:
        answer, pixels = _marabou(network, file, margin, timeout)
        if pixels is None:
            break
        if _refutes(network, asked, pixels):
            return Verdict("refuted", "", time.perf_counter() - began)
    seconds = time.perf_counter() - began
    if answer == "unsat" and margin == 0.0:
        return Verdict("confirmed", "", seconds)
    return Verdict("open", answer.lower() if margin == 0.0 else "counter-example that does not hold", seconds)


def _refutes(network: Path, asked: Property, pixels: Any) -> bool:
    inside = np.clip(pixels, [float(x) for x in asked.lower], [float(x) for x in asked.upper]).astype(np.float32)
    runner = ReferenceEvaluator(str(network))
    shape = [dim.dim_value for dim in runner.proto_.graph.input[0].type.tensor_type.shape.dim]
    logits = runner.run(None, {runner.input_names[0]: inside.reshape(shape)})[0][0]
    return any(logits[asked.prediction] <= logits[other] for other in asked.others)


def _marabou(network: Path, file: Path, margin: float, timeout: int) -> tuple[str, Any]:
    words = ("tests.support.marabou", network.resolve(), file.resolve(), margin, timeout)
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = run_python("-m", *words, cwd=Path(folder), timeout=timeout + LONGEST_START)
        except subprocess.TimeoutExpired:
            return "timeout", None
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1], None
    found = json.loads(done.stdout.splitlines()[-1])
    return found["answer"], found["pixels"]


def ask_lirpa(classify: nn.Module, shape: tuple[int, ...], file: Path) -> Verdict:
    """Whether bounds of auto_LiRPA, CROWN or alpha-CROWN, confirm a property of a network of pixels."""
    began = time.perf_counter()
    asked = read_property(file.read_text(encoding="ascii"))
    try:
        bound = _lirpa(classify, shape, asked)
    except Exception as error:
        return Verdict("open", f"{type(error).__name__}: {error}", time.perf_counter() - began)
    confirmed = bound > 0.0
    return Verdict(
        "confirmed" if confirmed else "open", "" if confirmed else "loose bound", time.perf_counter() - began
    )


def _lirpa(classify: nn.Module, shape: tuple[int, ...], asked: Property) -> float:
    lower, upper = (
        torch.tensor([float(end) for end in ends]).view(1, *shape) for ends in (asked.lower, asked.upper)
    )  # on the grid, so float32 holds them
    network, prediction, best = Logits(classify), torch.tensor([asked.prediction]), -float("inf")
    for method in ("CROWN", "CROWN-Optimized"):
        best = max(best, float(lirpa_bounds(network, lower, upper, prediction, asked.num_labels, method)))
        if best > 0.0:
            break
    return best


def lirpa_bounds(
    network: nn.Module, lower: Tensor, upper: Tensor, predictions: Tensor, num_labels: int, method: str
) -> Tensor:
    """A lower bound of auto_LiRPA on how far each prediction lies above the best other class, in boxes (images, channels, height, width)."""
    library = import_lirpa()
    every = torch.eye(num_labels)
    margins = every[predictions][:, None] - every
    others = torch.arange(num_labels) != predictions[:, None]
    margins = margins[others].view(len(predictions), num_labels - 1, num_labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bounded = library.BoundedModule(network.eval(), torch.zeros_like(lower[:1]), device="cpu")
        ball = library.PerturbationLpNorm(norm=float("inf"), eps=0.5, x_L=lower, x_U=upper)
        inside = library.BoundedTensor((lower + upper) / 2, ball)
        bound, _ = bounded.compute_bounds(x=(inside,), C=margins, method=method, bound_upper=False)
    worst: Tensor = bound.detach().min(1).values
    return worst


class Logits(nn.Module):
    """The logits of a network, whatever it answers with."""

    def __init__(self, classify: nn.Module) -> None:
        super().__init__()
        self.classify = classify

    def forward(self, pixels: Tensor) -> Any:
        return logits_of(self.classify, pixels)


def import_lirpa() -> Any:
    """auto_LiRPA 0.3, the one in the package registry, which is for numpy 1 and torch 1.12: a few names that it takes have moved since.

    Raises:
        ImportError: If it is not installed, or they have moved again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sys.modules.setdefault("numpy.lib.arraysetops", types.SimpleNamespace(isin=np.isin))  # type: ignore[arg-type]
        from torch._C import _onnx

        # Not `from torch.onnx import`, which gives the new modules of these names.
        symbolic_helper, utils = map(import_module, ("torch.onnx.symbolic_helper", "torch.onnx.utils"))
        from torch.onnx._internal.torchscript_exporter import _globals
        from torch.onnx._internal.torchscript_exporter import utils as moved

        def set_opset(version: int) -> None:
            _globals.GLOBALS.export_onnx_opset_version = version

        for place, name, value in (
            (utils, "_optimize_graph", moved._optimize_graph),
            (symbolic_helper, "_set_opset_version", set_opset),
            (torch.onnx, "OperatorExportTypes", _onnx.OperatorExportTypes),
            (torch._C.Node, "__getitem__", lambda node, key: getattr(node, node.kindOf(key))(key)),
        ):
            if not hasattr(place, name):
                setattr(place, name, value)
        import auto_LiRPA

        members = auto_LiRPA.BoundedModule._named_members
        if "remove_duplicate" not in inspect.signature(members).parameters:  # torch asks for it by now

            def named_members(
                self: Any, of: Any, prefix: str = "", recurse: bool = True, remove_duplicate: Any = 0
            ) -> Any:
                return members(self, of, prefix, recurse)

            auto_LiRPA.BoundedModule._named_members = named_members
    return auto_LiRPA

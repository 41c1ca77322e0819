"""Marabou in a process of its own, for it may crash, hang, and leave files where it runs: python -m tests.support.marabou NETWORK FILE MARGIN SECONDS."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

from tests.support.vnnlib import read_property


def main(network: str, file: str, margin: float, seconds: int) -> None:
    """Print {"answer": "sat", "unsat" or another word, "pixels": the counter-example or None} as the last line.

    Args:
        network: ONNX file.
        file: Property in VNN-LIB.
        margin: By how much another class must win in a counter-example.
        seconds: Time that it is granted; it may take longer.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for tensorflow
        from maraboupy import Marabou, MarabouCore, MarabouUtils
    asked = read_property(Path(file).read_text(encoding="ascii"))
    query = Marabou.read_onnx(network)
    inputs, outputs = query.inputVars[0].flatten(), query.outputVars[0].flatten()
    for variable, low, high in zip(inputs, asked.lower, asked.upper, strict=True):
        query.setLowerBound(variable, float(low))
        query.setUpperBound(variable, float(high))
    wins = []
    for other in sorted(asked.others):
        reached = MarabouUtils.Equation(MarabouCore.Equation.LE)
        reached.addAddend(1.0, outputs[asked.prediction])
        reached.addAddend(-1.0, outputs[other])
        reached.setScalar(-margin)
        wins.append([reached])
    query.addDisjunctionConstraint(wins)
    options = Marabou.createOptions(timeoutInSeconds=seconds, verbosity=0)
    answer, values, _ = query.solve(verbose=False, options=options)
    pixels = [values[variable] for variable in inputs] if answer == "sat" else None
    print(json.dumps({"answer": answer, "pixels": pixels}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))

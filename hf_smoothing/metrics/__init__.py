"""Metrics for `evaluate`, as folders that `evaluate.load` reads."""

from __future__ import annotations

from importlib.resources import files


__all__ = ["certified_accuracy_path"]


def certified_accuracy_path() -> str:
    """The folder to pass to `evaluate.load`; works offline.

    >>> import evaluate  # doctest: +SKIP
    >>> metric = evaluate.load(certified_accuracy_path())  # doctest: +SKIP
    """
    return str(files("hf_smoothing.metrics") / "certified_accuracy")

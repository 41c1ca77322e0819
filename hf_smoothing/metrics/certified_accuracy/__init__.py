"""The certified accuracy metric. It needs the `evaluate` package, which is an extra: `pip install hf_smoothing[evaluate]`."""

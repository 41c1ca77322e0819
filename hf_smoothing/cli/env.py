"""`hf-smoothing env`: what a bug report needs."""

from __future__ import annotations

import argparse
from typing import Any

from hf_smoothing import __version__


LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "evaluate", "huggingface_hub", "numpy", "scipy")


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = commands.add_parser("env", help="versions, processor and devices, to paste into a bug report")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """`hf-smoothing env`."""
    for name, value in environment().items():
        print(f"- {name}: {value}")
    return 0


def environment() -> dict[str, str]:
    """Versions, system, processor and devices by name."""
    import os
    import platform

    import torch

    from hf_smoothing.certification.settings import versions_of

    found = {"hf_smoothing": __version__, "Python": platform.python_version(), "system": platform.platform()}
    found |= {name: version or "not installed" for name, version in versions_of(*LIBRARIES).items()}
    capability = torch.backends.cpu.get_cpu_capability()
    found["CPU"] = f"{os.cpu_count()} cores, {capability}, {torch.get_num_threads()} threads of torch"
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    found["CUDA"] = f"{torch.version.cuda}: {', '.join(devices)}" if devices else "no device"
    return found

"""Commands under a launcher that has started several processes: which of them work on all."""

from __future__ import annotations

import os
import sys


ON_ALL = ("certify", "selftest")
"""Commands whose work the ranks share, or each does for itself."""
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
"""What a launcher tells a process of its place among the others."""


def left_to_first(command: str) -> bool:
    """Whether this process leaves a command to rank 0, after one line that says so; rank 0 forgets the others, for which it would wait."""
    said = [os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK")]
    if command in ON_ALL or "LOCAL_RANK" not in os.environ:  # which a launcher sets, and not a cluster
        return False
    count, rank = (int(number) if number.isdecimal() else 0 for number in said)
    if count <= 1:
        return False
    if rank > 0:
        print(
            f"hf-smoothing {command} works on one process: rank {rank} of {count} leaves it to rank 0.",
            file=sys.stderr,
        )
        return True
    for name in NAMES:
        os.environ.pop(name, None)
    return False

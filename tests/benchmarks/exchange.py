"""What the exchange at the end of a round costs with several ranks: docs/results/hardware.json.

    python tests/benchmarks/exchange.py [--ranks 2 4 8]

A round gathers every rank's votes on every other. Timed alone, after a barrier, with what a round of ImageNet carries: 16 requests of 1,000
classes each, and the digests of their images. All ranks are processes of this machine, also where it has fewer cores; a network between nodes
adds its latency.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from results import record

from hf_smoothing.certification import process_state
from hf_smoothing.certification.ranks import Ranks


REQUESTS, CLASSES, ROUNDS = 16, 1_000, 200


def child() -> None:
    """One rank: median time of an exchange."""
    torch.set_num_threads(1)
    state = process_state(cpu=True)
    ranks = Ranks.of(state)
    votes = {k: np.full(CLASSES, state.process_index, dtype=np.int64) for k in range(REQUESTS)}
    read = [hashlib.sha256(bytes([k])).hexdigest() for k in range(REQUESTS)]
    seconds = []
    for _ in range(ROUNDS):
        state.wait_for_everyone()
        began = time.perf_counter()
        parts = ranks.exchange(lambda: (votes, 0.0, read))
        seconds.append(time.perf_counter() - began)
        assert len(parts) == state.num_processes
    if state.is_main_process:
        print("RESULT", statistics.median(seconds), np.quantile(seconds, 0.95))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child()
        return
    found = {}
    for ranks in args.ranks:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        done = subprocess.run(
            [sys.executable, *launcher, __file__, "--child"], capture_output=True, text=True, check=False,
            env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        words = next(line for line in done.stdout.splitlines() if line.startswith("RESULT")).split()
        found[str(ranks)] = {
            "milliseconds": round(1000 * float(words[1]), 2),
            "milliseconds_95_percent": round(1000 * float(words[2]), 2),
        }
    record(
        "hardware", "exchange", found, seed=None, command="python tests/benchmarks/exchange.py",
        requests=REQUESTS, classes=CLASSES, rounds=ROUNDS,
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""Inputs that are nearly right, put to every parser of the library: each may take an input or refuse it with its documented error.

    python tests/benchmarks/fuzzed_parsers.py

Half an hour of one core for ten million inputs. Any other exception, a refusal without the name of the file, more than ten seconds or more
than a gigabyte of memory for one input is a fault: it is printed, nothing is recorded and the exit status is 1.
"""

from __future__ import annotations

import math
import resource
import sys
import time
import warnings
from pathlib import Path


sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.results import asked, record
from tests.support.fuzz_parsers import HANGS, fuzz
from tests.support.fuzz_targets import targets


MEMORY = 1 << 30
"""Bytes beyond those of the process before the first input."""


def limit_memory() -> None:
    """Beyond, Python raises MemoryError, which no parser may."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))


def main() -> int:
    """The exit status."""
    args = asked(__doc__, threads=1, inputs=10_000_000, seed=0)
    warnings.simplefilter("error")
    parsers = targets()
    limit_memory()
    parts = sum(target.share for target in parsers.values())
    details, faults, began = {}, 0, time.process_time()
    for name, target in parsers.items():
        started = time.process_time()
        found = fuzz(target, math.ceil(args.inputs * target.share / parts), args.seed)
        for kind, (data, fault) in found.faults.items():
            print(f"{name}: {kind}: {fault}\n    {data[:1000]!r}")
        faults += len(found.faults)
        details[name] = {
            "inputs": found.inputs,
            "accepted": found.accepted,
            "faults": len(found.faults),
            "slowest_seconds": round(found.slowest, 3),
            "seconds": round(time.process_time() - started, 1),
        }
        print(name, details[name], flush=True)
    total = sum(one["inputs"] for one in details.values())
    if faults == 0:
        record(
            "guarantee", "fuzzed_parsers", total, seed=args.seed,
            command=f"python tests/benchmarks/fuzzed_parsers.py --inputs {args.inputs} --seed {args.seed}",
            faults=faults, processor_seconds=round(time.process_time() - began), hangs_after_seconds=HANGS,
            memory_limit_mib=MEMORY >> 20, parsers=details,
        )  # fmt: skip
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())

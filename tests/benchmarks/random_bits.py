"""The random bits of grid noise put to published batteries: docs/results/guarantee.json.

    apt-get install gcc dieharder libtestu01-0-dev          (TestU01 is in Debian's non-free part)
    python tests/benchmarks/random_bits.py [--batteries SmallCrush Rabbit Alphabit Crush dieharder] [--orders ...] [--seed 0]

Each order is how a run meets the bits: word by word (used), the same word of all draws, of all images, under all seeds, and the bits
that decide the rest of the law. A C program makes the same words as the library, which is checked first. TestU01 names p-values outside
[.001, .999]; a failure is one below 1e-10, or one that comes again under another seed. Rabbit reads 2^28 bits, Alphabit 2^30. Batteries that the record has are skipped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from results import FOLDER, record

from hf_smoothing.noise.grid import GridStream, _mix


SOURCE = Path(__file__).with_suffix(".c")
ORDERS = ("used", "draws", "images", "rest", "seeds")
HALVES = ("as-used", "reversed")
BATTERIES = ("SmallCrush", "Rabbit", "Alphabit", "Crush", "dieharder")
SEEDS = 256
"""Consecutive seeds that the order `seeds` takes in turn."""


def compiled(folder: Path) -> Path:
    """The C program, linked to the libraries as Debian names them."""
    program = folder / "random_bits"
    command = ["cc", "-O2", "-I/usr/include/testu01", "-o", str(program), str(SOURCE)]
    subprocess.run([*command, "-ltestu01", "-ltestu01probdist", "-ltestu01mylib", "-lm"], check=True)
    return program


def keys_of(order: str, seed: int) -> list[tuple[int, int]]:
    """The keys that an order takes in turn, signed words as the library has them."""
    seeds = range(seed, seed + (SEEDS if order == "seeds" else 1))
    return [GridStream(one, (3, 32, 32), sigma=0.5)._key for one in seeds]


def library_words(order: str, keys: list[tuple[int, int]]) -> list[int]:
    """The first 4,096 words as the library makes them."""
    i = torch.arange(4096)
    counters = {
        "used": (i // 768 << 27) + i % 768,
        "draws": i << 27,
        "images": i << 46,
        "rest": (i // 3072 << 27) + (1 << 26) + i % 3072,
        "seeds": i // SEEDS,
    }[order]
    words = torch.empty_like(counters)
    for k, key in enumerate(keys):
        words[k :: len(keys)] = _mix(counters[k :: len(keys)].clone(), key)
    return unsigned(words.tolist())


def unsigned(words: Iterable[int]) -> list[int]:
    """64-bit words as C has them."""
    return [word % (1 << 64) for word in words]


def summary_of(report: str) -> dict[str, object]:
    """What TestU01 or dieharder says: the number of p-values, and those that it names."""
    if "dieharder" in report:
        lines = [line.split("|") for line in report.splitlines() if re.search(r"\|\s*(PASSED|WEAK|FAILED)", line)]
        named = {
            f"{name.strip()} {n.strip()}": float(p)
            for name, n, _, _, p, verdict, *_ in lines
            if "PASSED" not in verdict
        }
        return {"p_values": len(lines), "named": named, "failed": sum("FAILED" in line[5] for line in lines)}
    (count,) = re.findall(r"Number of statistics:\s*(\d+)", report)
    summary = report[report.index("Summary results") :]
    named = dict(re.findall(r"^ *\d+ +(\S.*?) {2,}(\S.*?)\s*$", summary, re.MULTILINE))
    failed = sum("eps" in p or (p.startswith("1 -") and float(p[3:]) < 1e-10) or _small(p) for p in named.values())
    return {"p_values": int(count), "named": named, "failed": failed}


def _small(p: str) -> bool:
    try:
        return float(p) < 1e-10
    except ValueError:
        return False


def run(program: Path, battery: str, order: str, halves: str, keys: list[str]) -> dict[str, object]:
    """One battery on one stream."""
    if battery != "dieharder":
        done = subprocess.run(
            [str(program), battery, order, halves, *keys], capture_output=True, text=True, check=True
        )
        return summary_of(done.stdout)
    with subprocess.Popen([str(program), "raw", order, halves, *keys], stdout=subprocess.PIPE) as source:
        done = subprocess.run(
            ["dieharder", "-a", "-g", "200"], stdin=source.stdout, capture_output=True, text=True, check=True
        )
        source.kill()
    return summary_of(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batteries", nargs="+", choices=BATTERIES, default=["SmallCrush", "Rabbit", "Alphabit"])
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=list(ORDERS))
    parser.add_argument("--halves", nargs="+", choices=HALVES, default=list(HALVES))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    file = FOLDER / "guarantee.json"
    known = json.loads(file.read_text(encoding="utf-8")).get("random_bits", {}) if file.exists() else {}
    found = known.get("value", {})
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(Path(folder))
        for battery in args.batteries:
            for order in args.orders:
                keys = keys_of(order, args.seed)
                words = [str(word) for word in unsigned(itertools.chain(*keys))]
                first = subprocess.run(
                    [str(program), "words", order, "as-used", *words], capture_output=True, text=True, check=True
                )
                np.testing.assert_array_equal([int(word) for word in first.stdout.split()], library_words(order, keys))
                for halves in args.halves:
                    name = f"{battery}, {order}, {halves}, seed {args.seed}"
                    if name in found:
                        continue
                    found[name] = run(program, battery, order, halves, words)
                    record(
                        "guarantee", "random_bits", found, seed=args.seed,
                        command="python tests/benchmarks/random_bits.py --batteries " + " ".join(dict.fromkeys(one.split(",")[0] for one in found)),
                    )  # fmt: skip


if __name__ == "__main__":
    main()

"""What the guarantee rests on, measured: the self-test, and audits of certifiers of ours and of others.

    python tests/benchmarks/guarantee.py selftest audit

The audit of ART needs the package index once, for an environment of its own (.venv-art).
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from environments import borrowing_python  # noqa: E402
from results import record  # noqa: E402

from hf_smoothing import certify  # noqa: E402
from hf_smoothing.audit import Audit, audit_certifier, make_cases, power_of_hunt  # noqa: E402
from hf_smoothing.selftest import run_selftest  # noqa: E402
from tests.support import careless  # noqa: E402


SIGMA, ALPHA, DRAWS = 0.5, 0.05, 500
RADII = [(steps + 0.51) / 255 for steps in (63, 127)]
"""Just above exact radii of the audit, and for the sequential rules its targets."""

OURS = {
    "fixed": {"mode": "fixed"},
    "fixed, runner-up": {"mode": "fixed", "bound": "runner-up"},
    "targets": {"targets": [0.51 / 255, *RADII]},
    "targets, spending": {"targets": [0.51 / 255, *RADII], "spending": True},
    "targets, no selection": {"targets": [0.51 / 255, *RADII], "n0": 0},
}
CARELESS = {
    "selection and estimation on the same draws": (functools.partial(careless.plain_certify, n0=0, n=DRAWS), careless.clopper_pearson, (DRAWS,)),
    "no correction over looks": (careless.at_every_look, careless.clopper_pearson, careless.LOOKS),
    "the share of votes for a bound": (functools.partial(careless.plain_certify, n0=0, n=DRAWS, bound=careless.share), careless.share, (DRAWS,)),
}  # fmt: skip


def selftest(args: argparse.Namespace) -> None:
    """Seconds and lines of the self-test on one core."""
    torch.set_num_threads(1)
    found = run_selftest(args.device)
    lines = {
        line.name: {"result": line.result, "says": line.says, "seconds": round(line.seconds, 1)}
        for line in found.lines
    }
    value = {"seconds": round(found.seconds, 1), "lines": lines}
    record(
        "guarantee",
        "selftest",
        value,
        seed=0,
        command="python tests/benchmarks/guarantee.py selftest",
        device=found.device,
    )


def audits(args: argparse.Namespace) -> None:
    """Careless rules with their computed power, ours, the plain rule of Cohen et al., and ART."""
    asked: dict[str, Any] = {"sigma": SIGMA, "alpha": ALPHA, "explore": args.explore, "confirm": args.confirm}
    audit = functools.partial(audit_certifier, radii=RADII, **asked)
    plain = audit(functools.partial(careless.plain_certify, n0=100, n=DRAWS))
    value: dict[str, Any] = {
        "false_alarm": plain.false_alarm,
        "power": {"false with 2 alpha in one case, with alpha in all others": round(plain.power, 4), "rate found with 0.99": round(plain.found_rate, 4)},
        "careless": {}, "ours": {}, "cohen": summary(plain),
    }  # fmt: skip
    for name, (rule, bound, looks) in CARELESS.items():
        rates = careless.false_rates(make_cases(SIGMA, RADII), SIGMA, ALPHA, bound, looks)
        chance = power_of_hunt(rates, args.explore, args.confirm, plain.critical)
        value["careless"][name] = {
            "false with at least": round(max(rates), 4),
            "power": round(chance, 4),
            **summary(audit(rule)),
        }
        print(name, value["careless"][name], flush=True)
    for name, options in OURS.items():
        value["ours"][name] = summary(audit(ours(**options)))
        print(name, value["ours"][name], flush=True)
    value["art"] = None if args.no_art else art(args)
    record(
        "guarantee", "audit", value, seed=0, command="python tests/benchmarks/guarantee.py audit", draws=DRAWS, radii=RADII, **asked
    )  # fmt: skip


def ours(**options: Any) -> Callable[..., Any]:
    """`certify` with few draws."""
    return functools.partial(certify, **{"n0": 20, "n": DRAWS, "copies_per_batch": 2_048, **options})


def summary(found: Audit) -> dict[str, Any]:
    """What a record says of an audit."""
    fresh = found.confirmed
    return {
        "violated": found.violated, "false": fresh.false, "of": fresh.trials, "violation_from": found.critical, "p_value": float(f"{found.p_value:.3g}"),
        "case": f"{fresh.name}, exact radius {fresh.radius:.4f}",
    }  # fmt: skip


def art(args: argparse.Namespace) -> dict[str, Any] | None:
    """The audit of ART's certificates; None if it cannot run."""
    python = borrowing_python("art", ["adversarial-robustness-toolbox==1.20.1", "statsmodels"])
    words = [str(word) for word in (SIGMA, ALPHA, DRAWS, args.explore, args.confirm)]
    done = subprocess.run(
        [str(python), str(HERE / "art_audit.py"), *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"ART could not be audited:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        "violated": found["confirmed"]["false"] >= found["critical"],
        "false": found["confirmed"]["false"], "of": found["confirmed"]["trials"], "violation_from": found["critical"],
        "p_value": float(f"{found['p_value']:.3g}"), "case": f"{found['confirmed']['name']}, exact radius {found['confirmed']['radius']:.4f}",
        "version": "1.20.1",
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="+", choices=["selftest", "audit"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--explore", type=int, default=300)
    parser.add_argument("--confirm", type=int, default=4_000)
    parser.add_argument("--no-art", action="store_true")
    chosen = parser.parse_args()
    for figure in chosen.figures:
        {"selftest": selftest, "audit": audits}[figure](chosen)

"""`hf-smoothing audit`: whether a certifier keeps its failure probability."""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from hf_smoothing.json_text import parse_json
from hf_smoothing.spelling import nearest


if TYPE_CHECKING:
    from hf_smoothing.audit import Audit, CaseCounts


WIDTH = 28
COULD_NOT = 2
"""Exit status of an audit that could not be made."""


def add(commands: Any) -> None:
    """Add the command to the parser's subcommands."""
    a = commands.add_parser(
        "audit", help="look for false certificates of a certifier, on classifiers whose exact radius is known"
    )
    a.add_argument(
        "certifier", nargs="?", default="hf_smoothing:certify",
        help="module:function, called as function(classifier, images, sigma=, alpha=, seed=); by default hf_smoothing:certify",
    )  # fmt: skip
    a.add_argument(
        "--arguments",
        type=_json_object,
        default={},
        help="further arguments of the function, a JSON object such as '{\"n\": 1000}'",
    )
    a.add_argument(
        "--sigma", type=float, default=0.5, help="noise standard deviation, [0, 1] pixel units (%(default)s)"
    )
    a.add_argument("--alpha", type=float, default=0.05, help="failure probability that is asked for (%(default)s)")
    a.add_argument(
        "--radii",
        type=float,
        nargs="+",
        help="radii that it may claim, such as its targets; by default 0.25 to 2 sigma",
    )
    a.add_argument("--explore", type=int, default=300, help="certificates per case in the search (%(default)s)")
    a.add_argument(
        "--confirm", type=int, default=4_000, help="fresh certificates of the case with most false ones (%(default)s)"
    )
    a.add_argument(
        "--false-alarm", type=float, default=0.001, help="largest probability of a wrong accusation (%(default)s)"
    )
    a.add_argument(
        "--images-per-call", type=int, default=50,
        help="1 for a certifier that uses one noise for all images of a call (%(default)s)",
    )  # fmt: skip
    a.add_argument("--seed", type=int, default=0, help="seed from which that of each call follows (%(default)s)")
    a.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """`hf-smoothing audit`; 1 if the certifier is false too often, 2 if nothing was put to the test."""
    if taken := sorted({"sigma", "alpha", "seed"} & args.arguments.keys()):
        raise ValueError(
            f"--arguments must not hold what the audit passes itself, got {', '.join(taken)}. Use {', '.join('--' + name for name in taken)}."
        )
    certifier = functools.partial(named_function(args.certifier), **args.arguments)
    from hf_smoothing.audit import audit_certifier

    print(f"{args.certifier}: false certificates at sigma {args.sigma:g}, alpha {args.alpha:g}", flush=True)
    found = audit_certifier(
        certifier, sigma=args.sigma, alpha=args.alpha, radii=args.radii, explore=args.explore, confirm=args.confirm,
        false_alarm=args.false_alarm, images_per_call=args.images_per_call, seed=args.seed, progress=_show,
    )  # fmt: skip
    print(_verdict(found))
    return COULD_NOT if found.vacuous else int(found.violated)


def named_function(name: str) -> Callable[..., Any]:
    """The function that "module:function" names; modules of the current folder are found.

    Raises:
        ValueError: If it is no such name, the module cannot be imported or has no such function, or it is not callable.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(
            f"The certifier must be written module:function, got {name!r}. For example hf_smoothing:certify."
        )
    if module.endswith(".py") or "/" in module:
        there = PurePath(module)
        raise ValueError(
            f"The certifier must be written module:function, got {name!r}. Write {there.stem}:{attribute}, from the folder of {there.stem}.py."
        )
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        home = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"The module {module!r} of the certifier cannot be imported: {type(error).__name__}: {error}"
        ) from error
    found = getattr(home, attribute, None)
    if found is None:
        near = nearest(attribute, dir(home))
        raise ValueError(
            f"The module {module!r} has no {attribute!r}.{f' Did you mean {module}:{near}?' if near else ''}"
        )
    if not callable(found):
        raise ValueError(f"The certifier must be callable, but {name} is {type(found).__name__}.")
    function: Callable[..., Any] = found
    return function


def _json_object(text: str) -> dict[str, Any]:
    try:
        given = parse_json(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object such as '{{\"n\": 1000}}', got {text!r}")
    return given


def _show(tally: CaseCounts) -> None:
    print(
        f"  {tally.name:{WIDTH}}  exact radius {tally.radius:.4f}: {tally.false} of {tally.trials} false, {tally.answered} answered",
        flush=True,
    )


def _verdict(found: Audit) -> str:
    fresh = found.confirmed
    if found.vacuous:
        return "It abstained from everything, so nothing was put to the test. Audit it with arguments by which it certifies: --arguments, --sigma, --alpha."
    lines = [
        f"Again with fresh noise, {fresh.name} with radius {fresh.radius:.4f}: {fresh.false} of {fresh.trials} false "
        f"(p-value {_shown(found.p_value)}; {found.critical} are a violation)."
    ]
    if found.violated:
        rate = fresh.false / fresh.trials
        lines.append(f"VIOLATION: {rate:.3f} of its certificates are false where {found.alpha:g} is claimed.")
    else:
        lines.append("No violation was found.")
    lines.append(
        f"A certifier that keeps alpha = {found.alpha:g} is accused with probability {found.false_alarm:g} at most.\n"
        f"One that is false with {2 * found.alpha:g} in one case is found with probability {_shown(found.power)}; the case counted again, from a rate of "
        f"{found.found_rate:.3f} on with 0.99."
    )
    return "\n".join(lines)


def _shown(probability: float) -> str:
    """A probability that is neither 0 nor 1 where it is not.

    >>> _shown(0.0), _shown(3e-17), _shown(0.0123), _shown(0.99999), _shown(1.0)
    ('< 1e-300', '3.0e-17', '0.0123', '> 0.9999', '1')
    """
    if probability < 1e-300:
        return "< 1e-300"
    if probability < 1e-3:
        return f"{probability:.1e}"
    if 0.9999 < probability < 1.0:
        return "> 0.9999"
    return "1" if probability == 1.0 else f"{probability:.4f}"
